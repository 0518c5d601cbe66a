//! Istio's standard metrics, under exactly its names and labels: Kiali and the stock dashboards need them.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::bundle::{Buckets, Bundle, HistogramSlot, Kind, Slot, Spec};
use super::registry::{Registry, Series, lock};
use crate::telemetry::flags::ResponseFlags;

static DURATION: Buckets = Buckets::DURATION;
static BYTES: Buckets = Buckets::BYTES;

macro_rules! labels {
    ($($more:literal),*) => {
        &[
            "reporter",
            "source_workload", "source_workload_namespace", "source_principal", "source_app", "source_version",
            "source_cluster", "source_canonical_service", "source_canonical_revision",
            "destination_workload", "destination_workload_namespace", "destination_principal", "destination_app",
            "destination_version", "destination_cluster", "destination_canonical_service",
            "destination_canonical_revision",
            "destination_service", "destination_service_name", "destination_service_namespace",
            "request_protocol", "response_flags", "connection_security_policy",
            $($more),*
        ]
    };
}

/// The four families of a finished HTTP or gRPC request.
pub(super) static HTTP: Bundle =
    Bundle { labels: labels!("response_code", "grpc_response_status"), families: HTTP_FAMILIES };
const HTTP_FAMILIES: &[Spec] = &[
    Spec { name: REQUESTS, help: "Requests handled.", kind: Kind::Counter },
    Spec {
        name: "istio_request_duration_milliseconds",
        help: "Time from the first byte of a request to the last byte of its response.",
        kind: Kind::Histogram(&DURATION),
    },
    Spec { name: "istio_request_bytes", help: "Size of request bodies.", kind: Kind::Histogram(&BYTES) },
    Spec { name: "istio_response_bytes", help: "Size of response bodies.", kind: Kind::Histogram(&BYTES) },
];
/// The name of Istio's request counter.
pub const REQUESTS: &str = "istio_requests_total";
pub(super) const REQUESTS_TOTAL: Slot = HTTP.scalar(0);
pub(super) const REQUEST_DURATION: HistogramSlot = HTTP.histogram(1);
pub(super) const REQUEST_BYTES: HistogramSlot = HTTP.histogram(2);
pub(super) const RESPONSE_BYTES: HistogramSlot = HTTP.histogram(3);

/// The families of a TCP connection.
pub static TCP: Bundle = Bundle {
    labels: labels!(),
    families: &[
        Spec { name: "istio_tcp_sent_bytes_total", help: "Bytes sent to the caller.", kind: Kind::Counter },
        Spec {
            name: "istio_tcp_received_bytes_total",
            help: "Bytes received from the caller.",
            kind: Kind::Counter,
        },
        Spec {
            name: "istio_tcp_connections_opened_total",
            help: "TCP connections opened.",
            kind: Kind::Counter,
        },
        Spec {
            name: "istio_tcp_connections_closed_total",
            help: "TCP connections closed.",
            kind: Kind::Counter,
        },
    ],
};
/// Bytes sent downstream on a TCP connection.
pub const TCP_SENT: Slot = TCP.scalar(0);
/// Bytes received from downstream on a TCP connection.
pub const TCP_RECEIVED: Slot = TCP.scalar(1);
/// TCP connections opened.
pub const TCP_OPENED: Slot = TCP.scalar(2);
/// TCP connections closed.
pub const TCP_CLOSED: Slot = TCP.scalar(3);

/// The messages of gRPC calls.
pub static MESSAGES: Bundle = Bundle {
    labels: labels!(),
    families: &[
        Spec {
            name: "istio_request_messages_total",
            help: "gRPC messages received from callers.",
            kind: Kind::Counter,
        },
        Spec {
            name: "istio_response_messages_total",
            help: "gRPC messages sent to callers.",
            kind: Kind::Counter,
        },
    ],
};
/// gRPC messages from the caller.
pub const REQUEST_MESSAGES: Slot = MESSAGES.scalar(0);
/// gRPC messages to the caller.
pub const RESPONSE_MESSAGES: Slot = MESSAGES.scalar(1);

/// Constantly 1; its labels `component` and `tag` say what runs.
pub static BUILD: Bundle = Bundle {
    labels: &["component", "tag"],
    families: &[Spec {
        name: "istio_build",
        help: "Component and version of this proxy.",
        kind: Kind::Gauge,
    }],
};

/// Who is described by `source_*` or `destination_*`. An empty field is shown as `unknown`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workload<'a> {
    /// Name of the Deployment (or the like).
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// SPIFFE identity proven by the certificate.
    pub principal: &'a str,
    /// The `app` label.
    pub app: &'a str,
    /// The `version` label.
    pub version: &'a str,
    /// The cluster it runs in.
    pub cluster: &'a str,
    /// Istio's canonical service name.
    pub canonical_service: &'a str,
    /// Istio's canonical revision.
    pub canonical_revision: &'a str,
}

/// The service that was called. An empty field is shown as `unknown`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Service<'a> {
    /// Host as the caller knows it, `cart.shop.svc.cluster.local`.
    pub host: &'a str,
    /// Its short name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// Interned labels of a workload or service: made once per peer, cluster or route, and kept as long as that is.
