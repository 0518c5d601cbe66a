//! What single fields mean.

use super::*;
use crate::{DestinationPort, check};
use serde_json::json;

#[test]
fn all_fields_of_a_source_have_to_hold_and_any_source_is_enough() {
    let both = Source { namespaces: texts(["shop"]), ip_blocks: texts(["10.0.0.0/8"]), ..Source::default() };
    let rule = Rule {
        from: vec![both, Source { namespaces: texts(["ops"]), ..Source::default() }],
        ..Rule::default()
    };
    assert!(holds(&rule, &Asked::get("/").by("shop/cart")));
    assert!(holds(&rule, &Asked::get("/").by("ops/bot")));
    let mut elsewhere = Asked::get("/").by("shop/cart");
    elsewhere.connection.direct_remote = "172.16.0.1:1".parse().unwrap();
    assert!(!holds(&rule, &elsewhere) && !holds(&rule, &Asked::get("/")));
}

#[test]
fn principals_are_exact_prefixes_suffixes_or_any() {
    let rule = |text: &str| from(Source { principals: texts([text]), ..Source::default() });
    let cart = Asked::get("/").by("shop/cart");
    for (pattern, expected) in [
        ("cluster.local/ns/shop/sa/cart", true),
        ("cluster.local/ns/shop/sa/car", false),
        ("cluster.local/ns/shop/*", true),
        ("*/sa/cart", true),
        ("*", true),
        ("spiffe://cluster.local/ns/shop/sa/cart", false),
    ] {
        assert_eq!(holds(&rule(pattern), &cart), expected, "{pattern}");
        assert!(!holds(&rule(pattern), &Asked::get("/")), "nobody is no principal");
    }
}

#[test]
fn a_star_means_every_verified_peer_also_one_that_is_no_workload() {
    let mut client = Asked::get("/");
    client.connection.tls = Some(tls(None));
    assert!(holds(&from(Source { principals: texts(["*"]), ..Source::default() }), &client));
    assert!(!holds(&from(Source { not_principals: texts(["*"]), ..Source::default() }), &client));
    assert!(!holds(&from(Source { principals: texts(["cluster*"]), ..Source::default() }), &client));
}

#[test]
fn what_is_excluded_holds_for_callers_without_identity() {
    let rule = from(Source { not_namespaces: texts(["shop"]), ..Source::default() });
    assert!(holds(&rule, &Asked::get("/")) && holds(&rule, &Asked::get("/").by("ops/bot")));
    assert!(!holds(&rule, &Asked::get("/").by("shop/cart")));
}

#[test]
fn a_service_account_without_namespace_is_one_of_the_policys_own() {
    let rule = |text: &str| from(Source { service_accounts: texts([text]), ..Source::default() });
    assert!(holds(&rule("cart"), &Asked::get("/").by("shop/cart")));
    assert!(!holds(&rule("cart"), &Asked::get("/").by("ops/cart")));
    assert!(holds(&rule("ops/cart"), &Asked::get("/").by("ops/cart")));
    let not = from(Source { not_service_accounts: texts(["ops/cart"]), ..Source::default() });
    assert!(!holds(&not, &Asked::get("/").by("ops/cart")) && holds(&not, &Asked::get("/")));
}

#[test]
fn namespaces_may_have_stars_anywhere() {
    let rule = from(Source { namespaces: texts(["team-*-prod"]), ..Source::default() });
    assert!(
        holds(&rule, &Asked::get("/").by("team-a-prod/x"))
            && !holds(&rule, &Asked::get("/").by("team-a-dev/x"))
    );
}

#[test]
fn trust_domains_are_told_apart() {
    let rule = |text: &str| from(Source { trust_domains: texts([text]), ..Source::default() });
    let cart = Asked::get("/").by("shop/cart");
    assert!(
        holds(&rule("cluster.local"), &cart) && holds(&rule("*.local"), &cart) && holds(&rule("*"), &cart)
    );
    assert!(!holds(&rule("cluster"), &cart) && !holds(&rule("*"), &Asked::get("/")));
}

