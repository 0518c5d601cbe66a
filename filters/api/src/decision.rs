//! What names a decision to somebody who must not learn more of it.

use crate::{Cx, Facts, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

/// The id of a decision: sixteen characters, 80 bits that nobody can guess, read out to a caller in place of the reason.
///
/// Random and not counted: it tells neither how many were refused nor by which worker, and is not given twice by other workers or after a
/// restart (one chance in two for 10^12 of them). Made of a keyed hash of a count, so it costs no system call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecisionId([u8; LENGTH]);

/// A text that is no [`DecisionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDecisionId;

const LENGTH: usize = 16;

/// Crockford's base 32: no letter can be taken for a digit.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

thread_local! {
    /// Keys of this thread, from the system, and how many ids it has made.
    static SOURCE: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
}

impl DecisionId {
    /// One that was never given before.
    pub fn fresh() -> Self {
        let bits = SOURCE.with(|(keys, made)| {
            let number = made.replace(made.get().wrapping_add(1));
            let half = |which: u8| u128::from(keys.hash_one((number, which)));
            half(0) << 64 | half(1)
        });
        Self(std::array::from_fn(|at| {
            let letter = bits >> (5 * at) & 31;
            LETTERS.get(letter as usize).copied().unwrap_or(b'0')
        }))
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        // All of them are ASCII letters.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// As somebody copied it by hand: case does not matter, nor the letters that look like digits.
impl FromStr for DecisionId {
    type Err = NoDecisionId;

    fn from_str(text: &str) -> Result<Self, NoDecisionId> {
        let mut letters = <[u8; LENGTH]>::try_from(text.as_bytes()).map_err(|_| NoDecisionId)?;
        for letter in &mut letters {
            *letter = match letter.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            if !LETTERS.contains(letter) {
                return Err(NoDecisionId);
            }
        }
        Ok(Self(letters))
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecisionId({self})")
    }
}

impl fmt::Display for NoDecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a decision id has {LENGTH} letters and digits")
    }
}

impl std::error::Error for NoDecisionId {}

impl Facts {
    /// The id of the decision to refuse: made when it is first asked for, the same from then on. A request that has one is kept for `explain`.
    pub fn refused_by(&mut self) -> DecisionId {
        *self.decision.get_or_insert_with(DecisionId::fresh)
    }
}

/// Our answer to a request that is refused: these words and the id of the decision, and no word of why. A gRPC call gets them as trailers only
/// (gRPC over HTTP/2). `words` are visible ASCII without `%`.
pub fn refusal(cx: &Cx, status: StatusCode, grpc_status: u16, words: &str) -> Response {
    let (id, grpc) = {
        let mut facts = cx.facts.borrow_mut();
        (facts.refused_by(), facts.grpc)
    };
    let text = format!("{words} (decision {id})");
    if !grpc {
        let mut response = Response::new(status).with_body(text);
        response.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return response;
    }
    let mut response = Response::new(StatusCode::OK);
    let headers = &mut response.head.headers;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(grpc_status));
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert("grpc-message", text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::{DecisionId, NoDecisionId};
    use std::collections::HashSet;

    #[test]
    fn ids_differ_within_a_thread_and_between_threads() {
        let make = || (0..10_000).map(|_| DecisionId::fresh().to_string()).collect::<Vec<_>>();
        let other = std::thread::spawn(make);
        let all: HashSet<_> = make().into_iter().chain(other.join().unwrap()).collect();
        assert_eq!(all.len(), 20_000);
        // What comes next does not follow from what came before: no letter stays or counts.
        for at in 0..16 {
            let letters: HashSet<_> = all.iter().map(|id| id.as_bytes()[at]).collect();
            assert_eq!(letters.len(), 32, "at {at}");
        }
    }

    #[test]
    fn an_id_is_read_as_people_copy_it() {
        let id = DecisionId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!("OIL0123456789abc".parse::<DecisionId>(), "0110123456789abc".parse());
        for wrong in
            ["", "0123456789abcde", "0123456789abcdefg", "0123456789abcdeu", "GET", "0123456789abcdé"]
        {
            assert_eq!(wrong.parse::<DecisionId>(), Err(NoDecisionId), "{wrong}");
        }
    }
}
