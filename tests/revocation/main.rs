//! What is open when a policy is tightened or a root is taken away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;
mod trust;

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::time::Duration;
use support::body::{ChannelBody, Frames};
use support::issuer::{Issuer, now};
use support::proxy::OBJECTS;
use support::{Client1, Client2, Proxy, Raw, Upstream, eventually, fetch, get, in_time, request};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

/// Longer than a few ends are spread over.
const SPREAD: Duration = Duration::from_millis(1200);

fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: sidegate.io/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn revoking(rule: &str) -> String {
    policy(&format!("session: {{revokeExisting: true}}, rules: [{{{rule}}}]"))
}

/// A sidecar in front of this application, whose log holds why everything ended.
async fn under(objects: &str, application: &Upstream) -> (Proxy, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let spec = format!(
        "inbound: {{addresses: [\"127.0.0.1:0\"], application: \"{}\"}}\n\
         meshConfig: {{accessLogFormat: \"%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%\\n\", accessLogFile: \"{}\"}}",
        application.address,
        log(&folder).display()
    );
    (Proxy::with(&spec, objects).await, folder)
}

fn log(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("log")
}

async fn logged(folder: &tempfile::TempDir, text: &str) {
    let path = log(folder);
    eventually(text, || std::fs::read_to_string(&path).unwrap_or_default().contains(text)).await;
}

async fn revoked(proxy: &Proxy) -> u64 {
    let page = fetch(proxy.page("metrics"), get("localhost", "/stats/prometheus")).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix("sidegate_revoked_total "));
    line.map_or(0, |number| number.parse().unwrap())
}

/// A client at another address of this machine.
async fn from(source: &str, to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    let stream = in_time("connecting", socket.connect(to)).await.unwrap();
    let mut raw = Raw::connect(to).await;
    raw.stream = stream;
    raw
}

async fn pings(raw: &mut Raw) {
    raw.send("\0ping").await;
    assert_eq!(raw.exactly(5).await, b"\0ping");
}

async fn websocket(proxy: &Proxy, path: &str) -> WebSocketStream<TcpStream> {
    let stream = support::client::connect(proxy.inbound()).await;
    let asked = ClientRequestBuilder::new(format!("ws://app{path}").parse().unwrap()).with_header("x-a", "b");
    let connecting = tokio_tungstenite::client_async(asked, stream);
    in_time("a WebSocket", connecting).await.unwrap().0
}

