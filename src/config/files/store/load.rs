//! One load in the making: of all versions of all objects those that hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::content::{Content, Version};
use super::{Rejected, Update};
use crate::config::decode::{Object, close};
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{Closed, Kind, ObjectKey, Resource, Spec};
use crate::config::spans::Place;
use crate::mesh;

/// One load in the making.
pub(super) struct Load<'a> {
    held: &'a [Arc<Resource>],
    /// Every version of every object, in the order of files.
    found: Vec<&'a Version>,
    /// Files and folders that cannot be read at all, or not to their end.
    lost: BTreeSet<Arc<Path>>,
    /// Those and the files of which not every object is known.
    unreadable: BTreeSet<Arc<Path>>,
    /// Files with syntax errors, and what they hold besides.
    broken: BTreeMap<Arc<Path>, &'a Content>,
    now: Vec<Arc<Resource>>,
    findings: Vec<Finding>,
    rejected: Vec<Rejected>,
}

impl<'a> Load<'a> {
    pub(super) fn new(held: &'a [Arc<Resource>], findings: Vec<Finding>) -> Self {
        Self {
            held,
            found: Vec::new(),
            lost: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            broken: BTreeMap::new(),
            now: Vec::new(),
            findings,
            rejected: Vec::new(),
        }
    }

    pub(super) fn add_unreadable(&mut self, file: &Arc<Path>, why: &str) {
        self.lost.insert(Arc::clone(file));
        self.unreadable.insert(Arc::clone(file));
        let finding = Finding {
            severity: Severity::Error,
            code: "unreadable",
            object: None,
            field: String::new(),
            place: Some(Place { file: Arc::clone(file), line: 1, column: 1 }),
            message: format!("cannot be read: {why}"),
            hint: "check that it exists, that we may read it, and that it is UTF-8".to_owned(),
        };
        let keeps = self.held.iter().any(|held| is_good(held) && held.placement.file().starts_with(file));
        self.rejected.extend(unnamed(&finding, keeps));
        self.findings.push(finding);
    }

    pub(super) fn add(&mut self, file: &Arc<Path>, content: &'a Content) {
        let held = |held: &Arc<Resource>| is_good(held) && held.placement.file() == file;
        let keeps = content.broken && self.held.iter().any(held);
        let errors = content.findings.iter().filter(|finding| finding.severity == Severity::Error);
        self.rejected.extend(errors.filter_map(|error| unnamed(error, keeps)));
        self.findings.extend(content.findings.iter().cloned());
        if content.unreadable {
            self.unreadable.insert(Arc::clone(file));
        }
        if content.broken {
            // What stands before a syntax error may be half of what was meant.
            self.lost.insert(Arc::clone(file));
            self.broken.insert(Arc::clone(file), content);
            self.findings.extend(content.objects.iter().flat_map(Version::findings).cloned());
            return;
        }
        self.found.extend(&content.objects);
    }

    pub(super) fn finish(mut self) -> Update {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by(|one, other| one.key().cmp(other.key()));
        for versions in found.chunk_by(|one, other| one.key() == other.key()) {
            let Some(key) = versions.first().map(|version| version.key()) else { continue };
            let held = find(self.held, key);
            let good = held.filter(|held| is_good(held));
            if key.kind.closes() && good.is_none() && is_contested(versions) {
                self.close_all(versions);
                continue;
            }
            let winner = self.choose(versions, held);
            let holder = match winner.and_then(|at| versions.get(at)) {
                Some(winner) => Some(winner.place()),
                None => held.map(|held| held.place("")),
            };
            let begin = self.now.len();
            match winner.and_then(|at| versions.get(at)) {
                Some(winner) => self.take(winner, held),
                // It is held from a file that cannot be read.
                None => self.now.extend(held.cloned()),
            }
            let winning = self.now.get(begin).cloned();
            for (at, loser) in versions.iter().enumerate().filter(|(at, _)| winner != Some(*at)) {
                let Some(holder) = &holder else { continue };
                let message = format!("is defined a second time; the definition at {holder} holds");
                let old = good.is_some() && winning.as_ref() == good;
                self.reject_duplicate(loser, message.clone(), old);
                self.close_beside(loser, at + 1, winning.as_deref(), message);
            }
        }
        self.keep_unreadable();
        self.close_broken();
        self.now.sort_by(|one, other| one.key.cmp(&other.key));
        self.findings.sort_by(Finding::order);
        self.rejected.sort_by(|a, b| (&a.key, &a.place).cmp(&(&b.key, &b.place)));
        Update {
            generation: 0,
            hash: 0,
            resources: self.now,
            findings: self.findings,
            rejected: self.rejected,
            unreadable: self.lost.into_iter().collect(),
        }
    }

