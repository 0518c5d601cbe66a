//! The classes of bypass that other proxies had, by their numbers in the list of the project's references.

use super::*;
use serde_json::json;

#[test]
fn row_1_a_query_or_fragment_moves_no_path_rule() {
    let rule = || to(paths(["/admin*"]));
    for uri in ["/admin", "/admin/", "/admin?x", "/admin/a?b#c"] {
        assert!(denies(rule(), &Asked::get(uri)), "{uri}");
    }
    assert!(!denies(rule(), &Asked::get("/app?/admin")));
}

#[test]
fn row_2_a_target_that_is_no_path_is_refused_rather_than_not_matched() {
    let compiled = compile(vec![policy("p", Action::Deny, vec![to(paths(["/pkg.Svc/Method"]))])]);
    let mut asked = Asked::get("/");
    asked.head.uri = http::Uri::from_static("pkg.Svc");
    let denial = denial(&compiled, &asked);
    assert!(matches!(denial, Denial::Unjudged(_)), "{denial:?}");
    asked.head.method = http::Method::CONNECT;
    assert!(passes(&compiled, &asked), "the target of CONNECT is an authority");
    let options = Asked::new("OPTIONS", "*");
    assert!(passes(&compiled, &options) && !allows(to(paths(["/*"])), &options));
}

#[test]
fn row_3_case_port_and_final_dot_of_a_host_give_the_same_verdict() {
    for host in [
        "admin.example.com",
        "ADMIN.Example.com",
        "admin.example.com:443",
        "admin.example.com.",
        "Admin.Example.com.:8443",
    ] {
        let asked = Asked::get("/").host(host);
        for pattern in
            ["admin.example.com", "Admin.EXAMPLE.com", "admin.example.com.", "*.example.com", "admin.*"]
        {
            assert!(holds(&to(hosts([pattern])), &asked), "{pattern} {host}");
            let not = to(Operation { not_hosts: texts([pattern]), ..Operation::default() });
            assert!(!holds(&not, &asked), "{pattern} {host}");
        }
        assert!(!holds(&to(hosts(["example.com"])), &asked), "{host}");
    }
    let with_port = |pattern: &str, host: &str| holds(&to(hosts([pattern])), &Asked::get("/").host(host));
    assert!(
        with_port("a.b:8080", "A.b.:8080")
            && !with_port("a.b:8080", "a.b:80")
            && with_port("a.b:*", "a.b:80")
    );
    assert!(
        with_port("[::1]", "[::1]:80")
            && with_port("[::1]:80", "[::1]:80")
            && !with_port("[::1]:80", "[::1]")
    );
}

#[test]
fn row_4_a_repeated_header_denies_by_any_value_and_allows_by_all() {
    let rule = || when("request.headers[x-role]", ["admin"]);
    let twice = |one: &str, other: &str| Asked::get("/").header("x-role", one).header("x-role", other);
    assert!(allows(rule(), &Asked::get("/").header("x-role", "admin")));
    for asked in [twice("admin", "user"), twice("user", "admin")] {
        assert!(denies(rule(), &asked), "DENY hits if any value does");
        assert!(!allows(rule(), &asked), "ALLOW needs all");
    }
    assert!(
        denies(rule(), &twice("admin", "admin")) && !allows(rule(), &twice("admin", "admin")),
        "joined it is another value"
    );
    assert!(
        denies(when("request.headers[x-role]", ["a,b"]), &twice("a", "b")),
        "the joined value counts too"
    );
    assert!(allows(when("request.headers[x-role]", ["ad*"]), &twice("admin", "adept")));
    assert!(allows(when("request.headers[x-role]", ["*"]), &twice("a", "b")));
}

#[test]
fn row_4_a_repeated_header_is_excluded_by_any_value() {
    let rule = || when_not("request.headers[x-role]", ["guest"]);
    let twice = Asked::get("/").header("x-role", "guest").header("x-role", "admin");
    assert!(!allows(rule(), &twice), "one value is excluded");
    assert!(denies(rule(), &twice), "one value is not excluded");
    assert!(holds(&rule(), &Asked::get("/")) && !holds(&rule(), &Asked::get("/").header("x-role", "guest")));
}

#[test]
fn row_4_names_in_any_case_are_one_and_an_underscore_can_only_refuse() {
    let rule = || when("request.headers[X-Role]", ["admin"]);
    assert!(allows(rule(), &Asked::get("/").header("x-role", "admin")));
    let alike = Asked::get("/").header("x_role", "admin");
    assert!(denies(rule(), &alike) && !allows(rule(), &alike));
    let both = Asked::get("/").header("x-role", "admin").header("x_role", "user");
    assert!(!allows(rule(), &both), "an application may read either");
    assert!(
        denies(when("request.headers[x-role]", ["*"]), &alike)
            && !allows(when("request.headers[x-role]", ["*"]), &alike)
    );
}

