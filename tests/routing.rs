//! Which request goes where: the shop of the demo, and every kind of match and action.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use support::objects::{destination_rule, service, virtual_service};
use support::{Client1, Proxy, Raw, Upstream, empty, fetch, free_port, full, get, request};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/shop/");

/// The shop's own files, a proxy in its namespace, and product workloads `v1` and `v2` at these addresses.
async fn shop(v1: &Upstream, v2: &Upstream) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(format!("{SHOP}{name}")).unwrap();
    let own = support::proxy::own("workers: 2").replace("namespace: shop", "namespace: ecommerce");
    std::fs::write(folder.path().join("proxy.yaml"), own).unwrap();
    std::fs::write(folder.path().join("kubernetes.yaml"), read("kubernetes.yaml")).unwrap();
    // The canary stands in a file of its own, to be taken away.
    let istio = read("istio.yaml");
    // Its log goes to standard output, which is the test runner's.
    let istio: Vec<_> = istio.split("\n---\n").filter(|object| !object.contains("kind: Telemetry")).collect();
    let (canary, rest): (Vec<_>, Vec<_>) =
        istio.into_iter().partition(|object| object.contains("name: product-service-canary"));
    std::fs::write(folder.path().join("canary.yaml"), canary.join("\n---\n")).unwrap();
    std::fs::write(folder.path().join("istio.yaml"), rest.join("\n---\n")).unwrap();
    let entry = |version: &str, up: &Upstream| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: product-{version}, namespace: ecommerce}}
spec:
  address: {}
  ports: {{http: {}}}
  labels: {{app: product-service, version: {version}}}
",
            up.address.ip(),
            up.address.port()
        )
    };
    // The demo's Service has no named port, so that the workloads' own port is told by this one.
    let service = "
apiVersion: v1
kind: Service
metadata: {name: product-service, namespace: ecommerce}
spec:
  selector: {app: product-service}
  ports: [{name: http, port: 80, targetPort: 8080}]
";
    let kubernetes = read("kubernetes.yaml");
    let objects = kubernetes.split("\n---\n").filter(|object| !object.contains("kind: Service\n"));
    std::fs::write(folder.path().join("kubernetes.yaml"), objects.collect::<Vec<_>>().join("\n---\n"))
        .unwrap();
    std::fs::write(
        folder.path().join("workloads.yaml"),
        format!("{service}{}{}", entry("v1", v1), entry("v2", v2)),
    )
    .unwrap();
    Proxy::over(folder).await
}

