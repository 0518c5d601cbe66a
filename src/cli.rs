//! The command line: one file per sub-command.

mod audit;
mod certs;
mod check;
mod demo;
mod diff;
mod explain;
mod live;
mod out;
mod probe;
mod run;
mod test;

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// A service-mesh sidecar proxy: Istio's YAML in, a tower stack out.
#[derive(Debug, Parser)]
#[command(name = "sidegate", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Run(run::Args),
    /// Say everything that is wrong with a configuration, and what to write instead.
    Check(check::Args),
    /// Say which way a request would take through a proxy, and why; or what a running one remembers of a decision.
    Explain(explain::Args),
    /// Run unit tests of policies, and say which rules no test reaches or holds on to. Nothing is sent.
    Test(test::Args),
    /// Say what a change of the configuration changes for the requests of an access log.
    Diff(diff::Args),
    /// Ask a running proxy whether it is ready: a health check that needs no curl.
    Probe(probe::Args),
    /// Find out whether an audit file is as it was written.
    Audit(audit::Args),
    /// Make a root and certificates of workloads, to try the mesh without a control plane.
    Certs(certs::Args),
    /// Run a whole mesh on this machine: a shop of seven services, and what to try with it.
    Demo(demo::Args),
}

/// Parses the arguments and runs the sub-command. Exit codes: 0 ok, 1 findings or failure, 2 usage.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Check(args) => check::main(args),
        Command::Explain(args) => explain::main(args),
        Command::Test(args) => test::main(&args),
        Command::Diff(args) => diff::main(&args),
        Command::Probe(args) => probe::main(&args),
        Command::Audit(args) => audit::main(&args),
        Command::Certs(args) => certs::main(&args),
        Command::Demo(args) => demo::main(&args),
    }
}

/// How a sub-command writes its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// The exit code for wrong usage.
const USAGE: u8 = 2;

/// Says which of these paths does not exist: a name that was mistyped is wrong usage, not a wrong configuration.
fn missing(paths: &[PathBuf]) -> Option<ExitCode> {
    let path = paths.iter().find(|path| !path.exists())?;
    out::complain(format_args!("{}: there is no such file or folder", path.display()));
    Some(ExitCode::from(USAGE))
}
