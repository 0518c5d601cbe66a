//! Identities from a local server of Envoy's Secret Discovery Service, version 3, as Istio's agent and SPIRE run one: the state of the world over
//! `StreamSecrets` on a UNIX socket.
//!
//! Two resources are asked for: our certificate with its key, and the roots with what was revoked. Each response is taken and acknowledged, or kept
//! out and refused with the reason, while the last good one stays in force. A stream that ends is opened again, ever more slowly.

mod delivered;
mod frames;
mod proto;
mod secrets;
mod stream;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};

use self::delivered::Delivered;
pub(super) use self::frames::Frames;
use self::proto::{DiscoveryRequest, DiscoveryResponse, Node, SECRET, Status};
use self::secrets::Parts;
use self::stream::Stream;
use super::error::Error;
use super::files::TICK;
use super::held::Held;
use super::metrics::IdentityMetrics;
use crate::telemetry::metrics::Registry;

/// The longest time without a first response until that is said; the stream stays open. That of Envoy's `initial_fetch_timeout`.
const SILENCE: Duration = Duration::from_secs(15);
/// The times between two streams: the first, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A stream that lasted as long as this was a good one.
const STEADY: Duration = Duration::from_secs(10);
/// `INVALID_ARGUMENT`, as Envoy refuses.
const REFUSED: i32 = 3;

/// A server of secrets, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sds {
    /// Its socket.
    pub path: PathBuf,
    /// What is asked for.
    pub names: Names,
    /// Who we say we are; Istio's agent and SPIRE do not depend on it.
    pub node: String,
    /// The group that we say we belong to.
    pub cluster: String,
}

/// The names of the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Our certificate and its key: `default`, or with SPIRE the SPIFFE id.
    pub certificate: String,
    /// The roots: `ROOTCA`, or with SPIRE the id of the trust domain.
    pub bundle: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { certificate: "default".to_owned(), bundle: "ROOTCA".to_owned() }
    }
}

/// Keeps `held` as the server says, for ever. Tells `first` once something has come of it, good or bad.
pub(super) async fn follow(held: Arc<Held>, sds: Sds, registry: Arc<Registry>, first: SyncSender<()>) {
    let mut follower =
        Follower { held: Arc::clone(&held), sds, delivered: Delivered::default(), sound: false, first };
    tokio::join!(follower.run(), show(&held, &registry));
}

/// For fuzzing: reads a response as a stream does, and says what is wrong with it.
pub(super) fn check_response(message: &[u8]) -> Result<(), String> {
    let response = DiscoveryResponse::decode(message).map_err(|error| error.to_string())?;
    let parts = Parts::read(&response, &Names::default())?;
    assert!(Parts::default().with(&parts).is_something(), "a response that is taken holds something");
    Ok(())
}

/// Metrics, and what only the clock changes.
async fn show(held: &Held, registry: &Registry) {
    let metrics = IdentityMetrics::new(registry, held.name());
    let mut changes = held.subscribe();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = changes.changed() => {}
        }
        let now = SystemTime::now();
        metrics.show(registry, held, now);
        held.say_when_expired(now);
    }
}

struct Follower {
    held: Arc<Held>,
    sds: Sds,
    delivered: Delivered,
    /// Whether the last response of the stream was taken.
    sound: bool,
    first: SyncSender<()>,
}

impl Follower {
    async fn run(&mut self) {
        let mut wait = WAIT.0;
        loop {
            let began = Instant::now();
            self.sound = false;
            let Err(why) = self.stream().await;
            if self.sound {
                tracing::info!(identity = %self.held.name(), socket = %self.sds.path.display(), why, "SDS stream ended");
            } else {
                self.complain(why);
            }
            self.tell();
            if self.sound && began.elapsed() >= STEADY {
                wait = WAIT.0;
            }
            // From half of it to all of it: those that lost the same server do not come back together.
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(WAIT.1);
        }
    }

    /// One stream from its opening to its end, and why it ended.
    async fn stream(&mut self) -> Result<Infallible, String> {
        let mut stream = Stream::open(&self.sds.path).await?;
        // Without a version, so that all is sent, whatever we had before.
        let mut version = String::new();
        let node = Node {
            id: self.sds.node.clone(),
            cluster: self.sds.cluster.clone(),
            user_agent_name: "sidegate".to_owned(),
        };
        stream.send(&DiscoveryRequest { node: Some(node), ..self.request() }).await?;
        let silence = sleep(SILENCE);
        tokio::pin!(silence);
        let (mut waiting, mut heard) = (true, false);
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = message?;
                    (waiting, heard) = (false, true);
                    let reply = match DiscoveryResponse::decode(message.as_slice()) {
                        Ok(response) => self.take(response, &mut version).await?,
                        Err(error) => {
                            self.sound = false;
                            return Err(format!("it sent what is no response: {error}"));
                        }
                    };
                    stream.send(&reply).await?;
                }
                () = &mut silence, if waiting => {
                    waiting = false;
                    self.complain(format!("it has delivered nothing for {} s", SILENCE.as_secs()));
                }
                _ = tick.tick(), if heard => {
                    match self.delivered.missing(&self.sds.names) {
                        Some(missing) => self.complain(format!("it has not delivered `{missing}`")),
                        None => {
                            self.judge(|delivered, held, _, now| delivered.again(held, now)).await?;
                        }
                    }
                }
            }
        }
    }

    /// Takes a response or keeps it out, and says which.
    async fn take(
        &mut self,
        response: DiscoveryResponse,
        version: &mut String,
    ) -> Result<DiscoveryRequest, String> {
        let taken = match Parts::read(&response, &self.sds.names) {
            Ok(parts) => {
                self.judge(move |delivered, held, names, now| delivered.take(held, &parts, names, now))
                    .await?
            }
            Err(text) => {
                self.held.offer(Err(Error::Delivery(text.clone())), SystemTime::now());
                Err(text)
            }
        };
        self.sound = taken.is_ok();
        if taken.is_err() || self.held.load().is_some() {
            self.tell();
        }
        let error_detail = match taken {
            Ok(()) => {
                *version = response.version_info;
                None
            }
            Err(message) => Some(Status { code: REFUSED, message }),
        };
        Ok(DiscoveryRequest {
            version_info: version.clone(),
            response_nonce: response.nonce,
            error_detail,
            ..self.request()
        })
    }

    /// Where files are read and signatures verified, others need not wait.
    async fn judge<T: Send + 'static>(
        &mut self,
        judge: impl FnOnce(&mut Delivered, &Held, &Names, SystemTime) -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut delivered = std::mem::take(&mut self.delivered);
        let (held, names) = (Arc::clone(&self.held), self.sds.names.clone());
        let judged = tokio::task::spawn_blocking(move || {
            let outcome = judge(&mut delivered, &held, &names, SystemTime::now());
            (delivered, outcome)
        });
        let (delivered, outcome) = judged.await.map_err(|_| "the process ends".to_owned())?;
        self.delivered = delivered;
        Ok(outcome)
    }

    fn request(&self) -> DiscoveryRequest {
        let Names { certificate, bundle } = self.sds.names.clone();
        DiscoveryRequest {
            type_url: SECRET.to_owned(),
            resource_names: vec![certificate, bundle],
            ..DiscoveryRequest::default()
        }
    }

    fn complain(&self, text: String) {
        self.held.offer(Err(Error::Server { path: self.sds.path.clone(), text }), SystemTime::now());
    }

    fn tell(&self) {
        // Nobody waits any more, or it was told before.
        let _ = self.first.try_send(());
    }
}
