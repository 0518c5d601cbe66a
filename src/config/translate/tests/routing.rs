use super::{codes, finding, has_host, host, istio, istio_in, proxy, run, service, targets_of};
use crate::mesh::{HeaderMatch, PathMatch, StringMatch, ValueMatch};
use filter_transform::{PathRewrite, RedirectPath, Reply};

const CART: &str = "cart.shop.svc.cluster.local";

fn cart(rules: &str) -> String {
    service("cart", "[{port: 80, name: http}]")
        + &service("other", "[{port: 8080, name: http}]")
        + &istio("VirtualService", "cart", &format!("{{hosts: [cart], http: {rules}}}"))
}

#[test]
fn a_destination_without_port_means_the_only_port_of_its_service() {
    for (destination, expected) in [
        ("{host: cart}", "outbound|80||cart.shop.svc.cluster.local*1"),
        ("{host: other}", "outbound|8080||other.shop.svc.cluster.local*1"),
        ("{host: other, port: {number: 9}}", "outbound|9||other.shop.svc.cluster.local*1"),
        ("{host: gone, subset: v1}", "outbound|80|v1|gone.shop.svc.cluster.local*1"),
        ("{host: api.example.com}", "outbound|80||api.example.com*1"),
    ] {
        let output = run(&cart(&format!("[{{route: [{{destination: {destination}}}]}}]")));
        assert_eq!(targets_of(&host(&output.mesh, "outbound", "cart").routes), [[expected]]);
    }
}

#[test]
fn wrong_destinations_are_named_with_their_field() {
    let two = service("two", "[{port: 80, name: http}, {port: 81, name: http-b}]");
    for (destination, code, field) in [
        ("{host: gone}", "destination-unknown", "spec.http[0].route[0].destination.host"),
        ("{host: cart, subset: v9}", "subset-unknown", "spec.http[0].route[0].destination.subset"),
        ("{host: cart, port: {number: 9}}", "destination-port", "spec.http[0].route[0].destination.port"),
        ("{host: two}", "destination-port", "spec.http[0].route[0].destination"),
    ] {
        let output = run(&(cart(&format!("[{{route: [{{destination: {destination}}}]}}]")) + &two));
        assert_eq!(finding(&output, code).field, field, "{destination}");
    }
}

#[test]
fn weights_of_zero_take_nothing_and_one_destination_takes_all() {
    for (route, expected) in [
        ("[{destination: {host: cart}, weight: 0}]", vec!["outbound|80||cart.shop.svc.cluster.local*1"]),
        (
            "[{destination: {host: cart}, weight: 90}, {destination: {host: other}, weight: 10}, {destination: {host: gone}}]",
            vec![
                "outbound|80||cart.shop.svc.cluster.local*90",
                "outbound|8080||other.shop.svc.cluster.local*10",
            ],
        ),
    ] {
        let output = run(&cart(&format!("[{{route: {route}}}]")));
        assert_eq!(targets_of(&host(&output.mesh, "outbound", "cart").routes), [expected]);
    }
}

#[test]
fn conditions_on_the_caller_are_decided_here() {
    let own = proxy("{workload: {labels: {app: web, version: v1}}}");
    for (condition, applies) in [
        ("{port: 80}", true),
        ("{port: 81}", false),
        ("{sourceLabels: {app: web}}", true),
        ("{sourceLabels: {app: web, version: v2}}", false),
        ("{sourceNamespace: shop}", true),
        ("{sourceNamespace: web}", false),
        ("{gateways: [mesh]}", true),
        ("{gateways: [edge]}", false),
        ("{gateways: [mesh], sourceLabels: {app: no}}", true),
    ] {
        let rules = format!("[{{match: [{condition}], redirect: {{uri: /x}}}}]");
        let output = run(&(cart(&rules) + &own));
        let routes = targets_of(&host(&output.mesh, "outbound", "cart").routes);
        // Without any rule that holds the host is served as if it had no VirtualService.
        let expected = if applies { "respond" } else { "outbound|80||cart.shop.svc.cluster.local*1" };
        assert_eq!(routes, [[expected]], "{condition}");
    }
}

