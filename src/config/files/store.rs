//! Holds the last good version of every object.

mod content;
mod load;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::list::list;
use super::watch::Watcher;
use crate::config::decode::{Object, Reading, Strictness, decode};
use crate::config::finding::Finding;
use crate::config::resources::{ObjectKey, Resource, Spec};
use crate::config::spans::Place;
use crate::mesh::forget_names;
use content::{Content, Identity, Version};
use load::{Load, adopt, find};
use settle::{Changed, Progress, Settling};

/// The objects of some folders and files, and the last good version of each.
#[derive(Debug)]
pub struct Store {
    paths: Vec<PathBuf>,
    strictness: Strictness,
    /// What each file came to, by the hash of its text: one that did not change is not decoded again.
    read: BTreeMap<Arc<Path>, Content>,
    settling: Settling,
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
    /// The objects whose newest version does not hold, and what could not be read as an object.
    pub rejected: Vec<Rejected>,
    /// Files and folders that cannot be read, or not to their end. At the first load nothing of them is known.
    pub unreadable: Vec<Arc<Path>>,
}

impl Update {
    /// The scopes that are closed: what stands in for security objects that are rejected and have no earlier version.
    pub fn closed(&self) -> impl Iterator<Item = &Arc<Resource>> {
        let closes = |resource: &&Arc<Resource>| {
            matches!(resource.spec, Spec::Closed(_)) && resource.key.kind.closes()
        };
        self.resources.iter().filter(closes)
    }
}

/// An object whose newest version does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which object; `None` for a file or a document of which nobody can tell.
    pub key: Option<ObjectKey>,
    /// Where the version stands that does not hold.
    pub place: Place,
    /// Why it does not hold.
    pub message: String,
    /// Whether the version that held before holds on: for a file, whether it keeps what it held.
    pub kept_old: bool,
}

impl Rejected {
    /// The object, or the place where it cannot be told.
    #[must_use]
    pub fn subject(&self) -> String {
        self.key.as_ref().map_or_else(|| self.place.to_string(), ToString::to_string)
    }
}

impl Store {
    /// A store over folders and files, still empty.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, strictness: Strictness) -> Self {
        Self { paths, strictness, read: BTreeMap::new(), settling: Settling::default(), last: None }
    }

    /// Heeds which files this watcher sees being written: they count when they are closed.
    #[must_use]
    pub fn beside(mut self, watcher: &Watcher) -> Self {
        self.settling.follow(watcher.writing());
        self
    }

    /// When to reload though nothing changes: a change that was seen is not believed yet.
    #[must_use]
    pub fn again(&self) -> Option<Duration> {
        self.settling.again()
    }

    /// Reads everything again. Gives the same update as before when nothing changed.
    ///
    /// An object that became invalid keeps its last good version, and so do all objects of a file that cannot be read or is being written;
    /// the rest goes on. Reads from disk, so it belongs on a thread that may block.
    pub fn reload(&mut self) -> Arc<Update> {
        self.reload_at(Instant::now())
    }

    pub(super) fn reload_at(&mut self, now: Instant) -> Arc<Update> {
        let listing = list(&self.paths);
        let mut unreadable: Vec<(Arc<Path>, String)> =
            listing.errors.into_iter().map(|(path, error)| (path.into(), error.to_string())).collect();
        for link in listing.dangling {
            if self.held().iter().any(|held| held.placement.file().starts_with(&link)) {
                unreadable.push((link.into(), "it leads nowhere".to_owned()));
            }
        }
        self.settling.begin();
        let mut old = std::mem::take(&mut self.read);
        let mut changed = Vec::new();
        // File by file, so that never all of their texts are in memory.
        for path in listing.files {
            let path: Arc<Path> = path.into();
            let (text, identity, age) = match content::read(&path) {
                Ok(found) => found,
                // Half of a character, perhaps.
                Err(_)
                    if self.last.is_some() && self.settling.progress(&path, None, now) == Progress::Going =>
                {
                    self.read.extend(old.remove_entry(&path));
                    continue;
                }
                Err(error) => {
                    unreadable.push((path, error.to_string()));
                    continue;
                }
            };
            let hash = hash_of(&text);
            let last = old.remove(&path);
            if last.as_ref().is_some_and(|last| last.hash == hash) {
                self.settling.clear(&path);
                self.read.extend(last.map(|last| (path, Content { identity, ..last })));
                continue;
            }
            let progress = match self.last {
                Some(_) => self.settling.progress(&path, age, now),
                None => Progress::Done,
            };
            if progress == Progress::Going {
                self.read.extend(last.map(|last| (path, last)));
                continue;
            }
            let new = Some(self.decode(&path, &text, hash, identity));
            changed.push(Changed { file: path, new, last, progress });
        }
        let lost = |file: &Path| unreadable.iter().any(|(lost, _)| file.starts_with(lost));
        let gone = old.into_iter().filter(|(file, _)| !lost(file));
        let gone =
            gone.map(|(file, last)| Changed { file, new: None, last: Some(last), progress: Progress::Done });
        changed.extend(gone);
        let notes = self.settle(changed, now);
        forget_names();
        unreadable.sort();
        self.update(&unreadable, notes)
    }

    /// Takes what counts of the files that changed, and gives what there is to say of the others.
    fn settle(&mut self, changed: Vec<Changed>, now: Instant) -> Vec<Finding> {
        let mut found = BTreeSet::new();
        if !changed.is_empty() && self.last.is_some() {
            let unchanged = self.read.values().flat_map(|content| content.objects.iter().map(Version::key));
            found.extend(unchanged.chain(changed.iter().flat_map(Changed::keys)).cloned());
        }
        let last = self.last.clone();
        let held = last.as_ref().map_or(&[][..], |last| &last.resources);
        let mut notes = Vec::new();
        for changed in changed {
            let file = Arc::clone(&changed.file);
            let (content, note) = self.settling.judge(changed, held, &found, now);
            self.read.extend(content.map(|content| (file, content)));
            notes.extend(note);
        }
        notes
    }

    fn update(&mut self, unreadable: &[(Arc<Path>, String)], notes: Vec<Finding>) -> Arc<Update> {
        let mut hasher = DefaultHasher::new();
        for (file, content) in &self.read {
            (file, content.hash).hash(&mut hasher);
        }
        unreadable.hash(&mut hasher);
        for note in &notes {
            (&note.place, &note.message).hash(&mut hasher);
        }
        let hash = hasher.finish();
        if let Some(last) = self.last.as_ref().filter(|last| last.hash == hash) {
            return Arc::clone(last);
        }
        let mut load = Load::new(self.held(), notes);
        for (file, why) in unreadable {
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

    fn decode(&self, path: &Arc<Path>, text: &str, hash: u64, identity: Identity) -> Content {
        let Reading { objects, findings, unreadable, broken, torn } = decode(path, text, self.strictness);
        let objects = objects.into_iter().map(|mut object| {
            let held = find(self.held(), &object.key);
            match object.resource.take().map(|new| adopt(new, held)) {
                Some(resource) if object.findings.is_empty() => Version::Plain(resource),
                resource => Version::Told(Box::new(Object { resource, ..object })),
            }
        });
        Content { hash, identity, objects: objects.collect(), findings, unreadable, broken, torn }
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
