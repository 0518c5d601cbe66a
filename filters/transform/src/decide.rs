//! The pure decision: what becomes of a request head.

use crate::changes::Changes;
use crate::redirect::check_authority;
use crate::rewrite::Rewrite;
use crate::settings::{Redirect, Reply, Settings};
use bytes::Bytes;
use filter_api::{Origin, Trace, TraceStep};
use http::header::{HOST, LOCATION};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, StatusCode, request};

/// Settings, ready to run.
#[derive(Debug)]
pub struct Compiled {
    origin: Origin,
    request: Changes,
    response: Changes,
    path: Option<Rewrite>,
    authority: Option<(Authority, HeaderValue)>,
    reply: Option<Answer>,
}

/// What becomes of the request.
#[derive(Debug)]
pub enum Decision {
    /// It goes on, changed.
    Forward(Edit),
    /// It is answered here.
    Reply(Answered),
    /// It cannot be changed as the settings say; in words.
    Fail(String),
}

/// A change of the request head that depends on the request. Header fields and authority do not: [`Edit::apply`] takes them from the settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// New path and query.
    pub path: Option<PathAndQuery>,
}

/// An answer of our own.
#[derive(Debug)]
pub struct Answered {
    /// The rule that says so.
    pub origin: Origin,
    /// In words, for the record.
    pub because: &'static str,
    /// Status.
    pub status: StatusCode,
    /// `location` and the like.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

#[derive(Debug)]
enum Answer {
    Redirect { status: StatusCode, redirect: Redirect },
    Direct { status: StatusCode, body: Bytes },
}

/// What `settings` make of a request with this head. Pure: the layer, `explain` and the tests all ask here.
pub fn decide(settings: &[Compiled], head: &request::Parts, trace: &mut impl Trace) -> Decision {
    if let Some((compiled, answer)) =
        settings.iter().find_map(|compiled| compiled.reply.as_ref().map(|answer| (compiled, answer)))
    {
        return answer.decide(&compiled.origin, head, trace);
    }
    let mut edit = Edit::default();
    for compiled in settings {
        let origin = &compiled.origin;
        if !compiled.request.is_empty() {
            trace.step(|| step(origin, true, compiled.request.words("request")));
        }
        // The target of a CONNECT, and that of `OPTIONS *`, is no path.
        let current = edit.path.as_ref().or(head.uri.path_and_query());
        if let Some(rewrite) = &compiled.path
            && let Some(current) = current.map(PathAndQuery::as_str).filter(|path| path.starts_with('/'))
        {
            let new = rewrite.apply(current);
            let path = PathAndQuery::try_from(new.as_str()).ok().filter(|_| new.starts_with('/'));
            if path.is_none() {
                let because = format!("path {current} would become {new:?}, which is not a path");
                trace.step(|| step(origin, false, because));
                return Decision::Fail(format!("the rewritten path {new:?} is not a path ({origin})"));
            }
            trace.step(|| step(origin, true, format!("path {current} becomes {new}")));
            edit.path = path;
        }
    }
    if let Some((origin, authority, _)) = authority(settings) {
        trace.step(|| step(origin, true, format!("authority becomes {authority}")));
    }
    for compiled in settings {
        if !compiled.response.is_empty() {
            trace.step(|| step(&compiled.origin, true, compiled.response.words("response")));
        }
    }
    Decision::Forward(edit)
}

/// Changes the head of a response, ours or the upstream's.
pub(crate) fn change_response(settings: &[Compiled], headers: &mut HeaderMap) {
    Changes::apply(settings.iter().map(|compiled| &compiled.response), headers);
}

/// The first authority wins: a route's over a destination's (Istio).
fn authority(settings: &[Compiled]) -> Option<(&Origin, &Authority, &HeaderValue)> {
    settings.iter().find_map(|compiled| {
        compiled.authority.as_ref().map(|(authority, value)| (&compiled.origin, authority, value))
    })
}

fn step(origin: &Origin, held: bool, because: String) -> TraceStep {
    TraceStep { origin: origin.clone(), held, because }
}

impl Edit {
    /// Changes the head: header fields, then path and authority. Fails when the target that comes out is none, which leaves the head unusable.
    pub fn apply(self, settings: &[Compiled], head: &mut request::Parts) -> Result<(), String> {
        Changes::apply(settings.iter().map(|compiled| &compiled.request), &mut head.headers);
        let authority = authority(settings);
        if let Some((_, _, value)) = authority {
            head.headers.insert(HOST, value.clone());
        }
        let authority = authority.filter(|_| head.uri.authority().is_some());
        if self.path.is_none() && authority.is_none() {
            return Ok(());
        }
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        if self.path.is_some() {
            uri.path_and_query = self.path;
        }
        if let Some((_, authority, _)) = authority {
            uri.authority = Some(authority.clone());
        }
        head.uri =
            Uri::from_parts(uri).map_err(|error| format!("the rewritten target is not valid: {error}"))?;
        Ok(())
    }
}

impl Compiled {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let authority = match &settings.authority {
            None => None,
            Some(text) => {
                let authority = check_authority("authority", text)?;
                let value = HeaderValue::try_from(text.as_str())
                    .map_err(|error| format!("authority: {text:?}: {error}; write host or host:port"))?;
                Some((authority, value))
            }
        };
        Ok(Self {
            origin: settings.origin.clone(),
            request: Changes::new("request_headers", &settings.request_headers)?,
            response: Changes::new("response_headers", &settings.response_headers)?,
            path: settings.path.as_ref().map(Rewrite::new).transpose()?,
            authority,
            reply: settings.reply.as_ref().map(Answer::new).transpose()?,
        })
    }
}

impl Answer {
    fn new(reply: &Reply) -> Result<Self, String> {
        Ok(match reply {
            Reply::Direct { status, body } => {
                // Below 200 an answer is not final (RFC 9110 15.2).
                let status =
                    StatusCode::from_u16(*status).ok().filter(|_| (200..=599).contains(status)).ok_or_else(
                        || format!("reply.status: {status} is not the status of an answer; write 200 to 599"),
                    )?;
                Self::Direct { status, body: Bytes::from(body.clone()) }
            }
            Reply::Redirect(redirect) => {
                Self::Redirect { status: redirect.check()?, redirect: redirect.clone() }
            }
        })
    }

    fn decide(&self, origin: &Origin, head: &request::Parts, trace: &mut impl Trace) -> Decision {
        let mut headers = HeaderMap::new();
        let (status, body, because) = match self {
            Self::Redirect { status, redirect } => {
                let location = redirect.location(head);
                trace.step(|| step(origin, true, format!("redirect {status} to {location}")));
                let Ok(value) = HeaderValue::try_from(location.as_str()) else {
                    return Decision::Fail(format!("{location:?} cannot be redirected to ({origin})"));
                };
                headers.insert(LOCATION, value);
                (*status, Bytes::new(), "redirect")
            }
            Self::Direct { status, body } => {
                trace.step(|| step(origin, true, format!("direct response {status}, {} bytes", body.len())));
                (*status, body.clone(), "direct response")
            }
        };
        Decision::Reply(Answered { origin: origin.clone(), because, status, headers, body })
    }
}
