//! AccessPolicy: which hold for a workload, in which order, and what closes a scope.

use super::*;
use crate::config::files::Store;
use crate::explain::{Outcome, Question, explain};
use crate::mesh::{ChainProtocol, HttpChain};
use crate::snapshot::Snapshot;
use filter_api::{ConnectionFacts, Keep, NoTrace, Peer, Principal, Protocol, Spec as _, TlsFacts, Token};
use filter_authorization::access::{Access, Policy, Verdict, decide};
use filter_authorization::{Attributes, RequestAttributes};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

fn named(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: sidegate.io/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn policy(name: &str, spec: &str) -> String {
    named("shop", name, spec)
}

const ME: &str = "{workload: {labels: {app: me, version: v1}}, inbound: {application: '127.0.0.1:9080'}}";
const ALLOW: &str = "rules: [{effect: Allow}]";

fn chain(mesh: &Mesh) -> &HttpChain {
    let listener =
        mesh.listeners.values().find(|one| one.direction == crate::mesh::Direction::Inbound).unwrap();
    match &listener.default_chain.as_ref().unwrap().protocol {
        ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } => http,
        other => panic!("{other:?}"),
    }
}

fn policies(mesh: &Mesh) -> Vec<&Policy> {
    chain(mesh).filters.access.iter().flat_map(|settings| settings.policies.iter()).collect()
}

fn names(mesh: &Mesh) -> Vec<String> {
    policies(mesh).iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
}

fn said(yaml: &str) -> Vec<String> {
    let reading = decode(&Path::new("test.yaml").into(), yaml, Strictness::default());
    let findings = reading.objects.iter().flat_map(|object| &object.findings).chain(&reading.findings);
    findings.map(ToString::to_string).collect()
}

#[test]
fn the_most_specific_place_wins_and_the_loser_is_told() {
    let places = [
        named("istio-system", "mesh", &format!("{{{ALLOW}}}")),
        named("istio-system", "mesh-mine", &format!("{{selector: {{matchLabels: {{app: me}}}}, {ALLOW}}}")),
        policy("all", &format!("{{{ALLOW}}}")),
        policy("mine", &format!("{{selector: {{matchLabels: {{app: me}}}}, {ALLOW}}}")),
    ];
    for (at, winner) in
        ["istio-system/mesh", "istio-system/mesh-mine", "shop/all", "shop/mine"].into_iter().enumerate()
    {
        let output = run(&(proxy(ME) + &places[..=at].concat()));
        assert_eq!(names(&output.mesh), [winner]);
        let hidden = codes(&output).into_iter().filter(|code| *code == "access-policy-hidden").count();
        assert_eq!(hidden, at, "{:?}", output.findings);
    }
    let others = policy("yours", &format!("{{selector: {{matchLabels: {{app: you}}}}, {ALLOW}}}"))
        + &named("elsewhere", "foreign", &format!("{{{ALLOW}}}"));
    assert!(names(&run(&(proxy(ME) + &others)).mesh).is_empty());
}

#[test]
fn policies_of_one_place_hold_together_in_the_order_of_priority() {
    let of = |name: &str, priority: &str| policy(name, &format!("{{{priority} {ALLOW}}}"));
    let yaml = proxy(ME) + &of("c", "priority: -1,") + &of("b", "") + &of("a", "") + &of("d", "priority: 7,");
    assert_eq!(names(&run(&yaml).mesh), ["shop/c", "shop/a", "shop/b", "shop/d"]);
}

#[test]
fn a_policy_in_shadow_takes_no_place_of_one_in_force() {
    let shadow =
        "{selector: {matchLabels: {app: me}}, mode: Shadow, rules: [{effect: Deny}], default: Allow}";
    let yaml = proxy(ME) + &policy("all", &format!("{{{ALLOW}}}")) + &policy("try", shadow);
    let output = run(&yaml);
    let found: Vec<_> =
        policies(&output.mesh).iter().map(|policy| (policy.name.clone(), policy.shadow)).collect();
    assert_eq!(found, [("all".to_owned(), false), ("try".to_owned(), true)]);
    assert!(codes(&output).is_empty(), "{:?}", output.findings);
}

