//! The total time of a request: from the arrival of its head to the last byte of the response, all retries included.
//!
//! VirtualService `timeout`, and the deadline that a gRPC client sends in `grpc-timeout`; the earlier one holds. A tunnel is not covered: it
//! ends the HTTP exchange. When the time is up before the response head came, the answer is 504 `UT` (gRPC: DEADLINE_EXCEEDED) and the call
//! inside is dropped, which resets its stream; when the body is still running, it breaks off.

mod body;
mod layer;
#[cfg(test)]
mod tests;

pub use layer::{TimeoutFuture, TimeoutLayer, TimeoutService};

use filter_api::Spec;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The settings' owner in the table of filters.
#[derive(Debug)]
pub struct Timeout;

/// What a source can say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Time for the whole exchange. Zero: no limit.
    pub total: Duration,
}

impl Spec for Timeout {
    const NAME: &'static str = "timeout";
    type Settings = Settings;
    type Compiled = Settings;

    fn compile(settings: &Settings, _: &filter_api::Keep) -> Result<Settings, String> {
        Ok(settings.clone())
    }
}

/// The deadline of a `grpc-timeout` value: up to eight digits and a unit of `H M S m u n` (gRPC over HTTP/2). `None` when it is malformed.
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}
