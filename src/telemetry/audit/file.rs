//! The file of an audit: opened where the last process ended, locked, and moved away when it is full.

use super::chain::{Hash, Head, Link, MAX_RECORD};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The mode of everything that is created here.
const MODE: u32 = 0o600;

/// An open file, which no other process writes.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    length: u64,
    keep: u32,
    /// Held for as long as we write.
    _lock: File,
}

/// What a file ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its chain stands.
    pub(super) head: Head,
    /// The last record is that of an orderly end.
    pub(super) stopped: bool,
    /// The last line is whole and no record: the file was set aside, and the chain begins anew.
    pub(super) damaged: bool,
    /// What was cut off behind the last whole line.
    pub(super) torn: Option<(u64, Hash)>,
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("its folder {0} does not exist")]
    NoFolder(PathBuf),
    #[error("another process writes it: {0} is locked")]
    Locked(PathBuf),
    #[error("it is no regular file")]
    NoFile,
    #[error("others may read it (mode {mode:o}), and that cannot be changed: {error}")]
    Mode { mode: u32, error: io::Error },
    #[error("it holds something else than an audit")]
    Foreign,
    #[error("it was moved or removed")]
    Gone,
    #[error("{0}")]
    System(#[from] io::Error),
}

impl LogFile {
    /// Opens a file, or creates it with mode 0600, and finds the end of its chain.
    pub(super) fn open(path: &Path, keep: u32) -> Result<(Self, Found), Trouble> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            return Err(Trouble::NoFolder(folder.to_owned()));
        }
        let lock = lock(&beside(path, "lock"))?;
        let file = private(path)?;
        let mut log = Self { path: path.to_owned(), file, length: 0, keep, _lock: lock };
        let found = log.find_end()?;
        Ok((log, found))
    }

    /// Bytes of whole records.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Follows a changed setting.
    pub(super) fn keep(&mut self, keep: u32) {
        self.keep = keep;
    }

    /// Appends whole records: all of them or, with an error, none.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), Trouble> {
        let written = self.file.write_all(records);
        if let Err(error) = written {
            // Half a record would be taken for damage.
            self.file.set_len(self.length)?;
            return Err(error.into());
        }
        self.length += records.len() as u64;
        Ok(())
    }

    /// Waits until the disk has it.
    pub(super) fn sync(&self) -> Result<(), Trouble> {
        Ok(self.file.sync_data()?)
    }

    /// Whether the path still leads to the file that we write.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        let (ours, named) = (self.file.metadata()?, fs::symlink_metadata(&self.path));
        match named {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(()),
            Ok(_) => Err(Trouble::Gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Trouble::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the file to `.1`, that to `.2` and so on, and begins another one.
    pub(super) fn rotate(&mut self) -> Result<(), Trouble> {
        self.file.sync_all()?;
        shift(&self.path, self.keep)?;
        self.file = private(&self.path)?;
        self.length = 0;
        Ok(())
    }

    /// Finds the last record, here or, when the process ended right after a rotation, in the file before.
    fn find_end(&mut self) -> Result<Found, Trouble> {
        let tail = Tail::read(&mut self.file)?;
        if let Some((bytes, _)) = tail.torn {
            self.length = tail.length - bytes;
            self.file.set_len(self.length)?;
            self.file.sync_all()?;
        } else {
            self.length = tail.length;
        }
        let mut found = Found { torn: tail.torn, ..Found::default() };
        let last = match tail.last {
            Some(last) => Some(last),
            None => {
                let before = beside(&self.path, "1");
                if before.exists() { Tail::read(&mut File::open(before)?)?.last } else { None }
            }
        };
        match last {
            None => {}
            Some(Ok((link, stopped))) => (found.head, found.stopped) = (link.head(), stopped),
            Some(Err(())) => {
                found.damaged = true;
                if self.length > 0 {
                    self.rotate()?;
                }
            }
        }
        Ok(found)
    }
}

/// The end of a file.
struct Tail {
    length: u64,
    /// The last whole line: its link, and whether it is that of an orderly end.
    last: Option<Result<(Link, bool), ()>>,
    torn: Option<(u64, Hash)>,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let from = length.saturating_sub(2 * MAX_RECORD as u64);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(2 * MAX_RECORD as u64).read_to_end(&mut bytes)?;
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
        let (lines, rest) = bytes.split_at_checked(whole).unwrap_or((&bytes, &[]));
        if lines.is_empty() && from > 0 {
            // Longer than any record, and no end of a line: nothing that was written here.
            return Ok(Self { length, last: Some(Err(())), torn: None });
        }
        let torn = (!rest.is_empty()).then(|| (rest.len() as u64, Hash::of(rest)));
        let last = lines.strip_suffix(b"\n").map(|lines| {
            let begin = memchr::memrchr(b'\n', lines).map_or(0, |end| end + 1);
            let line = lines.get(begin..).unwrap_or_default();
            let stopped = memchr::memmem::find(line, b",\"event\":\"Stop\",").is_some();
            Link::read(line).map(|link| (link, stopped)).map_err(drop)
        });
        Ok(Self { length, last, torn })
    }
}

/// A file that stands beside another one, by a further ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn lock(path: &Path) -> Result<File, Trouble> {
    let file = private(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Trouble::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Opens a regular file for appending that nobody else may read.
fn private(path: &Path) -> Result<File, Trouble> {
    // Before it is opened, which for a pipe may wait; what follows is of the open file.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Trouble::NoFile);
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Trouble::NoFile);
    }
    let mut begin = [0; 5];
    let read = file.read_at(&mut begin, 0)?;
    if !begin.get(..read).is_some_and(|begin| b"{\"v\":".starts_with(begin)) {
        return Err(Trouble::Foreign);
    }
    let mode = found.mode() & 0o777;
    if mode & 0o177 != 0 {
        file.set_permissions(fs::Permissions::from_mode(MODE))
            .map_err(|error| Trouble::Mode { mode, error })?;
        tracing::warn!(path = %path.display(), was = format!("{mode:o}"), "others could read the audit; now its mode is 600");
    }
    Ok(file)
}

/// Makes room for another file of that name. What is beyond `keep` goes.
fn shift(path: &Path, keep: u32) -> io::Result<()> {
    // Beyond, too: `keep` may have been more before.
    let count = (1..).take_while(|number: &u32| beside(path, &number.to_string()).exists()).count();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    for number in (keep.max(1)..=count).rev() {
        fs::remove_file(beside(path, &number.to_string()))?;
    }
    for number in (1..=count.min(keep.max(1) - 1)).rev() {
        fs::rename(beside(path, &number.to_string()), beside(path, &(number + 1).to_string()))?;
    }
    fs::rename(path, beside(path, "1"))?;
    // The names, too, are on disk then.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