    /// Lets a version hold, or what stands in for it.
    fn take(&mut self, winner: &Version, held: Option<&Arc<Resource>>) {
        self.findings.extend(winner.findings().iter().cloned());
        if let Some(resource) = winner.resource() {
            self.hold(Arc::clone(resource));
            return;
        }
        // What stands in for an object is no version of it.
        let old = held.filter(|held| is_good(held));
        let (key, place) = (Some(winner.key().clone()), winner.place());
        self.rejected.push(Rejected { key, place, message: reason(winner), kept_old: old.is_some() });
        match old {
            Some(old) => self.now.push(Arc::clone(old)),
            None => winner.stand_in().cloned().into_iter().for_each(|closed| self.hold(closed)),
        }
    }

    fn hold(&mut self, resource: Arc<Resource>) {
        let held = find(self.held, &resource.key);
        let resource = adopt(resource, held);
        resource.hold();
        self.now.push(resource);
    }

    /// Of several first versions of a security object none is better than the others, and never the first in the order of files.
    fn close_all(&mut self, versions: &[&Version]) {
        for (at, version) in versions.iter().enumerate() {
            let others = versions.iter().enumerate().filter(|(other, _)| *other != at);
            let others: Vec<_> = others.map(|(_, other)| other.place().to_string()).collect();
            let message = format!("is defined several times, and differently, also at {}", others.join(", "));
            self.reject_duplicate(version, message.clone(), false);
            self.close(version, at, message);
        }
    }

    /// Closes the scope of a security object that is defined besides another one, unless that one is about the same workloads.
    fn close_beside(&mut self, loser: &Version, number: usize, winner: Option<&Resource>, message: String) {
        let scope = |resource: &Resource| match close(&resource.key, resource, String::new())?.spec {
            Spec::Closed(closed) => Some(*closed),
            _ => None,
        };
        let own = loser.resource().or(loser.stand_in());
        let same: Option<(Closed, Closed)> = own.and_then(|own| scope(own)).zip(winner.and_then(scope));
        if same.is_none_or(|(own, winning)| own != winning) {
            self.close(loser, number, message);
        }
    }

    /// Closes the scope of one of several versions, under a name that cannot be written.
    fn close(&mut self, version: &Version, number: usize, message: String) {
        let mut key = version.key().clone();
        if number > 0 {
            key.name = mesh::name(&format!("{}#{}", key.name, number + 1));
        }
        let Some(own) = version.resource().or(version.stand_in()) else { return };
        if let Some(closed) = close(&key, own, message) {
            self.hold(Arc::new(closed));
        }
    }