#[test]
fn conditions_on_the_request_become_the_routes() {
    let rules = "[{name: r, match: [{name: m, uri: {prefix: /a}, ignoreUriCase: true, method: {exact: GET}, headers: {x-a: {}}, \
                 withoutHeaders: {x-b: {prefix: b}}, queryParams: {q: {exact: '1'}}, authority: {exact: cart}}, {uri: {regex: '/b.*'}}], \
                 route: [{destination: {host: cart}}]}]";
    let output = run(&cart(rules));
    let routes = &host(&output.mesh, "outbound", "cart").routes;
    assert_eq!(routes.len(), 2);
    let one = &routes[0];
    assert_eq!((&*one.name, &*routes[1].name), ("r.m", "r"));
    assert_eq!(one.matches.path, PathMatch::Prefix("/a".into()));
    assert!(one.matches.ignore_path_case);
    assert_eq!(
        one.matches.headers,
        [
            HeaderMatch { name: "x-a".into(), value: ValueMatch::Present, invert: false },
            HeaderMatch {
                name: "x-b".into(),
                value: ValueMatch::Value(StringMatch::Prefix("b".into())),
                invert: true
            },
        ]
    );
    assert_eq!(one.matches.query.len(), 1);
    assert_eq!(routes[1].matches.path, PathMatch::Regex("/b.*".into()));
    assert!(std::sync::Arc::ptr_eq(&one.action, &routes[1].action), "one rule, one action");
    assert!(one.origin.to_string().contains("VirtualService shop/cart spec.http[0].match[0] (test.yaml:"));
}

#[test]
fn a_rewrite_replaces_what_the_match_took() {
    for (rule, expected) in [
        (
            "match: [{uri: {prefix: /a}}], rewrite: {uri: /}",
            PathRewrite::Prefix { matched: "/a".into(), with: "/".into() },
        ),
        ("match: [{uri: {exact: /a}}], rewrite: {uri: /b}", PathRewrite::Full("/b".into())),
        ("rewrite: {uri: /b}", PathRewrite::Prefix { matched: "/".into(), with: "/b".into() }),
        (
            "rewrite: {uriRegexRewrite: {match: 'a+', rewrite: 'b'}}",
            PathRewrite::Regex { pattern: "a+".into(), with: "b".into() },
        ),
    ] {
        let output = run(&cart(&format!("[{{{rule}, route: [{{destination: {{host: cart}}}}]}}]")));
        let route = &host(&output.mesh, "outbound", "cart").routes[0];
        assert_eq!(route.action.filters.transform[0].path.as_ref(), Some(&expected), "{rule}");
    }
}

#[test]
fn each_match_of_a_rule_rewrites_its_own_prefix() {
    let rules = "[{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], rewrite: {uri: /}, route: [{destination: {host: cart}}]}]";
    let output = run(&cart(rules));
    let routes = &host(&output.mesh, "outbound", "cart").routes;
    let matched: Vec<_> =
        routes.iter().map(|route| route.action.filters.transform[0].path.clone().unwrap()).collect();
    assert_eq!(
        matched,
        ["/a", "/b"].map(|prefix| PathRewrite::Prefix { matched: prefix.into(), with: "/".into() })
    );
}

#[test]
fn headers_change_on_both_levels_and_host_is_the_authority() {
    let rules = "[{headers: {request: {set: {x-a: '1', Host: shop.example}, remove: [x-c]}}, \
                 route: [{destination: {host: cart}, headers: {request: {set: {host: inner}}, response: {add: {x-b: '2'}}}}]}]";
    let output = run(&cart(rules));
    let route = &host(&output.mesh, "outbound", "cart").routes[0];
    let outer = &route.action.filters.transform[0];
    assert_eq!(outer.authority.as_deref(), Some("shop.example"));
    assert_eq!(outer.request_headers.set.len(), 1);
    assert_eq!(outer.request_headers.remove, ["x-c"]);
    let crate::mesh::Action::Forward(clusters) = &route.action.action else { panic!() };
    let inner = &clusters[0].filters.transform[0];
    assert_eq!(inner.authority, None, "that of the route wins over its only destination");
    assert_eq!(inner.response_headers.add[0].name, "x-b");
}

