//! The command line: one file per sub-command.

mod out;
mod run;

use clap::{Parser, Subcommand};
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
}

/// Parses the arguments and runs the sub-command. Exit codes: 0 ok, 1 findings or failure, 2 usage.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::main(args),
    }
}
