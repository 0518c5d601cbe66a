//! Turns the text of a file into typed objects, and says of each what is wrong with it.

mod body;
mod closed;
mod identity;
mod list;
mod separator;
#[cfg(test)]
mod tests;
mod torn;
mod value;

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::fields::{self, About, Mark};
use super::finding::{Finding, Severity};
use super::resources::{Kind, ObjectKey, Placement, Resource};
use super::spans::{self, Document, Fault, Outline, Place};
use super::validate;
pub(in crate::config) use closed::close;
use identity::{Identity, Ours};

/// How strictly a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strictness {
    /// Unknown fields reject an object, as they always do in security kinds.
    pub unknown_fields: bool,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Reading {
    /// The objects in the order of the file.
    pub objects: Vec<Object>,
    /// What there is to say about the file and about documents that are no objects of ours.
    pub findings: Vec<Finding>,
    /// Whether the identity of one of its objects cannot be told: what it held before and holds no longer is kept.
    pub unreadable: bool,
    /// Whether it has a syntax error, so that its objects are not all of them.
    pub broken: bool,
    /// The security objects that seem to stand in its broken parts, none of them more than its [`Object::stand_in`].
    pub torn: Vec<Object>,
}

/// One object of a file, accepted or rejected.
#[derive(Clone, Debug)]
pub struct Object {
    /// Which object.
    pub key: ObjectKey,
    /// Where it begins.
    pub place: Place,
    /// The object; `None` when a finding rejects it.
    pub resource: Option<Arc<Resource>>,
    /// What stands in for a rejected object without an earlier version, where leaving it out would let somebody in.
    pub stand_in: Option<Arc<Resource>>,
    /// What there is to say about it, among it every error that rejects it.
    pub findings: Vec<Finding>,
}

/// Reads the text of one file.
#[must_use]
pub fn decode(file: &Arc<Path>, text: &str, strictness: Strictness) -> Reading {
    let (documents, broken) = spans::read(text);
    let mut reading = Reading::default();
    for document in documents {
        one(file, document, strictness, &mut reading);
    }
    for broken in broken {
        reading.unreadable = true;
        reading.broken = true;
        reading.torn.extend(torn::objects(file, text, &broken));
        let faults = broken.faults.into_iter().chain([broken.fault]);
        reading.findings.extend(faults.map(|fault| from_fault(file, None, fault)));
    }
    reading
}

/// Reads documents that are no objects but have a form of their own: what they say, where it stands, and everything that is wrong with them.
/// Unknown fields are errors, for nothing in such a file may be lost in silence.
#[must_use]
pub fn documents<T: DeserializeOwned + JsonSchema>(
    file: &Arc<Path>,
    text: &str,
) -> (Vec<(T, Placement)>, Vec<Finding>) {
    let (documents, broken) = spans::read(text);
    let mut findings: Vec<Finding> = Vec::new();
    let mut found = Vec::new();
    let error = |placement: &Placement, code, field: String, message: String, hint: String| Finding {
        severity: Severity::Error,
        code,
        object: None,
        place: Some(placement.place(&field)),
        field,
        message,
        hint,
    };
    for Document { outline, faults } in documents {
        let placement = Placement::new(Arc::clone(file), &outline);
        findings.extend(faults.into_iter().map(|fault| from_fault(file, None, fault)));
        for remark in fields::remarks_of::<T>(&outline) {
            let (message, hint) = match remark.about {
                About::MergeKey => {
                    ("a merge key (`<<`) is not read".to_owned(), "write the fields out".to_owned())
                }
                About::Unknown(Some(near)) => {
                    ("there is no such field".to_owned(), format!("write `{near}`, or remove it"))
                }
                _ => ("there is no such field".to_owned(), "remove it, or check its indentation".to_owned()),
            };
            findings.push(error(&placement, "unknown-field", remark.field, message, hint));
        }
        match value::decode::<T>(&outline, Outline::ROOT) {
            Ok(value) => found.push((value, placement)),
            Err(wrong) => {
                let (field, message) = (wrong.field(""), wrong.to_string());
                findings.push(error(&placement, "bad-value", field, message, String::new()));
            }
        }
    }
    let broken = broken.into_iter().flat_map(|broken| std::iter::once(broken.fault).chain(broken.faults));
    findings.extend(broken.map(|fault| from_fault(file, None, fault)));
    (found, findings)
}

/// Reads bytes as a file and drops what comes of it, for fuzzing.
#[doc(hidden)]
pub fn fuzz_yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let reading = decode(&Path::new("fuzz.yaml").into(), &text, Strictness::default());
    for object in &reading.objects {
        for finding in &object.findings {
            let _ = (
                finding.to_string(),
                object.resource.as_ref().map(|resource| resource.place(&finding.field)),
            );
        }
    }
}

fn one(file: &Arc<Path>, document: Document, strictness: Strictness, reading: &mut Reading) {
    for document in separator::split(document) {
        if list::is_list(&document.outline) {
            let (items, of_list) = list::items(&document);
            reading.unreadable |= !of_list.is_empty();
            if items.is_empty() {
                reading.findings.extend(of_list.into_iter().map(|fault| from_fault(file, None, fault)));
            }
            items.into_iter().for_each(|item| one(file, item, strictness, reading));
        } else {
            single(file, document, strictness, reading);
        }
    }
}

