//! What to do when `accept` fails: never end the loop.

use std::io;
use std::time::Duration;

/// How long an accept loop pauses after errors, which it must always survive (tonic's RUSTSEC-2024-0376 is a
/// loop that did not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcceptBackoff {
    failures: u32,
}

impl AcceptBackoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);

    /// How long to wait before accepting again after `error`; `None` is at once.
    ///
    /// An error of the one connection, which died before it was accepted, says nothing about the next one
    /// (accept(2): "treat them like `EAGAIN` by retrying"). All others, out of descriptors or of memory, last:
    /// 5 ms, then twice as long each time, up to a second.
    pub fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
            NetworkUnreachable, TimedOut, WouldBlock,
        };
        if matches!(
            error.kind(),
            ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | HostUnreachable
                | Interrupted
                | NetworkDown
                | NetworkUnreachable
                | TimedOut
                | WouldBlock
        ) {
            return None;
        }
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }

    /// To be called for every connection accepted: the trouble is over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux's numbers; the standard library has no kind for the first.
    const EMFILE: i32 = 24;
    const ENOMEM: i32 = 12;
    const ECONNABORTED: i32 = 103;

    #[test]
    fn a_dead_connection_is_no_reason_to_wait() {
        let mut backoff = AcceptBackoff::default();
        for _ in 0..100 {
            assert_eq!(backoff.after(&io::ErrorKind::ConnectionAborted.into()), None);
            assert_eq!(backoff.after(&io::ErrorKind::Interrupted.into()), None);
        }
        if cfg!(target_os = "linux") {
            assert_eq!(backoff.after(&io::Error::from_raw_os_error(ECONNABORTED)), None);
        }
        assert_eq!(backoff, AcceptBackoff::default());
    }

    #[test]
    fn a_lasting_error_is_waited_out_longer_each_time() {
        let mut backoff = AcceptBackoff::default();
        let pauses: Vec<_> = (0..40)
            .map(|turn| {
                let errno = if turn % 2 == 0 { EMFILE } else { ENOMEM };
                backoff.after(&io::Error::from_raw_os_error(errno)).unwrap().as_millis()
            })
            .collect();
        assert_eq!(pauses[..9], [5, 10, 20, 40, 80, 160, 320, 640, 1000]);
        assert!(pauses[9..].iter().all(|pause| *pause == 1000));
        backoff.reset();
        assert_eq!(backoff.after(&io::Error::from_raw_os_error(EMFILE)), Some(AcceptBackoff::FIRST));
    }
}
