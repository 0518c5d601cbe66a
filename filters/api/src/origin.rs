//! Where a part of the model was written.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// The object, field and place that a part of the model comes from.
///
/// Left out of equality and hash: moving an object to another line changes nothing that traffic can see, so it must not rebuild anything.
/// A part that is kept while its object moves still tells the right line: the place is looked up in the object's [`Source`] when somebody asks.
#[derive(Clone, Default)]
pub struct Origin(Option<(Arc<Source>, Arc<str>)>);

/// What parts of the model were written in: one for all versions of an object, so that all of them know where the newest one stands.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Object { name: ObjectName, places: RwLock<Option<Arc<dyn Locate>>> },
    Xds { type_url: Arc<str>, name: Arc<str>, version: Arc<str>, istio: Option<Arc<str>> },
}

/// Knows where the fields of one version of an object stand.
pub trait Locate: fmt::Debug + Send + Sync {
    /// The place of a field such as `spec.http[0].route`, or of its nearest ancestor that was written.
    fn locate(&self, field: &str) -> Place;
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

impl Source {
    /// An object, and the places of the version that is in force.
    pub fn object(name: ObjectName, places: Option<Arc<dyn Locate>>) -> Self {
        Self(Kind::Object { name, places: RwLock::new(places) })
    }

    /// Makes another version of the object the one whose places are told. Nothing to a part that a control plane pushed.
    pub fn follow(&self, newest: Arc<dyn Locate>) {
        if let Kind::Object { places, .. } = &self.0 {
            *places.write().unwrap_or_else(PoisonError::into_inner) = Some(newest);
        }
    }

    /// The object, if a file or the API server gave it.
    pub fn name(&self) -> Option<&ObjectName> {
        match &self.0 {
            Kind::Object { name, .. } => Some(name),
            Kind::Xds { .. } => None,
        }
    }

    fn place(&self, field: &str) -> Option<Place> {
        let Kind::Object { places, .. } = &self.0 else { return None };
        let places = places.read().unwrap_or_else(PoisonError::into_inner).clone();
        places.map(|places| places.locate(field))
    }
}

impl Origin {
    /// A part that nobody wrote: the proxy's own default.
    pub const BUILT_IN: Self = Self(None);

    /// A part written as `field` of a source.
    pub fn written(source: Arc<Source>, field: Arc<str>) -> Self {
        Self(Some((source, field)))
    }

    /// A part written as `field` of an object that never moves.
    pub fn object(object: ObjectName, field: impl Into<Arc<str>>, place: Option<Place>) -> Self {
        let places = place.map(|place| Arc::new(place) as Arc<dyn Locate>);
        Self::written(Arc::new(Source::object(object, places)), field.into())
    }

    /// A part pushed by a control plane; `istio` is the `filter_metadata.istio` config path, if any.
    pub fn xds(type_url: &str, name: &str, version: &str, istio: Option<&str>) -> Self {
        let source = Source(Kind::Xds {
            type_url: type_url.into(),
            name: name.into(),
            version: version.into(),
            istio: istio.map(Into::into),
        });
        Self::written(Arc::new(source), "".into())
    }

    /// The object it was written in, if a file or the API server gave it.
    pub fn object_name(&self) -> Option<&ObjectName> {
        self.0.as_ref()?.0.name()
    }

    /// The field of that object, `spec.rules[0]`; empty for the whole of it and for what nobody wrote.
    pub fn field(&self) -> &str {
        self.0.as_ref().map_or("", |(_, field)| field)
    }

    /// Where it stands now, if a file holds it.
    pub fn place(&self) -> Option<Place> {
        let (source, field) = self.0.as_ref()?;
        source.place(field)
    }
}

/// Where all of it stands at one place.
impl Locate for Place {
    fn locate(&self, _: &str) -> Place {
        self.clone()
    }
}

/// An origin as a dump shows it, with its place of this moment.
#[derive(Serialize, Deserialize)]
enum Shown {
    Object { object: ObjectName, field: Arc<str>, place: Option<Place> },
    Xds { type_url: Arc<str>, name: Arc<str>, version: Arc<str>, istio: Option<Arc<str>> },
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = self.0.as_ref().map(|(source, field)| match &source.0 {
            Kind::Object { name, .. } => {
                Shown::Object { object: name.clone(), field: field.clone(), place: source.place(field) }
            }
            Kind::Xds { type_url, name, version, istio } => Shown::Xds {
                type_url: type_url.clone(),
                name: name.clone(),
                version: version.clone(),
                istio: istio.clone(),
            },
        });
        shown.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::<Shown>::deserialize(deserializer)? {
            None => Self::BUILT_IN,
            Some(Shown::Object { object, field, place }) => Self::object(object, field, place),
            Some(Shown::Xds { type_url, name, version, istio }) => {
                Self::xds(&type_url, &name, &version, istio.as_deref())
            }
        })
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
        let Some((source, field)) = &self.0 else { return f.write_str("built in") };
        match &source.0 {
            Kind::Object { name, .. } => {
                write!(f, "{name}")?;
                if !field.is_empty() {
                    write!(f, " {field}")?;
                }
                source.place(field).iter().try_for_each(|place| write!(f, " ({place})"))
            }
            Kind::Xds { type_url, name, version, istio } => {
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

#[cfg(test)]
mod tests {
    use super::{Locate, ObjectName, Origin, Place, Source};
    use std::path::Path;
    use std::sync::Arc;

    fn place(line: u32) -> Place {
        Place { file: Path::new("a.yaml").into(), line, column: 1 }
    }

    fn name() -> ObjectName {
        ObjectName { kind: "Service".into(), namespace: "shop".into(), name: "cart".into() }
    }

    #[test]
    fn an_origin_follows_its_object_to_another_line() {
        let source = Arc::new(Source::object(name(), Some(Arc::new(place(3)) as Arc<dyn Locate>)));
        let origin = Origin::written(source.clone(), "spec".into());
        assert_eq!(origin.to_string(), "Service shop/cart spec (a.yaml:3:1)");
        source.follow(Arc::new(place(8)));
        assert_eq!(origin.to_string(), "Service shop/cart spec (a.yaml:8:1)");
    }

    #[test]
    fn an_origin_survives_serialisation() {
        for origin in [
            Origin::BUILT_IN,
            Origin::object(name(), "spec", Some(place(3))),
            Origin::object(name(), "", None),
            Origin::xds("type.googleapis.com/envoy.Cluster", "c", "7", Some("istio/x")),
        ] {
            let text = serde_json::to_string(&origin).unwrap();
            let back: Origin = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_string(), origin.to_string());
        }
    }
}
