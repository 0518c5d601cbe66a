//! `sidegate check`: everything that is wrong with a configuration.

use super::{Output, missing, out};
use crate::config::decode::Strictness;
use crate::config::files::{Store, Update};
use crate::config::finding::{Finding, Severity};
use crate::config::resources::Spec;
use crate::config::translate::{self, Input, translate};
use crate::snapshot::Snapshot;
use clap::Args as ClapArgs;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `sidegate check`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Folders or files of YAML.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Unknown fields are errors.
    #[arg(long)]
    strict: bool,
    /// How the findings are written.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// Ends with 0 when there is nothing but remarks, with 1 for a warning or an error.
pub(crate) fn main(args: Args) -> ExitCode {
    if let Some(code) = missing(&args.paths) {
        return code;
    }
    let strictness = if args.strict { Strictness { unknown_fields: true } } else { Strictness::default() };
    let update = Store::new(args.paths, strictness).reload();
    let findings = findings(&update);
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let [errors, warnings, infos] = [Severity::Error, Severity::Warning, Severity::Info].map(count);
    match args.output {
        Output::Text => {
            for finding in &findings {
                out::say(finding);
            }
            let summary = [(errors, "error"), (warnings, "warning"), (infos, "remark")]
                .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
                .join(", ");
            out::say(format_args!("{} objects: {summary}", update.resources.len()));
        }
        Output::Json => out::say(format_args!(
            "{:#}",
            json!({
                "objects": update.resources.len(),
                "errors": errors,
                "warnings": warnings,
                "infos": infos,
                "findings": findings,
            })
        )),
    }
    if errors + warnings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the objects say wrong, what they have against each other, and what does not compile, in the order of files and lines.
fn findings(update: &Update) -> Vec<Finding> {
    let mut findings = update.findings.clone();
    findings.extend(translate::check(&update.resources));
    findings.extend(compile(update));
    findings.sort_by(Finding::order);
    findings.dedup();
    findings
}

/// Compiles the mesh of every Proxy: what it cannot run is found before it runs.
fn compile(update: &Update) -> Vec<Finding> {
    let resources = &update.resources;
    let proxies = resources.iter().filter(|resource| matches!(resource.spec, Spec::Proxy(_)));
    let problems: BTreeSet<(String, String)> = proxies
        .flat_map(|proxy| {
            let (_, problems) = Snapshot::compile(translate(&Input { resources, proxy }, None).mesh, None);
            problems.into_iter().map(|problem| (problem.origin.to_string(), problem.message))
        })
        .collect();
    problems
        .into_iter()
        .map(|(origin, message)| Finding {
            severity: Severity::Error,
            code: "not-in-force",
            object: None,
            field: String::new(),
            place: None,
            // The origin is in words: object, field and place.
            message: format!("{origin}: {message}"),
            hint: String::new(),
        })
        .collect()
}
