use super::{addresses, cluster, codes, finding, istio, istio_in, proxy, run, service, workload};
use crate::mesh::{Balance, Discovery, EndpointAddress, ProxyProtocolVersion, UpstreamProtocol};

const CART: &str = "cart.shop.svc.cluster.local";

fn cart(more: &str) -> String {
    service("cart", "[{port: 80, name: http, targetPort: 8080}, {port: 90, name: http-b, targetPort: web}]")
        + &workload("c1", "cart", "v1", "10.0.0.1")
        + &workload("c2", "cart", "v2", "10.0.0.2")
        + more
}

#[test]
fn subsets_take_the_endpoints_with_their_labels() {
    let rule = istio(
        "DestinationRule",
        "cart",
        "{host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v9, labels: {version: v9}}]}",
    );
    let output = run(&cart(&rule));
    assert_eq!(addresses(&output.mesh, &format!("outbound|80||{CART}")), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(addresses(&output.mesh, &format!("outbound|80|v1|{CART}")), ["10.0.0.1:8080"]);
    assert!(addresses(&output.mesh, &format!("outbound|80|v9|{CART}")).is_empty());
    assert_eq!(finding(&output, "subset-empty").field, "spec.subsets[1]");
    let v1 = cluster(&output.mesh, &format!("outbound|80|v1|{CART}"));
    assert_eq!((&*v1.service.subset, &*v1.service.name, v1.service.port), ("v1", "cart", 80));
    assert!(v1.origin.to_string().contains("DestinationRule shop/cart spec.subsets[0]"));
}

#[test]
fn policies_are_inherited_as_in_istio() {
    let rule = istio(
        "DestinationRule",
        "cart",
        "{host: cart, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 5}, http: {h2UpgradePolicy: UPGRADE}}, \
         proxyProtocol: {version: V2}, portLevelSettings: [{port: {number: 90}, loadBalancer: {simple: RANDOM}}]}, \
         subsets: [{name: a, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}]}",
    );
    let mesh = run(&cart(&rule)).mesh;
    let v2 = Some(ProxyProtocolVersion::V2);
    for (name, balance, connections, protocol) in [
        (format!("outbound|80||{CART}"), Balance::RoundRobin, 5, UpstreamProtocol::Http2),
        // The port replaces the whole policy of the host.
        (format!("outbound|90||{CART}"), Balance::Random, u32::MAX, UpstreamProtocol::Http1),
        (format!("outbound|80|a|{CART}"), Balance::RoundRobin, 7, UpstreamProtocol::Http1),
        (format!("outbound|90|a|{CART}"), Balance::Random, 7, UpstreamProtocol::Http1),
    ] {
        let found = cluster(&mesh, &name);
        assert_eq!(
            (found.balance, found.pool.max_connections, found.protocol),
            (balance, connections, protocol),
            "{name}"
        );
        assert_eq!(found.proxy_protocol, v2);
    }
}

#[test]
fn the_protocol_upstream_follows_port_and_policy() {
    for (port, policy, expected) in [
        ("name: http", "{}", UpstreamProtocol::Http1),
        ("name: grpc", "{}", UpstreamProtocol::Http2),
        ("appProtocol: kubernetes.io/h2c", "{}", UpstreamProtocol::Http2),
        ("protocol: TCP", "{}", UpstreamProtocol::Downstream),
        ("name: http", "{h2UpgradePolicy: UPGRADE}", UpstreamProtocol::Http2),
        ("name: http", "{useClientProtocol: true}", UpstreamProtocol::Downstream),
        ("name: grpc", "{h2UpgradePolicy: DO_NOT_UPGRADE}", UpstreamProtocol::Http2),
    ] {
        let rule = istio(
            "DestinationRule",
            "x",
            &format!("{{host: x, trafficPolicy: {{connectionPool: {{http: {policy}}}}}}}"),
        );
        let mesh = run(&(service("x", &format!("[{{port: 80, {port}}}]")) + &rule)).mesh;
        assert_eq!(
            cluster(&mesh, "outbound|80||x.shop.svc.cluster.local").protocol,
            expected,
            "{port} {policy}"
        );
    }
}

#[test]
fn a_rule_is_found_in_the_namespace_of_client_then_service_then_root() {
    let rule = |namespace: &str, host: &str, connections: u32| {
        let spec = format!(
            "{{host: '{host}', trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}}}"
        );
        istio_in(namespace, "DestinationRule", &format!("r{connections}"), &spec)
    };
    let api = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: team}\nspec: {selector: {app: api}, ports: [{port: 80}]}\n";
    let host = "api.team.svc.cluster.local";
    let (client, owner, root) =
        (rule("shop", "*.svc.cluster.local", 1), rule("team", "api", 2), rule("istio-system", "*", 3));
    for (rules, expected) in [
        (format!("{client}{owner}{root}"), 1),
        (format!("{owner}{root}"), 2),
        (root.clone(), 3),
        (format!("{root}{}", rule("web", host, 4)), 3),
        (format!("{root}{}", owner.replace("{host:", "{exportTo: ['.'], host:")), 3),
    ] {
        let mesh = run(&format!("{api}{rules}")).mesh;
        assert_eq!(cluster(&mesh, &format!("outbound|80||{host}")).pool.max_connections, expected, "{rules}");
    }
}