#[test]
fn principals_hold_under_each_name_of_the_trust_domain() {
    let spec = "{risk: {header: {name: x-risk, from: [cluster.local/ns/a/sa/b]}}, \
        rules: [{when: [{key: source.principal, values: [cluster.local/ns/a/sa/b]}], effect: Allow}]}";
    let own =
        "{trustDomain: example.org, workload: {labels: {app: me}}, inbound: {application: '127.0.0.1:1'}}";
    let output = run(&(proxy(own) + &policy("p", spec)));
    let found = policies(&output.mesh)[0];
    assert_eq!(found.rules[0].when[0].values, ["example.org/ns/a/sa/b"]);
    assert_eq!(found.risk.header.as_ref().unwrap().from, ["example.org/ns/a/sa/b"]);
}

#[test]
fn what_is_unknown_or_cannot_be_done_is_refused_at_its_place() {
    for (spec, expected) in [
        ("{rules: [{effect: Alow}]}", "spec.rules[0].effect"),
        ("{rules: [{}]}", "names no effect"),
        ("{rules: [{effect: Allow, efect: Deny}]}", "efect"),
        ("{host: payment-service}", "access is judged where requests arrive"),
        ("{rules: [{effect: Allow, actions: [{rateLimit: per-user}]}]}", "there are no limits yet"),
        ("{rules: [{effect: Allow, actions: [{teleport: {}}]}]}", "AccessPolicy has no such field"),
        ("{rules: [{effect: Allow, actions: [{}]}]}", "is not one action"),
        ("{rules: [{effect: Allow, actions: [{audit: {to: x}}]}]}", "spec.rules[0].actions[0].audit"),
        ("{rules: [{effect: Allow, when: [{key: device}]}]}", "`device` is no attribute"),
        ("{rules: [{effect: Allow, when: [{key: risk.score, above: 70}]}]}", "is no score"),
        ("{rules: [{effect: Allow, when: [{key: risk.score, above: high}]}]}", "a bound is a number"),
        (
            "{rules: [{effect: Allow, when: [{key: request.time, within: {days: [Monday]}}]}]}",
            "spec.rules[0].when[0].within.days[0]",
        ),
        (
            "{rules: [{effect: Allow, when: [{key: request.time, within: {zone: Mars}}]}]}",
            "`Mars` is no time zone",
        ),
        ("{session: {maxTokenAge: 0s}}", "is no time at all"),
        ("{session: {maxTokenAge: 15}}", "a duration is a number with a unit"),
        ("{default: StepUp}", "spec.default"),
        ("{mode: Trial}", "spec.mode"),
    ] {
        let found = said(&policy("p", spec));
        assert!(found.iter().any(|line| line.contains(expected)), "{spec}: {found:#?}");
        assert!(found.iter().all(|line| line.contains("test.yaml:")), "{spec}: {found:#?}");
    }
    assert_eq!(said(&policy("p", "{rules: [{effect: Allow, actions: [{audit: {}}]}]}")), [""; 0]);
}

#[test]
fn what_hardly_anybody_means_is_said() {
    let output = run(&(proxy(ME) + &policy("p", "{permissions: [{name: 'a:b'}]}")));
    assert_eq!(finding(&output, "denies-all").field, "spec.rules");
    assert_eq!(finding(&output, "permission-not-given").field, "spec.permissions[0]");
}

fn reloads(texts: &[&str]) -> Output {
    let folder = tempfile::TempDir::new().unwrap();
    let mut store = Store::new(vec![folder.path().to_owned()], Strictness::default());
    let mut output = Output::default();
    for text in texts {
        std::fs::write(folder.path().join("a.yaml"), format!("{}{text}", proxy(ME))).unwrap();
        output = run_on(&store.reload().resources);
    }
    output
}

