//! Holds the last good version of every object.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::list::list;
use crate::config::decode::{Object, Reading, Strictness, decode};
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{ObjectKey, Resource, Spec};
use crate::config::spans::{MAX_FILE_BYTES, Place};
use crate::mesh::forget_names;

/// The objects of some folders and files, and the last good version of each.
#[derive(Debug)]
pub struct Store {
    paths: Vec<PathBuf>,
    strictness: Strictness,
    /// What each file came to, by the hash of its text: one that did not change is not decoded again.
    read: BTreeMap<Arc<Path>, Content>,
    last: Option<Arc<Update>>,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Update {
    /// Counts the loads that read something new, from 1.
    pub generation: u64,
    /// A hash of all that was read.
    pub hash: u64,
    /// The objects that hold, and [`Spec::Closed`] for security objects that do not, sorted by key. One that did not change or move is the same
    /// `Arc` as before.
    pub resources: Vec<Arc<Resource>>,
    /// All there is to say, sorted by file and line.
    pub findings: Vec<Finding>,
    /// The objects whose newest version does not hold.
    pub rejected: Vec<Rejected>,
    /// Files and folders that cannot be read, or not to their end. At the first load nothing of them is known.
    pub unreadable: Vec<Arc<Path>>,
}

/// An object whose newest version does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which object.
    pub key: ObjectKey,
    /// Where the version stands that does not hold.
    pub place: Place,
    /// Why it does not hold.
    pub message: String,
    /// Whether another version holds in its place.
    pub kept_old: bool,
}

impl Store {
    /// A store over folders and files, still empty.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, strictness: Strictness) -> Self {
        Self { paths, strictness, read: BTreeMap::new(), last: None }
    }

    /// Reads everything again. Gives the same update as before when nothing changed.
    ///
    /// An object that became invalid keeps its last good version, and so do all objects of a file that cannot be read;
    /// the rest goes on. Reads from disk, so it belongs on a thread that may block.
    pub fn reload(&mut self) -> Arc<Update> {
        let listing = list(&self.paths);
        let mut hasher = DefaultHasher::new();
        let mut read = BTreeMap::new();
        let mut unreadable: Vec<(Arc<Path>, String)> =
            listing.errors.into_iter().map(|(path, error)| (path.into(), error.to_string())).collect();
        // File by file, so that never all of their texts are in memory.
        for path in listing.files {
            let path: Arc<Path> = path.into();
            match read_text(&path) {
                Ok(text) => {
                    let hash = hash_of(&text);
                    (&path, hash).hash(&mut hasher);
                    let content = self.known(&path, hash).unwrap_or_else(|| self.decode(&path, &text, hash));
                    read.insert(path, content);
                }
                Err(error) => unreadable.push((path, error.to_string())),
            }
        }
        forget_names();
        unreadable.sort();
        unreadable.hash(&mut hasher);
        let hash = hasher.finish();
        self.read = read;
        if let Some(last) = self.last.as_ref().filter(|last| last.hash == hash) {
            return Arc::clone(last);
        }
        let mut load = Load::new(self.held());
        for (file, why) in &unreadable {
            load.add_unreadable(file, why);
        }
        for (file, content) in &self.read {
            load.add(file, content);
        }
        let mut update = load.finish();
        update.generation = self.last.as_ref().map_or(0, |last| last.generation) + 1;
        update.hash = hash;
        let update = Arc::new(update);
        self.last = Some(Arc::clone(&update));
        update
    }

    /// The objects in force, sorted by key.
    fn held(&self) -> &[Arc<Resource>] {
        self.last.as_ref().map_or(&[], |last| &last.resources)
    }

    /// What a file came to when it held the same text.
    fn known(&mut self, path: &Path, hash: u64) -> Option<Content> {
        self.read.get_mut(path).filter(|content| content.hash == hash).map(std::mem::take)
    }

    fn decode(&self, path: &Arc<Path>, text: &str, hash: u64) -> Content {
        let Reading { objects, findings, unreadable, broken } = decode(path, text, self.strictness);
        let objects = objects.into_iter().map(|mut object| {
            let held = find(self.held(), &object.key);
            match object.resource.take().map(|new| adopt(new, held)) {
                Some(resource) if object.findings.is_empty() => Version::Plain(resource),
                resource => Version::Told(Box::new(Object { resource, ..object })),
            }
        });
        Content { hash, objects: objects.collect(), findings, unreadable, broken }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed, so that the reader of YAML can tell.
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// What a file came to, small enough to be kept.
#[derive(Debug, Default)]
struct Content {
    hash: u64,
    objects: Box<[Version]>,
    findings: Vec<Finding>,
    unreadable: bool,
    broken: bool,
}

/// One version of an object.
#[derive(Debug)]
enum Version {
    /// There is nothing to say about it.
    Plain(Arc<Resource>),
    /// It is rejected, or there is something to say.
    Told(Box<Object>),
}

impl Version {
    fn key(&self) -> &ObjectKey {
        match self {
            Self::Plain(resource) => &resource.key,
            Self::Told(object) => &object.key,
        }
    }

    /// What closes the scope of a rejected object.
    fn stand_in(&self) -> Option<&Arc<Resource>> {
        match self {
            Self::Plain(_) => None,
            Self::Told(object) => object.stand_in.as_ref(),
        }
    }

    fn file(&self) -> &Arc<Path> {
        match self {
            Self::Plain(resource) => resource.placement.file(),
            Self::Told(object) => &object.place.file,
        }
    }

    fn place(&self) -> Place {
        match self {
            Self::Plain(resource) => resource.place(""),
            Self::Told(object) => object.place.clone(),
        }
    }

    fn resource(&self) -> Option<&Arc<Resource>> {
        match self {
            Self::Plain(resource) => Some(resource),
            Self::Told(object) => object.resource.as_ref(),
        }
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Plain(_) => &[],
            Self::Told(object) => &object.findings,
        }
    }
}