async fn counts(client: &mut Client1, requests: usize, headers: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = client.exchange(request("GET", "product-service", "/", headers, empty())).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        *counts.entry(reply.header("x-upstream").to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn the_shops_canary_takes_its_header_and_its_removal_leaves_ninety_to_ten() {
    let (v1, v2) = (Upstream::named("v1").await, Upstream::named("v2").await);
    let proxy = shop(&v1, &v2).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    let all = |name: &str, count| BTreeMap::from([(name.to_owned(), count)]);
    assert_eq!(
        counts(&mut client, 50, &[("x-canary", "true")]).await,
        all("v2", 50),
        "{}",
        proxy.complaints()
    );
    assert_eq!(counts(&mut client, 50, &[("x-canary", "false")]).await, all("v1", 50));
    assert_eq!(counts(&mut client, 50, &[]).await, all("v1", 50));
    proxy.remove("canary.yaml").await;
    let split = counts(&mut client, 2000, &[("x-canary", "true")]).await;
    // 200 of 2000 with a deviation of 13.4: beyond six of them once in 500 million runs.
    let canary = split["v2"];
    assert!((120..=280).contains(&canary), "{split:?}");
    assert_eq!(split["v1"] + canary, 2000);
}

#[tokio::test]
async fn a_service_answers_to_all_of_its_names() {
    let (v1, v2) = (Upstream::named("v1").await, Upstream::named("v2").await);
    let proxy = shop(&v1, &v2).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for host in [
        "product-service",
        "product-service:80",
        "PRODUCT-Service",
        "product-service.ecommerce",
        "product-service.ecommerce.svc",
        "product-service.ecommerce.svc.cluster.local",
        "Product-Service.Ecommerce.svc.cluster.local.:80",
    ] {
        let reply = client.exchange(get(host, "/")).await;
        assert_eq!(reply.status, 200, "{host}: {}", reply.text());
        assert_eq!(reply.upstream(), "v1", "{host}");
    }
    for host in ["product-service:81", "product-service.other", "unknown"] {
        assert_eq!(client.exchange(get(host, "/")).await.status, 404, "{host}");
    }
}

async fn routed(rules: &str) -> (Proxy, Upstream, Upstream) {
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let objects = service("one.shop", "HTTP", &[one.address])
        + &service("two.shop", "HTTP", &[two.address])
        + &virtual_service("one.shop", rules);
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    (proxy, one, two)
}

#[tokio::test]
async fn rules_match_by_path_method_header_and_query_in_their_order() {
    let rules = "
http:
- match: [{uri: {exact: /exact}}, {uri: {regex: '/users/[0-9]+'}}]
  route: [{destination: {host: two.shop}}]
- match: [{uri: {prefix: /api/}, method: {exact: POST}}]
  route: [{destination: {host: two.shop}}]
- match: [{headers: {x-user: {prefix: beta-}}, withoutHeaders: {x-stable: {}}}]
  route: [{destination: {host: two.shop}}]
- match: [{queryParams: {version: {exact: '2'}}}, {queryParams: {version: {regex: '3[.].*'}}}]
  route: [{destination: {host: two.shop}}]
- match: [{uri: {prefix: /CASE}, ignoreUriCase: true}]
  route: [{destination: {host: two.shop}}]
- route: [{destination: {host: one.shop}}]
";
    let (proxy, _one, _two) = routed(rules).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for (method, path, headers, upstream) in [
        ("GET", "/exact", &[][..], "two"),
        ("GET", "/exact/", &[], "one"),
        ("GET", "/exact?q=1", &[], "two"),
        ("GET", "/users/42", &[], "two"),
        ("GET", "/users/42/x", &[], "one"),
        ("GET", "/a/users/42", &[], "one"),
        ("POST", "/api/x", &[], "two"),
        ("GET", "/api/x", &[], "one"),
        ("POST", "/api", &[], "one"),
        ("GET", "/", &[("x-user", "beta-7")], "two"),
        ("GET", "/", &[("x-user", "beta-7"), ("x-stable", "yes")], "one"),
        ("GET", "/", &[("x-user", "alpha")], "one"),
        ("GET", "/?version=2", &[], "two"),
        ("GET", "/?a=b&version=3.1", &[], "two"),
        ("GET", "/?version=22", &[], "one"),
        ("GET", "/caSe/x", &[], "two"),
    ] {
        let reply = client.exchange(request(method, "one.shop", path, headers, empty())).await;
        assert_eq!(reply.upstream(), upstream, "{method} {path} {headers:?}");
    }
}

#[tokio::test]
async fn actions_rewrite_redirect_answer_change_headers_and_time_out() {
    let rules = "
http:
- match: [{uri: {prefix: /old/}}]
  rewrite: {uri: /new/, authority: rewritten.shop}
  route: [{destination: {host: one.shop}}]
- match: [{uri: {prefix: /gone}}]
  redirect: {uri: /here, authority: two.shop, redirectCode: 308}
- match: [{uri: {prefix: /teapot}}]
  directResponse: {status: 418, body: {string: short and stout}}
- match: [{uri: {prefix: /headers}}]
  headers:
    request: {set: {x-set: new}, add: {x-add: more}, remove: [x-remove]}
    response: {set: {x-answer: set}, remove: [x-upstream]}
  route: [{destination: {host: one.shop}}]
- match: [{uri: {prefix: /slow}}]
  timeout: 200ms
  route: [{destination: {host: one.shop}}]
- route: [{destination: {host: one.shop}}]
";
    let (proxy, _one, _two) = routed(rules).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    let reply = client.exchange(get("one.shop", "/old/page?x=1")).await;
    assert_eq!(
        (reply.target().as_str(), reply.seen("host")),
        ("/new/page?x=1", vec!["rewritten.shop".to_owned()])
    );
    let reply = client.exchange(get("one.shop", "/gone")).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, "http://two.shop/here"));
    let reply = client.exchange(get("one.shop", "/teapot")).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (418, "short and stout"));
    let lines = [("x-set", "old"), ("x-add", "some"), ("x-remove", "me")];
    let reply = client.exchange(request("POST", "one.shop", "/headers", &lines, full("body"))).await;
    assert_eq!(reply.seen("x-set"), ["new"]);
    assert_eq!(reply.seen("x-add").join(","), "some,more");
    assert_eq!(reply.seen("x-remove"), [""; 0]);
    assert_eq!((reply.header("x-answer"), reply.header("x-upstream")), ("set", ""));
    let slow = request("GET", "one.shop", "/slow", &[("x-delay-ms", "5000")], empty());
    let began = std::time::Instant::now();
    let reply = client.exchange(slow).await;
    assert_eq!(reply.status, 504, "{}", reply.text());
    assert!((200..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!(reply.text().contains("upstream response timeout"), "{}", reply.text());
}

#[tokio::test]
async fn weights_split_by_their_share_and_zero_takes_nothing() {
    let rules = "
http:
- route:
  - {destination: {host: one.shop}, weight: 30}
  - {destination: {host: two.shop}, weight: 70}
";
    let (proxy, one, two) = routed(rules).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for _ in 0..1000 {
        assert_eq!(client.exchange(get("one.shop", "/")).await.status, 200);
    }
    // 300 with a deviation of 14.5.
    assert!((213..=387).contains(&one.requests()), "{} and {}", one.requests(), two.requests());
    let before = one.requests();
    let only = rules.replace("30", "0").replace("70", "100");
    let objects = service("one.shop", "HTTP", &[one.address])
        + &service("two.shop", "HTTP", &[two.address])
        + &virtual_service("one.shop", &only);
    proxy.edit(support::proxy::OBJECTS, &objects).await;
    for _ in 0..50 {
        assert_eq!(client.exchange(get("one.shop", "/")).await.status, 200);
    }
    assert_eq!(one.requests(), before);
}

#[tokio::test]
async fn the_endpoints_of_a_service_share_its_requests() {
    let ups = [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await];
    let addresses: Vec<SocketAddr> = ups.iter().map(|up| up.address).collect();
    let rule = destination_rule("up.shop", "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}");
    let proxy = Proxy::start(&(service("up.shop", "HTTP", &addresses) + &rule)).await;
    let mut client = Client1::connect(proxy.outbound()).await;
    for _ in 0..300 {
        assert_eq!(client.exchange(get("up.shop", "/")).await.status, 200);
    }
    for up in &ups {
        assert!((95..=105).contains(&up.requests()), "{}", up.requests());
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let up = Upstream::start().await;
    let objects = service("up.shop", "HTTP", &[up.address])
        + &destination_rule("up.shop", "subsets: [{name: v9, labels: {version: v9}}]")
        + &virtual_service(
            "up.shop",
            "http: [{match: [{uri: {prefix: /v9}}], route: [{destination: {host: up.shop, subset: v9}}]}]",
        );
    let proxy = Proxy::with(&format!("meshConfig: {{accessLogFile: \"{}\"}}", log.display()), &objects).await;
    let warned = proxy.complaints();
    assert!(warned.contains("subset `v9` has no endpoint"), "{warned}");
    let mut client = Client1::connect(proxy.outbound()).await;
    for (host, path, status, words) in [
        ("nobody.shop", "/", 404, "no service or virtual host nobody.shop"),
        ("up.shop", "/v9", 503, "no endpoint of subset v9 of up.shop"),
        ("up.shop", "/other", 404, "no rule of virtual host up.shop:80 matches"),
    ] {
        let reply = client.exchange(get(host, path)).await;
        assert_eq!(reply.status.as_u16(), status, "{host}{path}");
        assert!(reply.text().contains(words), "{host}{path}: {}", reply.text());
    }
    drop(client);
    proxy.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    let flags: Vec<_> = log.lines().map(|line| line.split(' ').nth(5).unwrap_or_default()).collect();
    assert_eq!(flags, ["NR", "UH", "NR"], "{log}");
}

/// A listener of a Sidecar's own on a captured proxy: the only one that tests can reach without the kernel's redirection.
fn captured(port: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: shop}}
spec:
  egress:
  - port: {{number: {port}, protocol: HTTP, name: http}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: [\"./*\"]
  - hosts: [\"./*\"]
"
    )
}

#[tokio::test]
async fn registry_only_refuses_what_allow_any_passes_on() {
    for (policy, status) in [("REGISTRY_ONLY", 502), ("ALLOW_ANY", 503)] {
        let up = Upstream::start().await;
        let port = free_port();
        let objects = support::objects::service_at("up.shop", port, "HTTP", &[up.address]) + &captured(port);
        let spec =
            format!("interception: REDIRECT\noutbound: {{addresses: [\"127.0.0.1:0\"], policy: {policy}}}");
        let proxy = Proxy::with(&spec, &objects).await;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(fetch(address, get("up.shop", "/")).await.status, 200, "{}", proxy.complaints());
        let unknown = fetch(address, get("nobody.example.com", "/")).await;
        assert_eq!(unknown.status.as_u16(), status, "{policy}: {}", unknown.text());
        if policy == "ALLOW_ANY" {
            // Passed on, it needs the destination that only the kernel can tell.
            assert!(unknown.text().contains("PassthroughCluster"), "{}", unknown.text());
        }
    }
}

#[tokio::test]
async fn a_gateway_opens_its_servers_at_the_mapped_ports_and_routes_by_host() {
    let (one, two) = (Upstream::named("one").await, Upstream::named("two").await);
    let tcp = Upstream::echo().await;
    let (http, plain) = (free_port(), free_port());
    let objects = service("one.shop", "HTTP", &[one.address])
        + &service("two.shop", "HTTP", &[two.address])
        + &support::objects::service_at("tcp.shop", 9000, "TCP", &[tcp.address])
        + "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, bind: 127.0.0.1, hosts: [\"*.example.com\"]}
  - {port: {number: 9000, name: tcp, protocol: TCP}, bind: 127.0.0.1, hosts: [\"*\"]}
" + &virtual_service(
        "one.example.com",
        "gateways: [edge]\nhttp: [{route: [{destination: {host: one.shop}}]}]",
    ) + &virtual_service(
        "two.example.com",
        "gateways: [edge]\nhttp: [{route: [{destination: {host: two.shop}}]}]",
    ) + &virtual_service(
        "elsewhere.org",
        "gateways: [edge]\nhttp: [{route: [{destination: {host: two.shop}}]}]",
    ) + &virtual_service(
        "tcp.shop",
        "gateways: [edge]\ntcp: [{match: [{port: 9000}], route: [{destination: {host: tcp.shop, port: {number: 9000}}}]}]",
    );
    let spec = format!(
        "role: Gateway\nworkload: {{labels: {{istio: ingressgateway}}}}\ngateway: {{ports: {{\"80\": {http}, \"9000\": {plain}}}}}"
    );
    let proxy = Proxy::with(&spec, &objects).await;
    let address = SocketAddr::from(([127, 0, 0, 1], http));
    for (host, upstream) in
        [("one.example.com", "one"), ("TWO.example.com:80", "two"), ("two.example.com.", "two")]
    {
        let reply = fetch(address, get(host, "/")).await;
        assert_eq!(reply.status, 200, "{host}: {} {}", reply.text(), proxy.complaints());
        assert_eq!(reply.upstream(), upstream, "{host}");
    }
    for host in ["three.example.com", "elsewhere.org"] {
        assert_eq!(fetch(address, get(host, "/")).await.status, 404, "{host}");
    }
    let mut raw = Raw::connect(([127, 0, 0, 1], plain).into()).await;
    raw.send("\0bytes").await;
    assert_eq!(raw.exactly(6).await, b"\0bytes");
}

/// A ClientHello with one server name, as RFC 8446 section 4.1.2 writes it.
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |width: usize, bytes: Vec<u8>| {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - width..], &bytes].concat()
    };
    let entry = [vec![0], sized(2, name.as_bytes().to_vec())].concat();
    let extension = [vec![0, 0], sized(2, sized(2, entry))].concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(sized(2, vec![0x13, 0x01]));
    hello.extend(sized(1, vec![0]));
    hello.extend(sized(2, extension));
    let handshake = [vec![1], sized(3, hello)].concat();
    [vec![0x16, 3, 1], sized(2, handshake)].concat()
}

#[tokio::test]
async fn tls_is_passed_through_by_its_server_name() {
    let (one, two) = (Upstream::echo().await, Upstream::echo().await);
    let objects = support::objects::service_at("one.example.com", 443, "TLS", &[one.address])
        + &support::objects::service_at("two.example.com", 443, "TLS", &[two.address]);
    let proxy = Proxy::start(&objects).await;
    proxy.assert_no_complaints();
    for (name, upstream) in [("one.example.com", &one), ("TWO.example.com", &two)] {
        let hello = client_hello(name);
        let mut raw = Raw::connect(proxy.outbound()).await;
        // In two pieces: the name is waited for.
        raw.send(&hello[..20]).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        raw.send(&hello[20..]).await;
        assert_eq!(raw.exactly(hello.len()).await, hello, "{name}");
        assert_eq!(upstream.bytes(), std::slice::from_ref(&hello));
    }
    let mut unknown = Raw::connect(proxy.outbound()).await;
    unknown.send(client_hello("three.example.com")).await;
    assert!(unknown.is_at_end().await);
    assert_eq!((one.connections(), two.connections()), (1, 1));
}