#[test]
fn a_rejected_policy_closes_its_scope_unless_it_was_in_shadow_or_an_earlier_version_holds() {
    let bad = |more: &str| policy("p", &format!("{{{more}, rules: [{{effect: Alow}}]}}"));
    let output = reloads(&[&bad("selector: {matchLabels: {app: me}}")]);
    let found = policies(&output.mesh);
    assert!(found[0].closed.as_deref().unwrap().contains("spec.rules[0].effect"), "{found:?}");
    assert!(finding(&output, "closed-scope").message.contains("every request is refused"));
    assert!(policies(&reloads(&[&bad("selector: {matchLabels: {app: you}}")]).mesh).is_empty());
    assert!(policies(&reloads(&[&bad("mode: Shadow")]).mesh).is_empty(), "it would have changed nothing");
    for closing in [
        "mode: shadow",
        "mode: Shadow, mode: Enforce",
        "selector: {matchLabel: {app: you}}",
        "host: somebody",
    ] {
        assert!(policies(&reloads(&[&bad(closing)]).mesh)[0].closed.is_some(), "{closing}");
    }
    let good = policy("p", &format!("{{{ALLOW}}}"));
    let output = reloads(&[&good, &bad("priority: 1")]);
    assert!(policies(&output.mesh)[0].closed.is_none(), "the earlier version stays");
    // Beside a good one that is more specific the scope is closed all the same.
    let beside = policy("q", &format!("{{selector: {{matchLabels: {{app: me}}}}, {ALLOW}}}"));
    let output = reloads(&[&(bad("priority: 1") + &beside)]);
    assert_eq!(names(&output.mesh), ["shop/q", "shop/p"]);
}

#[test]
fn explaining_shows_access_rules_after_those_of_authorization() {
    // Only a port that ends mutual TLS knows callers.
    let identity = "{identity: {files: {certificate: a, privateKey: b, trustBundle: c}}, ";
    let me = proxy(&ME.replacen('{', identity, 1));
    let authorization = "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: open, namespace: shop}\nspec: {rules: [{}]}\n";
    let spec = "{rules: [{name: staff, when: [{key: source.namespace, values: [ops]}], effect: Allow, \
        actions: [{addHeader: {name: x-access, value: ops}}]}, {name: others, effect: StepUp}]}";
    let mesh = run(&(me + authorization + &policy("p", spec))).mesh;
    let (snapshot, problems) = Snapshot::compile(mesh, None);
    assert!(problems.is_empty(), "{problems:?}");
    let question = || Question::parse("GET", "http://me.shop/", ["x-access: root"]).unwrap().inbound(true);
    let refused = explain(&snapshot, &question());
    let Outcome::Refused { status, why, .. } = &refused.outcome else { panic!("{:?}", refused.outcome) };
    assert_eq!(
        (*status, &**why),
        (401, "denied: AccessPolicy shop/p rule 1 (others) asks for stronger authentication")
    );
    let steps: Vec<_> = refused.policies.iter().map(|step| (step.held, &*step.because)).collect();
    assert_eq!(
        steps[2..],
        [
            (true, "1 access policy is in force"),
            (false, "AccessPolicy shop/p rule 0 (staff): when source.namespace is no verified peer, not ops"),
            (true, "AccessPolicy shop/p rule 1 (others): holds"),
        ]
    );
    assert!(steps[1].1.contains("ALLOW AuthorizationPolicy shop/open rule 0"), "{steps:?}");
    assert!(
        refused.policies[4].origin.starts_with("AccessPolicy shop/p spec.rules[1]"),
        "{:?}",
        refused.policies[4]
    );
    assert!(
        refused.canonical.iter().any(|line| line == "header x-access is removed"),
        "{:?}",
        refused.canonical
    );
    let asked = explain(&snapshot, &question().by("cluster.local/ns/ops/sa/bot").unwrap());
    assert!(!asked.outcome.is_refused(), "{:?}", asked.outcome);
}

/// A request to the workload of the example.
struct Caller {
    method: &'static str,
    path: &'static str,
    /// `None`: plain text.
    account: Option<&'static str>,
    claims: Value,
    score: &'static str,
}

impl Caller {
    fn staff() -> Self {
        let claims = json!({"groups": ["staff"], "roles": ["manager"]});
        Self { method: "GET", path: "/api/payments/1", account: Some("web"), claims, score: "" }
    }

