//! `sidegate check`: everything that is wrong with a configuration.

use super::{Output, missing, out};
use crate::config::decode::Strictness;
use crate::config::files::{Store, Update};
use crate::config::finding::{Finding, Severity};
use crate::config::resources::{Resource, Spec};
use crate::config::translate::{self, Input, translate};
use crate::filters;
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
    let mut slow = Vec::new();
    let problems: BTreeSet<(String, String)> = proxies
        .flat_map(|proxy| {
            let (snapshot, problems) =
                Snapshot::compile(translate(&Input { resources, proxy }, None).mesh, None);
            slow.extend(linear(proxy, &snapshot));
            problems.into_iter().map(|problem| (problem.origin.to_string(), problem.message))
        })
        .collect();
    let problems = problems.into_iter().map(|(origin, message)| Finding {
        severity: Severity::Error,
        code: "not-in-force",
        object: None,
        field: String::new(),
        place: None,
        // The origin is in words: object, field and place.
        message: format!("{origin}: {message}"),
        hint: String::new(),
    });
    problems.chain(slow).collect()
}

/// Rules that are tried for every request are no matter until they are many.
const MANY_RULES: usize = 100;

/// Says when the authorization of a workload takes time by the number of its rules.
fn linear(proxy: &Resource, snapshot: &Snapshot) -> Option<Finding> {
    let chains = snapshot.listeners().flat_map(|listener| listener.chains());
    let settings = chains.filter_map(|chain| chain.protocol.http()?.port.read(filters::port::authorization));
    let (tried, rules) = settings
        .map(|all| {
            let tried = all.iter().map(|compiled| compiled.linear_rules()).sum::<usize>();
            (tried, all.iter().map(|compiled| compiled.rules()).sum::<usize>())
        })
        .max()?;
    (tried > MANY_RULES).then(|| Finding {
        severity: Severity::Info,
        code: "linear-rules",
        object: Some(proxy.key.clone()),
        field: String::new(),
        place: Some(proxy.place("")),
        message: format!(
            "{tried} of {rules} authorization rules are tried for every request, because no principal, namespace, method or path tells them apart"
        ),
        hint: "name one of these in rules that ask for headers, addresses, hosts or claims alone".to_owned(),
    })
}
