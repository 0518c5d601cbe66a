//! Which RequestAuthentications hold, and what they ask.

use super::*;
use filter_jwt::{Keys, Place, Settings};
use std::time::Duration;

fn of(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn rule(issuer: &str) -> String {
    format!("jwtRules: [{{issuer: {issuer}, jwksUri: \"http://keys\"}}]")
}

/// What the inbound chain asks of tokens.
fn settings(yaml: &str) -> Vec<Settings> {
    let output = run(yaml);
    let listener =
        output.mesh.listeners.values().find(|one| one.direction == crate::mesh::Direction::Inbound);
    let chains = listener.unwrap().chains.iter().chain(&listener.unwrap().default_chain);
    let http = chains.filter_map(|chain| match &chain.protocol {
        crate::mesh::ChainProtocol::Http(http) | crate::mesh::ChainProtocol::Detect { http, .. } => {
            Some(http)
        }
        _ => None,
    });
    let all: Vec<_> = http.map(|http| http.filters.jwt.clone()).collect();
    assert!(
        !all.is_empty() && all.windows(2).all(|two| two[0] == two[1]),
        "every inbound chain asks the same"
    );
    all.into_iter().next().unwrap()
}

fn issuers(yaml: &str) -> Vec<String> {
    settings(yaml).iter().flat_map(|one| &one.rules).map(|rule| rule.issuer.clone()).collect()
}

#[test]
fn those_of_the_root_namespace_and_its_own_that_select_it_hold_together() {
    let me = proxy("{workload: {labels: {app: cart}}, inbound: {application: \"127.0.0.1:1\"}}");
    let yaml = [
        of("shop", "own", &format!("{{{}}}", rule("own"))),
        of(
            "shop",
            "selected",
            &format!("{{selector: {{matchLabels: {{app: cart}}}}, {}}}", rule("selected")),
        ),
        of("shop", "others", &format!("{{selector: {{matchLabels: {{app: other}}}}, {}}}", rule("others"))),
        of("elsewhere", "away", &format!("{{{}}}", rule("away"))),
        of("istio-system", "root", &format!("{{{}}}", rule("root"))),
        of(
            "istio-system",
            "root-selected",
            &format!("{{selector: {{matchLabels: {{app: cart}}}}, {}}}", rule("root-selected")),
        ),
        of(
            "shop",
            "attached",
            &format!("{{targetRefs: [{{kind: Service, name: cart}}], {}}}", rule("attached")),
        ),
    ];
    assert_eq!(issuers(&(yaml.concat() + &me)), ["root", "root-selected", "own", "selected"]);
    assert_eq!(settings(&proxy("{inbound: {application: \"127.0.0.1:1\"}}")), []);
}

#[test]
fn every_field_of_a_rule_arrives() {
    let spec = "{jwtRules: [{issuer: i, audiences: [a], jwksUri: \"https://k/j\", fromHeaders: [{name: x-a, prefix: \"P \"}, {name: x-b}], \
        fromParams: [q], fromCookies: [c], outputPayloadToHeader: x-p, forwardOriginalToken: true, \
        outputClaimToHeaders: [{header: x-c, claim: a.b}], timeout: 2s, spaceDelimitedClaims: [s]}, {issuer: \"https://open.id/\"}]}";
    let found = settings(&(of("shop", "a", spec) + &proxy("{inbound: {application: \"127.0.0.1:1\"}}")));
    let [first, second] = &found[0].rules[..] else { panic!("{found:?}") };
    let header = |name: &str, prefix: &str| Place::Header { name: name.into(), prefix: prefix.into() };
    assert_eq!(first.keys, Keys::Fetched { uri: "https://k/j".into(), timeout: Duration::from_secs(2) });
    assert_eq!(
        first.places,
        [header("x-a", "P "), header("x-b", ""), Place::Parameter("q".into()), Place::Cookie("c".into())]
    );
    assert_eq!((&first.audiences[..], first.forward), (&["a".to_owned()][..], true));
    assert_eq!(first.payload_header.as_deref(), Some("x-p"));
    assert_eq!((&*first.claim_headers[0].header, &*first.claim_headers[0].claim), ("x-c", "a.b"));
    assert_eq!(first.space_delimited, ["s"]);
    assert!(
        first.origin.to_string().contains("RequestAuthentication shop/a spec.jwtRules[0]"),
        "{}",
        first.origin
    );
    let described = "https://open.id/.well-known/openid-configuration";
    assert_eq!(second.keys, Keys::Fetched { uri: described.into(), timeout: Duration::from_secs(5) });
    assert_eq!((second.places.len(), second.forward), (0, false));
}
