//! The tour of `--once`: everything that the demo shows, done and measured by itself.

mod steps;

use super::Error;
use super::children::Children;
use super::files::Folder;
use super::ports::Ports;
use super::workload::WORKLOADS;
use crate::cli::out;
use std::time::{Duration, Instant};
use steps::Tour;

/// Takes the tour, prints a line for each step, and says whether everything held.
pub(super) async fn take(
    folder: &Folder,
    ports: &Ports,
    children: &mut Children,
    ready: Duration,
) -> Result<bool, Error> {
    let began = Instant::now();
    let mut report = Report::default();
    report.line("start", Ok(format!("{} proxies ready after {:.2} s", WORKLOADS.len(), ready.as_secs_f64())));
    let tour = Tour { folder, ports };
    report.line("gateway", tour.gateway().await);
    report.line("http/2", tour.http2().await);
    report.line("grpc", tour.grpc().await);
    report.line("upgrade", tour.upgrade().await);
    report.line("canary", tour.canary().await);
    report.line("refusal", tour.refusal().await);
    report.line("explain", tour.explain().await);
    report.line("reload", tour.reload().await);
    report.line("drain", tour.drain(children).await);
    out::say(format_args!(
        "\n{} of {} steps held, in {:.1} s",
        report.held,
        report.steps,
        began.elapsed().as_secs_f64() + ready.as_secs_f64()
    ));
    Ok(report.held == report.steps)
}

/// What came of the steps.
#[derive(Debug, Default)]
struct Report {
    steps: u32,
    held: u32,
}

impl Report {
    fn line(&mut self, step: &str, outcome: Result<String, String>) {
        self.steps += 1;
        let (word, text) = match outcome {
            Ok(text) => {
                self.held += 1;
                ("ok", text)
            }
            Err(text) => ("FAILED", text),
        };
        out::say(format_args!("{word:<6}  {step:<8}  {}", text.replace('\n', "\n                  ")));
    }
}
