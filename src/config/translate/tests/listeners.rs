use super::{addresses, codes, finding, has_host, host, istio, listener, proxy, run, service, targets_of};
use crate::mesh::{ChainProtocol, TcpChain, TcpTarget};

const REDIRECT: &str = "{interception: REDIRECT, workload: {labels: {app: me}}}";

fn target(chain: &TcpChain) -> &str {
    match &chain.target {
        TcpTarget::Clusters(clusters) => &clusters[0].cluster,
        TcpTarget::Refuse => "refuse",
    }
}

fn with_address(service: &str, address: &str) -> String {
    service.replace("spec: {", &format!("spec: {{clusterIP: {address}, "))
}

#[test]
fn captured_tcp_goes_by_address_and_captured_http_by_port() {
    let yaml = with_address(&service("db", "[{port: 5432, name: tcp-db}]"), "10.0.0.5")
        + &with_address(&service("web", "[{port: 80, name: http}]"), "10.0.0.6")
        + &with_address(&service("any", "[{port: 80}]"), "10.0.0.7")
        + &istio(
            "ServiceEntry",
            "net",
            "{hosts: [net.example], addresses: [10.9.0.0/16], resolution: NONE, ports: [{number: 5432, name: tcp, protocol: TCP}]}",
        )
        + &istio(
            "ServiceEntry",
            "tls",
            "{hosts: [a.example], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}",
        )
        + &proxy(REDIRECT);
    let output = run(&yaml);
    let mesh = &output.mesh;
    let names: Vec<_> = mesh.listeners.keys().map(|name| &**name).collect();
    assert_eq!(
        names,
        [
            "0.0.0.0_443",
            "0.0.0.0_5432",
            "0.0.0.0_80",
            "10.0.0.5_5432",
            "10.0.0.7_80",
            "virtualInbound",
            "virtualOutbound"
        ]
    );
    let Some(ChainProtocol::Tcp(db)) =
        listener(mesh, "10.0.0.5_5432").default_chain.as_ref().map(|one| &one.protocol)
    else {
        panic!()
    };
    assert_eq!(target(db), "outbound|5432||db.shop.svc.cluster.local");
    let block = &listener(mesh, "0.0.0.0_5432").chains[0];
    assert_eq!(block.matches.destinations[0].to_string(), "10.9.0.0/16");
    assert_eq!(listener(mesh, "0.0.0.0_443").chains[0].matches.server_names, ["a.example"]);
    // A port that says nothing is detected, at its own address with a table of its own.
    let Some(ChainProtocol::Detect { http, tcp }) =
        listener(mesh, "10.0.0.7_80").default_chain.as_ref().map(|one| &one.protocol)
    else {
        panic!()
    };
    assert_eq!(
        (&*http.routes, target(tcp)),
        ("any.shop.svc.cluster.local:80", "outbound|80||any.shop.svc.cluster.local")
    );
    assert_eq!(host(mesh, "any.shop.svc.cluster.local:80", "*").routes.len(), 1);
    assert!(has_host(mesh, "80", "10.0.0.6") && has_host(mesh, "80", "*"));
    let Some(ChainProtocol::Detect { tcp, .. }) =
        listener(mesh, "0.0.0.0_80").default_chain.as_ref().map(|one| &one.protocol)
    else {
        panic!()
    };
    assert_eq!(target(tcp), "PassthroughCluster");
}

#[test]
fn registry_only_lets_nothing_unknown_out() {
    for (sidecar, own, mesh_config, refused) in [
        ("", "", "", false),
        ("", "", "meshConfig: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", true),
        (
            "",
            "outbound: {policy: ALLOW_ANY}",
            "meshConfig: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}",
            false,
        ),
        ("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", "outbound: {policy: ALLOW_ANY}", "", true),
    ] {
        let fields = [own, mesh_config]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| format!(", {text}"))
            .collect::<String>();
        let sidecar = if sidecar.is_empty() { String::new() } else { istio("Sidecar", "default", sidecar) };
        let output = run(&(service("web", "[{port: 80, name: http}]")
            + &sidecar
            + &proxy(&format!("{{interception: REDIRECT{fields}}}"))));
        let unknown = &listener(&output.mesh, "virtualOutbound").default_chain.as_ref().unwrap().protocol;
        assert_eq!(matches!(unknown, ChainProtocol::Refuse(_)), refused, "{sidecar} {fields}");
        let catch_all = host(&output.mesh, "80", "*");
        assert_eq!(
            (&*catch_all.name, targets_of(&catch_all.routes) == [["respond"]]),
            (if refused { "block_all" } else { "allow_any" }, refused)
        );
    }
}

