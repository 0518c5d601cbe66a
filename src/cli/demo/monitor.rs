//! Requests that run while the user plays, and a line whenever something changes.

use super::load::Load;
use super::ports::Ports;
use super::workload::{ORDER, page};
use crate::cli::out;
use std::time::Duration;

/// Requests that make up one look.
const LOOK: u32 = 400;

/// Sends requests for ever and says how they are shared when that changes, and what is lost.
pub(super) async fn run(ports: &Ports) {
    let (mut last, mut lost) = (None, false);
    loop {
        let load = Load::start(4, ports.of(ORDER.port(page::OUTBOUND)), "product-service", "/api/products/7");
        tokio::select! {
            () = load.more(LOOK.into()) => {}
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
        }
        let count = load.stop().await;
        let share = count.percent("product-service v2");
        let loses = count.nothing_lost();
        if let Err(why) = &loses {
            out::say(format_args!("  {why}"));
        } else if lost || last.is_none_or(|last| differ(last, share)) {
            let first = count.percent("product-service v1");
            out::say(format_args!("  version 1 about {first:.0} %, version 2 about {share:.0} %, 0 lost"));
            last = Some(share);
        }
        lost = loses.is_err();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Whether two shares of a look, in percent, are further apart than chance explains: four standard deviations.
fn differ(one: f64, other: f64) -> bool {
    let variance = |percent: f64| percent * (100.0 - percent) / f64::from(LOOK);
    (one - other).abs() > 4.0 * (variance(one) + variance(other)).sqrt().max(0.5)
}

#[cfg(test)]
mod tests {
    use super::differ;

    #[test]
    fn chance_is_no_change_and_a_rollout_is_one() {
        for (one, other, changed) in [
            (50.0, 57.0, false),
            (10.0, 14.0, false),
            (100.0, 100.0, false),
            (0.0, 10.0, true),
            (10.0, 50.0, true),
            (50.0, 0.0, true),
        ] {
            assert_eq!(differ(one, other), changed, "{one} {other}");
        }
    }
}
