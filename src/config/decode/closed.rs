//! What stands in for a security object that is rejected: the scope that it would have had.

use std::sync::Arc;

use crate::config::finding::{Finding, Severity};
use crate::config::resources::istio::common::{MatchLabels, TargetReference};
use crate::config::resources::own::common::Mode;
use crate::config::resources::{Closed, Kind, Meta, ObjectKey, Placement, Resource, Spec};
use crate::config::spans::{Outline, Value};
use crate::mesh::Labels;

/// The longest text that an outline holds whole.
const WHOLE: usize = 255;

/// The object that closes the scope of a rejected one; `None` for kinds that close nothing.
pub(super) fn stand_in(
    key: &ObjectKey,
    outline: &Outline,
    placement: &Arc<Placement>,
    findings: &[Finding],
) -> Option<Arc<Resource>> {
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    // One in shadow would have changed nothing.
    let doubtful = |error: &Finding| matches!(&*error.field, "" | "spec" | "spec.mode");
    let shadow = key.kind == Kind::AccessPolicy
        && outline.text("spec.mode") == Some("Shadow")
        && !errors().any(doubtful);
    // What is not audited closes nothing, and has to be known all the same.
    let stands = key.kind.closes() || key.kind == Kind::AuditPolicy;
    if !stands || shadow {
        return None;
    }
    // What is wrong with the scope itself, or with all of the object, leaves nothing to rely on.
    let readable = errors().all(|error| {
        let field = error.field.as_str();
        !matches!(field, "" | "spec")
            && !field.starts_with("spec.selector")
            && !field.starts_with("spec.targetRef")
    });
    let scope = if readable { selector(outline).zip(target_refs(outline)) } else { None };
    let (selector, target_refs) = scope.unwrap_or_default();
    let message =
        errors().next().map_or_else(String::new, |error| format!("{}: {}", error.field, error.message));
    let closed = Closed { selector: MatchLabels { match_labels: selector }, target_refs, message };
    Some(Arc::new(resource(key, closed, placement)))
}

/// The object that closes a whole namespace.
pub(super) fn namespace(key: &ObjectKey, placement: &Arc<Placement>, message: String) -> Resource {
    resource(key, Closed { message, ..Closed::default() }, placement)
}

/// The object that closes the scope of one which is valid and cannot hold; `None` for kinds that close nothing.
pub(in crate::config) fn close(key: &ObjectKey, valid: &Resource, message: String) -> Option<Resource> {
    let one = |target: &Option<TargetReference>| target.iter().cloned().collect::<Vec<_>>();
    let (selector, target, targets) = match &valid.spec {
        Spec::AuthorizationPolicy(spec) => (&spec.selector, one(&spec.target_ref), spec.target_refs.clone()),
        Spec::RequestAuthentication(spec) => {
            (&spec.selector, one(&spec.target_ref), spec.target_refs.clone())
        }
        Spec::PeerAuthentication(spec) => (&spec.selector, Vec::new(), Vec::new()),
        Spec::AccessPolicy(spec) if spec.mode == Mode::Shadow => return None,
        Spec::AccessPolicy(spec) => (&spec.selector, Vec::new(), Vec::new()),
        Spec::Closed(spec) => {
            let closed = Closed { message, ..Closed::clone(spec) };
            return Some(resource(key, closed, &valid.placement));
        }
        _ => return None,
    };
    let target_refs = if targets.is_empty() { target } else { targets };
    let closed = Closed { selector: selector.clone().unwrap_or_default(), target_refs, message };
    Some(resource(key, closed, &valid.placement))
}

fn resource(key: &ObjectKey, closed: Closed, placement: &Arc<Placement>) -> Resource {
    Resource::new(key.clone(), Meta::default(), Spec::Closed(Box::new(closed)), Arc::clone(placement))
}

/// The labels as written; empty without any, `None` where they cannot be read.
fn selector(outline: &Outline) -> Option<Labels> {
    let Some(at) = outline.find("spec.selector.matchLabels") else { return Some(Labels::default()) };
    let Some(Value::Mapping(entries)) = outline.value(at) else { return None };
    let label = |(key, _, value): &(Box<str>, usize, usize)| match outline.value(*value) {
        Some(Value::Scalar(text, _)) if text.len() < WHOLE => Some((key.to_string(), text.to_string())),
        _ => None,
    };
    entries.iter().map(label).collect()
}

fn target_refs(outline: &Outline) -> Option<Vec<TargetReference>> {
    if let Some(at) = outline.find("spec.targetRefs") {
        let Some(Value::Sequence(items)) = outline.value(at) else { return None };
        return (0..items.len())
            .map(|index| target_ref(outline, &format!("spec.targetRefs[{index}]")))
            .collect();
    }
    match outline.find("spec.targetRef") {
        Some(_) => Some(vec![target_ref(outline, "spec.targetRef")?]),
        None => Some(Vec::new()),
    }
}

fn target_ref(outline: &Outline, field: &str) -> Option<TargetReference> {
    let text = |name: &str| outline.text(&format!("{field}.{name}")).map(str::to_owned);
    Some(TargetReference {
        group: text("group"),
        kind: text("kind")?,
        name: text("name")?,
        namespace: text("namespace"),
    })
}
