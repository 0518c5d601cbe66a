use super::{addresses, codes, has_host, host, istio, proxy, run, targets_of};

const WEB: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80, name: http, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.1], hostname: web-0}
- {addresses: [10.0.0.2], hostname: web-1}
- {addresses: [10.0.0.3], hostname: web-2, conditions: {ready: false}}
- {addresses: [10.0.0.4]}
";

fn pod(name: &str) -> String {
    format!("outbound|80||{name}.web.shop.svc.cluster.local")
}

#[test]
fn a_pod_of_a_headless_service_is_called_by_its_own_name() {
    let mesh = run(WEB).mesh;
    for (name, expected) in
        [("web-0", vec!["10.0.0.1:8080"]), ("web-1", vec!["10.0.0.2:8080"]), ("web-2", vec![])]
    {
        assert_eq!(addresses(&mesh, &pod(name)), expected, "{name}");
        for domain in ["web", "web:80", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local:80"] {
            let found = host(&mesh, "outbound", &format!("{name}.{domain}"));
            assert_eq!(targets_of(&found.routes), [[format!("{}*1", pod(name))]], "{name}.{domain}");
        }
    }
    let all = "outbound|80||web.shop.svc.cluster.local";
    assert_eq!(addresses(&mesh, all), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.4:8080"]);
    for domain in ["web", "*.web"] {
        assert_eq!(targets_of(&host(&mesh, "outbound", domain).routes), [[format!("{all}*1")]], "{domain}");
    }
}

#[test]
fn names_of_pods_are_for_addressed_traffic_to_headless_services_without_rules() {
    let captured = run(&(WEB.to_owned() + &proxy("{interception: REDIRECT}"))).mesh;
    assert!(!captured.clusters.contains_key(pod("web-0").as_str()), "its destination says which");
    let listed = run(&WEB.replace("clusterIP: None, ", "")).mesh;
    assert!(
        !listed.clusters.contains_key(pod("web-0").as_str()) && !has_host(&listed, "outbound", "web-0.web")
    );
    let rule =
        istio("VirtualService", "web", "{hosts: [web], http: [{route: [{destination: {host: web}}]}]}");
    let ruled = run(&(WEB.to_owned() + &rule));
    assert!(!has_host(&ruled.mesh, "outbound", "web-0.web"), "the rules hold for all pods");
    assert_eq!(codes(&ruled), [""; 0]);
}
