//! Notices that files changed.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};

use super::list::list;
use super::writing::Writing;

/// Quiet time after which a change counts as complete.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// The longest that changes are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The longest that a file which keeps changing is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Time between looks at the files themselves, for file systems that tell nothing.
const POLL: Duration = Duration::from_secs(10);

/// Notices that the files of a [`Store`](super::Store) changed.
///
/// It watches folders, not files: a ConfigMap volume swaps a link, and editors rename, after which a watch of the file
/// itself would be silent for ever.
#[derive(Debug)]
pub struct Watcher {
    paths: Vec<PathBuf>,
    told: Arc<Notify>,
    writing: Writing,
    pub(super) folders: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    poll: Interval,
    fingerprint: u64,
    /// A change was seen and not reported yet, as when `changed` was dropped while it gathered.
    pending: bool,
}

impl Watcher {
    /// Watches from now on. Where the system has no watches left, the files are polled. Needs a tokio runtime.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let told = Arc::new(Notify::new());
        let tell = Arc::clone(&told);
        let writing = Writing::default();
        let open = writing.clone();
        let folders = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = &event {
                open.note(event);
            }
            // Reading is an event as well; reacting to our own would never end. An error may hide a change.
            if event.map_or(true, |event| is_change(event.kind)) {
                tell.notify_one();
            }
        });
        let folders =
            folders.inspect_err(|error| tracing::warn!(%error, "files are polled, not watched")).ok();
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let fingerprint = fingerprint(&paths);
        let watched = BTreeSet::new();
        let mut watcher = Self { paths, told, writing, folders, watched, poll, fingerprint, pending: false };
        watcher.watch();
        watcher
    }

    /// The files that are being written.
    pub(super) fn writing(&self) -> Writing {
        self.writing.clone()
    }

    /// Waits until files have changed and been quiet for 100 ms, at most 1 s after the first change.
    ///
    /// Cancel safe: a change seen before it was dropped is reported by the next call.
    pub async fn changed(&mut self) {
        let mut told = true;
        while !self.pending {
            tokio::select! {
                () = self.told.notified() => self.pending = true,
                _ = self.poll.tick() => {
                    let now = self.look().await;
                    self.pending = now != self.fingerprint;
                    self.fingerprint = now;
                    told = false;
                }
            }
        }
        let end = Instant::now() + GATHER;
        while Instant::now() < end && timeout(QUIET, self.told.notified()).await.is_ok() {}
        self.watch();
        self.fingerprint = self.look().await;
        // Where nobody tells, only two looks tell whether a file is still being written.
        let end = Instant::now() + PATIENCE;
        while !told && Instant::now() < end {
            sleep(GATHER).await;
            let now = self.look().await;
            told = now == self.fingerprint;
            self.fingerprint = now;
        }
        self.pending = false;
    }

    async fn look(&self) -> u64 {
        let paths = self.paths.clone();
        // When the task is lost, the runtime ends, and nobody waits for a change any more.
        tokio::task::spawn_blocking(move || fingerprint(&paths)).await.unwrap_or(self.fingerprint)
    }

    /// Watches the folders that exist now: a folder that was replaced needs a new watch.
    fn watch(&mut self) {
        let Some(folders) = &mut self.folders else { return };
        let wanted = folders_of(&self.paths);
        for gone in self.watched.difference(&wanted) {
            // It fails where the folder itself is gone, and its watch with it.
            let _ = folders.unwatch(gone);
        }
        for folder in &wanted {
            if let Err(error) = folders.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!(%error, folder = %folder.display(), "this folder is polled, not watched");
            }
        }
        self.watched = wanted;
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Every folder in which something may change: those given, those below, those of the files, and whatever links lead to.
fn folders_of(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let files = list(paths).files;
    for path in paths {
        if path.is_dir() {
            folders.insert(path.clone());
        } else {
            // A file that is given by name may be replaced, or not be there yet.
            folders.extend(path.parent().map(current));
        }
    }
    for file in &files {
        let mut folder = file.parent();
        while let Some(parent) = folder.filter(|folder| paths.iter().any(|path| folder.starts_with(path))) {
            folders.insert(parent.to_owned());
            folder = parent.parent();
        }
        folders.extend(fs::canonicalize(file).ok().as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    folders
}

/// `""`, the parent of a bare name, is the current folder.
fn current(folder: &Path) -> PathBuf {
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() }
}

/// Changes when any file is added, removed, replaced or written.
fn fingerprint(paths: &[PathBuf]) -> u64 {
    let listing = list(paths);
    let mut hasher = DefaultHasher::new();
    for file in &listing.files {
        file.hash(&mut hasher);
        if let Ok(of) = fs::metadata(file) {
            (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
                .hash(&mut hasher);
        }
    }
    listing.errors.len().hash(&mut hasher);
    hasher.finish()
}
