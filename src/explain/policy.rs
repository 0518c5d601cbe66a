//! Asks the authorization policies of a port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use super::question::Question;
use super::{Outcome, Step, access, walk};
use crate::filters;
use crate::snapshot::{Http, Listener};
use filter_api::{ConnectionFacts, Peer, Protocol, TlsFacts, TraceStep};
use filter_authorization::{Attributes, Outcome as Decided, RequestAttributes, decide, decide_after};
use http::request::Parts;

/// What the policies of a port say of a request, rule by rule, and the refusal if it is one. Who asks has the principal of the question, and no
/// token.
pub(super) fn ask(
    question: &Question,
    listener: &Listener,
    http: &Http,
    head: &mut Parts,
    (client, local): (IpAddr, SocketAddr),
) -> (Vec<Step>, Option<Outcome>) {
    let mut steps = Vec::new();
    let connection = connection(question, listener, local);
    access::strip(http, head, &connection);
    let request = RequestAttributes { head, token: None };
    let attributes = Attributes { connection: &connection, client, request: Some(request) };
    for compiled in http.port.read(filters::port::authorization).into_iter().flatten() {
        let mut trace: Vec<TraceStep> = Vec::new();
        let decision = decide(compiled, &attributes, &mut trace);
        let mut outcome = decision.outcome;
        if let Decided::Ask(ask) = &outcome {
            trace.push(TraceStep {
                origin: ask.rule.origin().clone(),
                held: true,
                because: format!(
                    "provider `{}` would be asked, as {} says; nobody is asked here",
                    ask.provider(),
                    ask.rule
                ),
            });
            outcome = decide_after(compiled, &attributes, &mut trace);
        }
        steps.extend(trace.iter().map(walk::step));
        if let Decided::Denied(denial) = outcome {
            let hint = if question.principal().is_none() {
                "the question names no caller: say who asks with `--principal TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`"
            } else {
                "let an ALLOW rule name the caller, the operation and the conditions"
            };
            let (why, hint) = (denial.to_string(), hint.to_owned());
            return (steps, Some(Outcome::Refused { status: 403, flag: "-", why, hint }));
        }
    }
    let (more, refusal) = access::ask(http, head, None, (&connection, client));
    steps.extend(more);
    (steps, refusal)
}

fn connection(question: &Question, listener: &Listener, local: SocketAddr) -> ConnectionFacts {
    let remote = SocketAddr::new(question.peer(), 0);
    let peer = question.principal().map(|principal| Peer {
        principal: Some(principal.clone()),
        // As young as one can be.
        not_before: SystemTime::now(),
        not_after: SystemTime::UNIX_EPOCH,
        subject: "".into(),
        uris: Arc::new([]),
        dns: Arc::new([]),
        chain: Arc::new([]),
        hash: [0; 32],
    });
    let tls = |peer| TlsFacts {
        version: "TLSv1.3",
        cipher: "",
        group: "",
        alpn: None,
        resumed: false,
        peer: Some(Arc::new(peer)),
    };
    ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote,
        direct_remote: remote,
        local,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: peer.map(tls),
    }
}
