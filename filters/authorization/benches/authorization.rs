//! What a decision costs, by the number of rules: it should hardly depend on it, where rules differ by identity, namespace, path or method.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start may panic")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use filter_api::{ConnectionFacts, Keep, NoTrace, Peer, Principal, Protocol, Spec, TlsFacts};
use filter_authorization::{
    Action, Attributes, Authorization, Compiled, Condition, Operation, Policy, RequestAttributes, Rule,
    Settings, Source, decide,
};
use http::request;
use std::hint::black_box;
use std::sync::Arc;
use std::time::SystemTime;

/// A way in which rules differ.
type Differ = fn(usize) -> Rule;

fn from(source: Source) -> Rule {
    let to = vec![Operation { methods: vec!["GET".into()], ..Operation::default() }];
    Rule { from: vec![source], to, ..Rule::default() }
}

fn to(path: String) -> Rule {
    let to = vec![Operation { methods: vec!["GET".into()], paths: vec![path], ..Operation::default() }];
    Rule { to, ..Rule::default() }
}

const WAYS: [(&str, Differ); 5] = [
    ("principal", |n| {
        from(Source { principals: vec![format!("cluster.local/ns/shop/sa/caller-{n}")], ..Source::default() })
    }),
    ("namespace", |n| from(Source { namespaces: vec![format!("team-{n}")], ..Source::default() })),
    ("path", |n| to(format!("/api/resource-{n}/items"))),
    ("prefix", |n| to(format!("/api/resource-{n}/*"))),
    // None of these can be found by an index.
    ("header", |n| {
        let values = vec![format!("tenant-{n}")];
        let when = Condition { key: "request.headers[x-tenant]".into(), values, not_values: Vec::new() };
        Rule { when: vec![when], ..Rule::default() }
    }),
];

fn compile(count: usize, rule: Differ) -> Arc<Compiled> {
    let policy = Policy {
        namespace: "shop".into(),
        name: "bench".into(),
        action: Action::Allow,
        rules: (0..count).map(rule).collect(),
        ..Policy::default()
    };
    let settings = Settings { policies: Arc::new(vec![policy]), ..Settings::default() };
    Authorization::compile(&settings, &Keep::default()).unwrap()
}

fn connection(caller: &str, namespace: &str) -> ConnectionFacts {
    let peer = Peer {
        principal: Some(Principal::new("cluster.local", namespace, caller)),
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH,
        subject: "".into(),
        uris: Arc::new([]),
        dns: Arc::new([]),
        chain: Arc::new([]),
        hash: [0; 32],
    };
    let address = "127.0.0.1:8080".parse().unwrap();
    ConnectionFacts {
        listener: "inbound".into(),
        remote: address,
        direct_remote: address,
        local: address,
        original_destination: None,
        protocol: Protocol::Http1,
        server_name: None,
        tls: Some(TlsFacts {
            version: "TLSv1.3",
            cipher: "",
            group: "",
            alpn: None,
            resumed: false,
            peer: Some(Arc::new(peer)),
        }),
    }
}

fn head(count: usize) -> request::Parts {
    let last = count - 1;
    let request = http::Request::builder()
        .uri(format!("/api/resource-{last}/items"))
        .header("host", "shop.example.com")
        .header("x-tenant", format!("tenant-{last}"));
    request.body(()).unwrap().into_parts().0
}

/// The last rule allows; and one request that none does.
fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authorization");
    for (name, rule) in WAYS {
        for count in [10, 1000] {
            let compiled = compile(count, rule);
            let facts = match name {
                "namespace" => connection("cart", &format!("team-{}", count - 1)),
                _ => connection(&format!("caller-{}", count - 1), "shop"),
            };
            let head = head(count);
            let request = RequestAttributes { head: &head, token: None };
            let attributes = Attributes { request: Some(request), ..Attributes::of_connection(&facts) };
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| black_box(decide(&compiled, black_box(&attributes), &mut NoTrace)));
            });
        }
    }
    for count in [10, 1000] {
        let compiled = compile(count, WAYS[0].1);
        let (facts, head) = (connection("stranger", "elsewhere"), head(count));
        let request = RequestAttributes { head: &head, token: None };
        let attributes = Attributes { request: Some(request), ..Attributes::of_connection(&facts) };
        group.bench_function(BenchmarkId::new("refused", count), |bencher| {
            bencher.iter(|| black_box(decide(&compiled, black_box(&attributes), &mut NoTrace)));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
