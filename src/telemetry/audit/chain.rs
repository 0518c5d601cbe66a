//! The chain: each record holds the hash of the one before and its own, so that no record can be changed, removed or moved alone.
//!
//! A record is one line, `{"v":1,"seq":7,...,"prev":"<hash>","hash":"<hash>"}`. Its hash is SHA-256 over the bytes of the line from the `{` to the
//! quote that ends `prev`, so that it can be computed without reading JSON.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;

/// The shape of records.
pub const VERSION: u32 = 1;

/// The longest record that is read. The longest that is written has a third of it.
pub(super) const MAX_RECORD: usize = 1024 * 1024;

const HEX: usize = 64;
const BEGIN: &[u8] = b"{\"v\":";
const SEQUENCE: &[u8] = b",\"seq\":";
const PREVIOUS: &[u8] = b",\"prev\":\"";
const OWN: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";

/// A SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

/// Where a chain stands: the number of its last record, and that record's hash. Before the first one both are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record, from 1.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What a record says of its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub sequence: u64,
    /// The hash of the record before.
    pub previous: Hash,
    /// Its own hash, which is right.
    pub hash: Hash,
}

/// Why a line is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not written by an audit, or no longer what was written.
    #[error("is no record of an audit")]
    Form,
    /// Written by a later release.
    #[error("has version {0}, and this release reads version {VERSION}")]
    Version(u64),
    /// Its bytes are not those that were written.
    #[error("was changed: its hash is {found}, and its bytes have {computed}")]
    Hash {
        /// As it says.
        found: Hash,
        /// As it is.
        computed: Hash,
    },
}

impl Hash {
    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let mut hash = [0; 32];
        let read = (text.len() == HEX).then(|| HEXLOWER.decode_mut(text, &mut hash))?;
        read.ok().map(|_| Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text.as_bytes()).ok_or("a hash is 64 digits of lower-case hexadecimal")
    }
}

impl Head {
    /// Appends the record that comes next: `fields` writes `,"name":value` for each of its fields. Returns where the chain stands then.
    #[must_use]
    pub fn append(self, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) -> Self {
        let begin = out.len();
        let sequence = self.sequence + 1;
        out.extend_from_slice(BEGIN);
        out.extend_from_slice(itoa::Buffer::new().format(VERSION).as_bytes());
        out.extend_from_slice(SEQUENCE);
        out.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        fields(out);
        out.extend_from_slice(PREVIOUS);
        out.extend_from_slice(HEXLOWER.encode(&self.hash.0).as_bytes());
        out.push(b'"');
        let hash = Hash::of(out.get(begin..).unwrap_or_default());
        out.extend_from_slice(OWN);
        out.extend_from_slice(HEXLOWER.encode(&hash.0).as_bytes());
        out.extend_from_slice(END);
        out.push(b'\n');
        Self { sequence, hash }
    }
}

impl Link {
    /// Reads a line without its end, and computes its hash.
    ///
    /// # Errors
    /// When it is no record, or one that was changed.
    pub fn read(line: &[u8]) -> Result<Self, Flaw> {
        let (version, rest) = line.strip_prefix(BEGIN).and_then(number).ok_or(Flaw::Form)?;
        if version != u64::from(VERSION) {
            return Err(Flaw::Version(version));
        }
        let (sequence, _) = rest.strip_prefix(SEQUENCE).and_then(number).ok_or(Flaw::Form)?;
        let (body, found) = take_hash(line.strip_suffix(END).ok_or(Flaw::Form)?, OWN).ok_or(Flaw::Form)?;
        let (_, previous) =
            body.strip_suffix(b"\"").and_then(|body| take_hash(body, PREVIOUS)).ok_or(Flaw::Form)?;
        let computed = Hash::of(body);
        if computed != found {
            return Err(Flaw::Hash { found, computed });
        }
        Ok(Self { sequence, previous, hash: found })
    }

    /// Where the chain stands after this record.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }
}

/// A hash at the end, and what stands before its name.
fn take_hash<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], Hash)> {
    let (rest, hash) = text.split_at_checked(text.len().checked_sub(HEX)?)?;
    Some((rest.strip_suffix(name)?, Hash::read(hash)?))
}

/// A number as it is written here: no sign, no zero in front.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at_checked(digits)?;
    if digits.first() == Some(&b'0') && digits.len() > 1 {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}
