//! What counting and logging cost one request.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot start may panic")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Version};
use sidegate::telemetry::access_log::{Format, Formatter, Record};
use sidegate::telemetry::flags::ResponseFlags;
use sidegate::telemetry::log_sink::LogSink;
use sidegate::telemetry::metrics::{
    ConnectionLabels, Measured, Protocol, Registry, RegistryLimits, Reporter, RequestLabels, SecurityPolicy,
    Service, Workload,
};

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "cart:9080"),
        ("accept", "*/*"),
        ("user-agent", "curl/8.7.1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "6a1f5c1e-4bb2-9d0c-8f0a-2f6f4a1f7c55"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn record(headers: &HeaderMap) -> Record<'_> {
    Record {
        start: SystemTime::now(),
        duration: Duration::from_micros(1_900),
        upstream_service_time: Some(Duration::from_millis(1)),
        method: Some("GET"),
        path: Some("/api/v1/products?currency=EUR"),
        authority: Some("cart:9080"),
        protocol: Some(Version::HTTP_11),
        response_code: Some(200),
        details: Some("via_upstream"),
        bytes_sent: 1_024,
        request_headers: Some(headers),
        upstream_host: "10.244.1.17:9080".parse().ok(),
        cluster: Some("outbound|9080||cart.shop.svc.cluster.local"),
        upstream_local: "10.244.2.4:51034".parse().ok(),
        downstream_local: "10.96.0.7:9080".parse().ok(),
        downstream_remote: "10.244.2.4:40000".parse().ok(),
        route_name: Some("default"),
        ..Record::default()
    }
}

fn access_log(c: &mut Criterion) {
    let headers = headers();
    let record = record(&headers);
    let mut formatter = Formatter::default();
    let mut out = Vec::with_capacity(4_096);
    for (name, format) in [("text", Format::istio_text()), ("json", Format::istio_json())] {
        let format = format.expect("built in");
        c.bench_function(&format!("access_log/{name}"), |b| {
            b.iter(|| {
                out.clear();
                formatter.write(&format, black_box(&record), &mut out);
                out.len()
            });
        });
    }
    let sink = LogSink::open(Path::new("/dev/null")).expect("/dev/null opens");
    let log = sink.worker();
    let format = Format::istio_text().expect("built in");
    c.bench_function("access_log/text_to_sink", |b| {
        b.iter(|| log.line(|out| formatter.write(&format, black_box(&record), out)));
    });
}

fn metrics(c: &mut Criterion) {
    let registry = Registry::new(RegistryLimits::default());
    let worker = registry.worker();
    let source = registry.workload(&Workload { name: "web", namespace: "shop", ..Workload::default() });
    let destination = registry.workload(&Workload { name: "cart", namespace: "shop", ..Workload::default() });
    let service = registry.service(&Service { name: "cart", ..Service::default() });
    let labels = RequestLabels {
        connection: ConnectionLabels {
            reporter: Reporter::Source,
            source: &source,
            destination: &destination,
            service: &service,
            protocol: Protocol::Http,
            flags: ResponseFlags::NONE,
            security: SecurityPolicy::Unknown,
        },
        response_code: 200,
        grpc_status: None,
    };
    let measured =
        Measured { duration: Duration::from_micros(1_900), request_bytes: 0, response_bytes: 1_024 };
    c.bench_function("metrics/request", |b| {
        b.iter(|| worker.request(black_box(&labels), black_box(&measured)));
    });
    for code in 0..1_000 {
        worker.request(&RequestLabels { response_code: code, ..labels }, &measured);
    }
    c.bench_function("metrics/scrape_1000_label_sets", |b| b.iter(|| registry.scrape().families.len()));
}

criterion_group!(benches, access_log, metrics);
criterion_main!(benches);
