//! A configuration to ask: what its Proxies run, compiled once.

use crate::config::resources::{ObjectKey, Resource};
use crate::config::translate::{Input, translate};
use crate::explain::lend_keys;
use crate::snapshot::Snapshot;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// A configuration, and what the Proxies that were asked about run.
#[derive(Debug)]
pub struct Bench<'a> {
    resources: &'a [Arc<Resource>],
    /// Key sets that stand for those that would be fetched.
    jwks: &'a [String],
    at: SystemTime,
    compiled: RefCell<BTreeMap<ObjectKey, Compiled>>,
}

/// What a Proxy runs.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) proxy: Arc<Resource>,
    pub(super) snapshot: Arc<Snapshot>,
    /// How many parts of it do not compile.
    pub(super) problems: usize,
}

impl<'a> Bench<'a> {
    /// A bench over these objects. The keys hold from `at` on, and before.
    #[must_use]
    pub fn new(resources: &'a [Arc<Resource>], jwks: &'a [String], at: SystemTime) -> Self {
        Self { resources, jwks, at, compiled: RefCell::default() }
    }

    /// The objects.
    #[must_use]
    pub fn resources(&self) -> &'a [Arc<Resource>] {
        self.resources
    }

    /// What a Proxy runs.
    ///
    /// # Errors
    ///
    /// When a key set is of no use.
    pub fn snapshot(&self, proxy: &Arc<Resource>) -> Result<Arc<Snapshot>, String> {
        if let Some(known) = self.compiled.borrow().get(&proxy.key) {
            return Ok(known.snapshot.clone());
        }
        let mesh = translate(&Input { resources: self.resources, proxy }, None).mesh;
        // What does not compile is closed, as in a proxy that starts; `check` names it.
        let (snapshot, problems) = Snapshot::compile(mesh, None);
        for text in self.jwks {
            lend_keys(&snapshot, text, self.at)?;
        }
        let compiled =
            Compiled { proxy: Arc::clone(proxy), snapshot: snapshot.clone(), problems: problems.len() };
        self.compiled.borrow_mut().insert(proxy.key.clone(), compiled);
        Ok(snapshot)
    }

    /// The Proxies that were asked about.
    pub(super) fn asked(&self) -> Vec<Compiled> {
        self.compiled.borrow().values().cloned().collect()
    }

    /// A bench over changed objects that knows already what these Proxies run.
    pub(super) fn changed<'b>(
        &self,
        resources: &'b [Arc<Resource>],
        compiled: BTreeMap<ObjectKey, Compiled>,
    ) -> Bench<'b>
    where
        'a: 'b,
    {
        Bench { resources, jwks: self.jwks, at: self.at, compiled: RefCell::new(compiled) }
    }
}

impl Compiled {
    /// What the Proxy would run with other objects; `None` when that is the same.
    pub(super) fn with(&self, resources: &[Arc<Resource>]) -> Option<Self> {
        let mesh = translate(&Input { resources, proxy: &self.proxy }, Some(&self.snapshot.mesh)).mesh;
        if mesh == *self.snapshot.mesh {
            return None;
        }
        let (snapshot, problems) = Snapshot::compile(mesh, Some(&self.snapshot));
        Some(Self { proxy: self.proxy.clone(), snapshot, problems: problems.len() })
    }
}
