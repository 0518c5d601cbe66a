//! Which files there are to read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The most files that are read; a folder with more was probably given by mistake.
const MAX_FILES: usize = 20_000;
/// The deepest nesting of folders.
const MAX_DEPTH: usize = 16;

/// The files below some paths, in order, and the paths that could not be looked into.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) errors: Vec<(PathBuf, io::Error)>,
    /// Links that lead nowhere. Of a folder that was there before they are errors, of anything else they are nothing.
    pub(super) dangling: Vec<PathBuf>,
}

/// Lists the files of folders and single files, each once however many paths lead to it.
pub(super) fn list(paths: &[PathBuf]) -> Listing {
    let mut walk = Walk { listing: Listing::default(), seen: BTreeSet::new() };
    for path in paths {
        walk.visit(path, 0);
    }
    walk.listing
}

struct Walk {
    listing: Listing,
    /// Resolved paths: links may lead twice to the same place, or in a circle.
    seen: BTreeSet<PathBuf>,
}

impl Walk {
    fn visit(&mut self, path: &Path, depth: usize) {
        if let Err(error) = self.try_visit(path, depth) {
            self.listing.errors.push((path.to_owned(), error));
        }
    }

    fn try_visit(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        // Follows links, so that the entries of a ConfigMap volume lead into its current version.
        let metadata = fs::metadata(path)?;
        if !self.seen.insert(fs::canonicalize(path)?) {
            return Ok(());
        }
        if !metadata.is_dir() {
            // A pipe or a device inside of a folder is left alone; one named outright is read as it was asked for.
            if depth == 0 || metadata.is_file() {
                if self.listing.files.len() >= MAX_FILES {
                    return Err(io::Error::other(format!("more than {MAX_FILES} files")));
                }
                self.listing.files.insert(path.to_owned());
            }
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}")));
        }
        let mut entries = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        for entry in entries.iter().filter(|entry| !is_hidden(entry)) {
            match fs::metadata(entry) {
                Ok(metadata) if !metadata.is_dir() && !is_yaml(entry) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_yaml(entry) => {
                    self.listing.dangling.push(entry.clone());
                    continue;
                }
                _ => {}
            }
            self.visit(entry, depth + 1);
        }
        Ok(())
    }
}

/// Hidden files, `..data` and its kin in a ConfigMap volume, and what editors leave behind.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(['.', '#']) || name.ends_with(['~', '#'])
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}
