//! `action: CUSTOM`: a provider decides, over gRPC or HTTP, on the way to the application.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};
use support::objects::service_at;
use support::provider::{Provider, Says, allowed, denied};
use support::{
    ChannelBody, Client2, Proxy, Raw, Reply, Upstream, certificates, empty, eventually, fetch, free_port,
    full, request,
};

const POLICY: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop, annotations: {}}
spec: {action: CUSTOM, provider: {name: authz}, rules: [{to: [{operation: {notPaths: [/free]}}]}]}
";

/// A sidecar in front of this application that asks by these fields of its provider.
async fn sidecar(kind: &str, fields: &str, objects: &str, application: &Upstream) -> Proxy {
    let provider = format!("{{name: authz, {kind}: {{service: authz.mesh, port: 9000, {fields}}}}}");
    let spec = format!(
        "inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}\nmeshConfig: {{extensionProviders: [{provider}]}}",
        application.address
    );
    let proxy = Proxy::with(&spec, objects).await;
    proxy.assert_no_complaints();
    proxy
}

const GRPC: &str = "envoyExtAuthzGrpc";
const HTTP: &str = "envoyExtAuthzHttp";

async fn get(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Reply {
    fetch(proxy.inbound(), request("GET", "app", path, headers, empty())).await
}

#[tokio::test]
async fn a_provider_over_http_sees_the_request_and_its_status_decides() {
    let (application, provider) = (
        Upstream::start().await,
        Provider::start(false, Says::Http(200, vec![("x-user", "ann"), ("x-seen", "yes")], "")).await,
    );
    let fields = "pathPrefix: /check, includeRequestHeadersInCheck: [x-tenant], includeAdditionalHeadersInCheck: {x-from: sidegate}, \
        headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-seen], headersToDownstreamOnDeny: [x-why]";
    let proxy = sidecar(HTTP, fields, &(provider.service("HTTP") + POLICY), &application).await;

    let sent = [
        ("x-user", "root"),
        ("x_user", "root"),
        ("x-tenant", "acme"),
        ("x-other", "1"),
        ("authorization", "Bearer t"),
    ];
    let reply = get(&proxy, "/a/%2e/../b?c=d", &sent).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-seen")), (200, "yes"));
    assert_eq!(reply.target(), "/b?c=d");
    assert_eq!((reply.seen("x-user"), reply.seen("x-other")), (vec!["ann".to_owned()], vec!["1".to_owned()]));
    assert!(reply.seen("x_user").is_empty(), "the provider alone says who it is");
    let (head, _) = provider.last();
    assert_eq!(
        (head.method.as_str(), head.uri.to_string().as_str()),
        ("GET", "/check/b?c=d"),
        "as it is forwarded"
    );
    let told: Vec<_> = ["host", "authorization", "x-tenant", "x-from", "x-other", "x-user"]
        .map(|name| head.headers.get(name).map(|value| value.to_str().unwrap()))
        .to_vec();
    assert_eq!(told, [Some("app"), Some("Bearer t"), Some("acme"), Some("sidegate"), None, None]);

    provider.now(Says::Http(302, vec![("location", "/login"), ("x-why", "no"), ("x-internal", "1")], "who?"));
    let reply = get(&proxy, "/a", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (302, "who?"));
    assert_eq!(
        (reply.header("location"), reply.header("x-why"), reply.header("x-internal")),
        ("/login", "no", "")
    );
    let asked = provider.asked();
    assert_eq!(get(&proxy, "/free", &[]).await.status.as_u16(), 200);
    assert_eq!((provider.asked(), application.requests()), (asked, 2));
    assert_eq!(provider.server.connections(), 1, "one connection carries all questions");
}

#[tokio::test]
async fn a_provider_over_grpc_gets_envoys_check_and_its_answer_is_followed() {
    let (application, provider) = (Upstream::start().await, Provider::start(true, allowed("ann")).await);
    let proxy = sidecar(GRPC, "timeout: 10s", &(provider.service("GRPC") + POLICY), &application).await;
    let sent = [("x-user", "root"), ("x-secret", "s"), ("x-plain", "1")];
    let reply = get(&proxy, "/a?b", &sent).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-seen")), (200, "yes"));
    assert_eq!((reply.seen("x-user"), reply.seen("x-secret")), (vec!["ann".to_owned()], vec![]));
    let (head, body) = provider.last();
    assert_eq!(head.uri.path(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(head.uri.authority().unwrap().as_str(), "authz.mesh");
    assert_eq!(
        (&head.headers["content-type"], &head.headers["grpc-timeout"]),
        (&"application/grpc".parse().unwrap(), &"10000m".parse().unwrap())
    );
    let text = String::from_utf8_lossy(&body);
    assert!(["/a?b", "x-plain", "127.0.0.1"].iter().all(|part| text.contains(part)), "{text}");

    provider.now(denied());
    let reply = get(&proxy, "/a", &[]).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x-why"), reply.text().as_str()),
        (401, "because", "nobody knows you")
    );
    let grpc = request(
        "POST",
        "app",
        "/shop.Cart/Add",
        &[("content-type", "application/grpc"), ("te", "trailers")],
        empty(),
    );
    let reply = Client2::connect(proxy.inbound()).await.exchange(grpc).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("grpc-status"), reply.header("grpc-message")),
        (200, "16", "nobody knows you")
    );
    assert_eq!(application.requests(), 1);
    assert_eq!(provider.server.connections(), 1);
}

