//! Connections that are no HTTP: only rules about connections can be told of them.

use super::*;
use filter_api::{Filter, Reason, Verdict};

fn tcp(rule: Rule, action: Action, connection: &ConnectionFacts) -> bool {
    let compiled = compile(vec![policy("p", action, vec![rule])]);
    let attributes = Attributes::of_connection(connection);
    assert!(compiled.is_consistent(&attributes), "the index finds another rule");
    matches!(decide(&compiled, &attributes, &mut NoTrace).outcome, Outcome::Allowed(_))
}

fn by(workload: &str) -> ConnectionFacts {
    ConnectionFacts { protocol: Protocol::Tcp, ..Asked::get("/").by(workload).connection }
}

#[test]
fn rules_about_peers_addresses_and_ports_hold_for_connections() {
    let namespace = || from(Source { namespaces: texts(["shop"]), ..Source::default() });
    assert!(
        tcp(namespace(), Action::Allow, &by("shop/cart")) && !tcp(namespace(), Action::Allow, &by("ops/bot"))
    );
    assert!(!tcp(namespace(), Action::Deny, &by("shop/cart")));
    let port = || to(Operation { ports: texts(["8080"]), ..Operation::default() });
    assert!(tcp(port(), Action::Allow, &by("ops/bot")) && !tcp(port(), Action::Deny, &by("ops/bot")));
    assert!(tcp(when("remote.ip", ["192.0.2.7"]), Action::Allow, &by("ops/bot")));
}

#[test]
fn an_allow_rule_that_speaks_of_requests_never_holds_for_a_connection() {
    let source = |source| Rule {
        from: vec![Source { namespaces: texts(["shop"]), ..Source::default() }, source],
        ..Rule::default()
    };
    let users = Source { request_principals: texts(["*"]), ..Source::default() };
    let rules = [
        to(paths(["/a"])),
        to(Operation { not_methods: texts(["GET"]), ..Operation::default() }),
        to(hosts(["*"])),
        when("request.headers[x]", ["y"]),
        when_not("request.auth.claims[x]", ["y"]),
        // Also when another alternative would have held: Istio leaves out the whole rule.
        source(users),
    ];
    for rule in rules {
        assert!(!tcp(rule.clone(), Action::Allow, &by("shop/cart")), "{rule:?}");
    }
}

#[test]
fn a_deny_rule_is_asked_by_what_it_says_of_connections() {
    let rule = |namespace: &str| Rule {
        from: vec![Source { namespaces: texts([namespace]), ..Source::default() }],
        ..to(Operation { methods: texts(["POST"]), ..paths(["/a"]) })
    };
    assert!(
        !tcp(rule("shop"), Action::Deny, &by("shop/cart"))
            && tcp(rule("ops"), Action::Deny, &by("shop/cart"))
    );
    assert!(
        !tcp(to(paths(["/a"])), Action::Deny, &by("shop/cart")),
        "one of requests alone refuses every connection"
    );
    let not = to(Operation { not_paths: texts(["/a"]), ..Operation::default() });
    assert!(!tcp(not, Action::Deny, &by("shop/cart")));
}

#[test]
fn the_hook_refuses_connections_and_leaves_http_to_its_requests() {
    let compiled = [compile(vec![policy("p", Action::Allow, vec![to(paths(["/a"]))])])];
    let Verdict::Refuse(error) = Authorization::on_connection(&compiled, &by("shop/cart")) else {
        panic!("it goes on")
    };
    assert_eq!(error.reason(), Reason::AccessDenied);
    assert_eq!(error.detail_str(), "rbac_access_denied_matched_policy[none]");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let verdict = Authorization::on_connection(&compiled, &connection(protocol));
        assert!(matches!(verdict, Verdict::Continue(None)), "{protocol:?}");
    }
}