#[test]
fn two_rules_of_one_host_are_united_and_the_first_policy_stays() {
    let one = istio(
        "DestinationRule",
        "a",
        "{host: cart, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}",
    );
    let two = istio(
        "DestinationRule",
        "b",
        "{host: cart.shop.svc.cluster.local, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}, subsets: [{name: v1, labels: {version: v1}}]}",
    );
    let output = run(&cart(&(two + &one)));
    assert_eq!(cluster(&output.mesh, &format!("outbound|80|v1|{CART}")).pool.max_connections, 1);
    let found = finding(&output, "destination-rules-merged");
    assert_eq!(found.object.as_ref().map(|key| &*key.name), Some("b"));
    assert!(
        found.message.contains("DestinationRule shop/a is also for") && found.message.contains("is ignored")
    );
}

#[test]
fn a_rule_for_selected_workloads_wins_for_them_alone() {
    let general =
        istio("DestinationRule", "a", "{host: cart, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    let selected = istio(
        "DestinationRule",
        "b",
        "{host: cart, workloadSelector: {matchLabels: {app: web}}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}",
    );
    for (app, expected) in [("web", Balance::RoundRobin), ("job", Balance::Random)] {
        let own = proxy(&format!("{{workload: {{labels: {{app: {app}}}}}}}"));
        let mesh = run(&cart(&format!("{general}{selected}{own}"))).mesh;
        assert_eq!(cluster(&mesh, &format!("outbound|80||{CART}")).balance, expected);
    }
}

#[test]
fn entries_say_where_their_endpoints_are() {
    let entry = |more: &str| {
        istio(
            "ServiceEntry",
            "api",
            &format!(
                "{{hosts: [api.example.com], ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}], {more}}}"
            ),
        )
    };
    let name = "outbound|80||api.example.com";
    let strict = |discovery: &Discovery| matches!(discovery, Discovery::StrictDns { .. });
    let logical = |discovery: &Discovery| matches!(discovery, Discovery::LogicalDns { .. });
    let listed = |discovery: &Discovery| *discovery == Discovery::Endpoints;
    type Is<'t> = &'t dyn Fn(&Discovery) -> bool;
    for (more, addresses_expected, is) in [
        (
            "resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 99}}, {address: 1.2.3.5}]",
            vec!["1.2.3.4:99", "1.2.3.5:8080"],
            &listed as Is<'_>,
        ),
        ("resolution: STATIC, endpoints: [{address: 'unix:///run/x'}]", vec!["/run/x"], &listed),
        ("resolution: DNS", vec!["api.example.com:8080"], &strict),
        ("resolution: DNS, endpoints: [{address: inner.example}]", vec!["inner.example:8080"], &strict),
        ("resolution: DNS_ROUND_ROBIN", vec!["api.example.com:8080"], &logical),
        ("resolution: NONE", vec!["api.example.com:80"], &logical),
        (
            "resolution: STATIC, workloadSelector: {labels: {app: cart}}",
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
            &listed,
        ),
    ] {
        let mesh = run(&cart(&entry(more))).mesh;
        assert_eq!(addresses(&mesh, name), addresses_expected, "{more}");
        assert!(is(&cluster(&mesh, name).discovery), "{more}: {:?}", cluster(&mesh, name).discovery);
    }
    let mesh = run(&(entry("resolution: NONE") + &proxy("{interception: REDIRECT}"))).mesh;
    assert_eq!(cluster(&mesh, name).discovery, Discovery::OriginalDestination);
}

#[test]
fn slices_and_external_names_give_endpoints() {
    let slice = "\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: shop, labels: {kubernetes.io/service-name: api}}\n\
                 addressType: IPv4\nports: [{name: http, port: 9000}]\nendpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}, \
                 {addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}]\n";
    let external = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: shop}\nspec: {type: ExternalName, externalName: api.example.com, ports: [{port: 80}]}\n";
    let output = run(&format!("{}{slice}{external}", service("api", "[{name: http, port: 80}]")));
    let endpoints = &output.mesh.endpoints["outbound|80||api.shop.svc.cluster.local"].endpoints;
    let states: Vec<_> = endpoints.iter().map(|one| (one.address.clone(), one.health)).collect();
    assert_eq!(
        states,
        [
            (EndpointAddress::Socket("10.1.0.1:9000".parse().unwrap()), crate::mesh::Health::Healthy),
            (EndpointAddress::Socket("10.1.0.3:9000".parse().unwrap()), crate::mesh::Health::Draining),
        ]
    );
    assert_eq!(addresses(&output.mesh, "outbound|80||ext.shop.svc.cluster.local"), ["api.example.com:80"]);
    assert!(codes(&output).is_empty(), "{:?}", output.findings);
}
