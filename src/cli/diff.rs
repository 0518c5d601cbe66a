//! `sidegate diff`: what a change of the configuration changes for the requests of an access log.

use super::{Output, USAGE, missing, out};
use crate::config::decode::Strictness;
use crate::config::files::{Store, Update};
use crate::config::finding::Severity;
use crate::replay::replay;
use clap::Args as ClapArgs;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `sidegate diff`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// The configuration before: a folder or file of YAML.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The configuration after.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// An access log: JSON lines with Istio's keys, or Istio's default text.
    #[arg(long, value_name = "LOG")]
    requests: PathBuf,
    /// Whose log it is, the NAME or NAMESPACE/NAME of a Proxy, where its lines do not tell.
    #[arg(long = "as", value_name = "NAME")]
    proxy: Option<String>,
    /// How the differences are written.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// Ends with 0 when nothing certainly changes, with 1 when something does, with 2 when it cannot be told.
pub(crate) fn main(args: &Args) -> ExitCode {
    let paths = [args.old.clone(), args.new.clone(), args.requests.clone()];
    if let Some(code) = missing(&paths) {
        return code;
    }
    match compared(args) {
        Ok(code) => code,
        Err(why) => {
            out::complain(why);
            ExitCode::from(USAGE)
        }
    }
}

fn compared(args: &Args) -> Result<ExitCode, String> {
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let wrong = |error: std::io::Error| format!("{}: {error}", args.requests.display());
    let mut log = BufReader::new(File::open(&args.requests).map_err(wrong)?);
    let difference =
        replay(&old.resources, &new.resources, &mut log, args.proxy.as_deref()).map_err(wrong)?;
    if difference.requests == 0 {
        let (lines, unreadable) = (difference.lines, difference.unreadable);
        return Err(format!(
            "{}: none of {lines} lines is a request that can be asked about ({unreadable} are of neither format, {} fit no proxy): \
             write the log as JSON or in Istio's text, or say with --as whose it is",
            args.requests.display(),
            difference.unplaced
        ));
    }
    match args.output {
        Output::Text => out::say(&difference),
        Output::Json => {
            let text = serde_json::to_string_pretty(&difference);
            out::say(text.map_err(|error| format!("the difference cannot be written as JSON: {error}"))?);
        }
    }
    Ok(if difference.changes() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn load(path: &Path) -> Result<Arc<Update>, String> {
    let update = Store::new(vec![path.to_owned()], Strictness::default()).reload();
    for error in update.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        out::complain(error);
    }
    if update.resources.is_empty() {
        return Err(format!("{}: holds no objects", path.display()));
    }
    Ok(update)
}
