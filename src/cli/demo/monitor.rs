//! Requests that run while the user plays, and a line whenever something changes.

use super::load::Load;
use super::ports::Ports;
use super::workload::{ORDER, page};
use crate::cli::out;
use std::time::Duration;

/// Requests that make up one look.
const LOOK: u64 = 200;

/// Sends requests for ever and says how they are shared when that changes, and what is lost.
pub(super) async fn run(ports: &Ports) {
    let mut last = String::new();
    loop {
        let load = Load::start(2, ports.of(ORDER.port(page::OUTBOUND)), "product-service", "/api/products/7");
        tokio::select! {
            () = load.more(LOOK) => {}
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
        }
        let count = load.stop().await;
        let share = |who: &str| (count.percent(who) / 10.0).round() * 10.0;
        let (v1, v2) = (share("product-service v1"), share("product-service v2"));
        let line = match count.nothing_lost() {
            Ok(()) => format!("  version 1 about {v1:.0} %, version 2 about {v2:.0} %, 0 lost"),
            Err(why) => format!("  {why}"),
        };
        if line != last {
            out::say(&line);
            last = line;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
