//! Which fields each kind has, taken from the schemas of its structs.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::table::{self, Mark};
use crate::config::resources::Kind;
use crate::config::resources::istio::{
    destination_rule::DestinationRule,
    gateway::Gateway,
    mesh_config::MeshConfig,
    security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication},
    service_entry::{ServiceEntry, WorkloadEntry},
    sidecar::Sidecar,
    telemetry::Telemetry,
    virtual_service::VirtualService,
};
use crate::config::resources::kubernetes::{ConfigMap, EndpointSlice, Service};
use crate::config::resources::own::access_policy::AccessPolicy;
use crate::config::resources::own::audit_policy::AuditPolicy;
use crate::config::resources::proxy::Proxy;

/// The fields of one kind, as a graph of types.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) root: usize,
    types: Vec<Type>,
}

/// What may stand at a field.
#[derive(Debug)]
pub(super) enum Type {
    /// A struct: its name and its fields.
    Object { name: String, fields: BTreeMap<String, Field> },
    /// A mapping with free keys.
    Map(usize),
    /// A sequence.
    List(usize),
    /// A scalar, or anything at all.
    Leaf,
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// What may stand there.
    pub(super) at: usize,
    /// What the table says of it.
    pub(super) mark: Option<Mark>,
}

/// The shape of a typed kind; made when an object of the kind is first met.
pub(super) fn of(kind: Kind) -> Option<&'static Shape> {
    macro_rules! shapes {
        ($($kind:ident)*) => {
            match kind {
                $(Kind::$kind => {
                    static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::new::<$kind>);
                    Some(&*SHAPE)
                })*
                _ => None,
            }
        };
    }
    shapes! {
        VirtualService DestinationRule ServiceEntry WorkloadEntry Sidecar Gateway PeerAuthentication
        RequestAuthentication AuthorizationPolicy AccessPolicy AuditPolicy Telemetry Service EndpointSlice ConfigMap Proxy
    }
}

/// The shape of Istio's mesh configuration.
pub(super) fn mesh_config() -> &'static Shape {
    static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::new::<MeshConfig>);
    &SHAPE
}

impl Shape {
    pub(super) fn new<T: JsonSchema>() -> Self {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>();
        let mut builder = Builder { root: schema.as_value(), types: Vec::new(), named: HashMap::new() };
        let root = builder.add(schema.as_value(), &T::schema_name());
        Self { root, types: builder.types }
    }

    /// What may stand at an index.
    pub(super) fn kind(&self, index: usize) -> &Type {
        self.types.get(index).unwrap_or(&Type::Leaf)
    }

    /// Appends every field below `index` with its mark.
    pub(super) fn list(
        &self,
        index: usize,
        path: &str,
        inherited: Option<Mark>,
        all: &mut Vec<(String, Mark)>,
    ) {
        match self.kind(index) {
            Type::Object { fields, .. } => {
                for (key, field) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let own = inherited.or(field.mark).unwrap_or(Mark::Enforced);
                    // What stands below a field that is not enforced is not enforced either.
                    let below =
                        matches!(own, Mark::Warned { unless: [], .. } | Mark::Refused { unless: [], .. });
                    all.push((path.clone(), own));
                    self.list(field.at, &path, below.then_some(own), all);
                }
            }
            Type::Map(value) => self.list(*value, &format!("{path}[*]"), inherited, all),
            Type::List(item) => self.list(*item, &format!("{path}[]"), inherited, all),
            Type::Leaf => {}
        }
    }

    /// Every struct that can be reached, with its fields.
    #[cfg(test)]
    pub(super) fn objects(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, Field>)> {
        self.types.iter().filter_map(|kind| match kind {
            Type::Object { name, fields } => Some((name, fields)),
            _ => None,
        })
    }
}

struct Builder<'a> {
    root: &'a Value,
    types: Vec<Type>,
    named: HashMap<String, usize>,
}

impl Builder<'_> {
    fn add(&mut self, schema: &Value, name: &str) -> usize {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
            if let Some(&known) = self.named.get(&name) {
                return known;
            }
            let definition = &self.root["$defs"][&name];
            // The place is taken before its fields are read, so that a type may contain itself.
            let index = self.reserve();
            self.named.insert(name.clone(), index);
            self.fill(index, definition, &name);
            return index;
        }
        // `Option<T>` of a named type.
        if let Some(inner) =
            schema["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"))
        {
            return self.add(inner, name);
        }
        let index = self.reserve();
        self.fill(index, schema, name);
        index
    }

    fn reserve(&mut self) -> usize {
        self.types.push(Type::Leaf);
        self.types.len() - 1
    }

    fn fill(&mut self, index: usize, schema: &Value, name: &str) {
        let kind = if let Some(properties) = schema["properties"].as_object() {
            let fields = properties.iter().map(|(key, field)| {
                let field = Field { at: self.add(field, key), mark: table::mark(name, key) };
                (key.clone(), field)
            });
            let fields = fields.collect();
            Type::Object { name: name.to_owned(), fields }
        } else if schema["items"].is_object() {
            Type::List(self.add(&schema["items"], name))
        } else if schema["additionalProperties"].is_object() {
            Type::Map(self.add(&schema["additionalProperties"], name))
        } else {
            Type::Leaf
        };
        self.types[index] = kind;
    }
}