#[tokio::test]
async fn without_a_verdict_requests_are_refused_or_pass_as_the_provider_is_configured() {
    let application = Upstream::start().await;
    let status = async |objects: &str, kind: &str, fields: &str| {
        let proxy = sidecar(kind, fields, objects, &application).await;
        let begun = Instant::now();
        let reply = get(&proxy, "/a", &[("x-user", "root")]).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{fields}");
        proxy.stop().await;
        reply
    };
    let (http, grpc) =
        (Provider::start(false, Says::Nothing).await, Provider::start(true, Says::Nothing).await);
    let nobody = service_at("authz.mesh", 9000, "HTTP", &[([127, 0, 0, 1], free_port()).into()]);
    let cases = [
        (HTTP, http.service("HTTP"), Says::Nothing),
        (HTTP, http.service("HTTP"), Says::Http(503, vec![], "")),
        (HTTP, nobody, Says::Nothing),
        (GRPC, grpc.service("GRPC"), Says::Nothing),
        (GRPC, grpc.service("GRPC"), Says::GrpcStatus("14")),
        (GRPC, grpc.service("GRPC"), Says::Http(503, vec![], "")),
    ];
    for (kind, service, says) in cases {
        http.now(says.clone());
        grpc.now(says.clone());
        let objects = service + POLICY;
        let denied = status(&objects, kind, "timeout: 0.3s").await;
        assert_eq!((denied.status.as_u16(), denied.text().as_str()), (403, ""), "{kind} {says:?}");
        let denied = status(&objects, kind, "timeout: 0.3s, statusOnError: '503'").await;
        assert_eq!(denied.status.as_u16(), 503, "{kind} {says:?}");
        let passed = status(&objects, kind, "timeout: 0.3s, failOpen: true").await;
        assert_eq!(passed.status.as_u16(), 200, "{kind} {says:?}");
    }
    // What is no answer to the question is no failure either.
    grpc.now(Says::Message(vec![0xff]));
    let objects = grpc.service("GRPC") + POLICY;
    assert_eq!(status(&objects, GRPC, "timeout: 5s, failOpen: true").await.status.as_u16(), 403);
    http.now(Says::Http(503, vec![], ""));
    let fields = "timeout: 5s, failOpen: true, headersToUpstreamOnAllow: [x-user]";
    let passed = status(&(http.service("HTTP") + POLICY), HTTP, fields).await;
    assert!(passed.seen("x-user").is_empty(), "nobody speaks for a provider that failed");
}

