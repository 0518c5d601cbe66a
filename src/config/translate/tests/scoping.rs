use super::{cluster, finding, has_host, host, istio, istio_in, proxy, run, service, targets_of};

fn team() -> String {
    service("cart", "[{port: 80}]")
        + &service("cart", "[{port: 80}]").replace("shop", "team").replace("cart", "api")
}

#[test]
fn a_sidecar_narrows_what_is_seen() {
    for (hosts, cart, api) in [
        ("['./*']", true, false),
        ("['*/*']", true, true),
        ("['team/*']", false, true),
        ("['~/*']", false, false),
        ("['*/api.team.svc.cluster.local']", false, true),
        ("['*/*.shop.svc.cluster.local']", true, false),
    ] {
        let output =
            run(&(team() + &istio("Sidecar", "default", &format!("{{egress: [{{hosts: {hosts}}}]}}"))));
        assert_eq!(has_host(&output.mesh, "outbound", "cart"), cart, "{hosts}");
        assert_eq!(has_host(&output.mesh, "outbound", "api.team"), api, "{hosts}");
        assert_eq!(
            output.mesh.clusters.contains_key("outbound|80||api.team.svc.cluster.local"),
            api,
            "{hosts}"
        );
    }
}

#[test]
fn the_sidecar_of_the_workload_wins_over_namespace_and_root() {
    let root = istio_in(
        "istio-system",
        "Sidecar",
        "root",
        "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ['~/*']}]}",
    );
    let namespace = istio("Sidecar", "default", "{egress: [{hosts: ['./*']}]}");
    let own = istio("Sidecar", "own", "{workloadSelector: {labels: {app: web}}, egress: [{hosts: ['*/*']}]}");
    let me = proxy("{workload: {labels: {app: web}}}");
    for (sidecars, cart, api) in [
        (format!("{root}{namespace}{own}"), true, true),
        (format!("{root}{namespace}"), true, false),
        (root.clone(), false, false),
    ] {
        let mesh = run(&(team() + &sidecars + &me)).mesh;
        assert_eq!(
            (has_host(&mesh, "outbound", "cart"), has_host(&mesh, "outbound", "api.team")),
            (cart, api),
            "{sidecars}"
        );
    }
}

#[test]
fn what_is_not_exported_is_not_seen() {
    let hidden = team().replace(
        "name: api, namespace: team",
        "name: api, namespace: team, annotations: {networking.istio.io/exportTo: '.'}",
    );
    assert!(!has_host(&run(&hidden).mesh, "outbound", "api.team"));
    let rule = |export: &str| {
        istio_in(
            "team",
            "VirtualService",
            "v",
            &format!("{{exportTo: [{export}], hosts: [api], http: [{{redirect: {{uri: /x}}}}]}}"),
        )
    };
    for (export, redirected) in [("'*'", true), ("'.'", false), ("shop", true), ("web", false)] {
        let mesh = run(&(team() + &rule(export))).mesh;
        let routes = targets_of(&host(&mesh, "outbound", "api.team").routes);
        assert_eq!(routes == [["respond"]], redirected, "{export}");
    }
}

#[test]
fn a_destination_of_an_imported_route_gets_a_cluster_without_being_imported() {
    let sidecar = istio("Sidecar", "default", "{egress: [{hosts: ['./*']}]}");
    let route = istio(
        "VirtualService",
        "v",
        "{hosts: [cart], http: [{route: [{destination: {host: api.team.svc.cluster.local}}]}]}",
    );
    let mesh = run(&(team() + &sidecar + &route)).mesh;
    assert!(!has_host(&mesh, "outbound", "api.team"));
    cluster(&mesh, "outbound|80||api.team.svc.cluster.local");
}

#[test]
fn a_service_of_kubernetes_keeps_its_host() {
    let entry = istio_in(
        "team",
        "ServiceEntry",
        "grab",
        "{hosts: [cart.shop.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 6.6.6.6}]}",
    );
    let output = run(&(team() + &entry));
    assert!(output.mesh.endpoints["outbound|80||cart.shop.svc.cluster.local"].endpoints.is_empty());
    assert!(finding(&output, "service-host-taken").message.contains("Service shop/cart"));
}

#[test]
fn an_unknown_host_of_a_sidecar_is_an_error() {
    // The loader refuses it too; this is what is said when it comes another way.
    let mut resources =
        super::load(&(team() + &istio("Sidecar", "default", "{egress: [{hosts: ['./*']}]}") + &proxy("{}")));
    for resource in &mut resources {
        let resource = std::sync::Arc::get_mut(resource).unwrap();
        if let crate::config::resources::Spec::Sidecar(sidecar) = &mut resource.spec {
            sidecar.egress[0].hosts = vec!["cart".to_owned()];
        }
    }
    assert_eq!(finding(&super::run_on(&resources), "sidecar-host").field, "spec.egress[0].hosts[0]");
}