#[test]
fn source_addresses_are_the_peers_and_remote_ones_the_clients() {
    let source = |text: &str| from(Source { ip_blocks: texts([text]), ..Source::default() });
    let remote = |text: &str| from(Source { remote_ip_blocks: texts([text]), ..Source::default() });
    let asked = Asked::get("/");
    assert!(holds(&source("10.1.2.3"), &asked) && holds(&source("10.1.0.0/16"), &asked));
    assert!(!holds(&source("192.0.2.0/24"), &asked) && holds(&remote("192.0.2.0/24"), &asked));
    assert!(
        holds(&when("source.ip", ["10.0.0.0/8"]), &asked) && holds(&when("remote.ip", ["192.0.2.7"]), &asked)
    );
    assert!(holds(&from(Source { not_ip_blocks: texts(["192.0.2.7"]), ..Source::default() }), &asked));
    assert!(!holds(
        &from(Source { not_remote_ip_blocks: texts(["192.0.2.7"]), ..Source::default() }),
        &asked
    ));
}

#[test]
fn ports_and_addresses_of_the_destination_are_the_connections() {
    let asked = Asked::get("/");
    let ports = |text: &str| to(Operation { ports: texts([text]), ..Operation::default() });
    assert!(holds(&ports("8080"), &asked) && !holds(&ports("80"), &asked));
    assert!(
        holds(&when("destination.port", ["8080"]), &asked)
            && holds(&when("destination.ip", ["10.9.0.0/16"]), &asked)
    );
    assert!(!holds(&to(Operation { not_ports: texts(["8080"]), ..Operation::default() }), &asked));
}

#[test]
fn a_port_that_only_the_route_knows_never_opens_anything() {
    let decided = |action: Action, port| {
        let rule = to(Operation { ports: texts(["9000"]), ..Operation::default() });
        let policies = Arc::new(vec![policy("p", action, vec![rule])]);
        let compiled = Authorization::compile(
            &Settings { policies, destination_port: port, custom: None },
            &Keep::default(),
        )
        .unwrap();
        passes(&compiled, &Asked::get("/"))
    };
    assert!(
        !decided(Action::Allow, DestinationPort::Unknown) && !decided(Action::Deny, DestinationPort::Unknown)
    );
    assert!(
        decided(Action::Allow, DestinationPort::Fixed(9000))
            && decided(Action::Deny, DestinationPort::Fixed(1))
    );
}

#[test]
fn request_principals_are_issuer_and_subject_apart() {
    let rule = |text: &str| from(Source { request_principals: texts([text]), ..Source::default() });
    let alice = Asked::get("/").token(json!({"iss": "https://id.example.com/a", "sub": "alice"}));
    for (pattern, expected) in [
        ("https://id.example.com/a/alice", true),
        ("https://id.example.com/a/*", true),
        ("https://id.example.com/*", false),
        ("https://id.example.com/a/al*", true),
        ("*/alice", true),
        ("*/bob", false),
        ("*", true),
        // The last slash parts issuer and subject, also here.
        ("https://id*", false),
        ("*ice", true),
    ] {
        assert_eq!(holds(&rule(pattern), &alice), expected, "{pattern}");
        assert!(!holds(&rule(pattern), &Asked::get("/")), "{pattern} without a token");
    }
    assert!(holds(&rule("i*"), &Asked::get("/").token(json!({"iss": "id", "sub": "s"}))));
    assert!(!holds(&rule("*"), &Asked::get("/").token(json!({"iss": "i"}))), "a token without a subject");
    assert!(holds(
        &from(Source { not_request_principals: texts(["*"]), ..Source::default() }),
        &Asked::get("/")
    ));
}

#[test]
fn claims_are_texts_or_lists_of_them_however_deep() {
    let asked = Asked::get("/").token(json!({
        "iss": "i", "sub": "s", "aud": ["shop", "pay"], "azp": "web",
        "groups": ["staff", "admin"], "level": 3, "realm": {"roles": ["buyer"], "name": "x"}
    }));
    let at = |key: &str, value: &str| holds(&when(key, [value]), &asked);
    assert!(at("request.auth.claims[groups]", "admin") && !at("request.auth.claims[groups]", "adm"));
    assert!(at("request.auth.claims[realm][roles]", "buyer") && at("request.auth.claims[realm][name]", "x"));
    assert!(!at("request.auth.claims[level]", "3"), "Istio compares texts alone");
    assert!(!at("request.auth.claims[realm]", "*") && at("request.auth.claims[realm][name]", "*"));
    assert!(
        at("request.auth.audiences", "pay")
            && at("request.auth.presenter", "w*")
            && at("request.auth.principal", "i/s")
    );
    assert!(holds(&when_not("request.auth.claims[groups]", ["banned"]), &asked));
    assert!(!holds(&when_not("request.auth.claims[groups]", ["staff"]), &asked));
}

