//! `sidegate explain`: which way a request would take, or what became of one.

use super::{Output, USAGE, live, missing, out};
use crate::app::choose;
use crate::config::decode::Strictness;
use crate::config::files::Store;
use crate::config::finding::Severity;
use crate::config::translate::{Input, translate};
use crate::explain::{Question, QuestionError, Tls, explain, lend_keys};
use crate::snapshot::Snapshot;
use clap::Args as ClapArgs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
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
    /// How the client connects: in plain text, by TLS without a certificate, or with one.
    #[arg(long, value_enum, value_name = "HOW")]
    tls: Option<Tls>,
    /// Where the client calls from.
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<IpAddr>,
    /// A token, or a file that holds one. It has to hold.
    #[arg(long, value_name = "FILE|JWT", conflicts_with = "claims")]
    token: Option<String>,
    /// The keys that `jwksUri` would give: a key set as JSON, or what a proxy keeps below `state.directory`.
    #[arg(long, value_name = "FILE")]
    jwks: Vec<PathBuf>,
    /// Claims as a JSON object, taken as if a token with them had been verified.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// The moment that is asked about, as in 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
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
    if let Some(code) = missing(&args.jwks) {
        return code;
    }
    let question = match ask(&args, url) {
        Ok(question) => question,
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
    let mut notes = Vec::new();
    for path in &args.jwks {
        let lent = std::fs::read_to_string(path).map_err(|error| error.to_string());
        match lent.and_then(|text| lend_keys(&snapshot, &text, question.time())) {
            Ok(whose) => notes.push(format!("{} holds the keys at {}", path.display(), whose.join(", "))),
            Err(error) => {
                out::complain(format_args!("{}: {error}", path.display()));
                return ExitCode::from(USAGE);
            }
        }
    }
    let mut explanation = explain(&snapshot, &question);
    explanation.notes.splice(0..0, notes);
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

/// What is asked.
fn ask(args: &Args, url: &str) -> Result<Question, String> {
    let text = |error: QuestionError| error.to_string();
    let lines = args.headers.iter().map(String::as_str);
    let mut question = Question::parse(&args.method, url, lines).map_err(text)?.inbound(args.inbound);
    if let Some(principal) = &args.principal {
        question = question.by(principal).map_err(text)?;
    }
    if let Some(tls) = args.tls {
        question = question.over(tls);
    }
    if let Some(client) = args.client_ip {
        question = question.from(client);
    }
    if let Some(token) = &args.token {
        question = question.with_token(&read_token(token)?).map_err(text)?;
    }
    if let Some(claims) = &args.claims {
        question = question.claiming_text(claims).map_err(text)?;
    }
    if let Some(time) = &args.at {
        question = question.at(time).map_err(text)?;
    }
    question.check().map_err(text)
}

/// A token as it is, or out of a file.
fn read_token(token: &str) -> Result<String, String> {
    let path = Path::new(token);
    if path.is_file() {
        return std::fs::read_to_string(path).map_err(|error| format!("{token}: {error}"));
    }
    Ok(token.to_owned())
}
