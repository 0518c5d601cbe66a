//! Keys that outlive the process: a proxy that starts while an issuer is down knows the keys of its last run.

use aws_lc_rs::digest;
use filter_jwt::{KeySet, MAX_JWKS};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file of one key set. Keys are public, but whoever may write them may sign: only we may.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    file: PathBuf,
    about: About,
}

/// The first line of the file; the key set follows.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    issuer: String,
    uri: String,
    /// Seconds since 1970.
    fetched: u64,
}

impl Disk {
    /// The file of a set below the state directory.
    pub(super) fn new(state: &Path, set: &KeySet) -> Self {
        let about = About { issuer: set.issuer().to_owned(), uri: set.uri().to_owned(), fetched: 0 };
        let name = digest::digest(&digest::SHA256, format!("{}\n{}", about.issuer, about.uri).as_bytes());
        let name = name.as_ref().iter().fold(String::new(), |mut name, byte| {
            // Writing into a String does not fail.
            let _ = write!(name, "{byte:02x}");
            name
        });
        let folder = state.join("jwks");
        Self { file: folder.join(name), folder, about }
    }

    /// Replaces what is kept, whole or not at all.
    pub(super) fn write(self, text: &[u8], fetched: SystemTime) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let fetched = fetched.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let new = self.file.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        serde_json::to_writer(&mut file, &About { fetched, ..self.about })?;
        file.write_all(b"\n")?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)
    }

    /// What is kept and when it was fetched; `None`: nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not whole, or others may write it.
    pub(super) fn read(self) -> io::Result<Option<(Vec<u8>, SystemTime)>> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let refuse =
            |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", self.file.display()));
        let known = file.metadata()?;
        if known.mode() & 0o022 != 0 || known.uid() != rustix::process::geteuid().as_raw() {
            return Err(refuse("others may write it; it has to be ours, with mode 0600"));
        }
        let mut text = Vec::new();
        file.take(MAX_JWKS as u64 + 64 * 1024).read_to_end(&mut text)?;
        let end = text.iter().position(|byte| *byte == b'\n').ok_or_else(|| refuse("is not whole"))?;
        let about: About =
            serde_json::from_slice(&text[..end]).map_err(|error| refuse(&error.to_string()))?;
        if (&about.issuer, &about.uri) != (&self.about.issuer, &self.about.uri) {
            return Err(refuse("is about another issuer"));
        }
        let fetched = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(about.fetched));
        let fetched = fetched.ok_or_else(|| refuse("its time is none"))?;
        Ok(Some((text.split_off(end + 1), fetched)))
    }
}
