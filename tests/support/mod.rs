//! What the black-box tests share: a running proxy, small real upstreams and clients, all on loopback.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    missing_docs,
    reason = "each test binary uses its own part of the support"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken set-up ends its test, with words that say what broke"
)]

pub mod body;
pub mod certificates;
pub mod client;
pub mod frames;
pub mod issuer;
pub mod objects;
pub mod provider;
pub mod proxy;
pub mod raw;
pub mod upstream;

pub use body::{BoxBody, ChannelBody, empty, full};
pub use client::{Client1, Client2, Reply, fetch, get, request};
pub use proxy::Proxy;
pub use raw::Raw;
pub use upstream::Upstream;

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Whatever a test waits for has happened within this time, or never will.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of a future that has to be there in time.
#[track_caller]
pub fn in_time<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let asked = Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{what}: nothing happened within {PATIENCE:?} ({asked})"),
        }
    }
}

/// Waits for a condition that other threads make true.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not so within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a number has not changed for some time, and returns it.
pub async fn settled(quiet: Duration, mut number: impl FnMut() -> u64) -> u64 {
    let end = Instant::now() + PATIENCE;
    let (mut last, mut since) = (number(), Instant::now());
    while since.elapsed() < quiet {
        assert!(Instant::now() < end, "{last} and still changing after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// A port that nobody listens on now. For addresses that a file has to name; below those that the kernel gives out.
pub fn free_port() -> u16 {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries run one after the other, but an older one may still hold its ports.
    let base = 12_000 + (std::process::id() % 90) as u16 * 200;
    for _ in 0..200 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 200;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {base} and {}", base + 200);
}
