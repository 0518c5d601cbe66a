//! Decodes what an object says, by its kind.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Report, value};
use crate::config::fields;
use crate::config::resources::istio::mesh_config::MeshConfig;
use crate::config::resources::kubernetes::ConfigMap;
use crate::config::resources::{Kind, Resource, Spec};
use crate::config::spans::{self, Outline};

/// Decodes an object from its document. `None` when it cannot be, which is then among the findings.
pub(super) fn body(report: &mut Report<'_>) -> Option<Resource> {
    let mut decoder = Decoder { report };
    let meta = decoder.under("metadata")?;
    let spec = decoder.spec()?;
    Some(Resource::new(report.key.clone(), meta, spec, Arc::clone(report.placement)))
}

struct Decoder<'a, 'b> {
    report: &'a mut Report<'b>,
}

impl Decoder<'_, '_> {
    fn spec(&mut self) -> Option<Spec> {
        Some(match self.report.key.kind {
            Kind::VirtualService => Spec::VirtualService(Box::new(self.under("spec")?)),
            Kind::DestinationRule => Spec::DestinationRule(Box::new(self.under("spec")?)),
            Kind::ServiceEntry => Spec::ServiceEntry(Box::new(self.under("spec")?)),
            Kind::WorkloadEntry => Spec::WorkloadEntry(Box::new(self.under("spec")?)),
            Kind::Sidecar => Spec::Sidecar(Box::new(self.under("spec")?)),
            Kind::Gateway => Spec::Gateway(self.under("spec")?),
            Kind::PeerAuthentication => Spec::PeerAuthentication(Box::new(self.under("spec")?)),
            Kind::RequestAuthentication => Spec::RequestAuthentication(Box::new(self.under("spec")?)),
            Kind::AuthorizationPolicy => Spec::AuthorizationPolicy(Box::new(self.under("spec")?)),
            Kind::AccessPolicy => Spec::AccessPolicy(Box::new(self.under("spec")?)),
            Kind::AuditPolicy => Spec::AuditPolicy(Box::new(self.under("spec")?)),
            Kind::Telemetry => Spec::Telemetry(Box::new(self.under("spec")?)),
            Kind::Service => Spec::Service(self.under("spec")?),
            Kind::Proxy => Spec::Proxy(Box::new(self.under("spec")?)),
            Kind::EndpointSlice => Spec::EndpointSlice(self.decode("", Outline::ROOT)?),
            Kind::ConfigMap => self.config_map()?,
            Kind::Namespace => Spec::Namespace,
            _ => Spec::Untyped(self.under("spec")?),
        })
    }

    /// What stands at a field; its default when nothing does.
    fn under<T: DeserializeOwned + Default>(&mut self, field: &str) -> Option<T> {
        match self.report.outline.find(field) {
            Some(at) => self.decode(field, at),
            None => Some(T::default()),
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, field: &str, at: usize) -> Option<T> {
        match value::decode(self.report.outline, at) {
            Ok(value) => Some(value),
            Err(error) => {
                let message = error.to_string();
                let hint = remedy(&message);
                self.report.error("bad-value", &error.field(field), message, hint);
                None
            }
        }
    }

    /// Istio's own ConfigMap is named `istio`, or `istio-REVISION`, and holds the mesh configuration as a text.
    fn config_map(&mut self) -> Option<Spec> {
        let map: ConfigMap = self.decode("", Outline::ROOT)?;
        let name = &*self.report.key.name;
        let text = map.data.get("mesh").filter(|_| name == "istio" || name.starts_with("istio-"));
        match text {
            Some(text) => self.mesh(text),
            None => Some(Spec::ConfigMap(Box::new(map))),
        }
    }

    fn mesh(&mut self, text: &str) -> Option<Spec> {
        const FIELD: &str = "data.mesh";
        let (documents, fault) = spans::read(text);
        let faults = fault.into_iter().chain(documents.iter().flat_map(|document| document.faults.clone()));
        for fault in faults {
            let message = format!("line {} of the text: {}", fault.line, fault.message);
            self.report.error(fault.code, FIELD, message, fault.hint);
        }
        if let Some(document) = documents.first() {
            for remark in fields::mesh_remarks(&document.outline) {
                let line = document.outline.locate(&remark.field).0;
                let what = match remark.about {
                    fields::About::Warned(would) => format!("is not enforced yet: {would}"),
                    fields::About::Refused(why) => format!("is refused: {why}"),
                    fields::About::MergeKey => "a merge key (`<<`) is not read".to_owned(),
                    fields::About::Unknown(_) => "MeshConfig has no such field; it has no effect".to_owned(),
                };
                let message = format!("line {line} of the text: `{}`: {what}", remark.field);
                self.report.warning("mesh-config", FIELD, message, "");
            }
        }
        if self.report.is_rejected() {
            return None;
        }
        let Some(document) = documents.first() else {
            return Some(Spec::MeshConfig(Box::default()));
        };
        match value::decode::<MeshConfig>(&document.outline, Outline::ROOT) {
            Ok(config) => Some(Spec::MeshConfig(Box::new(config))),
            Err(error) => {
                let field = error.field("");
                let line = document.outline.locate(&field).0;
                let message = format!("line {line} of the text: `{field}`: {error}");
                self.report.error("bad-value", FIELD, message, "see Istio's MeshConfig");
                None
            }
        }
    }
}

fn remedy(message: &str) -> &'static str {
    if message.contains("expected a string") {
        "put the value in quotes"
    } else if message.contains("expected u16") {
        "write a whole number from 0 to 65535"
    } else if message.contains("expected u32") || message.contains("expected u64") {
        "write a whole number that is not negative"
    } else if message.contains("expected a boolean") {
        "write true or false, without quotes"
    } else if message.contains("expected a sequence") {
        "write a list: each item on a line of its own, after `- `"
    } else if message.contains("expected struct") || message.contains("expected a map") {
        "write a mapping: `key: value` on lines of their own, indented"
    } else {
        ""
    }
}
