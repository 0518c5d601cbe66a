//! `sidegate audit`: what an audit file is worth.

use super::{Output, USAGE, missing, out};
use crate::telemetry::audit::Hash;
use crate::telemetry::audit::verify::{Report, Verifier, in_order};
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `sidegate audit`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Find every record that was changed, removed or moved since it was written.
    ///
    /// Who may write the files can also write all of them anew, or cut off their end: only a head that was noted elsewhere (`--expect-head`, shown at
    /// the end and by `/audit` of a running proxy) tells.
    Verify(Verify),
}

#[derive(Clone, Debug, ClapArgs)]
struct Verify {
    /// The files of one audit, in any order: `audit.jsonl*`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The hash of a record that was noted earlier: it must still be there.
    #[arg(long, value_name = "HASH")]
    expect_head: Option<Hash>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// Ends with 0 when the chain is intact, with 1 when it is not, with 2 when a file cannot be read.
pub(crate) fn main(args: &Args) -> ExitCode {
    let Command::Verify(args) = &args.command;
    if let Some(code) = missing(&args.files) {
        return code;
    }
    let files = in_order(&args.files);
    let mut verifier = Verifier::new(args.expect_head);
    for file in &files {
        if let Err(error) = verifier.file(file) {
            out::complain(format_args!("{}: {error}", file.display()));
            return ExitCode::from(USAGE);
        }
    }
    let report = verifier.report();
    match args.output {
        Output::Text => say(&report, files.len()),
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(text) => out::say(text),
            Err(error) => {
                out::complain(format_args!("the result cannot be written as JSON: {error}"));
                return ExitCode::from(USAGE);
            }
        },
    }
    if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(report: &Report, files: usize) {
    for finding in &report.findings {
        out::say(finding);
    }
    if report.more > 0 {
        out::say(format_args!("... and {} more", report.more));
    }
    if report.cut_off {
        out::say("no record has the expected head: the end was cut off, or all was written anew");
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (Some(first), Some(last)) = (report.first, report.last) else {
        return out::say(format_args!("no record in {files} file{}", plural(files)));
    };
    let verdict = if report.is_intact() { "intact" } else { "NOT intact" };
    out::say(format_args!("records {first} to {last} in {files} file{}: {verdict}", plural(files)));
    if first > 1 {
        out::say(format_args!("the {} before them are not in these files", first - 1));
    }
    if let Some(met) = report.expected {
        out::say(format_args!(
            "the expected head is that of record {met}; {} came since",
            last.saturating_sub(met)
        ));
    }
    out::say(format_args!("head {}", report.head));
}
