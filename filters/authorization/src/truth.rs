//! Whether something holds, where it may not be known.

/// Kleene's three values, in the order in which "and" takes the least and "or" the greatest.
///
/// A rule that refuses acts unless it certainly does not hold; one that allows acts only when it certainly does. So what cannot be told (an
/// attribute of HTTP at a TCP port, a header that says two things at once) never opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    Unknown,
    Yes,
}

impl Truth {
    pub(crate) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }

    /// True when all agree, unknown when they differ; `No` for none.
    pub(crate) fn of_all(answers: impl IntoIterator<Item = bool>) -> Self {
        let (mut any, mut all, mut some) = (false, true, false);
        for answer in answers {
            some = true;
            any |= answer;
            all &= answer;
        }
        match (some && all, any) {
            (true, _) => Self::Yes,
            (false, true) => Self::Unknown,
            (false, false) => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
