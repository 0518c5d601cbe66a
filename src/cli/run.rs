//! `sidegate run`: the proxy itself.

use super::out;
use crate::app::{App, Options};
use crate::telemetry::logging::{self, Shape};
use clap::Args as ClapArgs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Arguments of `sidegate run`.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Args {
    /// Folders or files of YAML: one or more `kind: Proxy` and any other objects.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Which Proxy to run, NAME or NAMESPACE/NAME, when there are several.
    #[arg(long = "as", value_name = "NAME")]
    proxy: Option<String>,
    /// Unknown fields reject their object.
    #[arg(long)]
    strict: bool,
    /// Level of the proxy's own log: `info`, or `info,sidegate::proxy=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "LEVELS")]
    log: String,
    /// The proxy's own log as JSON.
    #[arg(long)]
    log_json: bool,
    /// End at once when standard input is closed: whoever started us is gone.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

pub(crate) fn main(args: Args) -> ExitCode {
    let shape = if args.log_json { Shape::Json } else { Shape::Text };
    let levels = match logging::start(shape, &args.log) {
        Ok(levels) => levels,
        Err(error) => {
            out::complain(format_args!("--log: {error}"));
            return ExitCode::from(2);
        }
    };
    // Files, admin pages and DNS: two threads, so that a page answers while a configuration is compiled.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            out::complain(format_args!("the control runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let log = levels.clone();
    let ended = runtime.block_on(async {
        let options =
            Options { config: args.config, proxy: args.proxy, strict: args.strict, levels: Some(levels) };
        let stop = match signals(args.exit_with_stdin) {
            Ok(stop) => stop,
            Err(error) => {
                out::complain(format_args!("signals cannot be received: {error}"));
                return ExitCode::FAILURE;
            }
        };
        let app = match App::start(options).await {
            Ok(app) => app,
            Err(error) => {
                out::complain(error);
                return ExitCode::FAILURE;
            }
        };
        app.run(stop).await;
        ExitCode::SUCCESS
    });
    log.flush();
    ended
}

/// A word for each SIGTERM and SIGINT, and two, which end without a drain, when standard input is closed.
fn signals(exit_with_stdin: bool) -> io::Result<mpsc::Receiver<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, stop) = mpsc::channel(2);
    if exit_with_stdin {
        let sender = sender.clone();
        // A thread of its own: a read of standard input cannot be cancelled, and must not hold up the end of the runtime.
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // An error ends it as the end of input does.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            for _ in 0..2 {
                // Whoever listened is on its way out already.
                let _ = sender.blocking_send(());
            }
        })?;
    }
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(stop)
}
