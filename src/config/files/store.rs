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

/// The objects of some folders and files, and the last good version of each.
#[derive(Debug)]
pub struct Store {
    paths: Vec<PathBuf>,
    strictness: Strictness,
    held: BTreeMap<ObjectKey, Arc<Resource>>,
    /// What each file came to: one that did not change is not read again.
    read: BTreeMap<Arc<Path>, (u64, Reading)>,
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
        Self { paths, strictness, held: BTreeMap::new(), read: BTreeMap::new(), last: None }
    }

    /// Reads everything again. Gives the same update as before when nothing changed.
    ///
    /// An object that became invalid keeps its last good version, and so do all objects of a file that cannot be read;
    /// the rest goes on. Reads from disk, so it belongs on a thread that may block.
    pub fn reload(&mut self) -> Arc<Update> {
        let (files, hash) = self.read();
        if let Some(last) = self.last.as_ref().filter(|last| last.hash == hash) {
            return Arc::clone(last);
        }
        let mut load = Load::new(&self.held);
        let mut read = BTreeMap::new();
        for (file, text) in files {
            match text {
                Ok(text) => {
                    let hash = hash_of(&text);
                    let known = self.read.remove(&file).filter(|(of, _)| *of == hash);
                    let (_, reading) = known.unwrap_or_else(|| {
                        let mut reading = decode(&file, &text, self.strictness);
                        // What did not change is held once, not here again.
                        for object in &mut reading.objects {
                            let held = self.held.get(&object.key);
                            object.resource = object.resource.take().map(|new| reuse(new, held));
                        }
                        (hash, reading)
                    });
                    load.add(&file, &reading);
                    read.insert(file, (hash, reading));
                }
                Err(why) => load.add_unreadable(&file, &why),
            }
        }
        let (held, mut update) = load.finish();
        self.read = read;
        update.generation = self.last.as_ref().map_or(0, |last| last.generation) + 1;
        update.hash = hash;
        self.held = held;
        let update = Arc::new(update);
        self.last = Some(Arc::clone(&update));
        update
    }

    /// The text of every file, or why it has none, and a hash over all of it.
    fn read(&self) -> (Vec<Text>, u64) {
        let listing = list(&self.paths);
        let errors = listing.errors.into_iter().map(|(path, error)| (path, Err(error.to_string())));
        let texts = listing.files.into_iter().map(|path| {
            let text = read_text(&path).map_err(|error| error.to_string());
            (path, text)
        });
        let mut files: Vec<Text> = errors.chain(texts).map(|(path, text)| (path.into(), text)).collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let hash = hash_of(&files);
        (files, hash)
    }
}

/// A file or folder and its text, or why it has none.
type Text = (Arc<Path>, Result<String, String>);

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

/// One load in the making.
struct Load<'a> {
    held: &'a BTreeMap<ObjectKey, Arc<Resource>>,
    /// By object: every version found, in the order of files.
    found: BTreeMap<ObjectKey, Vec<Object>>,
    /// Files and folders of which not every object is known.
    unreadable: BTreeSet<Arc<Path>>,
    /// Those of them of which no object is known.
    broken: BTreeSet<Arc<Path>>,
    findings: Vec<Finding>,
}

