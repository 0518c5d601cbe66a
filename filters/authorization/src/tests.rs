#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod access;
mod conditions;
mod connections;
mod corpus;
mod filter;
mod index;
mod order;
mod security;
mod shop;

use crate::{
    Action, Attributes, Authorization, Compiled, Condition, Decision, Denial, Operation, Outcome, Policy,
    RequestAttributes, Rule, Settings, Source, decide,
};
use filter_api::{ConnectionFacts, Keep, NoTrace, Peer, Principal, Protocol, Spec, TlsFacts, Token};
use http::request;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// A request in the making, and everything that a decision may ask of it.
#[derive(Clone, Debug)]
struct Asked {
    connection: ConnectionFacts,
    head: request::Parts,
    token: Option<Arc<Token>>,
    /// The client, where it is not the peer.
    client: Option<IpAddr>,
}

impl Asked {
    fn new(method: &str, uri: &str) -> Self {
        let request = http::Request::builder().method(method).uri(uri).header("host", "shop.example.com");
        Self {
            connection: connection(Protocol::Http1),
            head: request.body(()).unwrap().into_parts().0,
            token: None,
            client: None,
        }
    }

    fn get(uri: &str) -> Self {
        Self::new("GET", uri)
    }

    /// Called by `namespace/account` of `cluster.local`, proved by its certificate.
    fn by(mut self, workload: &str) -> Self {
        let (namespace, account) = workload.split_once('/').unwrap();
        self.connection.tls = Some(tls(Some(Principal::new("cluster.local", namespace, account))));
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.head.headers.append(name, value.parse().unwrap());
        self
    }

    fn host(mut self, host: &str) -> Self {
        self.head.headers.insert("host", host.parse().unwrap());
        self
    }

    fn token(mut self, claims: serde_json::Value) -> Self {
        let serde_json::Value::Object(claims) = claims else { panic!("claims are an object") };
        let text =
            |name: &str| claims.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let audiences = match claims.get("aud") {
            Some(serde_json::Value::Array(all)) => {
                all.iter().map(|one| one.as_str().unwrap().into()).collect()
            }
            Some(serde_json::Value::String(one)) => vec![one.as_str().into()],
            _ => Vec::new(),
        };
        self.token = Some(Arc::new(Token {
            principal: format!("{}/{}", text("iss"), text("sub")).into(),
            issuer: text("iss").into(),
            subject: text("sub").into(),
            audiences,
            claims,
        }));
        self
    }

    fn attributes(&self) -> Attributes<'_> {
        let request = RequestAttributes { head: &self.head, token: self.token.as_deref() };
        let of_connection = Attributes::of_connection(&self.connection);
        let client = self.client.unwrap_or(of_connection.client);
        Attributes { request: Some(request), client, ..of_connection }
    }
}

fn connection(protocol: Protocol) -> ConnectionFacts {
    ConnectionFacts {
        listener: "virtualInbound".into(),
        remote: "192.0.2.7:4000".parse().unwrap(),
        direct_remote: "10.1.2.3:5000".parse().unwrap(),
        local: "10.9.9.9:8080".parse().unwrap(),
        original_destination: None,
        protocol,
        server_name: None,
        tls: None,
    }
}

fn tls(principal: Option<Principal>) -> TlsFacts {
    let peer = Peer {
        principal,
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        subject: "CN=somebody".into(),
        uris: Arc::new([]),
        dns: Arc::new([]),
        chain: Arc::new([]),
        hash: [0; 32],
    };
    TlsFacts {
        version: "TLSv1.3",
        cipher: "",
        group: "",
        alpn: None,
        resumed: false,
        peer: Some(Arc::new(peer)),
    }
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    Policy { namespace: "shop".into(), name: name.into(), action, rules, ..Policy::default() }
}

fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

fn when<const N: usize>(key: &str, values: [&str; N]) -> Rule {
    let condition = Condition { key: key.into(), values: texts(values), not_values: Vec::new() };
    Rule { when: vec![condition], ..Rule::default() }
}

fn when_not<const N: usize>(key: &str, values: [&str; N]) -> Rule {
    let condition = Condition { key: key.into(), values: Vec::new(), not_values: texts(values) };
    Rule { when: vec![condition], ..Rule::default() }
}

fn paths<const N: usize>(paths: [&str; N]) -> Operation {
    Operation { paths: texts(paths), ..Operation::default() }
}

fn hosts<const N: usize>(hosts: [&str; N]) -> Operation {
    Operation { hosts: texts(hosts), ..Operation::default() }
}

fn compile(policies: Vec<Policy>) -> Arc<Compiled> {
    let settings = Settings { policies: Arc::new(policies), ..Settings::default() };
    Authorization::compile(&settings, &Keep::default()).unwrap()
}

fn error(policy: Policy) -> String {
    let settings = Settings { policies: Arc::new(vec![policy]), ..Settings::default() };
    Authorization::compile(&settings, &Keep::default()).unwrap_err()
}

fn ask<'c>(compiled: &'c Compiled, asked: &Asked) -> Decision<'c> {
    assert!(compiled.is_consistent(&asked.attributes()), "the index finds another rule");
    decide(compiled, &asked.attributes(), &mut NoTrace)
}

fn passes(compiled: &Compiled, asked: &Asked) -> bool {
    matches!(ask(compiled, asked).outcome, Outcome::Allowed(_))
}

/// Whether one ALLOW rule lets the request pass.
fn allows(rule: Rule, asked: &Asked) -> bool {
    passes(&compile(vec![policy("p", Action::Allow, vec![rule])]), asked)
}

/// Whether one DENY rule refuses the request.
fn denies(rule: Rule, asked: &Asked) -> bool {
    !passes(&compile(vec![policy("p", Action::Deny, vec![rule])]), asked)
}

/// Whether the rule holds, whichever its action: where nothing is uncertain both agree.
fn holds(rule: &Rule, asked: &Asked) -> bool {
    let (allows, denies) = (allows(rule.clone(), asked), denies(rule.clone(), asked));
    assert_eq!(allows, denies, "{rule:?}");
    allows
}

fn denial<'c>(compiled: &'c Compiled, asked: &Asked) -> Denial<'c> {
    match ask(compiled, asked).outcome {
        Outcome::Denied(denial) => denial,
        Outcome::Allowed(rule) => panic!("allowed by {rule:?}"),
        Outcome::Ask(ask) => panic!("asks {}", ask.provider()),
    }
}
