//! Keys of token issuers for a snapshot that nobody fetches any for.

use crate::snapshot::Snapshot;
use filter_jwt::KeySet;
use serde::Deserialize;
use std::time::SystemTime;

/// The first line of what a proxy keeps in its state directory.
#[derive(Deserialize)]
struct Kept {
    issuer: String,
    uri: String,
}

/// Gives fetched key sets of a snapshot their keys: a JSON key set, for every issuer whose keys are fetched, or a file that a proxy keeps below
/// `state.directory`, for its issuer. Says whose keys they now are. For a snapshot of one's own: that of a running proxy fetches its keys itself.
///
/// # Errors
///
/// When the text holds no usable keys, or no rule fetches keys.
pub fn lend_keys(snapshot: &Snapshot, text: &str, at: SystemTime) -> Result<Vec<String>, String> {
    let mut sets = snapshot.keep.all::<KeySet>();
    let mut keys = text;
    if let Some((line, rest)) = text.split_once('\n')
        && let Ok(kept) = serde_json::from_str::<Kept>(line)
    {
        sets.retain(|set| set.issuer() == kept.issuer && set.uri() == kept.uri);
        keys = rest;
    }
    if sets.is_empty() {
        return Err("no RequestAuthentication of this proxy fetches such keys; leave `--jwks` out".to_owned());
    }
    sets.sort_by(|one, other| (one.issuer(), one.uri()).cmp(&(other.issuer(), other.uri())));
    sets.iter()
        .map(|set| {
            set.restore(keys.as_bytes(), at, at)?;
            Ok(format!("{} of {}", set.uri(), set.issuer()))
        })
        .collect()
}