#[tokio::test]
async fn each_kind_of_failure_can_have_its_own_outcome() {
    let (application, provider) = (Upstream::start().await, Provider::start(false, Says::Nothing).await);
    let annotated = POLICY.replace(
        "annotations: {}",
        "annotations: {sidegate.io/custom-on-timeout: '504', sidegate.io/custom-on-error: allow}",
    );
    let objects = provider.service("HTTP") + &annotated;
    let proxy = sidecar(HTTP, "timeout: 0.3s", &objects, &application).await;
    assert_eq!(get(&proxy, "/a", &[]).await.status.as_u16(), 504);
    provider.now(Says::Http(500, vec![], ""));
    assert_eq!(get(&proxy, "/a", &[]).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_provider_sees_the_body_and_the_application_gets_all_of_it() {
    let (application, provider) =
        (Upstream::start().await, Provider::start(false, Says::Http(200, vec![], "")).await);
    let objects = provider.service("HTTP") + POLICY;
    let post = async |proxy: &Proxy, body: Vec<u8>, chunked: bool| {
        let body = if chunked {
            let (frames, channel) = ChannelBody::new();
            tokio::spawn(async move {
                for chunk in body.chunks(1000) {
                    frames.data(chunk.to_vec()).await;
                }
            });
            channel
        } else {
            full(body)
        };
        fetch(proxy.inbound(), request("POST", "app", "/a", &[], body)).await
    };
    let fields = "includeRequestBodyInCheck: {maxRequestBytes: 2000, allowPartialMessage: true}";
    let proxy = sidecar(HTTP, fields, &objects, &application).await;
    let long: Vec<u8> = (0..70_000).map(|at| b'a' + (at % 26) as u8).collect();
    for chunked in [false, true] {
        let reply = post(&proxy, long.clone(), chunked).await;
        assert_eq!((reply.status.as_u16(), reply.echo()["length"].as_u64()), (200, Some(70_000)));
        assert_eq!(reply.echo()["body"].as_str().unwrap().as_bytes(), &long[..4096]);
        let (head, body) = provider.last();
        assert_eq!(
            (&*body, &head.headers["x-envoy-auth-partial-body"]),
            (&long[..2000], &"true".parse().unwrap())
        );
        post(&proxy, long[..2000].to_vec(), chunked).await;
        let (head, body) = provider.last();
        assert_eq!(
            (body.len(), &head.headers["x-envoy-auth-partial-body"]),
            (2000, &"false".parse().unwrap())
        );
    }
    proxy.stop().await;
    let proxy =
        sidecar(HTTP, "includeRequestBodyInCheck: {maxRequestBytes: 2000}", &objects, &application).await;
    let (asked, arrived) = (provider.asked(), application.requests());
    for chunked in [false, true] {
        assert_eq!(post(&proxy, long[..2001].to_vec(), chunked).await.status.as_u16(), 413);
    }
    assert_eq!((provider.asked(), application.requests()), (asked, arrived));
    assert_eq!(post(&proxy, long[..2000].to_vec(), true).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_verdict_is_kept_for_its_time_when_the_policy_asks_for_it() {
    let (application, provider) = (Upstream::start().await, Provider::start(true, allowed("ann")).await);
    let annotated = POLICY.replace("annotations: {}", "annotations: {sidegate.io/custom-cache-ttl: 1s}");
    let proxy = sidecar(GRPC, "timeout: 5s", &(provider.service("GRPC") + &annotated), &application).await;
    for _ in 0..5 {
        assert_eq!(get(&proxy, "/a", &[]).await.seen("x-user"), ["ann"]);
    }
    assert_eq!(provider.asked(), 1);
    provider.now(denied());
    assert_eq!(get(&proxy, "/b", &[]).await.status.as_u16(), 401);
    let end = Instant::now() + support::PATIENCE;
    while get(&proxy, "/a", &[]).await.status.as_u16() != 401 {
        assert!(Instant::now() < end, "the verdict is kept for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(provider.asked(), 3);
}

#[tokio::test]
async fn a_policy_on_trial_asks_nobody_and_connections_that_are_no_http_are_refused() {
    let (application, provider) = (Upstream::echo().await, Provider::start(true, denied()).await);
    let echoes = async |proxy: &Proxy| {
        let mut raw = Raw::connect(proxy.inbound()).await;
        raw.send("\0ping").await;
        raw.finish().await;
        raw.rest().await == b"\0ping"
    };
    let objects = provider.service("GRPC") + POLICY;
    let proxy = sidecar(GRPC, "timeout: 5s", &objects, &application).await;
    assert!(!echoes(&proxy).await);
    proxy.stop().await;
    let trial = objects.replace("annotations: {}", "annotations: {istio.io/dry-run: 'true'}");
    let proxy = sidecar(GRPC, "timeout: 5s", &trial, &application).await;
    assert!(echoes(&proxy).await);
    proxy.stop().await;
    let application = Upstream::start().await;
    let proxy = sidecar(GRPC, "timeout: 5s", &trial, &application).await;
    assert_eq!(get(&proxy, "/a", &[]).await.status.as_u16(), 200);
    assert_eq!(provider.asked(), 0);
}

#[tokio::test]
async fn a_provider_that_is_this_proxy_itself_is_not_asked_for_ever() {
    let application = Upstream::start().await;
    let elsewhere = service_at("authz.mesh", 9000, "HTTP", &[application.address]);
    let proxy = sidecar(HTTP, "timeout: 60s", &elsewhere, &application).await;
    let own = service_at("authz.mesh", 9000, "HTTP", &[proxy.inbound()]);
    proxy.edit(support::proxy::OBJECTS, &(own + POLICY)).await;
    let begun = Instant::now();
    assert_eq!(get(&proxy, "/a", &[]).await.status.as_u16(), 403);
    assert!(begun.elapsed() < Duration::from_secs(5) && application.requests() == 0);
}

#[tokio::test]
async fn a_provider_of_the_mesh_is_asked_over_mutual_tls() {
    let authority = certificates::authority();
    let (application, provider) =
        (Upstream::start().await, Provider::start(false, Says::Http(200, vec![], "")).await);
    let inbound = |address| format!("inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{address}\"}}");
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    let guarded = Proxy::secured(&authority, "authz", &inbound(provider.server.address), strict).await;
    let service = service_at("authz.mesh", 9000, "HTTP", &[guarded.inbound()])
        .replace("{address:", "{labels: {security.istio.io/tlsMode: istio}, serviceAccount: authz, address:");
    let extensions = "meshConfig: {extensionProviders: [{name: authz, envoyExtAuthzHttp: {service: authz.mesh, port: 9000}}]}";
    let spec = format!("{}\n{extensions}", inbound(application.address));
    let proxy = Proxy::secured(&authority, "web", &spec, &(service + POLICY)).await;
    proxy.assert_no_complaints();
    assert_eq!(get(&proxy, "/a", &[]).await.status.as_u16(), 200);
    let (head, _) = provider.last();
    let told = head.headers["x-forwarded-client-cert"].to_str().unwrap();
    assert!(told.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{told}");
}

async fn get_at(proxy: &Proxy, path: &str) -> String {
    fetch(proxy.page("metrics"), request("GET", "metrics", path, &[], empty())).await.text()
}

#[tokio::test]
async fn the_access_log_has_envoys_flag_and_details_and_metrics_count() {
    let (application, provider) = (Upstream::start().await, Provider::start(true, denied()).await);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let spec = format!(
        "inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}\nmeshConfig: {{accessLogFile: \"{}\", \
         extensionProviders: [{{name: authz, envoyExtAuthzGrpc: {{service: authz.mesh, port: 9000, timeout: 0.3s}}}}]}}",
        application.address,
        log.display()
    );
    let proxy = Proxy::with(&spec, &(provider.service("GRPC") + POLICY)).await;
    get(&proxy, "/denied", &[]).await;
    provider.now(Says::Nothing);
    get(&proxy, "/failed", &[]).await;
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("both lines", || lines().lines().count() == 2).await;
    let lines = lines();
    let has = |path: &str, parts: &[&str]| {
        let line = lines.lines().find(|line| line.contains(path)).unwrap();
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    };
    has("/denied", &[" 401 UAEX ext_authz_denied "]);
    has("/failed", &[" 403 UAEX ext_authz_error "]);
    let counts = async || get_at(&proxy, "/stats/prometheus").await;
    let end = Instant::now() + support::PATIENCE;
    loop {
        let page = counts().await;
        let says =
            |name: &str| page.contains(&format!("sidegate_ext_authz_{name}_total{{provider=\"authz\"}} 1"));
        if says("denied") && says("timeouts") {
            break;
        }
        assert!(Instant::now() < end, "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
