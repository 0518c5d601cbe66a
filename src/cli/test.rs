//! `sidegate test`: unit tests of policies.

use super::{Output, USAGE, missing, out};
use crate::config::decode::Strictness;
use crate::config::files::Store;
use crate::config::finding::Severity;
use crate::policy_test::{Bound, Report, junit, read, run};
use clap::{Args as ClapArgs, ValueEnum};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `sidegate test`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Files of tests.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folders or files of YAML, as for `run`; by default the folders of the test files.
    #[arg(long, num_args = 1, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// The keys that `jwksUri` would give: a key set as JSON, or what a proxy keeps below `state.directory`.
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
    /// Whether things are left out of the policies one by one, to see which of them no test holds on to: for at most 10 s, all of them, or none.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    mutations: Mutations,
    /// Rules that no test reaches, and what can be left out unnoticed, are failures too.
    #[arg(long)]
    strict: bool,
    /// Writes the results as JUnit's XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// How the results are written.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mutations {
    #[default]
    Auto,
    All,
    Off,
}

/// The most changes that are tried, even when all are asked for.
const MAX_CHANGES: usize = 100_000;

/// Ends with 0 when every test passes, with 1 when one fails, with 2 when they cannot be run.
pub(crate) fn main(args: &Args) -> ExitCode {
    for paths in [&args.files, &args.config, &args.jwks] {
        if let Some(code) = missing(paths) {
            return code;
        }
    }
    match tested(args) {
        Ok(code) => code,
        Err(why) => {
            out::complain(why);
            ExitCode::from(USAGE)
        }
    }
}

fn tested(args: &Args) -> Result<ExitCode, String> {
    let (cases, findings) = read(&args.files);
    if !findings.is_empty() {
        let all: Vec<_> = findings.iter().map(ToString::to_string).collect();
        return Err(all.join("\n"));
    }
    let config = if args.config.is_empty() { folders(&args.files) } else { args.config.clone() };
    let update = Store::new(config, Strictness::default()).reload();
    let errors = update.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors = errors.inspect(|error| out::complain(error)).count();
    if update.resources.is_empty() {
        return Err("the configuration holds no objects; name it with --config".to_owned());
    }
    let jwks: Vec<String> = args.jwks.iter().map(|path| text(path)).collect::<Result<_, _>>()?;
    let bound = match args.mutations {
        Mutations::Auto => Some(Bound { changes: MAX_CHANGES, time: Duration::from_secs(10) }),
        Mutations::All => Some(Bound { changes: MAX_CHANGES, time: Duration::MAX }),
        Mutations::Off => None,
    };
    let report = run(&update.resources, &cases, &jwks, bound)?;
    if let Some(path) = &args.junit {
        std::fs::write(path, junit(&report)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    say(args, &report)?;
    let fails = report.failed() > 0 || errors > 0 || (args.strict && !report.is_complete());
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn say(args: &Args, report: &Report) -> Result<(), String> {
    match args.output {
        Output::Text => out::say(report),
        Output::Json => {
            let text = serde_json::to_string_pretty(report);
            out::say(text.map_err(|error| format!("the report cannot be written as JSON: {error}"))?);
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The folders of files, each once.
fn folders(files: &[PathBuf]) -> Vec<PathBuf> {
    let folder = |file: &PathBuf| match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    files.iter().map(folder).collect::<BTreeSet<_>>().into_iter().collect()
}
