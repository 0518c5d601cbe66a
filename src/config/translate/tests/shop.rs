use super::{addresses, check, cluster, codes, has_host, host, load, proxy, run, targets_of, workload};
use crate::mesh::{ChainProtocol, Discovery, LogFormat, PathMatch, UpstreamProtocol};

const ISTIO: &str = include_str!("../../../../config/demo/shop/istio.yaml");
const KUBERNETES: &str = include_str!("../../../../config/demo/shop/kubernetes.yaml");
const PRODUCT: &str = "product-service.ecommerce.svc.cluster.local";

fn shop(more: &str) -> String {
    let services: String = ["order-service", "user-service", "payment-service", "inventory-service"]
        .iter()
        .map(|name| super::service(name, "[{port: 80, targetPort: 8080}]"))
        .collect();
    format!(
        "{ISTIO}\n---\n{KUBERNETES}{}{}",
        services.replace("namespace: shop", "namespace: ecommerce"),
        more.replace("namespace: shop", "namespace: ecommerce")
    )
}

#[test]
fn the_shop_runs_as_it_is() {
    let workloads = workload("p1", "product-service", "v1", "127.0.0.11")
        + &workload("p2", "product-service", "v2", "127.0.0.12");
    let output = run(&shop(&(proxy("{workload: {labels: {app: product-service}}}") + &workloads)));
    let mesh = &output.mesh;
    let product = host(mesh, "outbound", "product-service");
    assert_eq!(product.name.as_ref(), format!("{PRODUCT}:80"));
    for domain in
        ["product-service:80", "product-service.ecommerce", "product-service.ecommerce.svc:80", PRODUCT]
    {
        assert!(product.domains.iter().any(|one| one == domain), "{domain}");
    }
    assert_eq!(
        targets_of(&product.routes),
        [[format!("outbound|80|v2|{PRODUCT}*1")], [format!("outbound|80|v1|{PRODUCT}*1")]]
    );
    let names: Vec<_> = product.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["v2-routes", "v1-routes"]);
    let payment = host(mesh, "outbound", "payment-service");
    assert_eq!(payment.routes[0].action.filters.timeout[0].total.as_secs(), 3);
    assert_eq!(&*host(mesh, "outbound", "order-service").routes[0].name, "default");

    let v1 = cluster(mesh, &format!("outbound|80|v1|{PRODUCT}"));
    assert_eq!(
        (v1.pool.max_connections, v1.pool.max_pending, v1.pool.max_requests_per_connection),
        (100, 25, 10)
    );
    assert_eq!((v1.protocol, &v1.discovery), (UpstreamProtocol::Downstream, &Discovery::Endpoints));
    assert_eq!(addresses(mesh, &v1.name), ["127.0.0.11:8080"]);
    assert_eq!(addresses(mesh, &format!("outbound|80||{PRODUCT}")).len(), 2);

    let inbound = host(mesh, "inbound", "product-service");
    assert_eq!(targets_of(&inbound.routes), [["inbound|8080||*1"]]);
    assert_eq!(addresses(mesh, "inbound|8080||"), ["127.0.0.1:8080"]);
    let own = cluster(mesh, "inbound|8080||");
    assert_eq!((own.source_address, own.pool.max_connections), (None, 100));
    assert_eq!(mesh.listeners.len(), 2);
    assert_eq!(mesh.telemetry.access_logs.len(), 1);
    assert_eq!(mesh.telemetry.access_logs[0].format, LogFormat::Text);
    assert_eq!(mesh.routes["outbound"].hosts.len(), 5, "no catch-all: an unknown host is refused");
}

#[test]
fn the_conflicts_of_the_shop_are_found() {
    let findings = check(&load(&format!("{ISTIO}\n---\n{KUBERNETES}")));
    let has = |code: &str, words: &[&str]| {
        let found = findings
            .iter()
            .any(|one| one.code == code && words.iter().all(|word| one.to_string().contains(word)));
        assert!(
            found,
            "{code} {words:?} in {}",
            findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        );
    };
    has(
        "virtual-services-merged",
        &["product-service-rollout", "product-service-canary", PRODUCT, "test.yaml:"],
    );
    has(
        "rule-shadowed",
        &["product-service-rollout", "rule `v1-routes` (spec.http[1])", "product-service-canary"],
    );
    has("destination-rules-merged", &["product-service-versions", "product-service-circuit-breaker"]);
    has("subset-empty", &["subset `v1`", "version: v1"]);
    has("subset-empty", &["subset `v2`"]);
    has("destination-unknown", &["order-service.ecommerce.svc.cluster.local"]);
    has("destination-unknown", &["shipping-service.ecommerce-test.svc.cluster.local"]);
    has("gateway-unused", &["istio: ingressgateway"]);
    let mut seen = std::collections::HashSet::new();
    assert!(findings.iter().all(|one| seen.insert(one.to_string())), "each finding once");
}

#[test]
fn captured_traffic_of_the_shop_looks_as_istiod_makes_it() {
    let output = run(&shop(&proxy("{interception: REDIRECT, workload: {labels: {app: product-service}}}")));
    let mesh = &output.mesh;
    let names: Vec<_> = mesh.listeners.keys().map(|name| &**name).collect();
    assert_eq!(names, ["0.0.0.0_80", "virtualInbound", "virtualOutbound"]);
    let table = &mesh.routes["80"];
    let names: Vec<_> = table.hosts.iter().map(|host| &*host.name).collect();
    assert_eq!(names.last(), Some(&"allow_any"));
    assert_eq!(
        host(mesh, "80", "product-service").domains.iter().collect::<Vec<_>>(),
        [
            PRODUCT,
            &format!("{PRODUCT}."),
            "product-service",
            "product-service.ecommerce.svc",
            "product-service.ecommerce"
        ]
    );
    assert!(table.ignore_port);
    assert_eq!(mesh.clusters["inbound|8080||"].source_address.unwrap().to_string(), "127.0.0.6");
    for name in ["PassthroughCluster", "InboundPassthroughCluster"] {
        assert_eq!(mesh.clusters[name].discovery, Discovery::OriginalDestination);
    }
    let inbound = &mesh.listeners["virtualInbound"];
    let ports: Vec<_> = inbound.chains.iter().filter_map(|chain| chain.matches.destination_port).collect();
    assert_eq!(ports, [15006, 8080]);
    assert!(matches!(inbound.chains[1].protocol, ChainProtocol::Detect { .. }));
    assert!(mesh.listeners["virtualOutbound"].hand_over && !mesh.listeners["0.0.0.0_80"].bound);
}

#[test]
fn the_gateway_of_the_shop_serves_its_host_alone() {
    let own =
        proxy("{role: Gateway, gateway: {ports: {'80': 8080}}, workload: {labels: {istio: ingressgateway}}}");
    let output = run(&shop(&own));
    let mesh = &output.mesh;
    assert_eq!(mesh.listeners.keys().map(|name| &**name).collect::<Vec<_>>(), ["0.0.0.0_8080"]);
    let api = host(mesh, "http.8080", "api.ecommerce.example.com");
    let paths: Vec<_> = api.routes.iter().map(|route| route.matches.path.clone()).collect();
    assert_eq!(paths[0], PathMatch::Prefix("/api/products".to_owned()));
    assert_eq!(targets_of(&api.routes[..1]), [[format!("outbound|80||{PRODUCT}*1")]]);
    assert!(!has_host(mesh, "http.8080", "product-service"));
    assert!(!codes(&output).contains(&"gateway-unused"));
    assert!(!codes(&output).contains(&"rule-shadowed"), "the rules of sidecars do not hold here");
}
