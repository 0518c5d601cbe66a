use super::*;
use crate::app::dns::DnsDiscovery;
use crate::mesh::{
    Balance, Cluster, Discovery, Endpoint, EndpointAddress, EndpointSet, Health, Mesh, Origin, Pool,
    ServiceName, UpstreamProtocol,
};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Registry, RegistryLimits};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use std::net::SocketAddr;
use tokio::net::UdpSocket as Socket;
use tokio::runtime::Handle;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

type Asked = Arc<Mutex<Vec<(String, u16)>>>;

/// What a responder says: a response code and records (type, time to live, data), or nothing at all.
type Said = Option<(u8, Vec<(u16, u32, Vec<u8>)>)>;

/// A DNS server on loopback that answers each (name, type) as `say` does; and what it was asked.
async fn responder(say: impl Fn(&str, u16) -> Said + Send + 'static) -> (SocketAddr, Asked) {
    let socket = Socket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Asked::default();
    let log = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        for _ in 0..100 {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let (name, kind, question_end) = question(&buffer[..length]);
            log.lock().unwrap().push((name.clone(), kind));
            if let Some((code, records)) = say(&name, kind) {
                let packet = response(&buffer[..question_end], code, &records);
                socket.send_to(&packet, peer).await.unwrap();
            }
        }
    });
    (address, asked)
}

/// Name, type, and where the question ends (RFC 1035, section 4.1).
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut name, mut place) = (String::new(), 12);
    while packet[place] != 0 {
        let length = usize::from(packet[place]);
        name.push_str(std::str::from_utf8(&packet[place + 1..=place + length]).unwrap());
        name.push('.');
        place += length + 1;
    }
    (name, u16::from_be_bytes([packet[place + 1], packet[place + 2]]), place + 5)
}

