//! A risk from 0 to 1, in millionths: sums and comparisons are exact, so that 0.1 and 0.2 are not above 0.3.

use std::fmt;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score(u32);

const ONE: u32 = 1_000_000;

impl Score {
    /// A number from 0 to 1; `None` for any other, and for what is no number.
    pub(crate) fn new(number: f64) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1")]
        (0.0..=1.0).contains(&number).then(|| Self((number * f64::from(ONE)).round() as u32))
    }

    /// A number as a header says it.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?.trim().parse().ok().and_then(Self::new)
    }

    /// The sum, at most 1.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self((self.0 + other.0).min(ONE))
    }

    /// This share of it, at most the whole.
    pub(crate) fn share(self, share: f32) -> Self {
        let whole = f64::from(self.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
        Self((whole * f64::from(share.clamp(0.0, 1.0))).round() as u32)
    }

    /// Whether it is 0.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (self.0 + 5_000) / 10_000;
        // What rounding would hide is shown whole.
        if hundredths * 10_000 == self.0 {
            write!(f, "{}.{:02}", hundredths / 100, hundredths % 100)
        } else {
            write!(f, "{}.{:06}", self.0 / ONE, self.0 % ONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Score;

    #[test]
    fn sums_are_exact_and_end_at_one() {
        let score = |number| Score::new(number).unwrap();
        assert_eq!(score(0.1).plus(score(0.2)), score(0.3));
        assert_eq!(score(0.7).plus(score(0.7)), score(1.0));
        assert_eq!(score(0.3).share(0.5), score(0.15));
        assert_eq!((score(0.3).to_string(), score(0.333).to_string()), ("0.30".into(), "0.333000".into()));
    }

    #[test]
    fn what_is_no_number_from_0_to_1_is_no_score() {
        for text in ["", "NaN", "inf", "-0.1", "1.1", "0.1, 0.2", "high", "\u{e9}"] {
            assert_eq!(Score::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Score::parse(b" 0.25 "), Score::new(0.25));
    }
}
