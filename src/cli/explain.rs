//! `sidegate explain`: which way a request would take, or what became of one.

use super::{Output, USAGE, live, missing, out};
use crate::app::choose;
use crate::config::decode::Strictness;
use crate::config::files::Store;
use crate::config::finding::Severity;
use crate::config::translate::{Input, translate};
use crate::explain::{Question, explain};
use crate::snapshot::Snapshot;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `sidegate explain`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Folders or files of YAML, as for `run`.
    #[arg(long, num_args = 1, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Which Proxy is asked, NAME or NAMESPACE/NAME, when there are several.
    #[arg(long = "as", value_name = "NAME")]
    proxy: Option<String>,
    /// The way from others to the application, not that of the application to others.
    #[arg(long)]
    inbound: bool,
    /// Where the running proxy that made a decision has its admin pages.
    #[arg(long, env = "SIDEGATE_ADMIN", default_value = live::ADMIN, value_name = "ADDRESS")]
    admin: String,
    /// GET, POST or another method; or, alone, the id of a decision that a running proxy made.
    #[arg(value_name = "METHOD|ID")]
    method: String,
    /// The absolute URL that the client asks for, as in http://reviews:9080/path.
    #[arg(value_name = "URL", requires = "config")]
    url: Option<String>,
    /// A header of the request, as in 'x-canary: true'.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Who asks, as its certificate would prove: TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// How the explanation is written.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// Ends with 0 when the request would be sent on or answered by its rule, with 1 when the proxy would refuse it.
pub(crate) fn main(args: Args) -> ExitCode {
    let Some(url) = &args.url else { return live::explain(&args.method, &args.admin, args.output) };
    if let Some(code) = missing(&args.config) {
        return code;
    }
    let question = Question::parse(&args.method, url, args.headers.iter().map(String::as_str));
    let question = question.and_then(|question| match &args.principal {
        Some(principal) => question.by(principal),
        None => Ok(question),
    });
    let question = match question {
        Ok(question) => question.inbound(args.inbound),
        Err(error) => {
            out::complain(error);
            return ExitCode::from(USAGE);
        }
    };
    let update = Store::new(args.config, Strictness::default()).reload();
    let errors: Vec<_> =
        update.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    for error in &errors {
        out::complain(error);
    }
    let proxy = match choose(&update.resources, args.proxy.as_deref()) {
        Ok(proxy) => proxy,
        Err(error) => {
            out::complain(error);
            return ExitCode::from(USAGE);
        }
    };
    let output = translate(&Input { resources: &update.resources, proxy: &proxy }, None);
    let (snapshot, problems) = Snapshot::compile(output.mesh, None);
    for problem in &problems {
        out::complain(problem);
    }
    let explanation = explain(&snapshot, &question);
    match args.output {
        Output::Text => out::say(explanation.to_string().trim_end()),
        Output::Json => match serde_json::to_string_pretty(&explanation) {
            Ok(text) => out::say(text),
            Err(error) => {
                out::complain(format_args!("the explanation cannot be written as JSON: {error}"));
                return ExitCode::FAILURE;
            }
        },
    }
    if explanation.outcome.is_refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