    fn reject_duplicate(&mut self, loser: &Version, message: String, kept_old: bool) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code: "duplicate-object",
            object: Some(loser.key().clone()),
            field: String::new(),
            place: Some(loser.place()),
            message: message.clone(),
            hint: "keep one of the two, or give one another name".to_owned(),
        });
        self.findings.extend(loser.findings().iter().cloned());
        let (key, place) = (Some(loser.key().clone()), loser.place());
        self.rejected.push(Rejected { key, place, message, kept_old });
    }

    /// Keeps what files held that cannot be read now.
    fn keep_unreadable(&mut self) {
        self.now.sort_by(|one, other| one.key.cmp(&other.key));
        let mut kept = Vec::new();
        for held in self.held {
            let file = held.placement.file();
            // What stands in for the parts of a broken file is made anew.
            let anew = !is_good(held) && held.key.name.starts_with('(') && self.broken.contains_key(file);
            if find(&self.now, &held.key).is_none() && is_below(&self.unreadable, file) && !anew {
                let message = "its file cannot be read to the end".to_owned();
                let (key, place) = (Some(held.key.clone()), held.place(""));
                self.rejected.push(Rejected { key, place, message, kept_old: is_good(held) });
                kept.push(Arc::clone(held));
            }
        }
        self.now.extend(kept);
        self.now.sort_by(|one, other| one.key.cmp(&other.key));
    }

    /// Closes the scopes of security objects in broken files, as far as they are not those that the files held before.
    fn close_broken(&mut self) {
        let mut closed: Vec<Arc<Resource>> = Vec::new();
        for (file, content) in std::mem::take(&mut self.broken) {
            let message = || "its file cannot be read to the end".to_owned();
            let fresh = content.objects.iter().filter(|version| find(&self.now, version.key()).is_none());
            for version in fresh.filter(|version| version.key().kind.closes()) {
                let own = version.resource().or(version.stand_in());
                closed.extend(own.and_then(|own| close(version.key(), own, message())).map(Arc::new));
            }
            let whole: BTreeSet<_> = content.objects.iter().map(Version::key).collect();
            for kind in Kind::ALL.into_iter().filter(|kind| kind.closes()) {
                let torn: Vec<&Object> = content.torn.iter().filter(|torn| torn.key.kind == kind).collect();
                let held = self.held.iter().filter(|held| held.key.kind == kind && is_good(held));
                let held = held.filter(|held| *held.placement.file() == file && !whole.contains(&held.key));
                if torn.len() > held.count() {
                    closed.extend(torn.into_iter().filter_map(|torn| torn.stand_in.clone()));
                }
            }
        }
        for closed in closed {
            let (key, place) = (Some(closed.key.clone()), closed.place(""));
            let message = "its file cannot be read to the end".to_owned();
            self.rejected.push(Rejected { key, place, message, kept_old: false });
            self.hold(closed);
        }
    }

    /// Of several versions the place of the one that held before, else of the first in the order of paths. None of them when the one that
    /// held before stands in a file that cannot be read.
    fn choose(&self, versions: &[&Version], held: Option<&Arc<Resource>>) -> Option<usize> {
        let Some(held) = held else { return Some(0) };
        let file = held.placement.file();
        let here = |version: &&Version| version.file() == file;
        if versions.iter().any(here) {
            let same = |version: &&Version| version.resource() == Some(held);
            let unchanged = versions.iter().position(|version| here(version) && same(version));
            return Some(unchanged.or_else(|| versions.iter().position(here)).unwrap_or(0));
        }
        (!is_below(&self.lost, file)).then_some(0)
    }
}

/// Whether an object is what was written, and not what stands in for it.
fn is_good(resource: &Resource) -> bool {
    !matches!(resource.spec, Spec::Closed(_))
}

/// Whether versions of one object say different things.
fn is_contested(versions: &[&Version]) -> bool {
    versions.windows(2).any(|pair| match pair {
        [one, other] => one.resource().is_none() || one.resource() != other.resource(),
        _ => false,
    })
}

fn is_below(paths: &BTreeSet<Arc<Path>>, file: &Path) -> bool {
    paths.iter().any(|path| file.starts_with(path))
}

/// What is wrong with a version that is rejected.
fn reason(version: &Version) -> String {
    let error = version.findings().iter().find(|finding| finding.severity == Severity::Error);
    error.map_or_else(String::new, |error| format!("{}: {}", error.field, error.message))
}

/// Something that is rejected and of which nobody can tell which object it is.
fn unnamed(error: &Finding, kept_old: bool) -> Option<Rejected> {
    Some(Rejected { key: None, place: error.place.clone()?, message: error.message.clone(), kept_old })
}

/// The object of a key among those sorted by key.
pub(super) fn find<'r>(resources: &'r [Arc<Resource>], key: &ObjectKey) -> Option<&'r Arc<Resource>> {
    let at = resources.binary_search_by(|resource| resource.key.cmp(key)).ok()?;
    resources.get(at)
}

/// The new version of an object with the source of the one that holds; the same `Arc` when it neither changed nor moved.
pub(super) fn adopt(new: Arc<Resource>, held: Option<&Arc<Resource>>) -> Arc<Resource> {
    match held {
        Some(held) if **held == *new && held.placement == new.placement => Arc::clone(held),
        Some(held) if !Arc::ptr_eq(&held.source, &new.source) => {
            Arc::new(Resource { source: Arc::clone(&held.source), ..Arc::unwrap_or_clone(new) })
        }
        _ => new,
    }
}
