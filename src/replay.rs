//! Replays an access log against two configurations, and tells what changes for whom. `sidegate diff` shows it.
//!
//! Each line is asked of the production engine ([`explain`](crate::explain)) under the old and the new configuration. A log holds no claims, few headers,
//! and often no caller: a request whose outcome depends on such is told as unknown, never guessed. To know which those are, every question is asked
//! twice: once with all conditions on what is not known holding where that lets a request pass, once where it does not (`unknown`). Where both answers
//! agree, what is not known does not matter.

mod difference;
mod fate;
mod line;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod unknown;

pub use difference::{Change, Difference, Group, Kind};
pub use line::{Entry, parse};

use crate::config::resources::Resource;
use fate::{Fate, Side};
use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// The longest line of a log, in bytes; a longer one counts as unreadable.
const MAX_LINE: usize = 64 * 1024;

/// Replays a log. `proxy` says whose it is, NAME or NAMESPACE/NAME; else each line is placed by the address that it came to, or the host that it asks for.
///
/// # Errors
///
/// When the log cannot be read to its end.
pub fn replay(
    old: &[Arc<Resource>],
    new: &[Arc<Resource>],
    log: &mut impl BufRead,
    proxy: Option<&str>,
) -> io::Result<Difference> {
    let (mut old, mut new) = (Side::new(old), Side::new(new));
    let mut difference = Difference::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(difference.sorted());
        }
        let long = line.len() > MAX_LINE;
        while long && line.last() != Some(&b'\n') {
            line.clear();
            if log.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
                break;
            }
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        difference.lines += 1;
        match parse(text).filter(|_| !long) {
            Some(entry) if entry.method.is_empty() => difference.connections += 1,
            Some(entry) => one(&mut old, &mut new, &entry, proxy, &mut difference),
            None => difference.unreadable += 1,
        }
    }
}

fn one(old: &mut Side<'_>, new: &mut Side<'_>, entry: &Entry, proxy: Option<&str>, found: &mut Difference) {
    let (Some(before), Some(after)) = (old.place(entry, proxy), new.place(entry, proxy)) else {
        found.unplaced += 1;
        return;
    };
    found.requests += 1;
    // Where nothing that it meets differs, nothing has to be known.
    if old.same(new, &before, &after) {
        return;
    }
    let same_tokens = old.same_tokens(new, &before, &after);
    if same_tokens && entry.details.starts_with("jwt_authn_access_denied") {
        // Its token was bad, and the rules that say so are the same.
        return;
    }
    match (old.fate(entry, &before), new.fate(entry, &after)) {
        (Fate::Known(one), Fate::Known(other)) if !same_tokens && (one.allowed || other.allowed) => {
            // Rules about tokens refuse what policies would let pass.
            found.add_unknown(entry, std::iter::once("the token"));
        }
        (Fate::Known(one), Fate::Known(other))
            if old.hangs_on_access(new, (&before, &one), (&after, &other)) =>
        {
            found.add_unknown(entry, std::iter::once("what AccessPolicy asks"));
        }
        (Fate::Known(one), Fate::Known(other)) => found.add(entry, &one, &other),
        (one, other) => found.add_unknown(entry, one.depends_on().chain(other.depends_on())),
    }
}