#[test]
fn services_that_cannot_be_told_apart_are_named() {
    let output = run(&(service("a", "[{port: 5432, name: tcp}]")
        + &service("b", "[{port: 5432, name: tcp}]")
        + &service("c", "[{port: 5432, name: http}]")
        + &proxy(REDIRECT)));
    let Some(ChainProtocol::Tcp(chain)) =
        listener(&output.mesh, "0.0.0.0_5432").default_chain.as_ref().map(|one| &one.protocol)
    else {
        panic!()
    };
    assert_eq!(target(chain), "outbound|5432||a.shop.svc.cluster.local");
    let found: Vec<_> = output
        .findings
        .iter()
        .filter(|one| one.code == "listener-conflict")
        .filter_map(|one| one.object.as_ref())
        .map(|key| &*key.name)
        .collect();
    assert_eq!(found, ["b", "c"]);
}

#[test]
fn tcp_and_tls_routes_choose_their_clusters() {
    let tcp = istio(
        "VirtualService",
        "db",
        "{hosts: [db], tcp: [{match: [{destinationSubnets: [10.1.0.0/16], sourceSubnet: 10.2.0.0/16}], route: [{destination: {host: one}}]}, {route: [{destination: {host: two}, weight: 1}, {destination: {host: one}, weight: 3}]}]}",
    );
    let tls = istio(
        "VirtualService",
        "tls",
        "{hosts: ['*.example'], tls: [{match: [{sniHosts: [b.example]}], route: [{destination: {host: two}}]}]}",
    );
    let entry = istio(
        "ServiceEntry",
        "tls",
        "{hosts: ['*.example'], resolution: NONE, ports: [{number: 443, name: tls, protocol: TLS}]}",
    );
    let ports = "[{port: 5432, name: tcp}]";
    let yaml = with_address(&service("db", ports), "10.0.0.5")
        + &service("one", ports)
        + &service("two", "[{port: 9, name: tcp}]")
        + &tcp
        + &tls
        + &entry;
    let mesh = run(&(yaml.clone() + &proxy(REDIRECT))).mesh;
    let db = listener(&mesh, "10.0.0.5_5432");
    assert_eq!((db.chains[0].matches.destinations.len(), db.chains[0].matches.sources.len()), (1, 1));
    let ChainProtocol::Tcp(first) = &db.chains[0].protocol else { panic!() };
    assert_eq!(target(first), "outbound|5432||one.shop.svc.cluster.local");
    let Some(ChainProtocol::Tcp(rest)) = db.default_chain.as_ref().map(|one| &one.protocol) else { panic!() };
    assert_eq!(target(rest), "outbound|9||two.shop.svc.cluster.local");
    assert_eq!(listener(&mesh, "0.0.0.0_443").chains[0].matches.server_names, ["b.example"]);
    let explicit = run(&yaml).mesh;
    let chain = &listener(&explicit, "outbound").chains[0];
    assert_eq!(chain.matches.server_names, ["b.example"]);
    let ChainProtocol::Tcp(flow) = &chain.protocol else { panic!() };
    assert_eq!(target(flow), "outbound|9||two.shop.svc.cluster.local");
}

#[test]
fn without_port_a_host_means_80_or_its_lowest() {
    let mesh = run(&(service("two", "[{port: 8080, name: http-a}, {port: 80, name: http-b}]")
        + &service("high", "[{port: 9000, name: http-a}, {port: 8000, name: web}, {port: 1, name: tcp}]")))
    .mesh;
    for (domain, port) in [
        ("two", 80),
        ("two:8080", 8080),
        ("high", 8000),
        ("high:9000", 9000),
        ("high.shop.svc.cluster.local", 8000),
    ] {
        let name = domain.split([':', '.']).next().unwrap();
        assert_eq!(
            targets_of(&host(&mesh, "outbound", domain).routes),
            [[format!("outbound|{port}||{name}.shop.svc.cluster.local*1")]]
        );
    }
    assert!(!has_host(&mesh, "outbound", "high:1") && !has_host(&mesh, "outbound", "*"));
    assert!(!mesh.routes["outbound"].ignore_port);
}

