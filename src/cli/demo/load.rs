//! Requests that go on while something happens.

use super::client::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Clients that send one request after the other.
#[derive(Debug)]
pub(super) struct Load {
    clients: JoinSet<Count>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

/// What came of the requests.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Requests.
    pub(super) sent: u64,
    /// Those that were not answered 200, and why the first few were not.
    pub(super) lost: u64,
    /// See `lost`.
    pub(super) reasons: Vec<String>,
    /// Answers by service and version.
    pub(super) by: BTreeMap<String, u64>,
}

impl Load {
    /// Starts `clients` clients that ask for `path` of `host` at this port, with a pause after each answer.
    pub(super) fn start(clients: usize, port: u16, host: &'static str, path: &'static str) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let (stop, sent) = (stop.clone(), sent.clone());
            running.spawn(async move {
                let (mut client, mut count) = (Client::http1(port), Count::default());
                while !stop.load(Ordering::Relaxed) {
                    count.add(client.get(host, path).await);
                    sent.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                count
            });
        }
        Self { clients: running, stop, sent }
    }

    /// Waits until so many more requests were answered.
    pub(super) async fn more(&self, requests: u64) {
        let until = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets the clients finish what they have begun.
    pub(super) async fn stop(mut self) -> Count {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Count::default();
        while let Some(count) = self.clients.join_next().await {
            match count {
                Ok(count) => total.merge(count),
                Err(error) => total.lose(format!("a client ended: {error}")),
            }
        }
        total
    }
}

impl Count {
    /// Counts one request and its answer.
    pub(super) fn add(&mut self, outcome: Result<super::client::Answer, String>) {
        self.sent += 1;
        match outcome {
            Ok(answer) if answer.status == http::StatusCode::OK => {
                *self.by.entry(answer.who()).or_default() += 1;
            }
            Ok(answer) => self.lose(format!("{}: {}", answer.status, answer.text())),
            Err(error) => self.lose(error),
        }
    }

    fn lose(&mut self, reason: String) {
        self.lost += 1;
        if self.reasons.len() < 3 {
            self.reasons.push(reason);
        }
    }

    fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.reasons.extend(other.reasons.into_iter().take(3));
        for (who, count) in other.by {
            *self.by.entry(who).or_default() += count;
        }
    }

    /// How many of a hundred requests this one answered.
    pub(super) fn percent(&self, who: &str) -> f64 {
        let count = self.by.get(who).copied().unwrap_or(0);
        #[allow(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
        let percent = 100.0 * count as f64 / self.sent.max(1) as f64;
        percent
    }

    /// Who answered how many: `product-service v1 90, product-service v2 10`.
    pub(super) fn shares(&self) -> String {
        self.by.iter().map(|(who, count)| format!("{who} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// # Errors
    ///
    /// Says what was lost, if anything was.
    pub(super) fn nothing_lost(&self) -> Result<(), String> {
        if self.lost == 0 {
            return Ok(());
        }
        Err(format!("{} of {} requests lost: {}", self.lost, self.sent, self.reasons.join("; ")))
    }
}
