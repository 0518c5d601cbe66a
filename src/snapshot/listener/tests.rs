use super::super::Snapshot;
use super::super::samples::{bytes, chain, listener, share, web};
use super::*;
use crate::mesh::{ChainProtocol as MeshProtocol, Mesh, RouteTable as MeshTable};

fn compile(chains: Vec<FilterChain>, default_chain: Option<FilterChain>) -> Arc<Listener> {
    let mut mesh = Mesh::default();
    mesh.routes.insert("80".into(), Arc::new(MeshTable { name: "80".into(), ..MeshTable::default() }));
    let default_chain = default_chain.map(Arc::new);
    let listener = mesh::Listener { default_chain, ..listener("l", chains) };
    mesh.listeners.insert("l".into(), Arc::new(listener));
    let (snapshot, problems) = Snapshot::compile(mesh, None);
    assert!(problems.is_empty(), "{problems:?}");
    snapshot.listener("l").unwrap().clone()
}

fn detect() -> MeshProtocol {
    let (MeshProtocol::Http(http), MeshProtocol::Tcp(tcp)) = (web("80"), bytes(vec![share("a", 1)])) else {
        panic!("what the names say")
    };
    MeshProtocol::Detect { http, tcp }
}

fn to(address: &str) -> ChainQuery<'static> {
    ChainQuery {
        destination: Some(address.parse().unwrap()),
        source: "192.0.2.1".parse().unwrap(),
        transport: TransportProtocol::RawBuffer,
        server_name: None,
        application_protocols: &[],
    }
}

fn tls<'a>(name: &'a str) -> ChainQuery<'a> {
    ChainQuery { transport: TransportProtocol::Tls, server_name: Some(name), ..to("10.0.0.1:443") }
}

fn picked(listener: &Listener, query: &ChainQuery<'_>) -> Option<String> {
    listener.chain(query).map(|chain| chain.name.to_string())
}

fn port(port: u16) -> ChainMatch {
    ChainMatch { destination_port: Some(port), ..ChainMatch::default() }
}

fn nets(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().unwrap()).collect()
}

fn names(names: &[&str]) -> ChainMatch {
    ChainMatch { server_names: names.iter().map(ToString::to_string).collect(), ..ChainMatch::default() }
}

#[test]
fn a_chain_for_the_port_hides_those_for_all_ports_even_when_it_does_not_match() {
    let strict = ChainMatch { transport: Some(TransportProtocol::Tls), ..port(80) };
    let any = chain("any", ChainMatch::default(), web("80"));
    let listener = compile(
        vec![any, chain("strict", strict, web("80"))],
        Some(chain("default", ChainMatch::default(), MeshProtocol::Refuse("a test".into()))),
    );
    assert_eq!(picked(&listener, &to("10.0.0.1:81")).as_deref(), Some("any"));
    assert_eq!(picked(&listener, &to("10.0.0.1:80")).as_deref(), Some("default"));
    let encrypted = ChainQuery { transport: TransportProtocol::Tls, ..to("10.0.0.1:80") };
    assert_eq!(picked(&listener, &encrypted).as_deref(), Some("strict"));
}

#[test]
fn the_longest_destination_network_wins() {
    let within = |net: &[&str]| ChainMatch { destinations: nets(net), ..ChainMatch::default() };
    let listener = compile(
        vec![
            chain("any", ChainMatch::default(), web("80")),
            chain("wide", within(&["10.0.0.0/8", "2001:db8::/32"]), web("80")),
            chain("narrow", within(&["10.1.0.0/16", "172.16.0.1/32"]), web("80")),
        ],
        None,
    );
    for (address, name) in [
        ("10.1.2.3:1", "narrow"),
        ("[::ffff:10.1.2.3]:1", "narrow"),
        ("172.16.0.1:1", "narrow"),
        ("10.2.0.1:1", "wide"),
        ("[2001:db8::1]:1", "wide"),
        ("192.0.2.1:1", "any"),
    ] {
        assert_eq!(picked(&listener, &to(address)).as_deref(), Some(name), "{address}");
    }
}

