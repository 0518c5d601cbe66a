use super::resolve::{Answer, Lookup, known};
use super::*;
use crate::mesh::{
    Balance, Cluster, Endpoint, EndpointAddress, EndpointSet, Health, Locality, Mesh, Name, Origin, Pool,
    ServiceName, UpstreamProtocol,
};
use crate::snapshot::EndpointTable;
use crate::telemetry::metrics::{RegistryLimits, Value};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(60);

type Said = Result<(Vec<IpAddr>, Duration), Failure>;

/// Says what it was told to say, after `takes`.
#[derive(Default)]
struct Script {
    says: Mutex<HashMap<String, Said>>,
    asked: Mutex<HashMap<String, usize>>,
    takes: Mutex<Duration>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Script {
    fn say(&self, host: &str, addresses: &[&str], ttl: u64) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.says.lock().unwrap().insert(host.into(), Ok((addresses, Duration::from_secs(ttl))));
    }

    fn fail(&self, host: &str, failure: Failure) {
        self.says.lock().unwrap().insert(host.into(), Err(failure));
    }

    fn asked(&self, host: &str) -> usize {
        self.asked.lock().unwrap().get(host).copied().unwrap_or(0)
    }
}

impl Resolve for Script {
    fn lookup<'a>(&'a self, host: &'a str) -> Lookup<'a> {
        Box::pin(async move {
            *self.asked.lock().unwrap().entry(host.into()).or_default() += 1;
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let takes = *self.takes.lock().unwrap();
            sleep(takes).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            let said = self.says.lock().unwrap().get(host).cloned();
            let (addresses, ttl) = said.unwrap_or(Err(Failure::NotFound))?;
            Answer::new(addresses, ttl)
        })
    }
}

/// A discovery, what it asks, and the snapshot it follows.
struct Bench {
    script: Arc<Script>,
    discovery: DnsDiscovery,
    registry: Arc<Registry>,
    snapshot: Arc<Snapshot>,
}

impl Bench {
    fn new() -> Self {
        let (script, registry) = (Arc::<Script>::default(), Registry::new(RegistryLimits::default()));
        let discovery = DnsDiscovery::asking(script.clone(), &registry, Handle::current());
        let (snapshot, _) = Snapshot::compile(Mesh::default(), None);
        Self { script, discovery, registry, snapshot }
    }

    /// Puts these clusters in force and lets what follows at once happen.
    async fn apply(&mut self, clusters: Vec<(&str, Discovery, Vec<Endpoint>)>) {
        self.compile(clusters);
        self.discovery.reconcile(&self.snapshot);
        sleep(Duration::from_millis(1)).await;
    }

    fn compile(&mut self, clusters: Vec<(&str, Discovery, Vec<Endpoint>)>) {
        let mut mesh = Mesh::default();
        for (name, discovery, endpoints) in clusters {
            let name: Name = name.into();
            mesh.clusters.insert(name.clone(), Arc::new(cluster(&name, discovery)));
            mesh.endpoints.insert(name, Arc::new(EndpointSet { endpoints }));
        }
        self.snapshot = Snapshot::compile(mesh, Some(&self.snapshot)).0;
    }

    fn table(&self, cluster: &str) -> Arc<EndpointTable> {
        self.snapshot.cluster(cluster).unwrap().state.endpoints()
    }

    fn addresses(&self, cluster: &str) -> Vec<String> {
        let table = self.table(cluster);
        let address = |endpoint: &Arc<crate::snapshot::Endpoint>| match &endpoint.address {
            EndpointAddress::Socket(address) => address.to_string(),
            other => panic!("{other:?} cannot be called"),
        };
        table.endpoints().iter().map(address).collect()
    }

    fn counted(&self, result: &str) -> u64 {
        let scrape = self.registry.scrape();
        let family =
            scrape.families.iter().find(|family| family.spec.name == "sidegate_dns_lookups_total").unwrap();
        let series = family.series.iter().find(|series| series.values[0].as_ref() == result);
        match series.map(|series| &series.value) {
            Some(Value::Counter(count)) => *count,
            other => panic!("{other:?}"),
        }
    }
}

