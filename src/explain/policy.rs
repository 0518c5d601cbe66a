//! Asks the authorization policies of a port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use super::question::{Question, Tls};
use super::{Clause, Decided, Outcome, Step, Verdict, access, walk};
use crate::filters;
use crate::snapshot::{Http, Listener};
use filter_api::{ConnectionFacts, Peer, Protocol, TlsFacts, Token, TraceStep};
use filter_authorization::{
    Attributes, Denial, Outcome as Decision, RequestAttributes, RuleRef, decide, decide_after,
};
use http::request::Parts;

/// What the policies of a port say of a request: rule by rule, who decided, and the refusal if it is one.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) steps: Vec<Step>,
    pub(super) decided: Decided,
    pub(super) refusal: Option<Outcome>,
}

/// Asks them. Who asks has the principal of the question, and the token that was verified. A rule that allows may add headers.
pub(super) fn ask(
    question: &Question,
    http: &Http,
    (head, token): (&mut Parts, Option<&Token>),
    (connection, client): (&ConnectionFacts, IpAddr),
) -> Asked {
    let mut steps = Vec::new();
    let mut decided = allowed(None);
    let request = RequestAttributes { head, token };
    let attributes = Attributes { connection, client, request: Some(request) };
    for compiled in http.port.read(filters::port::authorization).into_iter().flatten() {
        let mut trace: Vec<TraceStep> = Vec::new();
        let decision = decide(compiled, &attributes, &mut trace);
        let mut outcome = decision.outcome;
        if let Decision::Ask(ask) = &outcome {
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
        match outcome {
            Decision::Allowed(Some(rule)) => decided = allowed(Some(&rule)),
            // Nobody is asked twice.
            Decision::Allowed(None) | Decision::Ask(_) => {}
            Decision::Denied(denial) => {
                let hint = if question.principal().is_none() {
                    "the question names no caller: say who asks with `--principal TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`"
                } else {
                    "let an ALLOW rule name the caller, the operation and the conditions"
                };
                let (why, hint) = (denial.to_string(), hint.to_owned());
                let refusal = Some(Outcome::Refused { status: 403, flag: "-", why, hint });
                return Asked { steps, decided: denied(&denial), refusal };
            }
        }
    }
    let more = access::ask(http, (head, token), (connection, client), question.time());
    steps.extend(more.steps);
    if more.refusal.is_some() {
        return Asked { steps, decided: more.decided, refusal: more.refusal };
    }
    if !more.decided.by.is_empty() {
        let before = std::mem::replace(&mut decided, more.decided);
        decided.also.extend((!before.by.is_empty()).then_some(before.by));
    }
    Asked { steps, decided, refusal: None }
}

fn allowed(rule: Option<&RuleRef<'_>>) -> Decided {
    Decided {
        verdict: Verdict::Allow,
        by: rule.map(ToString::to_string).unwrap_or_default(),
        origin: rule.map(|rule| rule.origin().to_string()).unwrap_or_default(),
        also: Vec::new(),
        clause: None,
    }
}

fn denied(denial: &Denial<'_>) -> Decided {
    let (by, origin, clause) = match denial {
        Denial::Rule(rule) | Denial::Custom(rule, _) => (rule.to_string(), rule.origin().to_string(), None),
        Denial::NoRule(nearest) => {
            let clause = nearest.as_ref().map(|nearest| Clause {
                rule: nearest.rule.to_string(),
                key: nearest.clause.to_owned(),
                expected: nearest.expected.clone(),
                actual: nearest.actual.clone(),
                origin: nearest.rule.origin().to_string(),
            });
            let origin = clause.as_ref().map(|clause| clause.origin.clone()).unwrap_or_default();
            ("no ALLOW rule".to_owned(), origin, clause)
        }
        Denial::Unjudged(_) => ("it cannot be judged".to_owned(), String::new(), None),
    };
    Decided { verdict: Verdict::Deny, by, also: Vec::new(), origin, clause }
}

/// The connection of who asks.
pub(super) fn connection(
    question: &Question,
    (listener, ended): (&Listener, bool),
    local: SocketAddr,
) -> ConnectionFacts {
    let remote = SocketAddr::new(question.peer(), 0);
    let peer = || Peer {
        principal: question.principal().cloned(),
        // As young as one can be.
        not_before: question.time(),
        not_after: SystemTime::UNIX_EPOCH,
        subject: "".into(),
        uris: Arc::new([]),
        dns: Arc::new([]),
        chain: Arc::new([]),
        hash: [0; 32],
    };
    let tls = |mutual: bool| TlsFacts {
        version: "TLSv1.3",
        cipher: "",
        group: "",
        alpn: None,
        resumed: false,
        peer: mutual.then(|| Arc::new(peer())),
    };
    ConnectionFacts {
        listener: listener.mesh.name.clone(),
        remote,
        direct_remote: remote,
        local,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: match question.tls().filter(|_| ended) {
            None | Some(Tls::None) => None,
            Some(Tls::Simple) => Some(tls(false)),
            Some(Tls::Mutual) => Some(tls(true)),
        },
    }
}
