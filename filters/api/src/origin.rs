//! Where a part of the model was written.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

/// The object, field and place that a part of the model comes from.
///
/// Left out of equality and hash: moving an object to another line changes nothing that traffic can see, so it must not rebuild anything.
/// Cheap to clone; turned into words only when somebody asks.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Origin(Option<Arc<Written>>);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Written {
    Object { object: ObjectName, field: String, place: Option<Place> },
    Xds { type_url: Arc<str>, name: Arc<str>, version: Arc<str>, istio: Option<Arc<str>> },
}

/// Kind, namespace and name of an object, `VirtualService shop/reviews`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// Kind without its group, `VirtualService`.
    pub kind: Arc<str>,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// A place in a file, 1-based.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file as it was named or found.
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Origin {
    /// A part that nobody wrote: the proxy's own default.
    pub const BUILT_IN: Self = Self(None);

    /// A part written as `field` of `object`.
    pub fn object(object: ObjectName, field: impl Into<String>, place: Option<Place>) -> Self {
        Self(Some(Arc::new(Written::Object { object, field: field.into(), place })))
    }

    /// A part pushed by a control plane; `istio` is the `filter_metadata.istio` config path, if any.
    pub fn xds(type_url: &str, name: &str, version: &str, istio: Option<&str>) -> Self {
        Self(Some(Arc::new(Written::Xds {
            type_url: type_url.into(),
            name: name.into(),
            version: version.into(),
            istio: istio.map(Into::into),
        })))
    }

    /// The object it was written in, if a file or the API server gave it.
    pub fn object_name(&self) -> Option<&ObjectName> {
        match self.0.as_deref() {
            Some(Written::Object { object, .. }) => Some(object),
            _ => None,
        }
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            None => f.write_str("built in"),
            Some(Written::Object { object, field, place }) => {
                write!(f, "{object}")?;
                if !field.is_empty() {
                    write!(f, " {field}")?;
                }
                place.iter().try_for_each(|place| write!(f, " ({place})"))
            }
            Some(Written::Xds { type_url, name, version, istio }) => {
                let kind = type_url.rsplit('.').next().unwrap_or(type_url);
                write!(f, "xDS {kind} {name} version {version}")?;
                istio.iter().try_for_each(|path| write!(f, " from {path}"))
            }
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