#[derive(Clone, Debug)]
pub struct Part(pub(super) Arc<PartInner>);

#[derive(Debug)]
pub(super) struct PartInner {
    /// Never given twice, so a key made of ids can not come to mean another label set.
    id: u64,
    values: Box<[Box<str>]>,
}

/// Which side of the call reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's proxy.
    Source,
    /// The called workload's proxy.
    Destination,
    /// A waypoint in between.
    Waypoint,
}

/// The value of `request_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP that is not gRPC.
    Http,
    /// gRPC.
    Grpc,
    /// Anything else over TCP.
    Tcp,
}

/// The value of `connection_security_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// Both sides proved who they are.
    MutualTls,
    /// Plain text.
    None,
    /// Not known here: what the source reports.
    Unknown,
}

/// The labels of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLabels<'a> {
    /// Who reports.
    pub reporter: Reporter,
    /// The caller.
    pub source: &'a Part,
    /// The called workload.
    pub destination: &'a Part,
    /// The called service.
    pub service: &'a Part,
    /// `http`, `grpc` or `tcp`.
    pub protocol: Protocol,
    /// Why it ended as it did.
    pub flags: ResponseFlags,
    /// How the connection is secured.
    pub security: SecurityPolicy,
}

/// The labels of one finished request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels<'a> {
    /// What it shares with its connection.
    pub connection: ConnectionLabels<'a>,
    /// The HTTP status; 0 when no response began.
    pub response_code: u16,
    /// The gRPC status, for gRPC only.
    pub grpc_status: Option<u16>,
}

/// What is measured of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// From the first byte of the request to the last byte of the response.
    pub duration: Duration,
    /// Body bytes of the request.
    pub request_bytes: u64,
    /// Body bytes of the response.
    pub response_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    bundle: &'static str,
    labels: LabelKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LabelKey {
    parts: [u64; 3],
    flags: ResponseFlags,
    reporter: Reporter,
    protocol: Protocol,
    security: SecurityPolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    labels: LabelKey,
    response_code: u16,
    grpc_status: Option<u16>,
}

impl Registry {
    /// The interned labels of a workload.
    #[must_use]
    pub fn workload(&self, workload: &Workload<'_>) -> Part {
        let Workload {
            name,
            namespace,
            principal,
            app,
            version,
            cluster,
            canonical_service,
            canonical_revision,
        } = *workload;
        self.part(&[name, namespace, principal, app, version, cluster, canonical_service, canonical_revision])
    }

    /// The interned labels of a service.
    #[must_use]
    pub fn service(&self, service: &Service<'_>) -> Part {
        self.part(&[service.host, service.name, service.namespace])
    }

    fn part(&self, values: &[&str]) -> Part {
        let named = |value: &&str| Box::from(if value.is_empty() { "unknown" } else { value });
        let values: Box<[Box<str>]> = values.iter().map(named).collect();
        let mut state = lock(&self.state);
        if let Some(known) = state.parts.get(&values).and_then(std::sync::Weak::upgrade) {
            return Part(known);
        }
        let part = Arc::new(PartInner { id: state.next_part, values: values.clone() });
        state.next_part += 1;
        state.parts.insert(values, Arc::downgrade(&part));
        Part(part)
    }
}

impl ConnectionLabels<'_> {
    pub(super) fn key(&self, bundle: &'static Bundle) -> ConnectionKey {
        ConnectionKey { bundle: bundle.name(), labels: self.label_key() }
    }

    pub(super) fn intern(&self, bundle: &'static Bundle, registry: &Registry) -> Series {
        let flags = self.flags.to_string();
        registry.intern(bundle, &self.values(&flags), &self.parts())
    }

    fn label_key(&self) -> LabelKey {
        LabelKey {
            parts: [self.source.0.id, self.destination.0.id, self.service.0.id],
            flags: self.flags,
            reporter: self.reporter,
            protocol: self.protocol,
            security: self.security,
        }
    }

    fn parts(&self) -> [&Part; 3] {
        [self.source, self.destination, self.service]
    }

    fn values<'b>(&'b self, flags: &'b str) -> Vec<&'b str> {
        let mut values = vec![self.reporter.label()];
        values.extend(self.parts().into_iter().flat_map(|part| part.0.values.iter().map(|value| &**value)));
        values.extend([self.protocol.label(), flags, self.security.label()]);
        values
    }
}

impl RequestLabels<'_> {
    pub(super) fn key(&self) -> RequestKey {
        RequestKey {
            labels: self.connection.label_key(),
            response_code: self.response_code,
            grpc_status: self.grpc_status,
        }
    }

    pub(super) fn intern(&self, registry: &Registry) -> Series {
        let flags = self.connection.flags.to_string();
        let code = self.response_code.to_string();
        let grpc = self.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        let mut values = self.connection.values(&flags);
        values.extend([code.as_str(), grpc.as_str()]);
        registry.intern(&HTTP, &values, &self.connection.parts())
    }
}

impl Reporter {
    const fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }
}

impl Protocol {
    const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl SecurityPolicy {
    const fn label(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}