fn single(file: &Arc<Path>, document: Document, strictness: Strictness, reading: &mut Reading) {
    let Ours { key, mut wrong, certain } = match identity::identify(file, &document) {
        Identity::Ours(ours) => ours,
        Identity::Other(finding) => {
            reading.findings.extend(finding);
            return;
        }
        Identity::Unknown(finding) => {
            reading.unreadable = true;
            reading.findings.extend(document.faults.into_iter().map(|fault| from_fault(file, None, fault)));
            reading.findings.push(finding);
            return;
        }
    };
    reading.unreadable |= !certain;
    wrong.iter_mut().for_each(|finding| finding.object = Some(key.clone()));
    let Document { outline, faults } = document;
    let placement = Arc::new(Placement::new(Arc::clone(file), &outline));
    let place = placement.place("");
    let faults = faults.into_iter().map(|fault| from_fault(file, Some(&key), fault));
    let mut findings: Vec<_> = faults.chain(wrong).collect();
    let mut report =
        Report { key: &key, outline: &outline, placement: &placement, strictness, findings: &mut findings };
    report.marks(strictness);
    let mut resource = None;
    // What is wrong as a whole has no single meaning, so nothing further can be said about it.
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let mut wrong: Vec<String> = errors.map(|error| error.field.clone()).collect();
    if !wrong.iter().any(|field| matches!(&**field, "" | "metadata" | "spec")) {
        resource = body::body(&mut report, &mut wrong);
        if let Some(resource) = &resource {
            let known = report.findings.len();
            validate::validate(resource, &mut report);
            // What is said of a field besides may come of what is wrong.
            let consequence =
                |finding: &Finding| wrong.iter().any(|wrong| body::is_related(&finding.field, wrong));
            let said = report.findings.split_off(known);
            report.findings.extend(said.into_iter().filter(|finding| !consequence(finding)));
        }
    }
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        resource = None;
    }
    let stand_in = match &resource {
        Some(_) => None,
        None => closed::stand_in(&key, &outline, &placement, &findings),
    };
    reading.objects.push(Object { key, place, resource: resource.map(Arc::new), stand_in, findings });
}

fn from_fault(file: &Arc<Path>, object: Option<&ObjectKey>, fault: Fault) -> Finding {
    Finding {
        severity: Severity::Error,
        code: fault.code,
        object: object.cloned(),
        field: fault.field,
        place: Some(Place { file: Arc::clone(file), line: fault.line, column: fault.column }),
        message: fault.message,
        hint: fault.hint,
    }
}

/// Collects findings about one object, each with its place.
#[derive(Debug)]
pub struct Report<'a> {
    key: &'a ObjectKey,
    outline: &'a Outline,
    placement: &'a Arc<Placement>,
    strictness: Strictness,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    /// Says that a field is wrong, which rejects the object.
    pub fn error(
        &mut self,
        code: &'static str,
        field: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, code, field, message.into(), hint.into());
    }

    /// Says that a field does not do what it seems to.
    pub fn warning(
        &mut self,
        code: &'static str,
        field: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, field, message.into(), hint.into());
    }

    /// Whether a field, or one within it, was found to be wrong already.
    #[must_use]
    pub fn is_wrong(&self, field: &str) -> bool {
        let wrong =
            |finding: &Finding| finding.severity == Severity::Error && finding.field.starts_with(field);
        self.findings.iter().any(wrong)
    }

    /// Whether a field was written at all.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.outline.find(field).is_some()
    }

    fn add(&mut self, severity: Severity, code: &'static str, field: &str, message: String, hint: String) {
        self.findings.push(Finding {
            severity,
            code,
            object: Some(self.key.clone()),
            field: field.to_owned(),
            place: Some(self.placement.place(field)),
            message,
            hint,
        });
    }

    fn is_rejected(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Says what the fields themselves give occasion to say.
    fn marks(&mut self, strictness: Strictness) {
        let kind = self.key.kind;
        match fields::kind_mark(kind) {
            Some(Mark::Warned { would, .. }) if kind.is_security() => {
                let hint = "do not rely on it; protect the workload by other means until it is";
                self.warning("not-enforced", "", format!("is NOT enforced yet: {would}"), hint);
            }
            Some(Mark::Warned { would, .. }) => {
                self.warning(
                    "not-enforced",
                    "",
                    format!("is not enforced yet: {would}"),
                    "do not rely on it",
                );
            }
            Some(Mark::Refused { why, .. }) => {
                self.error("refused", "", format!("is refused: {why}"), "remove the object");
            }
            _ => {}
        }
        for remark in fields::remarks(kind, self.outline) {
            self.remark(kind, &remark.field, remark.about, strictness);
        }
    }

    fn remark(&mut self, kind: Kind, field: &str, about: About, strictness: Strictness) {
        match about {
            About::Warned(would) => {
                let hint = "leave it out, or do not rely on it";
                self.warning("not-enforced", field, format!("is not enforced yet: {would}"), hint);
            }
            About::Refused(why) => {
                self.error("refused", field, format!("is refused: {why}"), "remove the field");
            }
            About::MergeKey => {
                let message = "a merge key (`<<`) is not read";
                self.error("merge-key", field, message, "write the fields out");
            }
            About::Unknown(near) => {
                let severity = if strictness.unknown_fields || kind.is_security() {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                let hint = near.map_or_else(
                    || "remove it, or check its indentation".to_owned(),
                    |near| format!("write `{near}`, or remove it"),
                );
                self.add(
                    severity,
                    "unknown-field",
                    field,
                    format!("{kind} has no such field; it has no effect"),
                    hint,
                );
            }
        }
    }
}
