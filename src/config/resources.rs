//! The objects that people write, typed, each with its identity and its place in a file.

pub mod istio;
pub mod kind;
pub mod kubernetes;
pub mod own;
pub mod proxy;
pub mod scalar;
pub mod string_match;
pub mod unread;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::spans::{Outline, Place, Places};
use crate::mesh::{self, ObjectName, Source};
use istio::common::{MatchLabels, TargetReference};
use istio::destination_rule::DestinationRule;
use istio::gateway::Gateway;
use istio::mesh_config::MeshConfig;
use istio::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use istio::service_entry::{ServiceEntry, WorkloadEntry};
use istio::sidecar::Sidecar;
use istio::telemetry::Telemetry;
use istio::virtual_service::VirtualService;
pub use kind::Kind;
pub use kubernetes::Meta;
use kubernetes::{ConfigMap, EndpointSlice, Service};
use own::access_policy::AccessPolicy;
use own::audit_policy::AuditPolicy;
use proxy::Proxy;

/// One object as it was written: who it is, what it says, and where it stands.
///
/// Two resources are equal when they say the same, wherever they stand.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Which object it is.
    pub key: ObjectKey,
    /// What it says about itself.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
    /// Where this version of it stands.
    pub placement: Arc<Placement>,
    /// What parts of the mesh say they come from: one for all versions of the object.
    pub source: Arc<Source>,
}

impl Resource {
    /// The first version of an object.
    #[must_use]
    pub fn new(key: ObjectKey, meta: Meta, spec: Spec, placement: Arc<Placement>) -> Self {
        let name = ObjectName {
            kind: mesh::name(key.kind.name()),
            namespace: Arc::clone(&key.namespace),
            name: Arc::clone(&key.name),
        };
        let places = Arc::clone(&placement) as Arc<dyn mesh::Locate>;
        Self { key, meta, spec, placement, source: Arc::new(Source::object(name, Some(places))) }
    }

    /// Says that this is the version which holds: parts of the mesh, however old, tell its places from now on.
    pub fn hold(&self) {
        self.source.follow(Arc::clone(&self.placement) as Arc<dyn mesh::Locate>);
    }

    /// The place of a field such as `spec.http[0].route`, or of its nearest ancestor that was written.
    #[must_use]
    pub fn place(&self, field_path: &str) -> Place {
        self.placement.place(field_path)
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.meta == other.meta && self.spec == other.spec
    }
}

/// The namespace of what stands in for a security object that does not tell its own: it closes every namespace.
pub const EVERYWHERE: &str = "*";

/// Which object: unique among everything that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, `default` when it names none, empty for kinds of the whole cluster.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where one version of an object stands: its file, and the places of its fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement {
    file: Arc<Path>,
    places: Places,
}

impl Placement {
    /// The version whose fields `outline` places in `file`.
    #[must_use]
    pub fn new(file: Arc<Path>, outline: &Outline) -> Self {
        Self { file, places: Places::new(outline) }
    }

    /// The file that holds it.
    #[must_use]
    pub fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// The place of a field, or of its nearest ancestor that was written.
    #[must_use]
    pub fn place(&self, field_path: &str) -> Place {
        let (line, column) = self.places.locate(field_path);
        Place { file: Arc::clone(&self.file), line, column }
    }
}

impl mesh::Locate for Placement {
    fn locate(&self, field: &str) -> mesh::Place {
        let Place { file, line, column } = self.place(field);
        mesh::Place { file, line, column }
    }
}

/// What is left of a security object that was rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Closed {
    /// The workloads that it selects; empty for the whole namespace, also where that cannot be told.
    pub selector: MatchLabels,
    /// The objects that it is attached to.
    pub target_refs: Vec<TargetReference>,
    /// Why it does not hold.
    pub message: String,
}

/// What an object says, by its kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub enum Spec {
    /// Routes of hosts.
    VirtualService(Box<VirtualService>),
    /// The policy towards a host.
    DestinationRule(Box<DestinationRule>),
    /// A service that Kubernetes does not know.
    ServiceEntry(Box<ServiceEntry>),
    /// A workload outside of Kubernetes.
    WorkloadEntry(Box<WorkloadEntry>),
    /// What a workload sees and listens on.
    Sidecar(Box<Sidecar>),
    /// Servers at the edge.
    Gateway(Gateway),
    /// Whether callers must use mutual TLS.
    PeerAuthentication(Box<PeerAuthentication>),
    /// Which tokens count.
    RequestAuthentication(Box<RequestAuthentication>),
    /// Who may do what.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Zero trust beyond that.
    AccessPolicy(Box<AccessPolicy>),
    /// Traces, metrics and access logs.
    Telemetry(Box<Telemetry>),
    /// What is audited.
    AuditPolicy(Box<AuditPolicy>),
    /// A security object that does not hold and has no earlier version: what it would have been about is closed.
    Closed(Box<Closed>),
    /// A Kubernetes Service.
    Service(Service),
    /// Endpoints of a Kubernetes Service.
    EndpointSlice(EndpointSlice),
    /// A Kubernetes ConfigMap of no special meaning.
    ConfigMap(Box<ConfigMap>),
    /// Istio's own ConfigMap: the settings of the mesh.
    MeshConfig(Box<MeshConfig>),
    /// A namespace; its labels are in the resource's `meta`.
    Namespace,
    /// One proxy.
    Proxy(Box<Proxy>),
    /// A kind that is known and not enforced yet, as it was written.
    Untyped(serde_json::Value),
}