fn cluster(name: &Name, discovery: Discovery) -> Cluster {
    Cluster {
        name: name.clone(),
        service: ServiceName::default(),
        protocol: UpstreamProtocol::Http1,
        discovery,
        balance: Balance::RoundRobin,
        pool: Pool::default(),
        source_address: None,
        proxy_protocol: None,
        origin: Origin::BUILT_IN,
    }
}

fn at(address: EndpointAddress) -> Endpoint {
    Endpoint {
        address,
        weight: 1,
        health: Health::Healthy,
        priority: 0,
        locality: Arc::default(),
        workload: Arc::default(),
        origin: Origin::BUILT_IN,
    }
}

fn named(host: &str) -> Endpoint {
    at(EndpointAddress::Name(host.into(), 80))
}

fn numbered(address: &str) -> Endpoint {
    at(EndpointAddress::Socket(address.parse::<SocketAddr>().unwrap()))
}

const STRICT: Discovery = Discovery::StrictDns { refresh: REFRESH };
const LOGICAL: Discovery = Discovery::LogicalDns { refresh: REFRESH };

#[tokio::test(start_paused = true)]
async fn each_address_becomes_an_endpoint_that_inherits_what_was_written() {
    let mut bench = Bench::new();
    bench.script.say("api.example.com", &["2001:db8::1", "192.0.2.2", "192.0.2.1"], 30);
    let locality = Arc::new(Locality { region: "eu".into(), ..Locality::default() });
    let written = Endpoint { weight: 7, priority: 2, locality, ..named("API.example.com") };
    bench.apply(vec![("c", STRICT, vec![written.clone(), numbered("192.0.2.9:81")])]).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80", "192.0.2.9:81"]);
    for endpoint in bench.table("c").endpoints().iter().take(3) {
        let expected = Endpoint { address: endpoint.address.clone(), ..written.clone() };
        assert_eq!(endpoint.mesh, expected);
    }
    assert_eq!(bench.counted("success"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_answer_is_asked_for_again_and_a_change_is_published() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 30);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    bench.script.say("a.test", &["192.0.2.2"], 30);
    sleep(SECOND * 29).await;
    assert_eq!((bench.script.asked("a.test"), bench.addresses("c")), (1, vec!["192.0.2.1:80".into()]));
    sleep(SECOND).await;
    assert_eq!((bench.script.asked("a.test"), bench.addresses("c")), (2, vec!["192.0.2.2:80".into()]));
}

#[tokio::test(start_paused = true)]
async fn the_pause_is_the_time_to_live_within_bounds_or_else_the_refresh_rate() {
    let mut bench = Bench::new();
    let asked_within = [("short", 1, 10), ("silent", 0, 600), ("long", 86_400, 3000)];
    for (host, ttl, _) in asked_within {
        bench.script.say(host, &["192.0.2.1"], ttl);
    }
    bench.script.say("hasty", &["192.0.2.1"], 0);
    let hasty = Discovery::StrictDns { refresh: Duration::ZERO };
    let hosts = vec![named("short"), named("silent"), named("long")];
    bench.apply(vec![("c", STRICT, hosts), ("h", hasty, vec![named("hasty")])]).await;
    let mut passed = 0;
    for (host, _, seconds) in [asked_within[0], asked_within[1], asked_within[2]] {
        sleep(SECOND * (seconds - passed)).await;
        passed = seconds;
        assert_eq!(bench.script.asked(host), 11, "{host} in {seconds} s");
        assert_eq!(bench.script.asked("hasty"), seconds as usize + 1, "never more than once a second");
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_or_rotated_answer_leaves_the_table_alone() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1", "192.0.2.2"], 5);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    let before = bench.table("c");
    bench.script.say("a.test", &["192.0.2.2", "192.0.2.1"], 5);
    sleep(SECOND * 20).await;
    assert!(bench.script.asked("a.test") >= 4);
    assert!(Arc::ptr_eq(&before, &bench.table("c")));
}

#[tokio::test(start_paused = true)]
async fn a_logical_cluster_has_the_first_address_as_the_server_gives_it() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.9", "192.0.2.1"], 5);
    bench.apply(vec![("c", LOGICAL, vec![named("a.test")])]).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.9:80"]);
    bench.script.say("a.test", &["192.0.2.1", "192.0.2.9"], 5);
    sleep(SECOND * 5).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_last_answer_and_is_retried_after_growing_pauses() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 5);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    bench.script.fail("a.test", Failure::Timeout);
    sleep(SECOND * 305).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.1:80"]);
    // Pauses of 1, 2, 4, 8, 16, 30, 30 ... seconds, each shortened by at most a half.
    let failed = bench.counted("timeout");
    assert!((13..=26).contains(&failed), "{failed} retries in 300 s");
    bench.script.say("a.test", &["192.0.2.2"], 5);
    sleep(SECOND * 30).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_denied_again_and_again_gives_its_addresses_up() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 5);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    bench.script.fail("a.test", Failure::NotFound);
    while bench.counted("not_found") < 2 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(bench.addresses("c"), ["192.0.2.1:80"], "a DNS server that has just started says so too");
    sleep(SECOND * 4).await;
    assert_eq!(bench.addresses("c"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_without_end_times_out_and_leaves_no_endpoint() {
    let mut bench = Bench::new();
    *bench.script.takes.lock().unwrap() = SECOND * 3600;
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    assert_eq!(bench.counted("timeout"), 0);
    sleep(LOOKUP_TIMEOUT).await;
    assert_eq!(bench.counted("timeout"), 1);
    assert_eq!(bench.addresses("c"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_clusters_that_name_one_host_ask_once() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 30);
    let names: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
    let clusters = names.iter().map(|name| (name.as_str(), STRICT, vec![named("a.test"), named("A.test")]));
    bench.apply(clusters.collect()).await;
    assert_eq!(bench.script.asked("a.test"), 1);
    assert!(names.iter().all(|name| bench.addresses(name) == ["192.0.2.1:80"]));
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_hears_at_once_what_is_known_and_a_kept_one_is_not_asked_for_again() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 30);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    let clusters = vec![("c", STRICT, vec![named("a.test")]), ("d", LOGICAL, vec![named("a.test")])];
    bench.apply(clusters).await;
    assert_eq!(bench.addresses("d"), ["192.0.2.1:80"]);
    assert_eq!(bench.script.asked("a.test"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_cluster_stops_asking() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 5);
    bench.script.say("b.test", &["192.0.2.1"], 5);
    let both = vec![("c", STRICT, vec![named("a.test")]), ("d", STRICT, vec![named("b.test")])];
    bench.apply(both).await;
    bench.apply(vec![("d", STRICT, vec![named("b.test")])]).await;
    let asked = bench.script.asked("b.test");
    sleep(SECOND * 60).await;
    assert_eq!(bench.script.asked("a.test"), 1);
    assert!(bench.script.asked("b.test") > asked);
    drop(bench.discovery);
    let asked = bench.script.asked("b.test");
    sleep(SECOND * 60).await;
    assert_eq!(bench.script.asked("b.test"), asked, "a dropped discovery asks nobody");
    assert_eq!(Arc::strong_count(&bench.script), 1, "no task is left");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_names_changed_serves_from_its_old_addresses_until_each_was_asked_for() {
    let mut bench = Bench::new();
    bench.script.say("old.test", &["192.0.2.1"], 30);
    bench.script.say("new.test", &["192.0.2.2"], 30);
    bench.apply(vec![("c", STRICT, vec![named("old.test")])]).await;
    *bench.script.takes.lock().unwrap() = SECOND * 2;
    bench.apply(vec![("c", STRICT, vec![named("new.test")])]).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.1:80"]);
    sleep(SECOND * 2).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_needs_no_names_any_more_gets_its_table_back_whatever_came_last() {
    let mut bench = Bench::new();
    bench.script.say("a.test", &["192.0.2.1"], 5);
    bench.apply(vec![("c", STRICT, vec![named("a.test")])]).await;
    bench.script.say("a.test", &["192.0.2.2"], 5);
    bench.compile(vec![("c", Discovery::Endpoints, vec![numbered("192.0.2.7:90")])]);
    assert_eq!(bench.addresses("c"), ["192.0.2.7:90"]);
    sleep(SECOND * 6).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.2:80"], "the answer came before the discovery heard of it");
    bench.discovery.reconcile(&bench.snapshot);
    sleep(SECOND * 60).await;
    assert_eq!(bench.addresses("c"), ["192.0.2.7:90"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_a_literal_or_for_localhost() {
    let mut bench = Bench::new();
    let hosts = ["192.0.2.1", "2001:db8::1", "[2001:db8::2]", "localhost", "x.LocalHost."];
    bench.apply(vec![("c", STRICT, hosts.map(named).to_vec())]).await;
    let expected = ["192.0.2.1:80", "[2001:db8::1]:80", "[2001:db8::2]:80", "127.0.0.1:80"];
    assert_eq!(bench.addresses("c"), expected);
    assert!(bench.script.asked.lock().unwrap().is_empty());
    // Nor does the system's resolver have a say in them.
    bench.compile(vec![("d", STRICT, hosts.map(named).to_vec())]);
    DnsDiscovery::new(&bench.registry, Handle::current()).reconcile(&bench.snapshot);
    assert_eq!(bench.addresses("d"), expected);
    assert_eq!(known("localhost.example.com"), None);
    assert_eq!(known("notlocalhost"), None);
}

#[tokio::test(start_paused = true)]
async fn lookups_and_addresses_are_bounded() {
    let mut bench = Bench::new();
    *bench.script.takes.lock().unwrap() = SECOND;
    let many: Vec<String> =
        (0..300).map(|number| format!("192.0.{}.{}", number / 250, number % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let hosts: Vec<Endpoint> = (0..200).map(|number| named(&format!("h{number}.test"))).collect();
    bench.script.say("h0.test", &many, 300);
    bench.apply(vec![("c", STRICT, hosts)]).await;
    sleep(SECOND * 10).await;
    assert_eq!(bench.script.most.load(Ordering::SeqCst), LOOKUPS_AT_ONCE);
    assert!((1..200).all(|number| bench.script.asked(&format!("h{number}.test")) > 0));
    assert_eq!(bench.addresses("c").len(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_knows_which_of_its_names_do_not_resolve_and_why() {
    let mut bench = Bench::new();
    bench.script.say("good.test", &["192.0.2.1"], 30);
    bench.script.fail("late.test", Failure::Timeout);
    let endpoints = || vec![named("good.test"), named("Gone.test"), named("late.test"), named("gone.test")];
    bench.apply(vec![("c", STRICT, endpoints()), ("other", STRICT, vec![named("good.test")])]).await;
    let failure =
        |bench: &Bench, cluster: &str| bench.snapshot.cluster(cluster).unwrap().state.discovery_failure();
    let words = "gone.test: the name does not exist (NXDOMAIN); late.test: no DNS server answered in time";
    assert_eq!(failure(&bench, "c").unwrap().as_str(), words);
    assert_eq!(failure(&bench, "other"), None);
    bench.script.say("gone.test", &["192.0.2.2"], 30);
    bench.script.say("late.test", &["192.0.2.3"], 30);
    sleep(SECOND * 2).await;
    assert_eq!(failure(&bench, "c"), None);
    // It fails again, and is still called at its last address.
    bench.script.fail("late.test", Failure::Timeout);
    sleep(SECOND * 40).await;
    assert_eq!(failure(&bench, "c").unwrap().as_str(), "late.test: no DNS server answered in time");
    bench.apply(vec![("c", Discovery::Endpoints, vec![numbered("192.0.2.9:80")])]).await;
    assert_eq!(failure(&bench, "c"), None, "it has no names any more");
}