/// One load in the making.
struct Load<'a> {
    held: &'a [Arc<Resource>],
    /// Every version of every object, in the order of files.
    found: Vec<&'a Version>,
    /// Files and folders of which not every object is known.
    unreadable: BTreeSet<Arc<Path>>,
    /// Those of them of which no object is known.
    broken: BTreeSet<Arc<Path>>,
    findings: Vec<Finding>,
}

impl<'a> Load<'a> {
    fn new(held: &'a [Arc<Resource>]) -> Self {
        Self {
            held,
            found: Vec::new(),
            unreadable: BTreeSet::new(),
            broken: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    fn add_unreadable(&mut self, file: &Arc<Path>, why: &str) {
        self.unreadable.insert(Arc::clone(file));
        self.broken.insert(Arc::clone(file));
        self.findings.push(Finding {
            severity: Severity::Error,
            code: "unreadable",
            object: None,
            field: String::new(),
            place: Some(Place { file: Arc::clone(file), line: 1, column: 1 }),
            message: format!("cannot be read: {why}"),
            hint: "check that it exists, that we may read it, and that it is UTF-8".to_owned(),
        });
    }

    fn add(&mut self, file: &Arc<Path>, content: &'a Content) {
        self.findings.extend(content.findings.iter().cloned());
        if content.unreadable {
            self.unreadable.insert(Arc::clone(file));
        }
        if content.broken {
            // What stands before a syntax error may be half of what was meant.
            self.broken.insert(Arc::clone(file));
            self.findings.extend(content.objects.iter().flat_map(Version::findings).cloned());
            return;
        }
        self.found.extend(&content.objects);
    }

    fn finish(mut self) -> Update {
        let mut found = std::mem::take(&mut self.found);
        found.sort_by(|one, other| one.key().cmp(other.key()));
        let mut now: Vec<Arc<Resource>> = Vec::with_capacity(found.len());
        let mut rejected = Vec::new();
        for versions in found.chunk_by(|one, other| one.key() == other.key()) {
            let Some(key) = versions.first().map(|version| version.key()) else { continue };
            let held = find(self.held, key);
            let winner = self.choose(versions, held);
            let holder = match winner.and_then(|at| versions.get(at)) {
                Some(winner) => Some(winner.place()),
                None => held.map(|held| held.place("")),
            };
            for (_, loser) in versions.iter().enumerate().filter(|(at, _)| winner != Some(*at)) {
                let Some(holder) = &holder else { continue };
                let (finding, reject) = duplicate(loser, holder);
                self.findings.push(finding);
                self.findings.extend(loser.findings().iter().cloned());
                rejected.push(reject);
            }
            let Some(winner) = winner.and_then(|at| versions.get(at)) else {
                // It is held from a file that cannot be read.
                now.extend(held.cloned());
                continue;
            };
            if let Some(resource) = winner.resource() {
                let resource = adopt(Arc::clone(resource), held);
                resource.hold();
                now.push(resource);
            } else {
                let error = winner.findings().iter().find(|finding| finding.severity == Severity::Error);
                let message =
                    error.map_or_else(String::new, |error| format!("{}: {}", error.field, error.message));
                // What stands in for an object is no version of it.
                let old = held.filter(|held| !matches!(held.spec, Spec::Closed(_)));
                rejected.push(Rejected {
                    key: key.clone(),
                    place: winner.place(),
                    message,
                    kept_old: old.is_some(),
                });
                let stand_in = || {
                    let closed = adopt(Arc::clone(winner.stand_in()?), held);
                    closed.hold();
                    Some(closed)
                };
                now.extend(old.cloned().or_else(stand_in));
            }
            self.findings.extend(winner.findings().iter().cloned());
        }
        let mut kept = Vec::new();
        for held in self.held {
            if find(&now, &held.key).is_none() && self.is_unreadable(held.placement.file()) {
                let message = "its file cannot be read to the end".to_owned();
                let key = held.key.clone();
                rejected.push(Rejected { key, place: held.place(""), message, kept_old: true });
                kept.push(Arc::clone(held));
            }
        }
        now.extend(kept);
        now.sort_by(|one, other| one.key.cmp(&other.key));
        self.findings.sort_by(Finding::order);
        rejected.sort_by(|a, b| (&a.key, &a.place).cmp(&(&b.key, &b.place)));
        Update {
            generation: 0,
            hash: 0,
            resources: now,
            findings: self.findings,
            rejected,
            unreadable: self.unreadable.into_iter().collect(),
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
        (!self.is_broken(file)).then_some(0)
    }

    fn is_unreadable(&self, file: &Path) -> bool {
        self.unreadable.iter().any(|unreadable| file.starts_with(unreadable))
    }

    fn is_broken(&self, file: &Path) -> bool {
        self.broken.iter().any(|broken| file.starts_with(broken))
    }
}

/// The object of a key among those sorted by key.
fn find<'r>(resources: &'r [Arc<Resource>], key: &ObjectKey) -> Option<&'r Arc<Resource>> {
    let at = resources.binary_search_by(|resource| resource.key.cmp(key)).ok()?;
    resources.get(at)
}

/// The new version of an object with the source of the one that holds; the same `Arc` when it neither changed nor moved.
fn adopt(new: Arc<Resource>, held: Option<&Arc<Resource>>) -> Arc<Resource> {
    match held {
        Some(held) if **held == *new && held.placement == new.placement => Arc::clone(held),
        Some(held) if !Arc::ptr_eq(&held.source, &new.source) => {
            Arc::new(Resource { source: Arc::clone(&held.source), ..Arc::unwrap_or_clone(new) })
        }
        _ => new,
    }
}

fn duplicate(loser: &Version, holder: &Place) -> (Finding, Rejected) {
    let message = format!("is defined a second time; the definition at {holder} holds");
    let finding = Finding {
        severity: Severity::Error,
        code: "duplicate-object",
        object: Some(loser.key().clone()),
        field: String::new(),
        place: Some(loser.place()),
        message: message.clone(),
        hint: "keep one of the two, or give one another name".to_owned(),
    };
    let rejected = Rejected { key: loser.key().clone(), place: loser.place(), message, kept_old: true };
    (finding, rejected)
}