async fn chats(socket: &mut WebSocketStream<TcpStream>) {
    in_time("sending", socket.send(Message::text("hello"))).await.unwrap();
    assert_eq!(in_time("an echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));
}

async fn is_over(socket: &mut WebSocketStream<TcpStream>) {
    let last = in_time("the end", socket.next()).await;
    assert!(matches!(last, None | Some(Err(_))), "{last:?}");
}

/// A stream of gRPC messages that come back.
struct Stream(Frames, Incoming);

impl Stream {
    async fn open(client: &mut Client2, path: &str) -> Self {
        let (frames, body) = ChannelBody::new();
        let response = client.send(request("POST", "app", path, GRPC, body)).await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        Self(frames, response.into_body())
    }

    async fn chats(&mut self) {
        self.0.data("\0\0\0\0\x01a").await;
        let frame = in_time("an answer", self.1.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "\0\0\0\0\x01a");
    }

    /// Ended by a reset, not in order.
    async fn is_cut_off(&mut self) {
        assert!(in_time("the end", self.1.frame()).await.is_none_or(|frame| frame.is_err()));
    }
}

#[tokio::test]
async fn a_tightened_policy_ends_tcp_connections_that_it_allows_no_more_and_leaves_the_others() {
    let application = Upstream::echo().await;
    let (proxy, folder) = under(&revoking("effect: Allow"), &application).await;
    proxy.assert_no_complaints();
    let mut kept = from("127.0.0.1", proxy.inbound()).await;
    let mut ended = from("127.0.0.2", proxy.inbound()).await;
    pings(&mut kept).await;
    pings(&mut ended).await;
    let one = "when: [{key: source.ip, values: [127.0.0.1]}], effect: Allow";
    proxy.edit(OBJECTS, &revoking(one)).await;
    assert!(ended.is_at_end().await);
    pings(&mut kept).await;
    logged(&folder, "access_revoked access_revoked{access_denied[shop/p").await;
    assert_eq!(revoked(&proxy).await, 1);
    // Another policy counts as well, while this one asks for it.
    let deny = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
        spec: {action: DENY, rules: [{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}]}\n";
    proxy.edit(OBJECTS, &format!("{deny}{}", revoking(one))).await;
    assert!(kept.is_at_end().await);
    logged(&folder, "access_revoked{rbac_access_denied_matched_policy[").await;
}

#[tokio::test]
async fn a_tightened_policy_ends_tunnels_and_streams_that_it_allows_no_more_and_leaves_the_others() {
    let application = Upstream::start().await;
    let (proxy, folder) = under(&revoking("effect: Allow"), &application).await;
    proxy.assert_no_complaints();
    let mut client = Client2::connect(proxy.inbound()).await;
    let mut sockets = [websocket(&proxy, "/keep").await, websocket(&proxy, "/end").await];
    let mut streams = [
        Stream::open(&mut client, "/shop.Keep/Chat").await,
        Stream::open(&mut client, "/shop.End/Chat").await,
    ];
    // One whose answer has not begun.
    let mut waiting = Client1::connect(proxy.inbound()).await;
    let hanging = tokio::spawn(async move { waiting.exchange(get("app", "/hang")).await });
    // One whose client does not read.
    let mut endless = Raw::connect(proxy.inbound()).await;
    endless.send("GET /endless HTTP/1.1\r\nHost: app\r\n\r\n").await;
    eventually("all are there", || application.requests() == 6).await;
    for socket in &mut sockets {
        chats(socket).await;
    }
    for stream in &mut streams {
        stream.chats().await;
    }
    proxy.edit(OBJECTS, &revoking("match: [{paths: [/keep, /shop.Keep/*]}], effect: Allow")).await;
    let [kept, ended] = &mut sockets;
    is_over(ended).await;
    let [kept_stream, ended_stream] = &mut streams;
    ended_stream.is_cut_off().await;
    let refused = in_time("a refusal", hanging).await.unwrap();
    assert_eq!(refused.status, 403);
    assert!(refused.text().starts_with("RBAC: access denied (decision "), "{}", refused.text());
    let open = || proxy.status.shared().connections(sidegate::mesh::Direction::Inbound);
    eventually("the connection ends whose client does not read", || open() == 2).await;
    chats(kept).await;
    kept_stream.chats().await;
    logged(&folder, "access_revoked{access_denied[shop/p").await;
    assert_eq!(revoked(&proxy).await, 4);
    assert_eq!(client.exchange(get("app", "/keep")).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn without_revoke_existing_nothing_ends() {
    let application = Upstream::start().await;
    let (proxy, _folder) = under("", &application).await;
    let (mut socket, mut client) = (websocket(&proxy, "/").await, Client2::connect(proxy.inbound()).await);
    let mut stream = Stream::open(&mut client, "/shop.Cart/Chat").await;
    let echo = Upstream::echo().await;
    let (bytes, _other) = under("", &echo).await;
    let mut raw = Raw::connect(bytes.inbound()).await;
    pings(&mut raw).await;
    for proxy in [&proxy, &bytes] {
        proxy.edit(OBJECTS, &policy("rules: [{effect: Deny}]")).await;
        // One in shadow refuses nothing, so it ends nothing.
        let shadow = policy("mode: Shadow, session: {revokeExisting: true}, rules: [{effect: Deny}]");
        proxy.edit("shadow.yaml", &shadow.replace("name: p", "name: q")).await;
    }
    tokio::time::sleep(SPREAD).await;
    chats(&mut socket).await;
    stream.chats().await;
    pings(&mut raw).await;
    assert_eq!(client.exchange(get("app", "/")).await.status, 403, "new requests are judged");
    assert_eq!(revoked(&proxy).await + revoked(&bytes).await, 0);
}

#[tokio::test]
async fn what_was_opened_before_any_policy_revoked_is_judged_by_what_is_known_of_it() {
    let application = Upstream::start().await;
    let (proxy, _folder) = under("", &application).await;
    let (mut kept, mut ended) = (websocket(&proxy, "/keep").await, websocket(&proxy, "/end").await);
    chats(&mut kept).await;
    proxy.edit(OBJECTS, &revoking("match: [{paths: [/keep]}], effect: Allow")).await;
    is_over(&mut ended).await;
    chats(&mut kept).await;
    let mut known = websocket(&proxy, "/keep").await;
    // Nobody knows which headers the older one had: what cannot be told allows nothing, negated or not.
    let by_header = "when: [{key: 'request.headers[x-a]', notValues: [c]}], effect: Allow";
    proxy.edit(OBJECTS, &revoking(by_header)).await;
    is_over(&mut kept).await;
    chats(&mut known).await;
}

#[tokio::test]
async fn a_stream_whose_token_has_become_too_old_is_ended() {
    let (issuer, application) = (Issuer::new("one"), Upstream::start().await);
    let users = format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: users, namespace: shop}}\n\
         spec: {{jwtRules: [{{issuer: \"http://issuer.mesh\", jwks: '{}'}}]}}\n",
        issuer.jwks()
    );
    let fresh = policy(
        "session: {maxTokenAge: 15m, revokeExisting: true}, \
         rules: [{when: [{key: request.auth.principal, values: ['*']}], effect: Allow}]",
    );
    let (proxy, folder) = under(&format!("{users}{fresh}"), &application).await;
    proxy.assert_no_complaints();
    let mut client = Client2::connect(proxy.inbound()).await;
    let issued = now() - 899;
    let mut streams = Vec::new();
    for issued in [now(), issued] {
        let bearer = format!("Bearer {}", issuer.token_with("alice", &format!(",\"iat\":{issued}")));
        let headers = [GRPC, &[("authorization", &bearer)]].concat();
        let (frames, body) = ChannelBody::new();
        let response = client.send(request("POST", "app", "/shop.Cart/Chat", &headers, body)).await.unwrap();
        streams.push(Stream(frames, response.into_body()));
    }
    let [young, old] = &mut streams[..] else { panic!("two streams") };
    old.chats().await;
    eventually("the token is too old", || now() > issued + 901).await;
    proxy.edit(OBJECTS, &format!("# looked at again\n{users}{fresh}")).await;
    old.is_cut_off().await;
    young.chats().await;
    logged(&folder, "access_revoked{access_step_up[shop/p]}").await;
}
