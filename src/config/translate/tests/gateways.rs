use super::{codes, finding, has_host, host, istio, istio_in, listener, proxy, run, service, targets_of};
use crate::mesh::ChainProtocol;
use filter_transform::Reply;

fn edge(servers: &str, more: &str) -> String {
    service("cart", "[{port: 80, name: http}]")
        + &istio("Gateway", "edge", &format!("{{selector: {{istio: edge}}, servers: {servers}}}"))
        + &proxy("{role: Gateway, workload: {labels: {istio: edge, more: x}}}")
        + more
}

fn route(name: &str, gateways: &str, hosts: &str, to: &str) -> String {
    istio("VirtualService", name, &format!("{{hosts: {hosts}, gateways: {gateways}, http: [{to}]}}"))
}

const TO_CART: &str = "{route: [{destination: {host: cart}}]}";

#[test]
fn a_server_lets_in_the_hosts_that_it_names() {
    for (hosts, wanted, expected) in [
        ("['*']", "[a.example]", Some("a.example")),
        ("['*.example']", "[a.example]", Some("a.example")),
        ("[a.example]", "['*.example']", Some("a.example")),
        ("['./*']", "[a.example]", Some("a.example")),
        ("['team/*']", "[a.example]", None),
        ("['shop/a.example']", "[A.example]", Some("a.example")),
        ("[b.example]", "[a.example]", None),
    ] {
        let servers = format!("[{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: {hosts}}}]");
        let mesh = run(&edge(&servers, &route("r", "[edge]", wanted, TO_CART))).mesh;
        let found: Vec<_> = mesh.routes["http.80"].hosts.iter().flat_map(|host| &host.domains).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{hosts} {wanted}");
        let ChainProtocol::Http(http) =
            &listener(&mesh, "0.0.0.0_80").default_chain.as_ref().unwrap().protocol
        else {
            panic!()
        };
        assert!(http.edge);
    }
}

#[test]
fn two_gateways_share_a_port_and_catch_alls_come_last() {
    let server = "[{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example]}]";
    let second = istio(
        "Gateway",
        "edge-b",
        "{selector: {}, servers: [{port: {number: 80, name: http, protocol: HTTP2}, hosts: [b.example]}]}",
    );
    let rules = route("a-all", "[edge]", "[a.example]", TO_CART)
        + &route("b-x", "[shop/edge]", "[a.example]", "{match: [{uri: {prefix: /x}}], redirect: {uri: /y}}")
        + &route("c", "[edge-b]", "[b.example]", TO_CART)
        + &route("d", "[mesh]", "[a.example]", TO_CART);
    let output = run(&edge(server, &(second + &rules)));
    let to_cart = "outbound|80||cart.shop.svc.cluster.local*1";
    assert_eq!(targets_of(&host(&output.mesh, "http.80", "a.example").routes), [["respond"], [to_cart]]);
    assert_eq!(targets_of(&host(&output.mesh, "http.80", "b.example").routes), [[to_cart]]);
    assert_eq!(output.mesh.listeners.len(), 1);
}

#[test]
fn tls_servers_stay_closed_and_redirects_are_answered() {
    let servers = "[{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: [a.example]}, \
                   {port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: [a.example]}]";
    let output = run(&edge(servers, &route("r", "[edge]", "[a.example]", TO_CART)));
    assert_eq!(finding(&output, "gateway-tls").field, "spec.servers[0]");
    assert_eq!(output.mesh.listeners.len(), 1);
    let routes = &host(&output.mesh, "http.80", "a.example").routes;
    let Some(Reply::Redirect(redirect)) = &routes[0].action.filters.transform[0].reply else { panic!() };
    assert_eq!((redirect.status, redirect.scheme.as_deref(), routes.len()), (301, Some("https"), 1));
}

#[test]
fn tcp_servers_follow_tcp_routes() {
    let servers = "[{port: {number: 5432, name: tcp, protocol: TCP}, hosts: ['*']}, {port: {number: 5432, name: http, protocol: HTTP}, hosts: ['*']}]";
    let tcp = istio(
        "VirtualService",
        "t",
        "{hosts: ['*'], gateways: [edge], tcp: [{match: [{port: 5432}], route: [{destination: {host: cart, port: {number: 80}}}]}]}",
    );
    let output = run(&edge(servers, &tcp));
    assert!(matches!(
        listener(&output.mesh, "0.0.0.0_5432").default_chain.as_ref().unwrap().protocol,
        ChainProtocol::Tcp(_)
    ));
    assert_eq!(finding(&output, "listener-conflict").field, "spec.servers[1]");
}

#[test]
fn gateways_and_routes_that_miss_each_other_are_named() {
    let output = run(&(istio(
        "Gateway",
        "edge",
        "{selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
    ) + &istio_in(
        "team",
        "VirtualService",
        "v",
        &format!("{{hosts: [a.example], gateways: [edge], http: [{TO_CART}]}}"),
    )));
    assert!(codes(&output).contains(&"gateway-unused"));
    assert!(finding(&output, "gateway-unknown").message.contains("no Gateway team/edge"));
    assert!(!has_host(&output.mesh, "outbound", "a.example"));
}

#[test]
fn a_proxy_protocol_header_is_believed_from_those_that_the_proxy_names() {
    let servers = "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}, \
                   {port: {number: 5432, name: tcp, protocol: TCP}, hosts: ['*']}]";
    let with = |from: &str| {
        let mesh = "meshConfig: {defaultConfig: {gatewayTopology: {proxyProtocol: {}}}}";
        let own = proxy(&format!(
            "{{role: Gateway, workload: {{labels: {{istio: edge}}}}, {mesh}, gateway: {{proxyProtocolFrom: {from}}}}}"
        ));
        let gateway = istio("Gateway", "edge", &format!("{{selector: {{istio: edge}}, servers: {servers}}}"));
        run(&(gateway + &own + &route("r", "[edge]", "['*']", "{redirect: {uri: /}}")))
    };
    let output = with("[10.0.0.0/8, '2001:db8::1']");
    for name in ["0.0.0.0_80", "0.0.0.0_5432"] {
        let from = &listener(&output.mesh, name).proxy_protocol.as_ref().unwrap().from;
        let from: Vec<_> = from.iter().map(ToString::to_string).collect();
        assert_eq!(from, ["10.0.0.0/8", "2001:db8::1/128"], "{name}");
    }
    let nobody = with("[]");
    assert_eq!(listener(&nobody.mesh, "0.0.0.0_80").proxy_protocol.as_ref().unwrap().from, []);
    assert_eq!(finding(&nobody, "proxy-protocol").field, "spec.gateway.proxyProtocolFrom");
    let plain = run(&edge(servers, ""));
    assert_eq!(listener(&plain.mesh, "0.0.0.0_80").proxy_protocol, None);
}