/// The question with its answers; every record belongs to the name that was asked for, or to what the alias before it points to.
fn response(question: &[u8], code: u8, records: &[(u16, u32, Vec<u8>)]) -> Vec<u8> {
    let mut packet = question.to_vec();
    // Response, recursion desired and available; one question, the answers, no additional record.
    packet[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    let mut owner = 12_u16;
    for (kind, ttl, data) in records {
        packet.extend((0xc000 | owner).to_be_bytes());
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(ttl.to_be_bytes());
        packet.extend((data.len() as u16).to_be_bytes());
        if *kind == CNAME {
            owner = packet.len() as u16;
        }
        packet.extend(data);
    }
    packet
}

fn client(server: SocketAddr, search: &[&str], ndots: usize) -> Client {
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let search = search.iter().map(|suffix| Name::from_str_relaxed(suffix).unwrap()).collect();
    let config = ResolverConfig::from_parts(None, search, vec![server]);
    let mut options = ResolverOpts::default();
    options.ndots = ndots;
    Client::new(config, options, Hosts::default(), families((true, true))).unwrap()
}

fn addresses(answer: &Answer) -> Vec<String> {
    answer.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_server_is_asked_over_udp_and_aliases_count_for_the_time_to_live() {
    let (server, asked) = responder(|_, _| {
        let alias = b"\x02lb\x07example\x00".to_vec();
        let records = vec![(CNAME, 20, alias), (A, 60, vec![192, 0, 2, 2]), (A, 60, vec![192, 0, 2, 1])];
        // The second address belongs to the alias too: owners follow the last CNAME.
        Some((0, records))
    })
    .await;
    let answer = client(server, &[], 1).lookup("api.example.com").await.unwrap();
    assert_eq!(addresses(&answer), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(answer.first.to_string(), "192.0.2.2");
    assert_eq!(answer.ttl, Duration::from_secs(20));
    assert_eq!(*asked.lock().unwrap(), [("api.example.com.".to_owned(), A)], "no AAAA, no search");
}

#[tokio::test]
async fn a_name_without_ipv4_is_asked_for_its_ipv6_addresses() {
    let (server, _) = responder(|_, kind| {
        let address = Ipv6Addr::LOCALHOST.octets().to_vec();
        Some((0, if kind == AAAA { vec![(AAAA, 5, address)] } else { Vec::new() }))
    })
    .await;
    let answer = client(server, &[], 1).lookup("six.example.com").await.unwrap();
    assert_eq!(addresses(&answer), ["::1"]);
}

#[tokio::test]
async fn a_denial_an_empty_answer_and_a_failing_server_are_told_apart() {
    let (server, _) = responder(|name, _| {
        let code = match name {
            "gone.test.example." => 3,
            "broken.test.example." => 2,
            _ => 0,
        };
        Some((code, Vec::new()))
    })
    .await;
    let client = client(server, &[], 1);
    assert_eq!(client.lookup("gone.test.example").await, Err(Failure::NotFound));
    assert_eq!(client.lookup("empty.test.example").await, Err(Failure::NoAddress));
    let broken = client.lookup("broken.test.example").await;
    assert!(matches!(&broken, Err(Failure::Error(error)) if error.contains("Server Failure")), "{broken:?}");
}

// With nothing else to do, the paused clock jumps to the next deadline: the resolver's own.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_a_timeout() {
    let (server, _) = responder(|_, _| None).await;
    assert_eq!(client(server, &[], 1).lookup("a.example.com").await, Err(Failure::Timeout));
}

#[tokio::test]
async fn the_search_list_is_tried_after_the_absolute_name_alone() {
    let found = |name: &str, _| {
        let exists = name == "db.shop.svc.cluster.local.";
        Some(if exists { (0, vec![(A, 5, vec![192, 0, 2, 1])]) } else { (3, Vec::new()) })
    };
    let (server, asked) = responder(found).await;
    let search = ["shop.svc.cluster.local", "svc.cluster.local"];
    let answer = client(server, &search, 5).lookup("db.shop").await.unwrap();
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    let names: Vec<String> = asked.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["db.shop.", "db.shop.shop.svc.cluster.local.", "db.shop.svc.cluster.local."]);
}

#[test]
fn names_are_ordered_by_their_dots() {
    let search = ["x.test", "y.test"].map(|suffix| Name::from_str_relaxed(suffix).unwrap());
    let order = |host, ndots| -> Vec<String> {
        names(host, &search, ndots).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(order("a.b.", 5), ["a.b."]);
    assert_eq!(order("a.b", 5), ["a.b.", "a.b.x.test.", "a.b.y.test."]);
    assert_eq!(order("a.b", 1), ["a.b."]);
    assert_eq!(order("a", 1), ["a.x.test.", "a.y.test.", "a."]);
    assert_eq!(order("my_service.b", 1), ["my_service.b."]);
}

#[test]
fn what_is_no_name_is_refused_with_a_reason() {
    for host in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(200)] {
        let refused = names(host, &[], 1);
        assert!(
            matches!(&refused, Err(Failure::Error(error)) if error.contains("is no DNS name: ")),
            "{refused:?}"
        );
    }
}

#[test]
fn ipv6_goes_first_only_where_ipv4_leads_nowhere() {
    for routes in [(true, true), (true, false), (false, false)] {
        assert_eq!(families(routes), [RecordType::A, RecordType::AAAA]);
    }
    assert_eq!(families((false, true)), [RecordType::AAAA, RecordType::A]);
}

#[tokio::test]
async fn the_files_are_read_again_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let (conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
    let system = SystemResolver::of(&conf, &hosts);
    let missing = system.lookup("db.example.com").await;
    assert!(
        matches!(&missing, Err(Failure::Error(error)) if error.contains("resolv.conf cannot be used")),
        "{missing:?}"
    );
    fs::write(&conf, "nameserver 127.0.0.1\nsearch shop.test\noptions ndots:3\n").unwrap();
    fs::write(&hosts, "192.0.2.1 db.example.com\n").unwrap();
    let client = system.client().unwrap();
    assert_eq!((client.ndots, client.search.len()), (3, 1));
    assert_eq!(addresses(&system.lookup("db.example.com").await.unwrap()), ["192.0.2.1"]);
    assert!(Arc::ptr_eq(&client, &system.client().unwrap()), "nothing changed");
    fs::write(&hosts, "192.0.2.20 db.example.com.\n192.0.2.21 DB.example.com\n").unwrap();
    assert_eq!(addresses(&system.lookup("db.example.com").await.unwrap()), ["192.0.2.20", "192.0.2.21"]);
}

#[test]
fn the_files_of_the_system_are_the_usual_ones() {
    let system = SystemResolver::new();
    assert_eq!(system.resolv_conf, Path::new("/etc/resolv.conf"));
    assert_eq!(system.hosts, Path::new("/etc/hosts"));
}

struct Fixed(Client);

impl Resolve for Fixed {
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a> {
        Box::pin(self.0.lookup(host))
    }
}

#[tokio::test]
async fn a_named_endpoint_is_called_where_a_real_server_says() {
    let (server, _) = responder(|_, _| Some((0, vec![(A, 60, vec![127, 0, 0, 1])]))).await;
    let registry = Registry::new(RegistryLimits::default());
    let resolver = Arc::new(Fixed(client(server, &[], 1)));
    let mut discovery = DnsDiscovery::asking(resolver, &registry, Handle::current());
    let mut mesh = Mesh::default();
    let cluster = Cluster {
        name: "c".into(),
        service: ServiceName::default(),
        protocol: UpstreamProtocol::Http1,
        discovery: Discovery::StrictDns { refresh: Duration::from_secs(5) },
        balance: Balance::LeastRequest,
        pool: Pool::default(),
        tls: None,
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    };
    let endpoint = Endpoint {
        address: EndpointAddress::Name("api.example.com".into(), 8080),
        weight: 1,
        health: Health::Healthy,
        priority: 0,
        sidecar: false,
        locality: Arc::default(),
        workload: Arc::default(),
        origin: Origin::BUILT_IN,
    };
    mesh.clusters.insert("c".into(), Arc::new(cluster));
    mesh.endpoints.insert("c".into(), Arc::new(EndpointSet { endpoints: vec![endpoint] }));
    let (snapshot, _) = Snapshot::compile(mesh, None);
    discovery.reconcile(&snapshot);
    let cluster = snapshot.cluster("c").unwrap();
    let resolved = async {
        while cluster.state.endpoints().endpoints().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), resolved).await.unwrap();
    let picked = cluster.pick(&mut || 0, &[]).unwrap();
    assert_eq!(picked.address, EndpointAddress::Socket(([127, 0, 0, 1], 8080).into()));
}
