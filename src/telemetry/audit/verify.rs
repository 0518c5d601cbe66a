//! Reads an audit and finds what was done to it since it was written.

use super::chain::{Flaw, Hash, Head, Link, MAX_RECORD};
use serde::{Serialize, Serializer};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Findings that are kept; of more the number is told.
const FINDINGS: usize = 1000;

/// Reads files one after the other as one chain.
#[derive(Debug, Default)]
pub struct Verifier {
    /// A head that was noted earlier, until its record is met.
    expected: Option<Hash>,
    /// The record of that head, once it was met.
    met: Option<u64>,
    first: Option<Link>,
    /// Number of the last record; its hash where it is known.
    last: Option<(u64, Option<Hash>)>,
    records: u64,
    findings: Vec<Finding>,
    unshown: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong.
    #[serde(serialize_with = "words")]
    pub what: Wrong,
}

/// What is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A line that is no record, or another one than was written.
    #[error("{0}")]
    Record(#[from] Flaw),
    /// It is longer than any record.
    #[error("is longer than any record")]
    Long,
    /// The end of the last line is not there.
    #[error("ends within a record")]
    Torn,
    /// Records between this and the one before are not there.
    #[error("records {0} to {1} are missing before it")]
    Missing(u64, u64),
    /// A record that should stand elsewhere.
    #[error("record {found} stands where {expected} should")]
    Order {
        /// Its number.
        found: u64,
        /// The number that comes next.
        expected: u64,
    },
    /// Its number is right and the chain is another one.
    #[error("does not continue the record before it: that has hash {found}, and this one follows {named}")]
    Broken {
        /// The hash of the record before.
        found: Hash,
        /// As this one says.
        named: Hash,
    },
    /// The first record of a chain in the middle of one.
    #[error("a new chain begins here")]
    Anew,
}

/// What became of a verification.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whole records that were read.
    pub records: u64,
    /// Number of the first one; more than 1 when files from before are not given, or not kept.
    pub first: Option<u64>,
    /// Number of the last one.
    pub last: Option<u64>,
    /// Its hash, to be noted elsewhere.
    #[serde(serialize_with = "words")]
    pub head: Hash,
    /// The record of the head that was expected; `None`: it is not there, or none was.
    pub expected: Option<u64>,
    /// A head was expected, and no record has it.
    pub cut_off: bool,
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
    /// What is wrong besides.
    pub more: u64,
}

impl Verifier {
    /// One that looks for the record with a head that was noted earlier, too.
    #[must_use]
    pub fn new(expected: Option<Hash>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Reads the next file of the chain.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        self.read(path, &mut BufReader::new(File::open(path)?))
    }

    /// The same from anywhere; `path` is for the findings.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, path: &Path, from: &mut impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if from.by_ref().take(MAX_RECORD as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let place = (path, number);
            let Some(record) = line.strip_suffix(b"\n") else {
                let long = line.len() > MAX_RECORD;
                self.wrong(place, if long { Wrong::Long } else { Wrong::Torn });
                if long {
                    from.skip_until(b'\n')?;
                }
                self.unknown();
                continue;
            };
            match Link::read(record) {
                Ok(link) => self.link(place, link),
                Err(flaw) => {
                    self.wrong(place, flaw.into());
                    self.unknown();
                }
            }
        }
        Ok(())
    }

    /// What was found.
    #[must_use]
    pub fn report(self) -> Report {
        Report {
            records: self.records,
            first: self.first.map(|first| first.sequence),
            last: self.last.map(|(last, _)| last),
            head: self.last.and_then(|(_, hash)| hash).unwrap_or_default(),
            expected: self.met,
            cut_off: self.expected.is_some() && self.met.is_none(),
            findings: self.findings,
            more: self.unshown,
        }
    }

    fn link(&mut self, place: (&Path, u64), link: Link) {
        self.records += 1;
        if self.expected == Some(link.hash) {
            self.met = Some(link.sequence);
        }
        let begins = link.sequence == 1 && link.previous == Hash::default();
        match self.last {
            None => {
                self.first = Some(link);
                // Only the first record of all has none before it.
                if (link.sequence == 1) != (link.previous == Hash::default()) || link.sequence == 0 {
                    self.wrong(place, Wrong::Record(Flaw::Form));
                }
            }
            Some(_) if begins => self.wrong(place, Wrong::Anew),
            Some((last, hash)) => {
                let expected = last.saturating_add(1);
                if link.sequence > expected {
                    self.wrong(place, Wrong::Missing(expected, link.sequence - 1));
                } else if link.sequence < expected {
                    self.wrong(place, Wrong::Order { found: link.sequence, expected });
                } else if let Some(found) = hash.filter(|hash| *hash != link.previous) {
                    self.wrong(place, Wrong::Broken { found, named: link.previous });
                }
            }
        }
        let Head { sequence, hash } = link.head();
        self.last = Some((sequence, Some(hash)));
    }

    /// A line that cannot be read counts as one record, of which nothing is known.
    fn unknown(&mut self) {
        if let Some((last, hash)) = &mut self.last {
            (*last, *hash) = (last.saturating_add(1), None);
        }
    }

    fn wrong(&mut self, (file, line): (&Path, u64), what: Wrong) {
        if self.findings.len() < FINDINGS {
            self.findings.push(Finding { file: file.to_owned(), line, what });
        } else {
            self.unshown += 1;
        }
    }
}

impl Report {
    /// Whether all is as it was written, as far as that can be told.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty() && !self.cut_off
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Files in the order in which they were written: `audit.jsonl.2`, `audit.jsonl.1`, `audit.jsonl`, whatever the order in which they are named. Locks
/// (`audit.jsonl.lock`), which a pattern may include, are left out.
#[must_use]
pub fn in_order(files: &[PathBuf]) -> Vec<PathBuf> {
    let place = |file: &PathBuf| {
        let ending = file.extension().and_then(|ending| ending.to_str()?.parse::<u32>().ok());
        let stem = if ending.is_some() { file.with_extension("") } else { file.clone() };
        let begins = files.iter().position(|other| *other == stem || is_rotated(other, &stem));
        (begins, std::cmp::Reverse(ending.unwrap_or(0)))
    };
    let mut all: Vec<PathBuf> =
        files.iter().filter(|file| file.extension().is_none_or(|ending| ending != "lock")).cloned().collect();
    all.sort_by_key(place);
    all.dedup();
    all
}

fn is_rotated(file: &Path, stem: &Path) -> bool {
    let numbered = file
        .extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| ending.parse::<u32>().is_ok());
    numbered && file.with_extension("") == stem
}

fn words<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
