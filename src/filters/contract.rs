//! Filters that only tests have: the contract of `filter-api`, kept over the real data path.

use super::Spec;
use filter_api::{
    ConnectionFacts, End, Error, Filter, FilterPlace, Keep, Outcome, Reason, Request, Response, Step, Verdict,
};
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happened to a filter's requests and connections.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

/// See [`Ledger`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pages {
    pub(crate) requests: u32,
    pub(crate) request_ends: Vec<(Outcome, u64)>,
    pub(crate) connections: u32,
    pub(crate) connection_ends: Vec<(Outcome, u64)>,
    /// Connections are refused.
    pub(crate) closed: bool,
}

static LEDGERS: Mutex<BTreeMap<String, Arc<Ledger>>> = Mutex::new(BTreeMap::new());

impl Ledger {
    /// The ledger of this name, one for each test.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        LEDGERS.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    pub(crate) fn pages(&self) -> Pages {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn close(&self) {
        self.0.lock().unwrap().closed = true;
    }

    fn begin(&self, what: What) -> What {
        let mut pages = self.0.lock().unwrap();
        match what {
            What::Request => pages.requests += 1,
            What::Connection => pages.connections += 1,
        }
        what
    }

    fn end(&self, what: What, end: &End<'_>) {
        let mut pages = self.0.lock().unwrap();
        match what {
            What::Request => pages.request_ends.push((end.outcome, end.bytes)),
            What::Connection => pages.connection_ends.push((end.outcome, end.bytes)),
        }
    }
}

/// What a filter carries.
#[derive(Clone, Copy, Debug, Default)]
pub enum What {
    Request,
    #[default]
    Connection,
}

/// Asks somebody else before a request goes on, as external authorization does; says no where `x-verdict: no` is.
#[derive(Debug)]
pub struct Waiting;

impl Spec for Waiting {
    const NAME: &'static str = "waiting";
    type Settings = String;
    type Compiled = Arc<Ledger>;

    fn compile(name: &String, _: &Keep) -> Result<Arc<Ledger>, String> {
        Ok(Ledger::named(name))
    }
}

impl Filter for Waiting {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = true;
    type State = What;

    fn on_request(settings: &[Arc<Ledger>], request: Request) -> Step<What> {
        let ledger = settings[0].clone();
        Step::Wait(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if request.head.headers.get("x-verdict").is_some_and(|verdict| verdict == "no") {
                return Step::Reply(Response::new(StatusCode::FORBIDDEN));
            }
            Step::Continue(request, ledger.begin(What::Request))
        }))
    }

    fn on_end(settings: &[Arc<Ledger>], what: What, end: &End<'_>) {
        settings[0].end(what, end);
    }
}

/// Holds a permit until the request or the connection is over.
#[derive(Debug)]
pub struct Permit;

impl Spec for Permit {
    const NAME: &'static str = "permit";
    type Settings = String;
    type Compiled = Arc<Ledger>;

    fn compile(name: &String, _: &Keep) -> Result<Arc<Ledger>, String> {
        Ok(Ledger::named(name))
    }
}

impl Filter for Permit {
    const PLACE: FilterPlace = FilterPlace::Port;
    const AFTER: bool = true;
    type State = What;

    fn on_connection(settings: &[Arc<Ledger>], _: &ConnectionFacts) -> Verdict<What> {
        if settings[0].pages().closed {
            return Verdict::Refuse(Error::new(Reason::Overload).detail("no permit is left"));
        }
        Verdict::Continue(settings[0].begin(What::Connection))
    }

    fn on_request(settings: &[Arc<Ledger>], request: Request) -> Step<What> {
        Step::Continue(request, settings[0].begin(What::Request))
    }

    fn on_end(settings: &[Arc<Ledger>], what: What, end: &End<'_>) {
        settings[0].end(what, end);
    }
}
