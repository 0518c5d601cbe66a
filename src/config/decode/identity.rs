//! Which object a document is, before anything else about it is believed.

use std::path::Path;
use std::sync::Arc;

use super::torn::unnamed;
use crate::config::fields::nearest;
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{EVERYWHERE, Kind, ObjectKey};
use crate::config::spans::{Document, Outline, Place, Value};

/// Which object a document is.
pub(super) enum Identity {
    /// One of ours.
    Ours(Ours),
    /// Something else, with what there is to say about it.
    Other(Option<Finding>),
    /// Nobody can tell. What its file held before may be in it.
    Unknown(Finding),
}

/// An object of ours, or what was meant as one.
pub(super) struct Ours {
    pub(super) key: ObjectKey,
    /// What is wrong with the identity itself. The object is rejected, under a name that cannot be written where it has none.
    pub(super) wrong: Vec<Finding>,
    /// Whether it is this object beyond doubt.
    pub(super) certain: bool,
}

/// What an object begins with.
const BEGINNING: &str = "an object begins with `apiVersion:` and `kind:`";

pub(super) fn identify(file: &Arc<Path>, document: &Document) -> Identity {
    let outline = &document.outline;
    let about = About { file, outline };
    if !matches!(outline.value(Outline::ROOT), Some(Value::Mapping(_))) {
        let message = "the document is no object and is not read".to_owned();
        return Identity::Unknown(about.warning("not-an-object", "", message, BEGINNING));
    }
    match kind(outline, &about) {
        Ok((kind, wrong)) => Identity::Ours(ours(kind, wrong, document, &about)),
        Err(identity) => identity,
    }
}

/// The kind that a document is, or is meant to be, with what is wrong about that.
#[allow(clippy::result_large_err, reason = "once for each document, and what is no object is no error")]
fn kind(outline: &Outline, about: &About<'_>) -> Result<(Kind, Vec<Finding>), Identity> {
    let without = |field: &str| format!("the document has no `{field}`");
    let missing = |field: &'static str| about.error("not-an-object", field, without(field), BEGINNING);
    let (api_version, name) = match (outline.text("apiVersion"), outline.text("kind")) {
        (Some(api_version), Some(name)) => (api_version, name),
        (None, Some(name)) => {
            return match Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                Some(kind) => Ok((kind, vec![missing("apiVersion")])),
                None => Err(Identity::Unknown(about.warning(
                    "not-an-object",
                    "apiVersion",
                    without("apiVersion"),
                    BEGINNING,
                ))),
            };
        }
        // One of the kinds that protect something: as good as the one that refuses most.
        (Some(api_version), None) if api_version.starts_with("security.istio.io/") => {
            return Ok((Kind::AuthorizationPolicy, vec![missing("kind")]));
        }
        (Some(_), None) => return Err(Identity::Unknown(missing("kind"))),
        (None, None) if outline.find("tests").is_some() => {
            let message = "holds policy tests, which are run by `sidegate test`".to_owned();
            return Err(Identity::Other(Some(about.say(Severity::Info, "policy-tests", "", message, ""))));
        }
        (None, None) if outline.find("metadata").is_some() || outline.find("spec").is_some() => {
            return Err(Identity::Unknown(missing("apiVersion")));
        }
        (None, None) => {
            let message = "is no object: it has neither `apiVersion` nor `kind` and is not read".to_owned();
            return Err(Identity::Other(Some(about.warning("not-an-object", "", message, BEGINNING))));
        }
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(kind) = Kind::of(group, name) else {
        return foreign(group, name, about);
    };
    let mut wrong = Vec::new();
    if !kind.versions().contains(&version) {
        let versions = kind.versions().join(", ");
        let message = format!("{kind} has no version `{version}`");
        let hint = match group {
            "" => format!("write `apiVersion: {versions}`"),
            _ => format!("write one of {versions} after `{group}/`"),
        };
        wrong.push(about.error("unknown-version", "apiVersion", message, &hint));
    }
    Ok((kind, wrong))
}

/// The object of a kind that a document names.
fn ours(kind: Kind, mut wrong: Vec<Finding>, document: &Document, about: &About<'_>) -> Ours {
    let (file, outline) = (about.file, &document.outline);
    let mut certain = true;
    let mut namespace = match text(outline, "metadata.namespace") {
        _ if kind.is_cluster_scoped() => "",
        Ok(None | Some("")) => "default",
        Ok(Some(namespace)) => namespace,
        Err(()) => {
            let message = "is no name of a namespace".to_owned();
            wrong.push(about.error("bad-name", "metadata.namespace", message, "write one word"));
            EVERYWHERE
        }
    };
    if !kind.is_cluster_scoped() && !is_name(namespace) {
        if namespace != EVERYWHERE {
            wrong.push(bad_name(about, "metadata.namespace", namespace));
        }
        certain = false;
        namespace = EVERYWHERE;
    }
    // Of two lists of metadata nobody knows which one counts.
    if document.faults.iter().any(|fault| fault.field == "metadata") {
        certain = false;
        namespace = if kind.is_cluster_scoped() { "" } else { EVERYWHERE };
    }
    let name = match text(outline, "metadata.name") {
        Ok(Some(name)) if is_name(name) => name.to_owned(),
        Ok(Some(name)) if !name.is_empty() => {
            wrong.push(bad_name(about, "metadata.name", name));
            certain = false;
            name.to_owned()
        }
        _ => {
            let message = format!("the {kind} has no name");
            wrong.push(about.error("no-name", "metadata.name", message, "write `metadata: {name: ...}`"));
            certain = false;
            unnamed(file, outline.position(Outline::ROOT).0)
        }
    };
    let key = ObjectKey { kind, namespace: crate::mesh::name(namespace), name: crate::mesh::name(&name) };
    Ours { key, wrong, certain }
}

