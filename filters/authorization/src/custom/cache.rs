//! Verdicts that were given lately, for policies that ask for it.
//!
//! The key is the whole question but for what differs from one request to the next and says nothing of it (request id, trace, time, the caller's
//! port). All of it is compared, so no digest has to be trusted. Shared by all workers; failures are never kept.

use super::verdict::Verdict;
use http::HeaderName;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SHARDS: usize = 8;

/// Bytes of questions that each half of a shard holds: 2 MiB altogether.
const HALF: usize = 128 * 1024;

/// A longer question is not kept.
const LONGEST: usize = 16 * 1024;

/// Verdicts of one provider, each good for the same time.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    ttl: Duration,
}

/// Of a shard: what came lately, and what came before that. When the first is full it becomes the second.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    question: Box<[u8]>,
    verdict: Arc<Verdict>,
    until: Instant,
}

/// Whether a header differs from one request to the next and says nothing of what is asked: ids of requests and traces.
pub(crate) fn is_volatile(name: &HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "x-request-id",
        "traceparent",
        "tracestate",
        "b3",
        "x-ot-span-context",
        "x-cloud-trace-context",
        "grpc-trace-bin",
        "x-envoy-attempt-count",
    ];
    let name = name.as_str();
    NAMES.contains(&name) || name.starts_with("x-b3-")
}

impl Cache {
    /// Verdicts that are good for `ttl`.
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), ttl }
    }

    /// The verdict on this question, if it is still good.
    pub(crate) fn find(&self, question: &[u8], now: Instant) -> Option<Arc<Verdict>> {
        let (hash, shard) = self.shard(question);
        let entry = shard.young.get(&hash).or_else(|| shard.old.get(&hash))?;
        (*entry.question == *question && now < entry.until).then(|| entry.verdict.clone())
    }

    /// Keeps a verdict.
    pub(crate) fn insert(&self, question: &[u8], verdict: Arc<Verdict>, now: Instant) {
        if question.len() > LONGEST {
            return;
        }
        let (hash, mut shard) = self.shard(question);
        let size = question.len() + verdict.size();
        if shard.bytes + size > HALF {
            shard.old = std::mem::take(&mut shard.young);
            shard.bytes = 0;
        }
        shard.bytes += size;
        let entry = Entry { question: question.into(), verdict, until: now + self.ttl };
        if let Some(replaced) = shard.young.insert(hash, entry) {
            shard.bytes = shard.bytes.saturating_sub(replaced.question.len() + replaced.verdict.size());
        }
    }

    fn shard(&self, question: &[u8]) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(question);
        let shard = &self.shards[hash as usize % SHARDS];
        // A panic while it was held leaves a count that is at worst off.
        (hash, shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Verdict {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        const EACH: usize = 128;
        match self {
            Self::Allow(changes) => {
                let all = changes.request.iter().chain(&changes.response);
                all.map(|change| EACH + change.value.len()).sum::<usize>()
                    + EACH * (1 + changes.removed.len())
            }
            Self::Deny(refusal) => {
                let headers = refusal.headers.values().map(|value| EACH + value.len()).sum::<usize>();
                EACH + headers + refusal.body.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Refusal;
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;

    fn denial(body: &'static str) -> Arc<Verdict> {
        Arc::new(Verdict::Deny(Refusal {
            body: Bytes::from_static(body.as_bytes()),
            ..Refusal::bare(StatusCode::IM_A_TEAPOT)
        }))
    }

    #[test]
    fn only_the_same_question_is_answered_and_only_for_its_time() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        cache.insert(b"a", denial("x"), now);
        assert_eq!(cache.find(b"a", now + Duration::from_millis(4999)), Some(denial("x")));
        assert_eq!(cache.find(b"b", now), None);
        assert_eq!(cache.find(b"a", now + Duration::from_secs(5)), None);
    }

    #[test]
    fn a_flood_of_questions_is_bounded() {
        let (cache, now) = (Cache::new(Duration::from_secs(5)), Instant::now());
        for number in 0..20_000 {
            cache.insert(format!("{number}{}", "x".repeat(1000)).as_bytes(), denial("y"), now);
        }
        let held: usize = cache
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap())
            .map(|one| one.young.len() + one.old.len())
            .sum();
        assert!(held > 500 && held <= SHARDS * 2 * HALF / 1000, "{held}");
        cache.insert(&[0; LONGEST + 1], denial("z"), now);
        assert_eq!(cache.find(&[0; LONGEST + 1], now), None);
    }
}
