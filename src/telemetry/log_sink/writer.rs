//! The thread that writes a log file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};

use super::{Counts, Message};

/// How often the path is compared with the open file.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// Absent for our own standard streams, which nobody rotates.
    path: Option<PathBuf>,
    counts: Arc<Counts>,
    checked: Instant,
    /// The last write failed; said once, not per line.
    failing: bool,
}

impl Writer {
    pub(super) fn open(path: &Path, counts: Arc<Counts>) -> io::Result<Self> {
        // Opening /dev/stdout by name fails for sockets and for files of another user; our own descriptor works.
        let (file, path) = match path.to_str() {
            Some("/dev/stdout") => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            Some("/dev/stderr") => (File::from(io::stderr().as_fd().try_clone_to_owned()?), None),
            _ => (append_to(path)?, Some(path.to_owned())),
        };
        Ok(Self { file, path, counts, checked: Instant::now(), failing: false })
    }

    /// Writes until every sender is gone.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        for message in queue {
            match message {
                Message::Lines(bytes, lines) => self.write(&bytes, lines),
                // Nobody waits any more when the answer cannot be given.
                Message::Flush(answer) => drop(answer.try_send(())),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], lines: u64) {
        self.follow_rotation();
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.failing = false;
                self.counts.written.fetch_add(lines, Ordering::Relaxed);
            }
            Err(error) => {
                self.counts.lose(lines);
                self.report("write", &error);
            }
        }
    }

    fn follow_rotation(&mut self) {
        let Some(path) = &self.path else { return };
        let asked = self.counts.reopen.swap(false, Ordering::Relaxed);
        if !asked && self.checked.elapsed() < ROTATION_CHECK {
            return;
        }
        self.checked = Instant::now();
        if !asked && is_same_file(path, &self.file) {
            return;
        }
        match append_to(path) {
            Ok(file) => self.file = file,
            // Lines keep going to the file we have.
            Err(error) => self.report("reopen", &error),
        }
    }

    fn report(&mut self, action: &str, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.path.as_deref().unwrap_or(Path::new("a standard stream"));
            tracing::warn!(%error, path = %path.display(), "cannot {action} the access log");
        }
    }
}

/// Opens without waiting: a FIFO that nobody reads is refused here, for whoever opens it has more to do. Writing to it may wait, on the thread
/// of this log alone.
fn append_to(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = open(path, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o666)).map_err(|error| {
        if error == rustix::io::Errno::NXIO {
            io::Error::other("it is a pipe or socket that nobody reads; start its reader first")
        } else {
            error.into()
        }
    })?;
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(File::from(file))
}

fn is_same_file(path: &Path, file: &File) -> bool {
    match (path.metadata(), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}
