//! Files that somebody is writing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// The most files that are followed; others are believed as they are found.
const MAX_FILES: usize = 4096;

/// The files that were created or written in place and not closed since, as the system tells it.
///
/// A file that is renamed into its place was written before, elsewhere: it is not among them.
#[derive(Clone, Debug, Default)]
pub struct Writing(Arc<Mutex<BTreeMap<PathBuf, Instant>>>);

impl Writing {
    /// Since when a file is being written.
    pub(super) fn since(&self, file: &Path) -> Option<Instant> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_empty() {
            return None;
        }
        open.get(&fs::canonicalize(file).ok()?).copied()
    }

    /// Follows what the system tells.
    pub(super) fn note(&self, event: &Event) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if event.need_rescan() {
            // Whatever was closed meanwhile was not told.
            open.clear();
            return;
        }
        let Some(path) = event.paths.first().and_then(|path| resolved(path)) else { return };
        match event.kind {
            EventKind::Create(CreateKind::File) if !is_written(&path) => {
                open.remove(&path);
            }
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                if open.len() >= MAX_FILES {
                    open.retain(|path, _| path.exists());
                }
                if open.len() < MAX_FILES {
                    open.entry(path).or_insert_with(Instant::now);
                }
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Remove(_) => {
                open.remove(&path);
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                open.remove(&path);
            }
            // Some rename what they have not closed yet.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
                let to = event.paths.get(1).and_then(|path| resolved(path));
                if let (Some(since), Some(to)) = (open.remove(&path), to) {
                    open.insert(to, since);
                }
            }
            _ => {}
        }
    }
}

/// The path with the links of its folder followed; the file itself may be gone.
fn resolved(path: &Path) -> Option<PathBuf> {
    Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
}

/// Whether a new file will be written and closed: a link has its content at once.
fn is_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}
