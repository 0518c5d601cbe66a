use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::telemetry::flags::ResponseFlags;
use crate::telemetry::metrics::{
    Bundle, ConnectionLabels, Measured, Protocol, Registry, RegistryLimits, Reporter, RequestLabels,
    SecurityPolicy, Service, Slot, Spec, Workload,
};

static ODD: Bundle = Bundle {
    labels: &["name"],
    families: &[Spec { name: "odd_total", help: "Back\\slash and\nnewline.", kind: Kind::Counter }],
};
const ODD_SLOT: Slot = ODD.scalar(0);

type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// A reader of the format that shares no code with the writer.
fn parse(text: &str) -> (BTreeMap<String, String>, Samples) {
    let (mut types, mut samples) = (BTreeMap::new(), Samples::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "two TYPE lines for {name}");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let mut labels = BTreeMap::new();
        while let Some(tail) = rest.strip_prefix(['{', ',']) {
            let (label, tail) = tail.split_once("=\"").unwrap();
            let (mut value, mut chars) = (String::new(), tail.char_indices());
            loop {
                match chars.next().unwrap() {
                    (at, '"') => {
                        rest = &tail[at + 1..];
                        break;
                    }
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c => c,
                    }),
                    (_, c) => value.push(c),
                }
            }
            labels.insert(label.to_owned(), value);
        }
        let value = rest.trim_start_matches('}').trim().parse().unwrap();
        assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }
    (types, samples)
}

#[test]
fn hostile_label_values_survive_a_round_trip() {
    let registry = Registry::new(RegistryLimits::default());
    let worker = registry.worker();
    let hostile = "a\"b\\c\nd{e=\"f\"} 7";
    let series = registry.series(&ODD, &[hostile]);
    worker.add(&series, ODD_SLOT, 3);
    let text = render(&registry.scrape());
    assert!(text.contains("# HELP odd_total Back\\\\slash and\\nnewline.\n"), "{text}");
    let (types, samples) = parse(&text);
    assert_eq!(types["odd_total"], "counter");
    let labels = BTreeMap::from([("name".to_owned(), hostile.to_owned())]);
    assert_eq!(samples[&("odd_total".to_owned(), labels)], 3.0);
}

#[test]
fn a_request_is_read_back_from_all_four_families_of_both_workers() {
    let registry = Registry::new(RegistryLimits::default());
    let (source, destination) = (
        registry.workload(&Workload { name: "web", namespace: "shop", ..Workload::default() }),
        registry.workload(&Workload { name: "cart", ..Workload::default() }),
    );
    let service =
        registry.service(&Service { host: "cart.shop.svc.cluster.local", name: "cart", namespace: "shop" });
    let labels = RequestLabels {
        connection: ConnectionLabels {
            reporter: Reporter::Destination,
            source: &source,
            destination: &destination,
            service: &service,
            protocol: Protocol::Http,
            flags: ResponseFlags::NONE,
            security: SecurityPolicy::MutualTls,
        },
        response_code: 200,
        grpc_status: None,
    };
    for micros in [400, 1_000, 7_200_000_000] {
        let measured =
            Measured { duration: Duration::from_micros(micros), request_bytes: 0, response_bytes: 11 };
        registry.worker().request(&labels, &measured);
    }
    let (types, samples) = parse(&render(&registry.scrape()));
    assert_eq!(types["istio_request_duration_milliseconds"], "histogram");
    let find = |name: &str, le: Option<&str>| {
        let found: Vec<_> = samples
            .iter()
            .filter(|((n, labels), _)| n == name && labels.get("le").map(String::as_str) == le)
            .collect();
        assert_eq!(found.len(), 1, "{name} {le:?}");
        found[0]
    };
    let ((_, labels), requests) = find("istio_requests_total", None);
    assert_eq!(*requests, 3.0);
    assert_eq!(labels["source_workload"], "web");
    assert_eq!(labels["source_principal"], "unknown");
    assert_eq!(labels["destination_service"], "cart.shop.svc.cluster.local");
    assert_eq!(labels["connection_security_policy"], "mutual_tls");
    assert_eq!(labels["response_code"], "200");
    assert_eq!(labels["response_flags"], "-");
    let duration = |le| *find("istio_request_duration_milliseconds_bucket", Some(le)).1;
    assert_eq!((duration("0.5"), duration("1"), duration("3600000"), duration("+Inf")), (1.0, 2.0, 2.0, 3.0));
    assert_eq!(*find("istio_request_duration_milliseconds_sum", None).1, 7_200_001.4);
    assert_eq!(*find("istio_request_duration_milliseconds_count", None).1, 3.0);
    assert_eq!(*find("istio_request_bytes_bucket", Some("1")).1, 3.0);
    assert_eq!(*find("istio_response_bytes_bucket", Some("10")).1, 0.0);
    assert_eq!(*find("istio_response_bytes_bucket", Some("100")).1, 3.0);
}

#[test]
fn families_and_series_are_always_in_the_same_order() {
    let registry = Registry::new(RegistryLimits::default());
    let _series: Vec<_> = ["c", "a", "b"].iter().map(|name| registry.series(&ODD, &[name])).collect();
    let text = render(&registry.scrape());
    let order: Vec<_> = text.lines().filter(|line| line.starts_with("odd_total")).collect();
    assert_eq!(order, ["odd_total{name=\"a\"} 0", "odd_total{name=\"b\"} 0", "odd_total{name=\"c\"} 0"]);
    assert_eq!(text, render(&registry.scrape()));
}
