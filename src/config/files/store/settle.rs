//! Whether a file that changed is believed: not while somebody writes it, and not at once where it takes away protection.
//!
//! Nothing tells a half-written file from one that is meant so but time, and whoever writes it. So a file that is written in place counts
//! when it was closed. One that was closed and then lacks security objects, or all of its objects, counts when it has stayed that
//! way for a while. What is renamed into its place is whole, and counts at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::content::{Content, Version};
use crate::config::files::watch::{PATIENCE, QUIET};
use crate::config::files::writing::Writing;
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{ObjectKey, Resource};
use crate::config::spans::Place;

/// How long a file must lack something before that is believed.
const LACK: Duration = Duration::from_secs(2);

/// What is not believed yet.
#[derive(Debug, Default)]
pub(super) struct Settling {
    writing: Option<Writing>,
    /// Files that lack something: the hash of their text, and since when.
    doubts: BTreeMap<Arc<Path>, (u64, Instant)>,
    /// When to look again.
    again: Option<Duration>,
}

/// How far a changed file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is being written.
    Going,
    /// It was not closed for so long that it is read as it is.
    Overdue,
    /// It is complete, as far as anybody knows.
    Done,
}

/// A file that changed.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) file: Arc<Path>,
    /// What it came to; `None` when it is gone.
    pub(super) new: Option<Content>,
    pub(super) last: Option<Content>,
    pub(super) progress: Progress,
}

impl Settling {
    pub(super) fn follow(&mut self, writing: Writing) {
        self.writing = Some(writing);
    }

    /// Begins a load.
    pub(super) fn begin(&mut self) {
        self.again = None;
    }

    /// When the files should be looked at again though nobody tells of a change.
    pub(super) fn again(&self) -> Option<Duration> {
        self.again
    }

    /// How far a file is written that was changed `age` ago.
    pub(super) fn progress(&mut self, file: &Path, age: Option<Duration>, now: Instant) -> Progress {
        let Some(writing) = &self.writing else { return Progress::Done };
        if let Some(since) = writing.since(file) {
            let left =
                PATIENCE.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero());
            return match left {
                Some(left) => {
                    self.look_in(left);
                    Progress::Going
                }
                None => Progress::Overdue,
            };
        }
        // What is told of it may still be under way.
        match age.and_then(|age| QUIET.checked_sub(age)) {
            Some(left) => {
                self.look_in(left);
                Progress::Going
            }
            None => Progress::Done,
        }
    }

    /// What counts of a file that changed, given what holds and the objects that are found anywhere; with what there is to say.
    pub(super) fn judge(
        &mut self,
        changed: Changed,
        held: &[Arc<Resource>],
        found: &BTreeSet<ObjectKey>,
        now: Instant,
    ) -> (Option<Content>, Option<Finding>) {
        let Changed { file, new, last, progress } = changed;
        let hash = new.as_ref().map_or(0, |new| new.hash);
        // A file that cannot be read keeps what it held anyway.
        let whole = new.as_ref().is_none_or(|new| !new.broken && !new.unreadable);
        let held = held.iter().filter(|held| *held.placement.file() == file);
        let mut lost = held.clone().filter(|held| !found.contains(&held.key));
        let protection = lost.clone().any(|lost| lost.key.kind.is_security());
        let emptied = new.as_ref().is_some_and(|new| new.objects.is_empty()) && lost.next().is_some();
        let overdue = (progress == Progress::Overdue).then(|| overdue(&file, protection && whole));
        let in_place = match (&new, &last) {
            (Some(new), Some(last)) => new.identity == last.identity,
            _ => true,
        };
        if overdue.is_some() && protection && whole && last.is_some() {
            return (last, overdue);
        }
        if last.is_none() || !whole || !in_place || !(protection || emptied) {
            self.doubts.remove(&file);
            return (new, overdue);
        }
        let since = match self.doubts.get(&file) {
            Some((known, since)) if *known == hash => *since,
            _ => now,
        };
        match LACK.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero()) {
            Some(left) => {
                tracing::debug!(file = %file.display(), "lacks objects that it held; they stay for a while");
                self.doubts.insert(file, (hash, since));
                self.look_in(left);
                (last, overdue)
            }
            None => {
                self.doubts.remove(&file);
                (new, overdue)
            }
        }
    }

    /// Forgets doubts about files that are as they were.
    pub(super) fn clear(&mut self, file: &Path) {
        self.doubts.remove(file);
    }

    fn look_in(&mut self, left: Duration) {
        self.again = Some(self.again.map_or(left, |again| again.min(left)));
    }
}

impl Changed {
    /// The objects that it holds now.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.new.iter().flat_map(|new| new.objects.iter().map(Version::key))
    }
}

fn overdue(file: &Arc<Path>, protection: bool) -> Finding {
    let seconds = PATIENCE.as_secs();
    let message = if protection {
        format!(
            "is open for writing for more than {seconds} s and lacks security objects: all it held stays until it is closed"
        )
    } else {
        format!("is open for writing for more than {seconds} s: it is read as it stands")
    };
    Finding {
        severity: Severity::Warning,
        code: "being-written",
        object: None,
        field: String::new(),
        place: Some(Place { file: Arc::clone(file), line: 1, column: 1 }),
        message,
        hint: "close it; better, write a new file and rename it into its place".to_owned(),
    }
}