#[test]
fn identity_in_conditions_is_that_of_sources() {
    let asked = Asked::get("/").by("shop/cart");
    assert!(
        holds(&when("source.namespace", ["sh*"]), &asked)
            && holds(&when("source.serviceAccount", ["cart"]), &asked)
    );
    assert!(holds(&when("source.principal", ["cluster.local/*"]), &asked));
    assert!(!holds(&when_not("source.principal", ["*/cart"]), &asked));
    assert!(holds(&when("source.trustDomain", ["cluster.local"]), &asked));
}

#[test]
fn the_server_name_is_compared_without_case() {
    let mut asked = Asked::get("/");
    assert!(!holds(&when("connection.sni", ["*"]), &asked));
    asked.connection.server_name = Some("Shop.Example.com".into());
    assert!(
        holds(&when("connection.sni", ["shop.example.COM"]), &asked)
            && holds(&when("connection.sni", ["*.com"]), &asked)
    );
}

#[test]
fn the_parts_of_a_request_line_can_be_asked_as_headers() {
    let asked = Asked::new("POST", "/a?b=c");
    assert!(holds(&when("request.headers[:method]", ["POST"]), &asked));
    assert!(holds(&when("request.headers[:path]", ["/a?b=c"]), &asked));
    assert!(holds(&when("request.headers[:authority]", ["shop.example.com"]), &asked));
    assert!(holds(&when("request.headers[Host]", ["shop.example.com"]), &asked));
}

#[test]
fn paths_are_compared_without_their_query_and_may_be_templates() {
    let at = |pattern: &str, uri: &str| holds(&to(paths([pattern])), &Asked::get(uri));
    assert!(at("/a", "/a?x=/b") && !at("/a", "/a/") && !at("/b*", "/a?/b"));
    assert!(at("/users/{*}/orders", "/users/7/orders?x") && !at("/users/{*}/orders", "/users/7/8/orders"));
    assert!(at("*.json", "/x.json?y=.xml") && at("/files/{**}", "/files/a/b"));
}

#[test]
fn grpc_methods_are_paths() {
    let asked = Asked::new("POST", "/shop.Cart/Add");
    assert!(holds(&to(paths(["/shop.Cart/*"])), &asked) && !holds(&to(paths(["/shop.Cart/Remove"])), &asked));
}

#[test]
fn what_cannot_be_enforced_is_named_by_its_field_with_a_remedy() {
    let faults = |rule: Rule| {
        check(&policy("p", Action::Allow, vec![rule]))
            .into_iter()
            .map(|fault| fault.field)
            .collect::<Vec<_>>()
    };
    let source = |source| faults(from(source));
    assert_eq!(
        source(Source { ip_blocks: texts(["10.0.0.0/33"]), ..Source::default() }),
        ["rules[0].from[0].source.ipBlocks[0]"]
    );
    assert_eq!(
        source(Source { service_accounts: texts(["a/b/c"]), ..Source::default() }),
        ["rules[0].from[0].source.serviceAccounts[0]"]
    );
    assert_eq!(
        source(Source { trust_domains: texts(["a*b"]), ..Source::default() }),
        ["rules[0].from[0].source.trustDomains[0]"]
    );
    assert_eq!(
        source(Source { principals: texts([""]), ..Source::default() }),
        ["rules[0].from[0].source.principals[0]"]
    );
    assert_eq!(source(Source::default()), ["rules[0].from[0].source"]);
    let both = Source { service_accounts: texts(["a"]), namespaces: texts(["b"]), ..Source::default() };
    assert_eq!(source(both), ["rules[0].from[0].source.serviceAccounts"]);
    assert_eq!(faults(to(paths(["/{x}"]))), ["rules[0].to[0].operation.paths[0]"]);
    assert_eq!(
        faults(to(Operation { ports: texts(["+80"]), ..Operation::default() })),
        ["rules[0].to[0].operation.ports[0]"]
    );
    for key in [
        "destination.labels[app]",
        "request.headers[]",
        "request.auth.claims",
        "experimental.envoy.filters.x[y]",
        "source.age",
    ] {
        assert_eq!(faults(when(key, ["x"])), ["rules[0].when[0].key"], "{key}");
    }
    let unknown = error(policy("p", Action::Allow, vec![when("experimental.envoy.filters.x[y]", ["x"])]));
    assert!(
        unknown
            .starts_with("shop/p rules[0].when[0].key `experimental.envoy.filters.x[y]` asks for metadata"),
        "{unknown}"
    );
    let custom =
        Action::Custom { provider: String::new(), failures: crate::Failures::default(), cache: None };
    let faults = check(&policy("p", custom, vec![when("source.principal", ["x"])]));
    let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["provider.name", "rules[0].when[0].values"]);
}