#[test]
fn inbound_ports_come_from_the_services_of_the_workload() {
    let yaml = service(
        "me",
        "[{port: 80, name: http, targetPort: 8080}, {port: 5432, name: tcp, targetPort: 5433}, {port: 90, name: http-c, targetPort: named}]",
    ) + &service("alias", "[{port: 8000, name: grpc, targetPort: 8080}]")
        .replace("app: alias", "app: me")
        + &service("other", "[{port: 80, targetPort: 7}]");
    let mesh =
        run(&(yaml.clone()
            + &proxy("{workload: {labels: {app: me}}, inbound: {application: '127.0.0.1:9080'}}")))
        .mesh;
    for (domain, expected) in [
        ("me", "inbound|8080||"),
        ("me:80", "inbound|8080||"),
        ("alias", "inbound|8080||"),
        ("alias.shop:8000", "inbound|8080||"),
        ("*", "inbound|9080||"),
    ] {
        assert_eq!(
            targets_of(&host(&mesh, "inbound", domain).routes),
            [[format!("{expected}*1")]],
            "{domain}"
        );
    }
    assert!(!has_host(&mesh, "inbound", "other"));
    assert_eq!(addresses(&mesh, "inbound|9080||"), ["127.0.0.1:9080"]);
    let captured = run(&(yaml + &proxy(REDIRECT)));
    let inbound = listener(&captured.mesh, "virtualInbound");
    let chains: Vec<_> =
        inbound.chains.iter().map(|chain| (chain.matches.destination_port.unwrap(), &*chain.name)).collect();
    assert_eq!(chains, [(15006, "virtualInbound-blackhole"), (8080, "0.0.0.0_8080"), (5433, "0.0.0.0_5433")]);
    assert!(codes(&captured).contains(&"target-port-unknown"));
    assert_eq!(host(&captured.mesh, "InboundPassthroughCluster", "*").routes.len(), 1);
}

#[test]
fn the_ingress_of_a_sidecar_replaces_the_services() {
    let yaml = service("me", "[{port: 80, name: http, targetPort: 8080}]")
        + &istio(
            "Sidecar",
            "s",
            "{workloadSelector: {labels: {app: me}}, ingress: [{port: {number: 9999, protocol: HTTP, name: a}, defaultEndpoint: 'unix:///run/app'}, {port: {number: 7777, protocol: TCP, name: b}, bind: 127.0.0.1, captureMode: NONE, defaultEndpoint: '0.0.0.0:7'}]}",
        );
    let mesh = run(&(yaml + &proxy(REDIRECT))).mesh;
    assert_eq!(addresses(&mesh, "inbound|9999||"), ["/run/app"]);
    assert_eq!(addresses(&mesh, "inbound|7777||"), ["127.0.0.1:7"]);
    assert!(!mesh.clusters.contains_key("inbound|8080||"));
    let bound = listener(&mesh, "127.0.0.1_7777");
    assert!(bound.bound && bound.interception.is_none());
    assert!(matches!(bound.default_chain.as_ref().unwrap().protocol, ChainProtocol::Tcp(_)));
}

#[test]
fn an_egress_listener_has_its_port_and_hosts() {
    let yaml = service("a", "[{port: 80, name: http}]")
        + &service("b", "[{port: 80, name: http}, {port: 81, name: http-b}]")
        + &service("db", "[{port: 5432, name: tcp}]");
    let sidecar = istio(
        "Sidecar",
        "default",
        "{egress: [{port: {number: 81, protocol: HTTP, name: x}, hosts: ['./b.shop.svc.cluster.local']}, {port: {number: 6000, protocol: TCP, name: y}, bind: 127.0.0.1, hosts: ['./db.shop.svc.cluster.local']}, {hosts: ['./a.shop.svc.cluster.local']}]}",
    );
    let explicit = run(&(yaml.clone() + &sidecar)).mesh;
    assert!(listener(&explicit, "127.0.0.1_81").bound && has_host(&explicit, "81", "b"));
    assert!(has_host(&explicit, "outbound", "a") && !has_host(&explicit, "outbound", "b"));
    let Some(ChainProtocol::Tcp(db)) =
        listener(&explicit, "127.0.0.1_6000").default_chain.as_ref().map(|one| &one.protocol)
    else {
        panic!()
    };
    assert_eq!(target(db), "outbound|5432||db.shop.svc.cluster.local");
    let captured = run(&(yaml + &sidecar + &proxy(REDIRECT))).mesh;
    assert!(!listener(&captured, "0.0.0.0_81").bound && has_host(&captured, "81", "*"));
    assert!(has_host(&captured, "80", "a") && !has_host(&captured, "80", "b"));
}

#[test]
fn a_wrong_address_of_the_proxy_is_an_error() {
    let mut resources = super::load(&proxy("{}"));
    if let crate::config::resources::Spec::Proxy(own) =
        &mut std::sync::Arc::get_mut(&mut resources[0]).unwrap().spec
    {
        own.outbound.addresses = vec!["nowhere".to_owned()];
    }
    assert_eq!(finding(&super::run_on(&resources), "address").field, "spec.outbound.addresses[0]");
}
