//! The proxy's own log: to standard error, as text in Istio's shape or as JSON, with levels that can be changed
//! while it runs. A thread of its own writes it: a reader of standard error that stands still costs lines, and holds up nobody.

mod format;

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use self::format::{Json, Text};
use super::log_sink::{LogSink, Lost};

/// How long the end of the process waits for the last lines to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Time, level, scope and message between tabs, as Istio's agents write.
    #[default]
    Text,
    /// One JSON object per line, as Istio's `--log_as_json`.
    Json,
}

/// The levels in force, adjustable at run time. Cheap to clone.
#[derive(Clone)]
pub struct Levels {
    filter: Arc<Mutex<Targets>>,
    reload: reload::Handle<Targets, Registry>,
    /// `None` with a writer of somebody else's.
    sink: Option<LogSink>,
    lost: Lost,
}

/// Hands each line to the thread that writes.
struct Queue(LogSink);

/// A line that is being written.
struct Line<'s> {
    sink: &'s LogSink,
    bytes: Vec<u8>,
}

/// Why a level was refused.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// Not a level.
    #[error("{0:?} is not a level; write trace, debug, info, warning, error or off")]
    Unknown(String),
    /// Not a list of levels.
    #[error("{text:?} is not a list of levels such as `info` or `info,sidegate::proxy=debug`: {reason}")]
    List {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log has ended.
    #[error("the log no longer takes levels: {0}")]
    Gone(#[from] reload::Error),
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The levels are wrong.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// Somebody else has the log.
    #[error("a log is already installed: {0}")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// Standard error cannot be written to.
    #[error("standard error cannot be opened: {0}")]
    Output(#[from] io::Error),
}

/// Starts the log of this process on standard error. `levels` is `info`, or `info,sidegate::proxy=debug`.
///
/// # Errors
/// When `levels` is not understood or the process already has a log.
pub fn start(shape: Shape, levels: &str) -> Result<Levels, StartError> {
    let lost = Lost::default();
    let sink = LogSink::counted(Path::new("/dev/stderr"), &lost)?;
    let (subscriber, levels) = subscriber(shape, levels, Queue(sink.clone()))?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(Levels { sink: Some(sink), lost, ..levels })
}

/// The log without installing it, for another writer.
///
/// # Errors
/// When `levels` is not understood.
pub fn subscriber<W>(
    shape: Shape,
    levels: &str,
    writer: W,
) -> Result<(Box<dyn Subscriber + Send + Sync>, Levels), LevelError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(levels)?;
    let (layer, reload) = reload::Layer::new(filter.clone());
    let base = tracing_subscriber::registry().with(layer);
    let output = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match shape {
        Shape::Text => Box::new(base.with(output.event_format(Text::default()))),
        Shape::Json => Box::new(base.with(output.event_format(Json::default()))),
    };
    let filter = Arc::new(Mutex::new(filter));
    Ok((subscriber, Levels { filter, reload, sink: None, lost: Lost::default() }))
}

impl Levels {
    /// Waits a second at most until the lines so far are written. For the end of the process.
    pub fn flush(&self) {
        if let Some(sink) = &self.sink {
            // A reader that stands still must not keep the process.
            let _ = sink.flush(PATIENCE);
        }
    }

    /// Lines that were lost because nobody read them.
    #[must_use]
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// Gives every scope this level.
    ///
    /// # Errors
    /// When it is not a level.
    pub fn set_all(&self, level: &str) -> Result<(), LevelError> {
        let level = parse_level(level)?;
        self.replace(|_| Targets::new().with_default(level))
    }

    /// Gives one scope (a module path, `sidegate::proxy`) and those below it a level.
    ///
    /// # Errors
    /// When it is not a level.
    pub fn set(&self, scope: &str, level: &str) -> Result<(), LevelError> {
        let level = parse_level(level)?;
        self.replace(|filter| filter.clone().with_target(scope, level))
    }

    fn replace(&self, change: impl FnOnce(&Targets) -> Targets) -> Result<(), LevelError> {
        let mut filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&filter);
        self.reload.reload(changed.clone())?;
        *filter = changed;
        Ok(())
    }
}

/// The levels in force, one scope per line.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(f, "level: {}", filter.default_level().unwrap_or(LevelFilter::OFF))?;
        let mut scopes: Vec<_> = filter.iter().map(|(scope, level)| (scope.to_owned(), level)).collect();
        scopes.sort();
        scopes.iter().try_for_each(|(scope, level)| writeln!(f, "  {scope}: {level}"))
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels").field(&self.to_string()).finish()
    }
}

impl<'w> MakeWriter<'w> for Queue {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line { sink: &self.0, bytes: Vec::new() }
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.sink.send(std::mem::take(&mut self.bytes), 1);
        }
    }
}

fn parse(levels: &str) -> Result<Targets, LevelError> {
    let list = levels.split(',').map(|entry| match entry.split_once('=') {
        Some((scope, level)) => Ok(format!("{}={}", scope.trim(), parse_level(level)?)),
        None => parse_level(entry).map(|level| level.to_string()),
    });
    let list = list.collect::<Result<Vec<_>, _>>()?.join(",");
    Targets::from_str(&list)
        .map_err(|error| LevelError::List { text: levels.to_owned(), reason: error.to_string() })
}

/// Envoy's and Istio's names beside our own.
fn parse_level(level: &str) -> Result<LevelFilter, LevelError> {
    Ok(match level.trim().to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "critical" | "fatal" => LevelFilter::ERROR,
        "off" | "none" => LevelFilter::OFF,
        _ => return Err(LevelError::Unknown(level.to_owned())),
    })
}

#[cfg(test)]
mod tests;
