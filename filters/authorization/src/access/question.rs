//! What access policies ask beyond AuthorizationPolicy, as a test of a clause.

use super::grants::Granted;
use super::risk::Assessment;
use super::score::Score;
use super::window::Window;
use crate::attributes::View;
use crate::pattern::{Patterns, list};
use crate::truth::Truth;
use serde_json::Value;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known of a request beside its attributes, found out once for each policy.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: SystemTime,
    /// `TLSv1.3`; `None` without TLS.
    pub(crate) tls_version: Option<&'static str>,
    pub(crate) age: Age,
    pub(crate) risk: Assessment,
    /// The permissions that cover the request and that the caller holds.
    pub(crate) granted: Granted<'a>,
}

/// How long ago a token was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// There is no token.
    NoToken,
    /// The token does not say it, or says that it will be.
    Unknown,
    /// So long ago.
    Known(Duration),
}

/// How much later than our clock a token may have been issued.
const LEEWAY: Duration = Duration::from_mins(1);

/// What is asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// `request.time`
    Time(Window),
    /// `connection.tls`
    Tls(Vec<Tls>),
    /// `session.age`
    Age(Bounds<Duration>),
    /// `risk.score`
    Risk(Bounds<Score>),
    /// `request.permissions`
    Permission(Patterns),
}

/// What a connection may be secured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    None,
    /// Without a certificate of the client.
    Simple,
    Mutual,
    Version(&'static str),
}

/// What something has to be between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds<T> {
    pub(crate) above: Option<T>,
    pub(crate) below: Option<T>,
}

impl Age {
    /// From `iat` of the token.
    pub(crate) fn of(view: &View<'_>, now: SystemTime) -> Self {
        let Some(token) = view.token() else { return Self::NoToken };
        let issued = token.claims.get("iat").and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0);
        let issued = issued.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some(issued) = issued.and_then(|since| UNIX_EPOCH.checked_add(since)) else {
            return Self::Unknown;
        };
        match now.duration_since(issued) {
            Ok(age) => Self::Known(age),
            Err(ahead) if ahead.duration() <= LEEWAY => Self::Known(Duration::ZERO),
            Err(_) => Self::Unknown,
        }
    }

    /// What is not known is longer than anything.
    pub(crate) fn exceeds(self, most: Duration) -> bool {
        match self {
            Self::Known(age) => age > most,
            Self::NoToken | Self::Unknown => true,
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("no verified token"),
            Self::Unknown => f.write_str("a token that does not say when it was issued"),
            Self::Known(age) => Span(*age).fmt(f),
        }
    }
}

impl Tls {
    /// Every word for it, and what it means.
    pub(crate) const WORDS: [(&'static str, Self); 5] = [
        ("none", Self::None),
        ("simple", Self::Simple),
        ("mutual", Self::Mutual),
        ("TLSv1.2", Self::Version("TLSv1.2")),
        ("TLSv1.3", Self::Version("TLSv1.3")),
    ];

    fn holds(self, view: &View<'_>, version: Option<&str>) -> bool {
        match self {
            Self::None => version.is_none(),
            Self::Simple => version.is_some() && !view.authenticated,
            Self::Mutual => version.is_some() && view.authenticated,
            Self::Version(wanted) => version == Some(wanted),
        }
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, tls)| *tls == self).map_or("", |(word, _)| word)
    }
}

impl<T: PartialOrd> Bounds<T> {
    fn holds(&self, value: &T) -> bool {
        self.above.as_ref().is_none_or(|above| value > above)
            && self.below.as_ref().is_none_or(|below| value < below)
    }
}

impl Bounds<Duration> {
    fn holds_for(&self, age: Age) -> bool {
        match age {
            Age::Known(age) => self.holds(&age),
            // Longer than anything.
            Age::NoToken | Age::Unknown => self.below.is_none(),
        }
    }
}

impl Question {
    /// Whether only a request has the attribute.
    pub(crate) fn needs_http(&self) -> bool {
        matches!(self, Self::Age(_) | Self::Permission(_))
    }

    /// Whether it holds. Nobody but an access policy asks, so without its facts nothing can be told.
    pub(crate) fn truth(&self, view: &View<'_>) -> Truth {
        let Some(facts) = view.access else { return Truth::Unknown };
        match self {
            Self::Time(window) => window.holds(facts.now).into(),
            Self::Tls(wanted) => wanted.iter().any(|one| one.holds(view, facts.tls_version)).into(),
            Self::Age(bounds) => bounds.holds_for(facts.age).into(),
            Self::Risk(bounds) => bounds.holds(&facts.risk.total()).into(),
            Self::Permission(names) => facts.granted.held().any(|name| names.matches(name.as_bytes())).into(),
        }
    }

    /// What was there.
    pub(crate) fn actual(&self, view: &View<'_>) -> String {
        let Some(facts) = view.access else { return "not known".to_owned() };
        match self {
            Self::Time(window) => window.shown(facts.now),
            Self::Tls(_) => {
                let kind = if view.authenticated { Tls::Mutual } else { Tls::Simple };
                facts.tls_version.map_or_else(
                    || Tls::None.word().to_owned(),
                    |version| format!("{} {version}", kind.word()),
                )
            }
            Self::Age(_) => facts.age.to_string(),
            Self::Risk(_) => facts.risk.to_string(),
            Self::Permission(_) => match facts.granted.held().collect::<Vec<_>>() {
                held if held.is_empty() => "no permission".to_owned(),
                held => held.join(", "),
            },
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(window) => window.fmt(f),
            Self::Tls(wanted) => list(f, wanted.iter().map(|one| one.word())),
            Self::Age(Bounds { above, below }) => between(f, above.map(Span), below.map(Span)),
            Self::Risk(Bounds { above, below }) => between(f, *above, *below),
            Self::Permission(names) => names.fmt(f),
        }
    }
}

fn between<T: fmt::Display>(f: &mut fmt::Formatter<'_>, above: Option<T>, below: Option<T>) -> fmt::Result {
    match (above, below) {
        (Some(above), Some(below)) => write!(f, "above {above} and below {below}"),
        (Some(above), None) => write!(f, "above {above}"),
        (None, Some(below)) => write!(f, "below {below}"),
        (None, None) => f.write_str("anything"),
    }
}

/// A span of time in the two largest units that it has, `1h30m`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, seconds) => write!(f, "{seconds}s"),
            (0, minutes, 0) => write!(f, "{minutes}m"),
            (0, minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
            (hours, 0, _) => write!(f, "{hours}h"),
            (hours, minutes, _) => write!(f, "{hours}h{minutes}m"),
        }
    }
}
