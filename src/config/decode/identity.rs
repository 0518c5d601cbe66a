//! Which object a document is, before anything else about it is believed.

use std::path::Path;
use std::sync::Arc;

use crate::config::fields::nearest;
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{Kind, ObjectKey};
use crate::config::spans::{Document, Outline, Place, Value};

/// Which object a document is.
pub(super) enum Identity {
    /// One of ours.
    Ours(ObjectKey),
    /// Something else, with what there is to say about it.
    Other(Option<Finding>),
    /// Nobody can tell.
    Unknown(Vec<Finding>),
}

pub(super) fn identify(file: &Arc<Path>, document: &Document) -> Identity {
    let outline = &document.outline;
    let about = |severity, code, field: &str, message: String, hint: &str| {
        let (line, column) = outline.locate(field);
        let place = Some(Place { file: Arc::clone(file), line, column });
        Finding {
            severity,
            code,
            object: None,
            field: field.to_owned(),
            place,
            message,
            hint: hint.to_owned(),
        }
    };
    let unknown = |code, field: &str, message: String, hint: &str| {
        Identity::Unknown(vec![about(Severity::Error, code, field, message, hint)])
    };
    // A field at the top that stands twice makes the identity itself ambiguous.
    let ambiguous: Vec<_> =
        document.faults.iter().filter(|fault| fault.code == "missing-separator").collect();
    if let Some(first) = ambiguous.first() {
        return Identity::Unknown(vec![super::from_fault(file, None, (*first).clone())]);
    }
    if !matches!(outline.value(Outline::ROOT), Some(Value::Mapping(_))) {
        let hint = "an object begins with `apiVersion:` and `kind:`";
        return unknown("not-an-object", "", "the document is no object".to_owned(), hint);
    }
    let (api_version, kind_name) = match (outline.text("apiVersion"), outline.text("kind")) {
        (Some(api_version), Some(kind)) => (api_version, kind),
        (None, None) if outline.find("tests").is_some() => {
            let message = "holds policy tests, which are run by `sidegate test`".to_owned();
            return Identity::Other(Some(about(Severity::Info, "policy-tests", "", message, "")));
        }
        (api_version, _) => {
            let field = if api_version.is_none() { "apiVersion" } else { "kind" };
            let hint = "an object begins with `apiVersion:` and `kind:`";
            return unknown("not-an-object", field, format!("the document has no `{field}`"), hint);
        }
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(kind) = Kind::of(group, kind_name) else {
        return foreign(group, kind_name, &about);
    };
    if !kind.versions().contains(&version) {
        let versions = kind.versions().join(", ");
        let message = format!("{kind} has no version `{version}`");
        return unknown(
            "unknown-version",
            "apiVersion",
            message,
            &format!("write one of {versions} after `{group}/`"),
        );
    }
    let Some(name) = outline.text("metadata.name").filter(|name| !name.is_empty()) else {
        return unknown(
            "no-name",
            "metadata.name",
            format!("the {kind} has no name"),
            "write `metadata: {name: ...}`",
        );
    };
    let namespace = match outline.text("metadata.namespace") {
        _ if kind.is_cluster_scoped() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    for (field, text) in [("metadata.name", name), ("metadata.namespace", namespace)] {
        let left_out = text.is_empty() && kind.is_cluster_scoped();
        if !left_out && !is_name(text) {
            let message = format!("`{text}` is no name of an object");
            return unknown("bad-name", field, message, "use lower-case letters, digits, `-` and `.`");
        }
    }
    Identity::Ours(ObjectKey { kind, namespace: crate::mesh::name(namespace), name: crate::mesh::name(name) })
}

/// A DNS sub-domain as of RFC 1123, which Kubernetes asks of names.
fn is_name(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// A kind of ours in a group that is missing or nearly ours: read as a foreign kind it would be lost in silence.
fn is_misspelt(group: &str, name: &str) -> bool {
    let ours = Kind::ALL.into_iter().filter(|kind| kind.name() == name && *kind != Kind::Service);
    ours.into_iter().any(|kind| group.is_empty() || nearest(group, std::iter::once(kind.group())).is_some())
}

fn foreign(
    group: &str,
    name: &str,
    about: &impl Fn(Severity, &'static str, &str, String, &str) -> Finding,
) -> Identity {
    let (severity, code, message, hint) = if group == "gateway.networking.k8s.io" {
        let message = format!("{name} of the Gateway API is not read yet");
        (
            Severity::Warning,
            "not-enforced",
            message,
            "write it as Istio's VirtualService or Gateway".to_owned(),
        )
    } else if group.is_empty() && name.ends_with("List") || name == "List" {
        let hint = "write its objects as a list under `items`".to_owned();
        return Identity::Unknown(vec![about(
            Severity::Error,
            "list",
            "kind",
            "a list without `items` is not read".to_owned(),
            &hint,
        )]);
    } else if group.ends_with("istio.io") || group == "sidegate.io" || is_misspelt(group, name) {
        let names = Kind::ALL.into_iter().filter(|kind| kind.group() == group).map(Kind::name);
        let hint = match (Kind::ALL.into_iter().find(|kind| kind.name() == name), nearest(name, names)) {
            (Some(kind), _) => format!("write `apiVersion: {}/{}`", kind.group(), kind.versions()[0]),
            (None, Some(near)) => format!("write `kind: {near}`"),
            (None, None) => "check `apiVersion` and `kind`".to_owned(),
        };
        let message = format!("`{group}` has no kind `{name}`");
        return Identity::Unknown(vec![about(Severity::Error, "unknown-kind", "kind", message, &hint)]);
    } else {
        (Severity::Info, "not-ours", format!("{name} is no kind that a proxy reads"), String::new())
    };
    Identity::Other(Some(about(severity, code, "kind", message, &hint)))
}
