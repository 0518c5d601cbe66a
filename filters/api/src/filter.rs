//! What a filter is.

use crate::{ConnectionFacts, End, Error, Keep, Request, Response};
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

/// A filter's two forms of settings: as a source says them, and ready to run.
pub trait Spec: Sized + 'static {
    /// Name in logs, metrics and `/config_dump`.
    const NAME: &'static str;
    /// What a source can say. Plain data.
    type Settings: Clone
        + Debug
        + PartialEq
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// Ready to run: regexes compiled, headers parsed.
    type Compiled: Debug + Send + Sync + 'static;

    /// Compiles settings; state that has to outlive them is taken from `keep`. The error names the field and says what to write instead.
    fn compile(settings: &Self::Settings, keep: &Keep) -> Result<Self::Compiled, String>;
}

/// Where a filter finds its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the policy of the port: it runs before route matching.
    Port,
    /// In the matched route.
    Route,
}

/// The four hooks. A filter implements what it needs.
pub trait Filter: Spec {
    /// Where its settings are.
    const PLACE: Place;
    /// True when `on_response` or `on_end` has something to do; otherwise the adapter keeps nothing once the request has gone on.
    const AFTER: bool;
    /// True when `on_end` has something to do; otherwise nothing is hung on the body. Only read when `AFTER` is true.
    const ENDS: bool = Self::AFTER;
    /// What it carries from the request to the response and the end.
    type State: Send + 'static;

    /// Judges a connection that is carried as bytes: a TCP connection before its upstream is called, and a tunnel (upgrade, CONNECT) with the request
    /// that asks for it. That request has passed `on_request` too: where `connection.protocol` is HTTP, a filter that judges requests lets the tunnel go
    /// on. HTTP connections as such are not judged; each of their requests is, by the policy then in force.
    ///
    /// Asked are the filters of the port alone. Once it let the connection go on, `on_end` is called exactly once, with the bytes of both directions.
    fn on_connection(_settings: &[Self::Compiled], _connection: &ConnectionFacts) -> Verdict<Self::State>
    where
        Self::State: Default,
    {
        Verdict::Continue(Self::State::default())
    }

    /// Judges, changes or answers a request.
    fn on_request(settings: &[Self::Compiled], request: Request) -> Step<Self::State>;

    /// Changes a response, also one that an inner layer made. Failures do not come here: the answer to them is made outside.
    fn on_response(_settings: &[Self::Compiled], _state: &mut Self::State, _response: &mut Response) {}

    /// Whether the response or the end of this exchange is of interest, when `AFTER` is true: what lets most requests go on without a second
    /// look costs them nothing by it.
    fn stays(_state: &Self::State) -> bool {
        true
    }

    /// Called exactly once after `on_request` or `on_connection` let it go on: at the end of the response, on failure, and when the exchange is dropped.
    /// Not called when the filter itself replied or failed, when it does not stay, nor when it was dropped while it waited.
    fn on_end(_settings: &[Self::Compiled], _state: Self::State, _end: &End<'_>) {}
}

/// What becomes of a request. Boxed only when the filter has to wait.
pub enum Step<S> {
    /// It goes on.
    Continue(Request, S),
    /// The filter answers.
    Reply(Response),
    /// It fails.
    Fail(Error),
    /// The filter has to ask somebody first.
    Wait(Next<S>),
}

/// The future of a step that waits.
pub type Next<S> = Pin<Box<dyn Future<Output = Step<S>>>>;

/// What becomes of a connection.
#[derive(Debug)]
pub enum Verdict<S> {
    /// It goes on.
    Continue(S),
    /// It is closed.
    Refuse(Error),
}

impl<S> Debug for Step<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Continue(..) => "Continue",
            Self::Reply(_) => "Reply",
            Self::Fail(_) => "Fail",
            Self::Wait(_) => "Wait",
        })
    }
}
