//! What runs where, and what to try.

use super::files::{CANARY, Folder, ROLLOUT};
use super::ports::Ports;
use super::workload::{INGRESS, ORDER, WORKLOADS, page};
use crate::cli::out;
use std::time::Duration;

/// The page that is printed when everything runs.
pub(super) fn text(
    folder: &Folder,
    ports: &Ports,
    processes: &[(&'static str, u32)],
    ready: Duration,
) -> String {
    let mut rows =
        vec![row(&["workload", "process", "traffic in", "traffic out", "admin page", "application"])];
    for workload in WORKLOADS {
        let at = |page| format!("127.0.0.1:{}", ports.of(workload.port(page)));
        let process = processes.iter().find(|(name, _)| *name == workload.name);
        let process = process.map_or_else(String::new, |(_, id)| id.to_string());
        let admin = format!("http://{}", at(page::ADMIN));
        rows.push(match &workload.application {
            Some(_) => vec![
                workload.name.to_owned(),
                process,
                at(page::INBOUND),
                at(page::OUTBOUND),
                admin,
                at(page::SERVICE),
            ],
            None => vec![
                format!("{} (gateway)", workload.name),
                process,
                at(page::SERVICE),
                "-".to_owned(),
                admin,
                "-".to_owned(),
            ],
        });
    }
    let moved: String = ports
        .moved()
        .map(|(written, chosen)| format!("port {written} is taken; {chosen} is used in its place\n"))
        .collect();
    format!(
        "{moved}The shop runs: {} proxies, ready after {:.1} s.\n\n{}\n\n{}\n{}",
        WORKLOADS.len(),
        ready.as_secs_f64(),
        out::table(&rows),
        tries(folder, ports),
        "\nCtrl-C ends everything. Meanwhile the proxy of order-service calls product-service all the time:",
    )
}

fn tries(folder: &Folder, ports: &Ports) -> String {
    let gateway = ports.of(INGRESS.port(page::SERVICE));
    let order = ports.of(ORDER.port(page::OUTBOUND));
    let admin = ports.of(ORDER.port(page::ADMIN));
    let (config, canary, rollout) = (folder.config(), folder.path(CANARY), folder.path(ROLLOUT));
    let (config, canary, rollout) = (config.display(), canary.display(), rollout.display());
    format!(
        "\
Five things to try

1  Order something. The gateway routes by host and path; order-service calls four others, each through two proxies.
   curl -H 'Host: api.ecommerce.example.com' http://127.0.0.1:{gateway}/api/orders

2  Be a canary: with this header, calls to product-service reach version 2. Here as order-service, through its proxy.
   curl -H 'Host: product-service' -H 'x-canary: true' http://127.0.0.1:{order}/api/products/7
   curl -H 'Host: product-service' http://127.0.0.1:{order}/api/products/7

3  Change the configuration while requests run. Without the canary the roll-out holds: a tenth goes to version 2.
   rm {canary}
   $EDITOR {rollout}      # try `weight: 50` twice, or break it: nothing is lost

4  Ask for what is not there. Every refusal says why, and `explain` says which rules were tried.
   curl -H 'Host: prodct-service' http://127.0.0.1:{order}/
   sidegate explain --config {config} --as order-service GET http://product-service/api/products/7 -H 'x-canary: true'

5  Look inside: what one proxy has in force, what it counts, and what is odd about the shop's own objects.
   curl http://127.0.0.1:{admin}/config_dump
   curl http://127.0.0.1:{admin}/stats/prometheus
   sidegate check {config}"
    )
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}