#[test]
fn row_6_an_address_is_one_whether_written_in_ipv4_or_mapped_into_ipv6() {
    let mut asked = Asked::get("/");
    asked.connection.direct_remote = "[::ffff:10.1.2.3]:1".parse().unwrap();
    for block in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3"] {
        assert!(holds(&when("source.ip", [block]), &asked), "{block}");
    }
    asked.connection.direct_remote = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 7).into();
    assert!(holds(&when("source.ip", ["fe80::/10"]), &asked), "a scoped address");
}

#[test]
fn row_9_no_character_of_a_policy_is_a_regular_expression() {
    let source = |source: Source, caller: &str| holds(&from(source), &Asked::get("/").by(caller));
    assert!(!source(Source { namespaces: texts(["a.c"]), ..Source::default() }, "abc/x"));
    assert!(source(Source { namespaces: texts(["a.c"]), ..Source::default() }, "a.c/x"));
    assert!(!source(Source { service_accounts: texts(["shop/a.c"]), ..Source::default() }, "shop/abc"));
    assert!(!source(Source { principals: texts(["*/sa/a.c"]), ..Source::default() }, "shop/abc"));
    for name in ["a+", "[a]", "a|b", "(a)", "a.*", "^a$", "a\\d"] {
        let rule = from(Source {
            principals: vec![format!("cluster.local/ns/shop/sa/{name}")],
            ..Source::default()
        });
        assert!(holds(&rule, &Asked::get("/").by(&format!("shop/{name}"))) || name.ends_with('*'), "{name}");
        for other in ["a", "aa", "b", "ab", "a1"] {
            let expected = name == "a.*" && other.starts_with("a.");
            assert_eq!(
                holds(&rule, &Asked::get("/").by(&format!("shop/{other}"))),
                expected,
                "{name} {other}"
            );
        }
    }
    assert!(
        !holds(&to(paths(["/a.c"])), &Asked::get("/abc"))
            && !holds(&to(paths(["/a.c/{*}"])), &Asked::get("/abc/x"))
    );
    assert!(!holds(&when("request.headers[x]", ["a.c"]), &Asked::get("/").header("x", "abc")));
}

#[test]
fn row_22_what_a_refusal_tells_has_no_secret_and_no_control_character() {
    let secret = "s3cr3t-value-of-a-token";
    for (key, value) in [
        ("request.headers[authorization]", "Bearer x"),
        ("request.auth.claims[email]", "a@b.c"),
        ("request.headers[x-any]", "v"),
    ] {
        let compiled = compile(vec![policy("p", Action::Allow, vec![when(key, [value])])]);
        let asked = Asked::get("/")
            .header("authorization", secret)
            .header("x-any", secret)
            .token(json!({"iss": "i", "sub": secret, "email": secret}));
        let words = denial(&compiled, &asked).to_string();
        assert!(
            words.contains("bytes)") && !words.contains("s3cr3t") && !words.contains("Bearer"),
            "{words}"
        );
    }
    let rule = from(Source { request_principals: texts(["i/other"]), ..Source::default() });
    let compiled = compile(vec![policy("p", Action::Allow, vec![rule])]);
    let words = denial(&compiled, &Asked::get("/").token(json!({"iss": "i", "sub": secret}))).to_string();
    assert!(!words.contains(secret), "{words}");
    let compiled = compile(vec![policy("p", Action::Allow, vec![to(paths(["/x"]))])]);
    let long = denial(&compiled, &Asked::get(&format!("/{}", "a".repeat(5000)))).to_string();
    assert!(long.len() < 400, "{}", long.len());
}

#[test]
fn row_25_the_decision_asks_what_is_forwarded_and_nothing_that_a_caller_claims() {
    let rule = || from(Source { principals: texts(["cluster.local/ns/shop/sa/admin"]), ..Source::default() });
    let spoofed = Asked::get("/")
        .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/admin")
        .header("x-envoy-original-path", "/free");
    assert!(!allows(rule(), &spoofed));
    assert!(denies(to(paths(["/"])), &spoofed));
}

#[test]
fn row_27_a_caller_without_certificate_has_no_identity() {
    for source in [
        Source { principals: texts(["*"]), ..Source::default() },
        Source { namespaces: texts(["*"]), ..Source::default() },
        Source { service_accounts: texts(["cart"]), ..Source::default() },
        Source { trust_domains: texts(["*"]), ..Source::default() },
    ] {
        assert!(!allows(from(source), &Asked::get("/")));
    }
}
