//! Whether what is open would still be let in: the pure decisions of the policies in force now, on what was known when it was opened.

use crate::filters;
use crate::proxy::connection::Door;
use crate::proxy::worker::Worker;
use crate::snapshot::{Chain, ChainProtocol, Snapshot};
use filter_api::{ConnectionFacts, Cx, Effect, Facts, NoTrace, Reason, Record, Ruling, Slots};
use filter_authorization::access::{self, Verdict};
use filter_authorization::{Attributes, Denial, HeadersUnknown, Outcome, RequestAttributes, decide_after};
use http::request::Parts;
use std::borrow::Cow;
use std::time::SystemTime;

/// Why something may not go on.
#[derive(Debug)]
pub(super) struct Refused {
    /// For `response_code_details`: the policy, or what else stands against it.
    pub(super) details: String,
    pub(super) record: Record,
}

/// Whether a policy of a chain ends what it does not allow any more.
pub(super) fn revokes(chain: &Chain) -> bool {
    let (http, tcp) = (chain.protocol.http(), chain.protocol.tcp());
    let slots = http.map(|http| &http.port).into_iter().chain(tcp.map(|tcp| &tcp.port));
    slots.into_iter().any(revoke)
}

/// Why a TCP connection may not go on; `None`: it may, or nobody asks.
pub(super) fn connection(worker: &Worker, snapshot: &Snapshot, door: &Door) -> Option<Refused> {
    let of_chain = |chain: &Chain| {
        let (http, tcp) = (chain.protocol.http(), chain.protocol.tcp());
        tcp.map(|tcp| &tcp.port).or(http.map(|http| &http.port)).cloned()
    };
    let slots = match standing(worker, snapshot, door, of_chain)? {
        Ok(slots) => slots,
        Err(refused) => return Some(refused),
    };
    decide(&slots, &Attributes::of_connection(&door.facts))
}

/// Why a request may not go on. One that no policy has let in yet is left to them.
pub(super) fn request(worker: &Worker, snapshot: &Snapshot, door: &Door, cx: &Cx) -> Option<Refused> {
    cx.matched()?;
    let of_chain = |chain: &Chain| {
        let (http, tcp) = (chain.protocol.http(), chain.protocol.tcp());
        http.map(|http| &http.port).or(tcp.map(|tcp| &tcp.port)).cloned()
    };
    let slots = match standing(worker, snapshot, door, of_chain)? {
        Ok(slots) => slots,
        Err(refused) => return Some(refused),
    };
    let facts = cx.facts.borrow();
    let head = opening(&facts, &slots, &door.facts);
    let request = RequestAttributes { head: &head, token: facts.token.as_deref() };
    let client = facts.client.unwrap_or_else(|| door.facts.remote.ip());
    decide(&slots, &Attributes { connection: &door.facts, client, request: Some(request) })
}

/// The policies under which something goes on that came by this door: `None` where none of them revokes, an error where it would not come as far as
/// to be judged by them.
fn standing(
    worker: &Worker,
    snapshot: &Snapshot,
    door: &Door,
    of_chain: impl Fn(&Chain) -> Option<Slots>,
) -> Option<Result<Slots, Refused>> {
    let listener = door.listener(snapshot)?;
    let chain = door.chain(listener)?;
    let slots = of_chain(chain);
    let asked = match &slots {
        Some(slots) => revoke(slots),
        // A chain that refuses has no policies; those beside it speak for the port.
        None => {
            let facts = &door.facts;
            let destination = facts.original_destination.or(Some(facts.local));
            listener.chains_for(destination).any(|chain| revokes(chain))
        }
    };
    if !asked {
        return None;
    }
    let refuse = |details: &str, why: String| {
        let because = format!("denied: {why}").into();
        let ruling = Ruling { policy: "".into(), rule: None, effect: Effect::Denied, failed: None };
        let ruling = Some(Box::new(ruling));
        let record = Record { layer: "connection", origin: chain.origin.clone(), because, ruling };
        Some(Err(Refused { details: details.to_owned(), record }))
    };
    if let ChainProtocol::Refuse(why) = &chain.protocol {
        return refuse("filter_chain_not_found", why.to_string());
    }
    if !door.is_as_at(chain) {
        return refuse("filter_chain_not_found", "clients have to prove something else since".to_owned());
    }
    if let Err(why) = door.believes(worker) {
        return refuse("downstream_tls_peer_not_believed", why.to_string());
    }
    slots.map(Ok)
}

fn revoke(slots: &Slots) -> bool {
    let policies = slots.read(filters::port::access).into_iter().flatten();
    policies.into_iter().any(access::Compiled::revokes_existing)
}

/// The head that a request was opened with, as it would be judged now. Where it was not kept, as of a request from before any policy revoked, its
/// headers are unknown.
fn opening<'f>(facts: &'f Facts, slots: &Slots, connection: &ConnectionFacts) -> Cow<'f, Parts> {
    let Some(kept) = facts.opening.as_deref() else {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = facts.method.clone().unwrap_or_default();
        head.uri = facts.target.clone().unwrap_or_default();
        head.extensions.insert(HeadersUnknown);
        return Cow::Owned(head);
    };
    match slots.read(filters::port::arrival) {
        Some(arrival) => {
            let mut head = kept.clone();
            arrival.iter().for_each(|compiled| compiled.strip(&mut head.headers, connection));
            Cow::Owned(head)
        }
        None => Cow::Borrowed(kept),
    }
}

/// What the policies say. Nothing is settled: nobody tried anything.
fn decide(slots: &Slots, attributes: &Attributes<'_>) -> Option<Refused> {
    for compiled in slots.read(filters::port::authorization).into_iter().flatten() {
        let denial = match filter_authorization::decide(compiled, attributes, &mut NoTrace).outcome {
            Outcome::Denied(denial) => denial,
            Outcome::Ask(ask) if attributes.request.is_none() => {
                let denial = Denial::Custom(ask.rule, "it is asked about HTTP alone");
                let details = Reason::ExternalFailed.details().to_owned();
                return Some(Refused { details, record: denial.record() });
            }
            // What the provider said at the opening stands.
            Outcome::Ask(_) => match decide_after(compiled, attributes, &mut NoTrace) {
                Outcome::Denied(denial) => denial,
                Outcome::Allowed(_) | Outcome::Ask(_) => continue,
            },
            Outcome::Allowed(_) => continue,
        };
        return Some(Refused { details: denial.details(), record: denial.record() });
    }
    let now = SystemTime::now();
    for compiled in slots.read(filters::port::access).into_iter().flatten() {
        let decision = access::decide(compiled, attributes, now, &mut NoTrace);
        if let Verdict::Refused(refusal) = &decision.verdict {
            return Some(Refused { details: refusal.details(), record: refusal.record() });
        }
    }
    None
}
