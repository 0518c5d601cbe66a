//! Decodes what an object says, by its kind.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Report, value};
use crate::config::fields::{self, nearest};
use crate::config::resources::istio::mesh_config::MeshConfig;
use crate::config::resources::kubernetes::ConfigMap;
use crate::config::resources::{Kind, Resource, Spec};
use crate::config::spans::{self, Outline};

/// Istio's namespace, unless somebody chose another.
const ISTIO: &str = "istio-system";
/// The most wrong values that are told of one object.
const MAX_WRONG: usize = 50;

/// Decodes an object from its document, without the fields that are wrong: these are among the findings and added to `wrong`, which holds those
/// that are known to be. `None` when nothing can be made of it.
pub(super) fn body(report: &mut Report<'_>, wrong: &mut Vec<String>) -> Option<Resource> {
    let mut outline = Cow::Borrowed(report.outline);
    for field in wrong.iter() {
        outline.to_mut().remove(field);
    }
    let mut decoder = Decoder { report, outline, wrong };
    let meta = decoder.under("metadata")?;
    let spec = decoder.spec()?;
    Some(Resource::new(report.key.clone(), meta, spec, Arc::clone(report.placement)))
}

struct Decoder<'a, 'b> {
    report: &'a mut Report<'b>,
    /// What was written, without what is wrong.
    outline: Cow<'b, Outline>,
    wrong: &'a mut Vec<String>,
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
        match self.outline.find(field) {
            Some(at) => self.decode(field, at),
            None => Some(T::default()),
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, field: &str, at: usize) -> Option<T> {
        for _ in 0..MAX_WRONG {
            let error = match value::decode(&self.outline, at) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let path = error.field(field);
            // What is left of it makes no sense: a consequence of what was said.
            if path == field || self.wrong.iter().any(|wrong| is_within(wrong, &path)) {
                if self.wrong.is_empty() {
                    self.say(&path, &error.to_string());
                }
                self.wrong.push(path);
                return None;
            }
            self.say(&path, &error.to_string());
            self.outline.to_mut().remove(&path);
            self.wrong.push(path);
        }
        None
    }

    fn say(&mut self, field: &str, message: &str) {
        let hint = remedy(message);
        self.report.error("bad-value", field, message, hint);
    }

    /// Istio's own ConfigMap is named `istio`, or `istio-REVISION` in Istio's namespace, and holds the mesh configuration as a text.
    fn config_map(&mut self) -> Option<Spec> {
        let map: ConfigMap = self.decode("", Outline::ROOT)?;
        let key = self.report.key;
        let is_istios = &*key.name == "istio" || &*key.namespace == ISTIO && key.name.starts_with("istio-");
        let text = map.data.get("mesh").filter(|_| is_istios);
        match text {
            Some(text) => self.mesh(text),
            None => Some(Spec::ConfigMap(Box::new(map))),
        }
    }

    fn mesh(&mut self, text: &str) -> Option<Spec> {
        const FIELD: &str = "data.mesh";
        let (documents, broken) = spans::read(text);
        let broken = broken.into_iter().flat_map(|broken| broken.faults.into_iter().chain([broken.fault]));
        let faults = documents.iter().flat_map(|document| document.faults.clone());
        for fault in broken.chain(faults) {
            let message = format!("line {} of the text: {}", fault.line, fault.message);
            self.report.error(fault.code, FIELD, message, fault.hint);
        }
        if let Some(document) = documents.first() {
            for remark in fields::mesh_remarks(&document.outline) {
                let line = document.outline.locate(&remark.field).0;
                let strict = self.report.strictness.unknown_fields;
                let (what, rejects, hint) = match remark.about {
                    fields::About::Warned(would) => {
                        (format!("is not enforced yet: {would}"), false, "do not rely on it".to_owned())
                    }
                    fields::About::Refused(why) => {
                        (format!("is refused: {why}"), false, "remove the field".to_owned())
                    }
                    fields::About::MergeKey => {
                        let what = "a merge key (`<<`) is not read".to_owned();
                        (what, strict, "write the fields out".to_owned())
                    }
                    fields::About::Unknown(near) => {
                        let what = "MeshConfig has no such field; it has no effect".to_owned();
                        let hint = near.map_or_else(
                            || "remove it, or check its indentation".to_owned(),
                            |near| format!("write `{near}`, or remove it"),
                        );
                        (what, strict, hint)
                    }
                };
                let message = format!("line {line} of the text: `{}`: {what}", remark.field);
                if rejects {
                    self.report.error("mesh-config", FIELD, message, hint);
                } else {
                    self.report.warning("mesh-config", FIELD, message, hint);
                }
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

/// Whether a field is another one, or stands below it.
fn is_within(field: &str, other: &str) -> bool {
    field
        .strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']) || other.is_empty())
}

/// Whether what is said of a field may come of another one being wrong.
pub(super) fn is_related(field: &str, wrong: &str) -> bool {
    is_within(field, wrong) || is_within(wrong, field)
}

/// The variant that is nearest to an unknown one.
fn variant(message: &str) -> Option<String> {
    let mut words = message.strip_prefix("unknown variant `")?.split('`').step_by(2);
    let written = words.next()?;
    nearest(written, words).map(|near| format!("write `{near}`"))
}

fn remedy(message: &str) -> String {
    if let Some(near) = variant(message) {
        return near;
    }
    let hint = if message.contains("expected a string") {
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
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests;