    fn ask(&self, policies: &[Policy], now: SystemTime) -> String {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = self.claims.as_object().unwrap().clone();
        claims.entry("iat").or_insert_with(|| (seconds - 60).into());
        let token = Token {
            principal: "i/a".into(),
            issuer: "i".into(),
            subject: "a".into(),
            audiences: Vec::new(),
            claims,
        };
        let tls = self.account.map(|account| TlsFacts {
            version: "TLSv1.3",
            cipher: "",
            group: "",
            alpn: None,
            resumed: false,
            peer: Some(Arc::new(Peer {
                principal: Some(Principal::new("cluster.local", "shop", account)),
                not_before: now - Duration::from_hours(1),
                not_after: now,
                subject: "".into(),
                uris: Arc::new([]),
                dns: Arc::new([]),
                chain: Arc::new([]),
                hash: [0; 32],
            })),
        });
        let connection = ConnectionFacts {
            listener: "inbound".into(),
            remote: "10.0.0.7:1".parse().unwrap(),
            direct_remote: "10.0.0.7:1".parse().unwrap(),
            local: "10.0.0.9:8080".parse().unwrap(),
            original_destination: None,
            protocol: Protocol::Http1,
            server_name: None,
            tls,
        };
        let mut request = http::Request::builder().method(self.method).uri(self.path).header("host", "pay");
        if !self.score.is_empty() {
            request = request.header("x-risk-score", self.score);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let settings = filter_authorization::access::Settings {
            policies: Arc::new(policies.to_vec()),
            ..Default::default()
        };
        let compiled = Access::compile(&settings, &Keep::default()).unwrap();
        let attributes = Attributes {
            request: Some(RequestAttributes { head: &head, token: Some(&token) }),
            ..Attributes::of_connection(&connection)
        };
        match decide(&compiled, &attributes, now, &mut NoTrace).verdict {
            Verdict::Allowed(rule) => format!("allow {}", rule.map_or("", |rule| rule.name())),
            Verdict::Refused(refusal) => {
                let rule = refusal.rule().map_or("", |rule| rule.name());
                format!("{} {rule}", if refusal.is_step_up() { "step-up" } else { "deny" })
            }
        }
    }
}

#[test]
fn the_example_does_what_it_says() {
    let text = include_str!("../../../../config/examples/access-policy.yaml");
    let own = "{workload: {labels: {app: payment-service}}, inbound: {application: '127.0.0.1:9080'}}";
    let output = run(&format!("{}---\n{text}", proxy(own)));
    assert!(output.findings.is_empty(), "{:?}", output.findings);
    let found: Vec<Policy> = policies(&output.mesh).into_iter().cloned().collect();
    // Friday, 20 November 2026, 13:00 in Berlin; and ten hours later.
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_176_000);
    let night = noon + Duration::from_hours(10);
    let staff = Caller::staff;
    assert_eq!(staff().ask(&found, noon), "allow office-hours");
    assert_eq!(staff().ask(&found, night), "deny office-hours");
    assert_eq!(staff().ask(&found, noon + Duration::from_hours(24)), "deny office-hours", "a Saturday");
    assert_eq!(Caller { claims: json!({}), ..staff() }.ask(&found, noon), "deny office-hours");
    let aged = |seconds: u64| Caller {
        claims: json!({"groups": "staff", "iat": 1_795_176_000 - seconds}),
        ..staff()
    };
    assert_eq!(aged(9 * 3600).ask(&found, noon), "deny office-hours", "older than a session may be");
    assert_eq!(aged(13 * 3600).ask(&found, noon), "step-up ", "older than any token may be");
    let scored = |score| Caller { account: Some("scorer"), score, ..staff() };
    assert_eq!(scored("0.2").ask(&found, noon), "allow office-hours");
    assert_eq!(scored("0.21").ask(&found, noon), "step-up prove-it-again", "with 0.1 of a new source");
    assert_eq!(scored("0.9").ask(&found, noon), "deny too-risky");
    assert_eq!(Caller { score: "0.9", ..staff() }.ask(&found, noon), "allow office-hours", "who says so?");
    assert_eq!(Caller { account: None, ..staff() }.ask(&found, noon), "allow office-hours");
    let write = |claims| Caller { method: "POST", path: "/api/orders/1", claims, ..staff() };
    assert_eq!(
        write(json!({"groups": "staff", "roles": ["manager"]})).ask(&found, noon),
        "allow office-hours"
    );
    assert_eq!(write(json!({"groups": "staff"})).ask(&found, noon), "deny ");
    let settle =
        |path| Caller { method: "POST", path, account: Some("settlement"), claims: json!({}), score: "" };
    assert_eq!(settle("/api/settlements/7").ask(&found, night), "allow nightly-settlement");
    assert!(settle("/api/settlements/7").ask(&found, noon).starts_with("deny"));
    assert!(settle("/api/settlements/7/x").ask(&found, night).starts_with("deny"));
}
