//! `sidegate demo`: a shop of seven services on this machine, each behind a proxy of its own.

mod children;
mod client;
mod files;
mod guide;
mod load;
mod monitor;
mod ports;
mod services;
mod tour;
mod upgrade;
mod workload;

use super::out;
use children::Children;
use clap::Args as ClapArgs;
use files::Folder;
use ports::Ports;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use workload::WORKLOADS;

/// Arguments of `sidegate demo`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Take a fixed tour, print what came of it, and end: 0 when everything held, 1 otherwise.
    #[arg(long)]
    once: bool,
    /// Write configuration and logs into this folder, and leave them there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The arguments cannot be followed.
    #[error("{0}")]
    Usage(String),
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// A part of the demo is not as it should be.
    #[error("{0}")]
    Step(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| Error::System { what, error }
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime
        .map_err(system("starting the demo"))
        .and_then(|runtime| runtime.block_on(Box::pin(run(args))));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ Error::Usage(_)) => {
            out::complain(error);
            ExitCode::from(2)
        }
        Err(error) => {
            out::complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; whatever happens, no process and no folder of its own is left behind.
async fn run(args: &Args) -> Result<bool, Error> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()).map_err(system("receiving signals"))?,
        signal(SignalKind::terminate()).map_err(system("receiving signals"))?,
    );
    // The tour is for machines, which may run several at once.
    let ports = Folder::ports(args.once)?;
    let folder = Folder::create(args.keep.as_deref(), &ports)?;
    services::start(WORKLOADS, &ports).await?;
    let mut children = Children::start(WORKLOADS, &folder)?;
    let outcome = tokio::select! {
        outcome = show(args, &folder, &ports, &mut children) => outcome,
        _ = interrupt.recv() => Ok(!args.once),
        _ = terminate.recv() => Ok(!args.once),
    };
    if !args.once {
        out::say("\nending the proxies ...");
    }
    let stopped = children.stop().await;
    if args.keep.is_some() {
        out::say(format_args!(
            "configuration and logs are in {}",
            folder.config().with_file_name("").display()
        ));
    } else if args.once && !matches!(outcome, Ok(true)) {
        out::say("the logs of the proxies are gone with the demo; --keep DIR keeps them");
    }
    outcome.and_then(|held| stopped.map(|()| held))
}

async fn show(args: &Args, folder: &Folder, ports: &Ports, children: &mut Children) -> Result<bool, Error> {
    let ready = children.ready(ports).await?;
    if args.once {
        return tour::take(folder, ports, children, ready).await;
    }
    out::say(guide::text(folder, ports, &children.process_ids(), ready));
    tokio::select! {
        error = children.watch() => Err(error),
        () = monitor::run(ports) => Ok(true),
    }
}