#[test]
fn an_exact_server_name_beats_the_longest_wildcard_beats_none() {
    let listener = compile(
        vec![
            chain("none", ChainMatch::default(), web("80")),
            chain("com", names(&["*.com"]), web("80")),
            chain("shop", names(&["x.org", "*.shop.com"]), web("80")),
            chain("web", names(&["web.shop.com"]), web("80")),
        ],
        None,
    );
    for (name, chain) in [
        ("Web.shop.com", "web"),
        ("app.shop.com", "shop"),
        ("x.org", "shop"),
        ("shop.com", "com"),
        (".com", "none"),
        ("y.org", "none"),
    ] {
        assert_eq!(picked(&listener, &tls(name)).as_deref(), Some(chain), "{name}");
    }
    assert_eq!(picked(&listener, &to("10.0.0.1:443")).as_deref(), Some("none"));
}

#[test]
fn application_protocol_and_source_decide_last() {
    let speaks = |protocol: &str| ChainMatch { application_protocols: vec![protocol.to_owned()], ..port(80) };
    let from = |net: &str| ChainMatch { sources: nets(&[net]), ..port(80) };
    let listener = compile(
        vec![
            chain("local", from("192.0.2.0/24"), web("80")),
            chain("h2c", speaks("h2c"), web("80")),
            chain("other", from("198.51.100.0/24"), web("80")),
        ],
        None,
    );
    let h2c = ChainQuery { application_protocols: &["h2c"], ..to("10.0.0.1:80") };
    assert_eq!(picked(&listener, &h2c).as_deref(), Some("h2c"));
    let h1 = ChainQuery { application_protocols: &["http/1.1"], ..to("10.0.0.1:80") };
    assert_eq!(picked(&listener, &h1).as_deref(), Some("local"));
    let stranger = ChainQuery { source: "203.0.113.1".parse().unwrap(), ..h1 };
    assert_eq!(picked(&listener, &stranger), None);
}

#[test]
fn a_connection_without_destination_meets_only_chains_that_ask_for_none() {
    let within = ChainMatch { destinations: nets(&["10.0.0.0/8"]), ..ChainMatch::default() };
    let chains = vec![chain("port", port(80), web("80")), chain("net", within, web("80"))];
    let query = ChainQuery { destination: None, ..to("10.0.0.1:80") };
    assert_eq!(picked(&compile(chains.clone(), None), &query), None);
    let any = chain("any", ChainMatch::default(), web("80"));
    assert_eq!(picked(&compile([chains, vec![any]].concat(), None), &query).as_deref(), Some("any"));
}

#[test]
fn only_what_can_change_the_choice_is_waited_for() {
    let tls_only = ChainMatch { transport: Some(TransportProtocol::Tls), ..port(83) };
    let listener = compile(
        vec![
            chain("http", port(80), web("80")),
            chain("tcp", port(81), bytes(vec![share("a", 1)])),
            chain("detect", port(82), detect()),
            chain("tls", tls_only, web("80")),
            chain("sni", ChainMatch { destination_port: Some(84), ..names(&["a"]) }, web("80")),
            chain("from", ChainMatch { sources: nets(&["10.0.0.0/8"]), ..port(85) }, web("80")),
        ],
        Some(chain("default", ChainMatch::default(), detect())),
    );
    let needs = |port: u16| listener.needs(Some(([10, 0, 0, 1], port).into()));
    // A server may speak first where the protocol is declared.
    assert_eq!([needs(80), needs(81)], [Needs::Nothing; 2]);
    assert_eq!([needs(82), needs(83), needs(85), needs(86)], [Needs::FirstBytes; 4]);
    assert_eq!(needs(84), Needs::Hello);
    assert_eq!(listener.needs(None), Needs::FirstBytes);
}
