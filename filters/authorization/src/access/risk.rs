//! The risk of a request: what a trusted peer says of it, and what was seen of its source.

use super::memory::{Memory, Source};
use super::score::Score;
use crate::attributes::{HeaderValues, View};
use crate::pattern::Patterns;
use http::HeaderName;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// How a policy makes its score.
#[derive(Debug, Default)]
pub(crate) struct Assessor {
    pub(crate) header: Option<TrustedHeader>,
    pub(crate) new_source: Score,
    pub(crate) failed_attempts: Score,
    pub(crate) no_client_certificate: Score,
    /// Present where a signal asks for it.
    pub(crate) memory: Option<Arc<Memory>>,
}

/// A header that some peers are believed.
#[derive(Debug)]
pub(crate) struct TrustedHeader {
    pub(crate) name: HeaderName,
    pub(crate) from: Patterns,
}

/// A score and its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assessment {
    header: Option<Score>,
    new_source: Score,
    failed_attempts: Score,
    no_client_certificate: Score,
}

/// So many refusals of late count fully; fewer count for their part.
const FAILURES: f32 = 5.0;

impl TrustedHeader {
    /// Whether the peer is believed.
    pub(crate) fn trusts(&self, view: &View<'_>) -> bool {
        view.principal.is_some_and(|principal| self.from.matches(principal.as_str().as_bytes()))
    }

    fn score(&self, view: &View<'_>) -> Result<Option<Score>, &'static str> {
        let Some(request) = view.request.filter(|_| self.trusts(view)) else { return Ok(None) };
        if !request.has_headers() {
            return Err("the risk header was not kept from when it was opened");
        }
        let values = HeaderValues::of(&request.head.headers, &self.name);
        match (&*values.own, &*values.alike) {
            ([], []) => Ok(None),
            ([one], []) => Score::parse(one).map(Some).ok_or("the risk header is no number from 0 to 1"),
            _ => Err("the risk header is there more than once"),
        }
    }
}

impl Assessor {
    /// The risk of a request; the error says why it cannot be told.
    pub(crate) fn assess(
        &self,
        view: &View<'_>,
        source: Source,
        now: SystemTime,
    ) -> Result<Assessment, &'static str> {
        let header = match &self.header {
            Some(header) => header.score(view)?,
            None => None,
        };
        let seen = self.memory.as_ref().map(|memory| memory.look(source, now)).unwrap_or_default();
        let when = |holds, score| if holds { score } else { Score::default() };
        Ok(Assessment {
            header,
            new_source: when(!seen.known, self.new_source),
            failed_attempts: self.failed_attempts.share(seen.failures / FAILURES),
            no_client_certificate: when(!view.authenticated, self.no_client_certificate),
        })
    }
}

impl Assessment {
    /// The sum of its parts, at most 1.
    pub(crate) fn total(&self) -> Score {
        let observed = self.new_source.plus(self.failed_attempts).plus(self.no_client_certificate);
        self.header.unwrap_or_default().plus(observed)
    }
}

impl fmt::Display for Assessment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.total().fmt(f)?;
        let observed = [
            ("new source", self.new_source),
            ("failed attempts", self.failed_attempts),
            ("no client certificate", self.no_client_certificate),
        ];
        let header = self.header.map(|score| ("header", score));
        let parts = header.into_iter().chain(observed.into_iter().filter(|(_, score)| !score.is_none()));
        for (at, (name, score)) in parts.enumerate() {
            write!(f, "{}{name} {score}", if at == 0 { " (" } else { ", " })?;
        }
        let any = self.header.is_some() || observed.iter().any(|(_, score)| !score.is_none());
        f.write_str(if any { ")" } else { "" })
    }
}