fn bad_name(about: &About<'_>, field: &str, text: &str) -> Finding {
    let message = format!("`{text}` is no name of an object");
    about.error("bad-name", field, message, "use lower-case letters, digits, `-` and `.`")
}

/// The text of a field; `None` where it is not written, or null.
fn text<'o>(outline: &'o Outline, field: &str) -> Result<Option<&'o str>, ()> {
    let (parent, _) = field.split_once('.').unwrap_or((field, ""));
    let is_null =
        |value: &Value| matches!(value, Value::Scalar(text, true) if matches!(&**text, "" | "~" | "null"));
    let at =
        |field: &str| outline.find(field).and_then(|at| outline.value(at)).filter(|value| !is_null(value));
    match (at(parent), at(field)) {
        (None | Some(Value::Mapping(_)), None) => Ok(None),
        (_, Some(Value::Scalar(text, _))) => Ok(Some(text)),
        _ => Err(()),
    }
}

/// Says something about a field of a document.
struct About<'a> {
    file: &'a Arc<Path>,
    outline: &'a Outline,
}

impl About<'_> {
    fn error(&self, code: &'static str, field: &str, message: String, hint: &str) -> Finding {
        self.say(Severity::Error, code, field, message, hint)
    }

    fn warning(&self, code: &'static str, field: &str, message: String, hint: &str) -> Finding {
        self.say(Severity::Warning, code, field, message, hint)
    }

    fn say(
        &self,
        severity: Severity,
        code: &'static str,
        field: &str,
        message: String,
        hint: &str,
    ) -> Finding {
        let (line, column) = self.outline.locate(field);
        let place = Some(Place { file: Arc::clone(self.file), line, column });
        let (field, hint) = (field.to_owned(), hint.to_owned());
        Finding { severity, code, object: None, field, place, message, hint }
    }
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

/// The kind of ours that was meant by one which is not: in a group that is missing, nearly right or another of Istio's, or with a name that is
/// nearly right. Read as a foreign kind it would be lost in silence.
fn meant(group: &str, name: &str) -> Option<Kind> {
    let in_istio = group.ends_with("istio.io") || group == "sidegate.io";
    let same = Kind::ALL.into_iter().find(|kind| kind.name() == name && *kind != Kind::Service);
    let same = same.filter(|kind| {
        in_istio || group.is_empty() || nearest(group, std::iter::once(kind.group())).is_some()
    });
    let near = || {
        let names = Kind::ALL.into_iter().filter(|kind| kind.group() == group).map(Kind::name);
        nearest(name, names).filter(|_| in_istio).and_then(|near| Kind::of(group, near))
    };
    same.or_else(near)
}

#[allow(clippy::result_large_err, reason = "once for each document, and what is no object is no error")]
fn foreign(group: &str, name: &str, about: &About<'_>) -> Result<(Kind, Vec<Finding>), Identity> {
    if let Some(kind) = meant(group, name) {
        let hint = if kind.name() == name {
            format!("write `apiVersion: {}/{}`", kind.group(), kind.versions()[0])
        } else {
            format!("write `kind: {kind}`")
        };
        let message = format!("`{group}` has no kind `{name}`");
        return Ok((kind, vec![about.error("unknown-kind", "kind", message, &hint)]));
    }
    if group.is_empty() && name.ends_with("List") || name == "List" {
        let message = "a list without `items` is not read".to_owned();
        let hint = "write its objects as a list under `items`";
        return Err(Identity::Unknown(about.error("list", "kind", message, hint)));
    }
    Err(Identity::Other(Some(match group {
        "gateway.networking.k8s.io" => {
            let message = format!("{name} of the Gateway API is not read yet");
            about.warning("not-enforced", "kind", message, "write it as Istio's VirtualService or Gateway")
        }
        "sidegate.io" => {
            let message = format!("`{group}` has no kind `{name}`");
            about.error("unknown-kind", "kind", message, "check `apiVersion` and `kind`")
        }
        _ if group.ends_with("istio.io") => {
            let message = format!("{name} of `{group}` is no kind that a proxy reads: it has no effect here");
            about.warning("unknown-kind", "kind", message, "leave it out, unless another component reads it")
        }
        _ => {
            let message = format!("{name} is no kind that a proxy reads");
            about.say(Severity::Info, "not-ours", "kind", message, "")
        }
    })))
}

#[cfg(test)]
mod tests;
