//! Which rules some test reaches.

use crate::config::resources::{Resource, Spec};
use crate::mesh::Origin;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;

/// The rules of all policies, and which of them some test reaches.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    /// The rules, in the order of their objects.
    pub rules: Vec<Covered>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct Covered {
    /// `AuthorizationPolicy shop/cart rule 0`.
    pub rule: String,
    /// File, line and column.
    pub place: String,
    /// Whether it held in some test.
    pub hit: bool,
}

impl Coverage {
    pub(super) fn new<'h>(resources: &[Arc<Resource>], hits: impl Iterator<Item = &'h String>) -> Self {
        let hits: HashSet<&str> = hits.map(String::as_str).collect();
        let mut rules = Vec::new();
        for resource in resources {
            let (count, list) = match &resource.spec {
                Spec::AuthorizationPolicy(spec) => (spec.rules.len(), "spec.rules"),
                Spec::AccessPolicy(spec) => (spec.rules.len(), "spec.rules"),
                Spec::RequestAuthentication(spec) => (spec.jwt_rules.len(), "spec.jwtRules"),
                _ => continue,
            };
            rules.extend((0..count).map(|at| {
                let field = format!("{list}[{at}]");
                let place = resource.place(&field).to_string();
                let origin = Origin::written(Arc::clone(&resource.source), field.into());
                let hit = hits.contains(&*origin.to_string());
                Covered { rule: format!("{} rule {at}", resource.key), place, hit }
            }));
        }
        Self { rules }
    }

    /// How many of its rules some test reaches.
    #[must_use]
    pub fn hit(&self) -> usize {
        self.rules.iter().filter(|rule| rule.hit).count()
    }

    /// The rules that no test reaches.
    pub fn missed(&self) -> impl Iterator<Item = &Covered> {
        self.rules.iter().filter(|rule| !rule.hit)
    }
}