#[test]
fn of_several_destinations_each_changes_headers_first_and_the_route_has_the_last_word() {
    let rules = "[{headers: {request: {set: {x-s: route}, remove: [x-r]}}, route: [\
                 {destination: {host: cart}, weight: 1, headers: {request: {set: {x-s: dest}}}}, \
                 {destination: {host: cart}, weight: 1}]}]";
    let output = run(&cart(rules));
    let route = &host(&output.mesh, "outbound", "cart").routes[0];
    assert!(route.action.filters.transform.is_empty(), "the route's own changes stand behind those of each");
    let crate::mesh::Action::Forward(clusters) = &route.action.action else { panic!() };
    let order = |at: usize| -> Vec<&str> {
        clusters[at].filters.transform.iter().map(|one| &*one.request_headers.set[0].value).collect()
    };
    assert_eq!((order(0), order(1)), (vec!["dest", "route"], vec!["route"]));
    assert_eq!(clusters[0].filters.transform[1].request_headers.remove, ["x-r"]);
}

#[test]
fn every_change_names_the_rule_that_asks_for_it() {
    for rule in [
        "directResponse: {status: 418}",
        "rewrite: {uri: /x}, route: [{destination: {host: cart}}]",
        "headers: {request: {remove: [x-a]}}, route: [{destination: {host: cart}}]",
    ] {
        let output = run(&cart(&format!("[{{{rule}}}]")));
        let route = &host(&output.mesh, "outbound", "cart").routes[0];
        let origin = route.action.filters.transform[0].origin.to_string();
        assert!(origin.contains("VirtualService") && origin.contains("spec.http[0]"), "{origin}");
    }
}

#[test]
fn a_path_without_its_slash_gets_it() {
    let output = run(&cart("[{rewrite: {uri: new/}, route: [{destination: {host: cart}}]}]"));
    let path = &host(&output.mesh, "outbound", "cart").routes[0].action.filters.transform[0].path;
    assert_eq!(*path, Some(PathRewrite::Prefix { matched: "/".into(), with: "/new/".into() }));
}

#[test]
fn redirects_and_direct_responses_are_answers() {
    let reply = |rule: &str| {
        let output = run(&cart(&format!("[{{{rule}}}]")));
        let route = &host(&output.mesh, "outbound", "cart").routes[0];
        route.action.filters.transform[0].reply.clone().unwrap()
    };
    assert_eq!(
        reply("directResponse: {status: 418, body: {string: tea}}"),
        Reply::Direct { status: 418, body: b"tea".to_vec() }
    );
    let Reply::Redirect(plain) = reply("redirect: {uri: /x, authority: a.b, redirectCode: 308, port: 80}")
    else {
        panic!()
    };
    assert_eq!((plain.status, plain.port, plain.path), (308, None, Some(RedirectPath::Full("/x".into()))));
    let Reply::Redirect(derived) = reply("redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}") else {
        panic!()
    };
    assert_eq!((derived.status, derived.port, derived.path), (301, Some(80), None));
    let Reply::Redirect(prefix) = reply("match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}") else {
        panic!()
    };
    assert_eq!(prefix.path, Some(RedirectPath::Prefix { matched: "/a".into(), with: "/b".into() }));
}

#[test]
fn a_rule_behind_a_catch_all_is_named_and_left_out() {
    let rules = "[{name: all, route: [{destination: {host: cart}}]}, {name: late, match: [{uri: {prefix: /x}}], route: [{destination: {host: cart}}]}]";
    let output = run(&cart(rules));
    assert_eq!(host(&output.mesh, "outbound", "cart").routes.len(), 1);
    let found = finding(&output, "rule-shadowed");
    assert_eq!(found.field, "spec.http[1]");
    assert!(
        found.message.contains("rule `late` (spec.http[1])")
            && found.message.contains("rule `all` (spec.http[0])")
    );
}

