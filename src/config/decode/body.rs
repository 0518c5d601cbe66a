//! Decodes what an object says, by its kind.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Report, agree};
use crate::config::fields;
use crate::config::resources::istio::mesh_config::MeshConfig;
use crate::config::resources::kubernetes::{ConfigMap, Meta};
use crate::config::resources::{Kind, Resource, Spec};
use crate::config::spans;

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Meta,
}

#[derive(Deserialize)]
struct Body<T> {
    #[serde(default)]
    spec: T,
}

/// Decodes an object from the text of its document. `None` when it cannot be, which is then among the findings.
pub(super) fn body(report: &mut Report<'_>, text: &str, first_line: u32) -> Option<Resource> {
    let mut decoder = Decoder { report, text, first_line };
    decoder.check_agreement()?;
    let meta = decoder.decode::<Head>()?.metadata;
    let spec = decoder.spec()?;
    Some(Resource::new(report.key.clone(), meta, spec, Arc::clone(report.placement)))
}

struct Decoder<'a, 'b> {
    report: &'a mut Report<'b>,
    text: &'a str,
    first_line: u32,
}

impl Decoder<'_, '_> {
    fn spec(&mut self) -> Option<Spec> {
        Some(match self.report.key.kind {
            Kind::VirtualService => Spec::VirtualService(Box::new(self.under_spec()?)),
            Kind::DestinationRule => Spec::DestinationRule(Box::new(self.under_spec()?)),
            Kind::ServiceEntry => Spec::ServiceEntry(Box::new(self.under_spec()?)),
            Kind::WorkloadEntry => Spec::WorkloadEntry(Box::new(self.under_spec()?)),
            Kind::Sidecar => Spec::Sidecar(Box::new(self.under_spec()?)),
            Kind::Gateway => Spec::Gateway(self.under_spec()?),
            Kind::PeerAuthentication => Spec::PeerAuthentication(Box::new(self.under_spec()?)),
            Kind::RequestAuthentication => Spec::RequestAuthentication(Box::new(self.under_spec()?)),
            Kind::AuthorizationPolicy => Spec::AuthorizationPolicy(Box::new(self.under_spec()?)),
            Kind::Telemetry => Spec::Telemetry(Box::new(self.under_spec()?)),
            Kind::Service => Spec::Service(self.under_spec()?),
            Kind::Proxy => Spec::Proxy(Box::new(self.under_spec()?)),
            Kind::EndpointSlice => Spec::EndpointSlice(self.decode()?),
            Kind::ConfigMap => self.config_map()?,
            Kind::Namespace => Spec::Namespace,
            _ => Spec::Untyped(self.decode::<Body<serde_json::Value>>()?.spec),
        })
    }

    fn under_spec<T: DeserializeOwned + Default>(&mut self) -> Option<T> {
        Some(self.decode::<Body<T>>()?.spec)
    }

    fn decode<T: DeserializeOwned>(&mut self) -> Option<T> {
        match serde_yaml::from_str(self.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    fn check_agreement(&mut self) -> Option<()> {
        let value = self.decode::<serde_yaml::Value>()?;
        match agree::difference(self.report.outline, &value) {
            None => Some(()),
            Some(field) => {
                let message = "can be read in two ways";
                self.report.error("ambiguous-yaml", &field, message, "put the value in double quotes");
                None
            }
        }
    }

    /// Istio's own ConfigMap is named `istio`, or `istio-REVISION`, and holds the mesh configuration as a text.
    fn config_map(&mut self) -> Option<Spec> {
        let map: ConfigMap = self.decode()?;
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
        match serde_yaml::from_str::<Option<MeshConfig>>(text) {
            Ok(config) => Some(Spec::MeshConfig(Box::new(config.unwrap_or_default()))),
            Err(error) => {
                self.report.error("bad-value", FIELD, error.to_string(), "see Istio's MeshConfig");
                None
            }
        }
    }

    /// Turns an error of the decoder into a finding at the field that it speaks of.
    fn refuse(&mut self, error: &serde_yaml::Error) {
        let outline = self.report.outline;
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
        // The decoder begins with the path, where it knows one; the place says it in the other cases.
        let (field, message) = match text.split_once(": ") {
            Some((path, message)) if outline.find(path).is_some() => (path.to_owned(), message),
            _ => {
                let at = error.location().map_or((1, 1), |at| (at.line(), at.column()));
                let line = u32::try_from(at.0).unwrap_or(u32::MAX).saturating_add(self.first_line - 1);
                (outline.path_at(line, u32::try_from(at.1).unwrap_or(u32::MAX)), text)
            }
        };
        let (message, hint) = (message.to_owned(), remedy(message));
        self.report.error("bad-value", &field, message, hint);
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
