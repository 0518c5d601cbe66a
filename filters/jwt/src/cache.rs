//! Tokens that were verified, so that the next request with the same token costs one look-up.
//!
//! The key is the whole token: SipHash under a random key leads to an entry, and then all of the text is compared. So nobody can make two tokens
//! meet, and no digest has to be trusted; one pass over the token costs about what SHA-256 does on a processor with instructions for it, and a
//! fraction of it on others (`benches/jwt.rs`). Shared by all workers, for a token that one of them verified is good for all: sixteen shards, each
//! locked for one look-up and the copy of a pointer.

use crate::token::Times;
use filter_api::Token;
use http::HeaderValue;
use serde_json::Value;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Bytes of tokens that each half of a shard holds: 4 MiB altogether, and a few times that for their claims.
const HALF: usize = 128 * 1024;

/// A token that was verified.
#[derive(Debug)]
pub struct Verified {
    /// What it says.
    pub token: Arc<Token>,
    /// Its payload as it was written, base64url.
    pub payload: HeaderValue,
    /// Claims that are lists written as one text, as they were written.
    pub(crate) split: Vec<(Box<str>, Value)>,
    pub(crate) times: Times,
    /// Of the keys that it was verified with.
    pub(crate) generation: u64,
}

/// Verified tokens of one issuer and source of keys. Forgets those that were not used for long when it is full.
#[derive(Debug, Default)]
pub struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

/// Of a shard: what was used lately, and what was used before that. When the first is full it becomes the second.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    bytes: usize,
    hits: u64,
    misses: u64,
}

#[derive(Debug)]
struct Entry {
    token: Box<str>,
    verified: Arc<Verified>,
}

/// How often a cache was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// It had the token.
    pub hits: u64,
    /// It had not, or not for the keys in force.
    pub misses: u64,
    /// Tokens that it holds.
    pub tokens: usize,
}

impl Cache {
    /// The token, if it was verified with the keys of this generation. Its times are the caller's to check.
    pub(crate) fn find(&self, token: &str, generation: u64) -> Option<Arc<Verified>> {
        let (hash, mut shard) = self.shard(token);
        let found = match shard.young.get(&hash) {
            Some(entry) => entry.holds(token),
            None => match shard.old.remove(&hash) {
                Some(entry) => {
                    let found = entry.holds(token);
                    shard.insert(hash, entry);
                    found
                }
                None => None,
            },
        };
        let found = found.filter(|found| found.generation == generation);
        if found.is_some() {
            shard.hits += 1;
        } else {
            shard.misses += 1;
        }
        found
    }

    pub(crate) fn insert(&self, token: &str, verified: Arc<Verified>) {
        let (hash, mut shard) = self.shard(token);
        shard.insert(hash, Entry { token: token.into(), verified });
    }

    /// How often it was asked.
    pub fn counts(&self) -> CacheCounts {
        let mut all = CacheCounts::default();
        for shard in &self.shards {
            let shard = lock(shard);
            all.hits += shard.hits;
            all.misses += shard.misses;
            all.tokens += shard.young.len() + shard.old.len();
        }
        all
    }

    /// One pass over the token gives its shard and its place there.
    fn shard(&self, token: &str) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(token);
        (hash, lock(&self.shards[hash as usize % SHARDS]))
    }
}

impl Entry {
    /// What was verified, if it was this token.
    fn holds(&self, token: &str) -> Option<Arc<Verified>> {
        (*self.token == *token).then(|| self.verified.clone())
    }
}

impl Shard {
    fn insert(&mut self, hash: u64, entry: Entry) {
        if self.bytes + entry.token.len() > HALF {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += entry.token.len();
        if let Some(replaced) = self.young.insert(hash, entry) {
            self.bytes -= replaced.token.len();
        }
    }
}

// A panic while it was held leaves a count that is at worst off, and so a table that turns over sooner or later.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(generation: u64) -> Arc<Verified> {
        let token = Token {
            principal: "i/s".into(),
            issuer: "i".into(),
            subject: "s".into(),
            audiences: Vec::new(),
            claims: serde_json::Map::new(),
        };
        let (token, payload) = (Arc::new(token), HeaderValue::from_static("e30"));
        Arc::new(Verified { token, payload, split: Vec::new(), times: Times::default(), generation })
    }

    #[test]
    fn only_the_whole_token_of_the_same_generation_is_found() {
        let cache = Cache::default();
        cache.insert("a.b.c", verified(1));
        assert!(cache.find("a.b.c", 1).is_some());
        assert!(cache.find("a.b.c", 2).is_none());
        assert!(cache.find("a.b.d", 1).is_none());
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 2, tokens: 1 });
    }

    #[test]
    fn a_flood_of_tokens_is_bounded_and_spares_what_is_in_use() {
        let cache = Cache::default();
        cache.insert("in.use.always", verified(1));
        let filler = "x".repeat(1000);
        for number in 0..20_000 {
            cache.insert(&format!("{number}.{filler}"), verified(1));
            if number % 100 == 0 {
                assert!(cache.find("in.use.always", 1).is_some(), "after {number}");
            }
        }
        let held = cache.counts().tokens;
        assert!(held > 1000 && held <= SHARDS * 2 * HALF / 1000, "{held}");
    }
}