#[test]
fn a_claim_that_cannot_be_known_never_matches() {
    let rules = "[{match: [{headers: {'@request.auth.claims.admin': {exact: 'true'}}}], redirect: {uri: /admin}}, {route: [{destination: {host: cart}}]}]";
    // The loader refuses such a name too; this is what is done with one that comes another way.
    let mut resources = super::load(&(cart(&rules.replace('@', "")) + &proxy("{}")));
    for resource in &mut resources {
        let resource = std::sync::Arc::get_mut(resource).unwrap();
        if let crate::config::resources::Spec::VirtualService(spec) = &mut resource.spec {
            let headers = &mut spec.http[0].matches[0].headers;
            let condition = headers.remove("request.auth.claims.admin").unwrap();
            headers.insert("@request.auth.claims.admin".to_owned(), condition);
        }
    }
    let output = super::run_on(&resources);
    assert_eq!(
        targets_of(&host(&output.mesh, "outbound", "cart").routes),
        [["outbound|80||cart.shop.svc.cluster.local*1"]]
    );
    assert!(codes(&output).contains(&"claim-routing"));
}

#[test]
fn the_most_specific_host_has_the_rules() {
    let wide = istio(
        "VirtualService",
        "a-wide",
        "{hosts: ['*.shop.svc.cluster.local'], http: [{redirect: {uri: /wide}}]}",
    );
    let widest =
        istio("VirtualService", "a-widest", "{hosts: ['*.local'], http: [{redirect: {uri: /widest}}]}");
    let output = run(&(cart("[{route: [{destination: {host: cart}}]}]") + &wide + &widest));
    assert_eq!(
        targets_of(&host(&output.mesh, "outbound", "cart").routes),
        [["outbound|80||cart.shop.svc.cluster.local*1"]]
    );
    let other = host(&output.mesh, "outbound", "other");
    let Some(Reply::Redirect(redirect)) = &other.routes[0].action.filters.transform[0].reply else {
        panic!()
    };
    assert_eq!(redirect.path, Some(RedirectPath::Full("/wide".into())));
    assert!(!has_host(&output.mesh, "outbound", "*.local"));
}

#[test]
fn a_host_that_is_no_service_is_served_at_port_80() {
    let output = run(&(service("cart", "[{port: 80}]")
        + &istio(
            "VirtualService",
            "api",
            "{hosts: [API.example.com], http: [{route: [{destination: {host: cart}}]}]}",
        )));
    let api = host(&output.mesh, "outbound", "api.example.com");
    assert_eq!(api.domains.iter().collect::<Vec<_>>(), ["api.example.com", "api.example.com:80"]);
}

#[test]
fn a_delegate_speaks_for_its_prefix_in_its_own_namespace() {
    let root = istio(
        "VirtualService",
        "root",
        "{hosts: [cart], http: [{match: [{uri: {prefix: /api}}], delegate: {name: api, namespace: team}}]}",
    );
    let delegate = istio_in(
        "team",
        "VirtualService",
        "api",
        "{http: [{match: [{uri: {prefix: /api/x}}], route: [{destination: {host: backend}}]}]}",
    );
    let output = run(&(service("cart", "[{port: 80}]") + &root + &delegate));
    let routes = &host(&output.mesh, "outbound", "cart").routes;
    assert_eq!(routes[0].matches.path, PathMatch::Prefix("/api/x".into()));
    assert_eq!(targets_of(routes), [["outbound|80||backend.team.svc.cluster.local*1"]]);
    assert!(routes[0].origin.to_string().contains("VirtualService team/api"));
    let alone = run(&(service("cart", "[{port: 80}]") + &root));
    assert_eq!(finding(&alone, "delegate-not-found").field, "spec.http[0].delegate");
}

#[test]
fn taking_over_a_host_of_another_namespace_is_said() {
    let foreign = istio_in(
        "evil",
        "VirtualService",
        "grab",
        &format!("{{hosts: [{CART}], http: [{{redirect: {{uri: /x}}}}]}}"),
    );
    let output = run(&(service("cart", "[{port: 80}]") + &foreign));
    assert!(finding(&output, "host-of-another-namespace").message.contains("belongs to namespace shop"));
}
