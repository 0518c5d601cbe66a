//! No field is read and ignored: what each field of each kind does here, and which fields are no fields at all.

mod nearest;
mod shape;
mod table;
#[cfg(test)]
mod tests;

use super::resources::Kind;
use super::spans::{Outline, Value, push_index, push_key};

pub use nearest::nearest;
use shape::{Shape, Type};
pub use table::{Mark, kind_mark};

/// Something that a field of a document gives occasion to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The path of the field.
    pub field: String,
    /// What about it.
    pub about: About,
}

/// What there is to say about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// No such field; the nearest name, if one is near.
    Unknown(Option<String>),
    /// A YAML merge key, which would be read as a field of that name.
    MergeKey,
    /// Not enforced yet: what it would do.
    Warned(&'static str),
    /// Refused: why.
    Refused(&'static str),
}

/// Compares the fields that were written with those that the kind has. Untyped kinds give no remarks.
#[must_use]
pub fn remarks(kind: Kind, outline: &Outline) -> Vec<Remark> {
    let Some(shape) = shape::of(kind) else { return Vec::new() };
    let mut walk =
        Walk { outline, shape, remarks: Vec::new(), path: String::new(), quiet: kind_mark(kind).is_some() };
    walk.object(kind);
    walk.remarks
}

/// The same for the text of a mesh configuration.
#[must_use]
pub fn mesh_remarks(outline: &Outline) -> Vec<Remark> {
    let shape = shape::mesh_config();
    let mut walk = Walk { outline, shape, remarks: Vec::new(), path: String::new(), quiet: false };
    walk.node(Outline::ROOT, shape.root);
    walk.remarks
}

/// The same for a document of a form of its own, of whose fields the table says nothing.
#[must_use]
pub fn remarks_of<T: schemars::JsonSchema>(outline: &Outline) -> Vec<Remark> {
    let shape = Shape::new::<T>();
    let mut walk = Walk { outline, shape: &shape, remarks: Vec::new(), path: String::new(), quiet: true };
    walk.node(Outline::ROOT, shape.root);
    walk.remarks
}

/// Every field of a kind with its mark, in the order of its paths, as in `spec.http[].match[].uri.prefix`.
#[must_use]
pub fn list(kind: Kind) -> Vec<(String, Mark)> {
    let Some(shape) = shape::of(kind) else { return Vec::new() };
    let mut all = Vec::new();
    let root = if kind.is_flat() { "" } else { "spec" };
    shape.list(shape.root, root, kind_mark(kind), &mut all);
    all
}

struct Walk<'a> {
    outline: &'a Outline,
    shape: &'a Shape,
    remarks: Vec<Remark>,
    path: String,
    /// Inside of something that has its remark already: only unknown fields are said.
    quiet: bool,
}

const ENVELOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "uid",
    "generateName",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl Walk<'_> {
    fn object(&mut self, kind: Kind) {
        let Some(Value::Mapping(entries)) = self.outline.value(Outline::ROOT) else { return };
        for (key, _, value) in entries {
            match &**key {
                "metadata" => self.metadata(*value),
                known if ENVELOPE.contains(&known) => {}
                "spec" if !kind.is_flat() => self.field(key, *value, self.shape.root, None),
                _ if kind.is_flat() => self.known_or_not(key, *value, self.shape.root),
                // A Namespace may carry a spec that says nothing to us; everything else stands under `spec`.
                _ => self.unknown(key, ["spec", "metadata"].into_iter()),
            }
        }
    }

    fn metadata(&mut self, node: usize) {
        let Some(Value::Mapping(entries)) = self.outline.value(node) else { return };
        self.path.push_str("metadata");
        for (key, ..) in entries.iter().filter(|(key, ..)| !METADATA.contains(&&**key)) {
            self.unknown(key, METADATA.into_iter());
        }
        self.path.clear();
    }

    fn node(&mut self, node: usize, at: usize) {
        match (self.outline.value(node), self.shape.kind(at)) {
            (Some(Value::Sequence(items)), Type::List(item)) => {
                for (index, node) in items.iter().enumerate() {
                    let length = self.path.len();
                    push_index(&mut self.path, index);
                    self.node(*node, *item);
                    self.path.truncate(length);
                }
            }
            (Some(Value::Mapping(entries)), Type::Map(value)) => {
                for (key, _, node) in entries {
                    self.field(key, *node, *value, None);
                }
            }
            (Some(Value::Mapping(entries)), Type::Object { .. }) => {
                for (key, _, node) in entries {
                    self.known_or_not(key, *node, at);
                }
            }
            _ => {}
        }
    }

    fn known_or_not(&mut self, key: &str, node: usize, object: usize) {
        let Type::Object { name, fields } = self.shape.kind(object) else { return };
        match fields.get(key) {
            Some(field) => self.field(key, node, field.at, field.mark.filter(|_| !self.quiet)),
            None if table::is_foreign(name, key) => {}
            None => self.unknown(key, fields.keys().map(String::as_str)),
        }
    }

    fn field(&mut self, key: &str, node: usize, at: usize, mark: Option<Mark>) {
        // A null says nothing, as in Kubernetes.
        if matches!(self.outline.value(node), Some(Value::Scalar(text, true)) if matches!(&**text, "" | "~" | "null"))
        {
            return;
        }
        let (length, quiet) = (self.path.len(), self.quiet);
        push_key(&mut self.path, key);
        let text = match self.outline.value(node) {
            Some(Value::Scalar(text, _)) => text,
            _ => "",
        };
        let about = match mark {
            Some(Mark::Warned { would, unless }) if !unless.contains(&text) => Some(About::Warned(would)),
            Some(Mark::Refused { why, unless }) if !unless.contains(&text) => Some(About::Refused(why)),
            _ => None,
        };
        if let Some(about) = about {
            self.remarks.push(Remark { field: self.path.clone(), about });
            self.quiet = true;
        }
        self.node(node, at);
        self.path.truncate(length);
        self.quiet = quiet;
    }

    fn unknown<'n>(&mut self, key: &str, known: impl Iterator<Item = &'n str>) {
        let mut field = self.path.clone();
        push_key(&mut field, key);
        let about = if key == "<<" {
            About::MergeKey
        } else {
            About::Unknown(nearest(key, known).map(str::to_owned))
        };
        self.remarks.push(Remark { field, about });
    }
}