impl<'a> Load<'a> {
    fn new(held: &'a BTreeMap<ObjectKey, Arc<Resource>>) -> Self {
        Self {
            held,
            found: BTreeMap::new(),
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

    fn add(&mut self, file: &Arc<Path>, reading: &Reading) {
        self.findings.extend(reading.findings.iter().cloned());
        if reading.unreadable {
            self.unreadable.insert(Arc::clone(file));
        }
        if reading.broken {
            // What stands before a syntax error may be half of what was meant.
            self.broken.insert(Arc::clone(file));
            self.findings.extend(reading.objects.iter().flat_map(|object| object.findings.iter().cloned()));
            return;
        }
        for object in &reading.objects {
            self.found.entry(object.key.clone()).or_default().push(object.clone());
        }
    }

    fn finish(mut self) -> (BTreeMap<ObjectKey, Arc<Resource>>, Update) {
        let mut now = BTreeMap::new();
        let mut rejected = Vec::new();
        for (key, versions) in std::mem::take(&mut self.found) {
            let held = self.held.get(&key);
            let (winner, losers) = self.choose(versions, held);
            let holder = winner
                .as_ref()
                .map(|object| object.place.clone())
                .or_else(|| held.map(|held| held.place("")));
            for loser in losers {
                let Some(holder) = &holder else { continue };
                let (finding, reject) = duplicate(&loser, holder);
                self.findings.push(finding);
                self.findings.extend(loser.findings);
                rejected.push(reject);
            }
            let Some(winner) = winner else {
                // It is held from a file that cannot be read.
                now.extend(held.map(|held| (key, Arc::clone(held))));
                continue;
            };
            if let Some(resource) = winner.resource {
                now.insert(key, reuse(resource, held));
            } else {
                let error = winner.findings.iter().find(|finding| finding.severity == Severity::Error);
                let message =
                    error.map_or_else(String::new, |error| format!("{}: {}", error.field, error.message));
                // What stands in for an object is no version of it.
                let old = held.filter(|held| !matches!(held.spec, Spec::Closed(_)));
                rejected.push(Rejected {
                    key: key.clone(),
                    place: winner.place,
                    message,
                    kept_old: old.is_some(),
                });
                let instead = old.cloned().or_else(|| winner.stand_in.map(|closed| reuse(closed, held)));
                now.extend(instead.map(|resource| (key, resource)));
            }
            self.findings.extend(winner.findings);
        }
        for (key, held) in self.held {
            if !now.contains_key(key) && self.is_unreadable(held.source.file()) {
                let message = "its file cannot be read to the end".to_owned();
                rejected.push(Rejected { key: key.clone(), place: held.place(""), message, kept_old: true });
                now.insert(key.clone(), Arc::clone(held));
            }
        }
        self.findings.sort_by(Finding::order);
        rejected.sort_by(|a, b| (&a.key, &a.place).cmp(&(&b.key, &b.place)));
        let update = Update {
            generation: 0,
            hash: 0,
            resources: now.values().cloned().collect(),
            findings: self.findings,
            rejected,
            unreadable: self.unreadable.into_iter().collect(),
        };
        (now, update)
    }

    /// Of several versions the one that held before, else the first in the order of paths. None of them when the one that
    /// held before stands in a file that cannot be read.
    fn choose(
        &self,
        mut versions: Vec<Object>,
        held: Option<&Arc<Resource>>,
    ) -> (Option<Object>, Vec<Object>) {
        let at = match held.map(|held| held.source.file()) {
            None => 0,
            Some(file) if versions.iter().any(|version| version.place.file == *file) => {
                let same = |version: &Object| version.resource.is_some() && version.resource.as_ref() == held;
                let here = |version: &Object| version.place.file == *file;
                let unchanged = versions.iter().position(|version| here(version) && same(version));
                unchanged.or_else(|| versions.iter().position(here)).unwrap_or(0)
            }
            Some(file) if self.is_broken(file) => return (None, versions),
            Some(_) => 0,
        };
        (Some(versions.remove(at)), versions)
    }

    fn is_unreadable(&self, file: &Path) -> bool {
        self.unreadable.iter().any(|unreadable| file.starts_with(unreadable))
    }

    fn is_broken(&self, file: &Path) -> bool {
        self.broken.iter().any(|broken| file.starts_with(broken))
    }
}

/// The same `Arc` when the object neither changed nor moved.
fn reuse(new: Arc<Resource>, held: Option<&Arc<Resource>>) -> Arc<Resource> {
    match held {
        Some(held) if **held == *new && held.source == new.source => Arc::clone(held),
        _ => new,
    }
}

fn duplicate(loser: &Object, holder: &Place) -> (Finding, Rejected) {
    let message = format!("is defined a second time; the definition at {holder} holds");
    let finding = Finding {
        severity: Severity::Error,
        code: "duplicate-object",
        object: Some(loser.key.clone()),
        field: String::new(),
        place: Some(loser.place.clone()),
        message: message.clone(),
        hint: "keep one of the two, or give one another name".to_owned(),
    };
    let rejected = Rejected { key: loser.key.clone(), place: loser.place.clone(), message, kept_old: true };
    (finding, rejected)
}
