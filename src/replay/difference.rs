//! What changes for whom.

use super::fate::End;
use super::line::Entry;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Groups that are told one by one; what is beyond is counted together.
const MAX_GROUPS: usize = 10_000;

/// What changes between two configurations for the requests of a log.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Lines of the log.
    pub lines: u64,
    /// Requests that were asked about.
    pub requests: u64,
    /// Lines of connections that are no HTTP; they are not asked about.
    pub connections: u64,
    /// Lines that are of neither format.
    pub unreadable: u64,
    /// Requests of which nobody can tell which proxy they came to.
    pub unplaced: u64,
    /// Requests whose outcome depends on what the log does not hold.
    pub unknown: u64,
    /// What that is.
    pub depends_on: BTreeSet<String>,
    /// Requests that changed, beyond those that are told.
    pub more: u64,
    /// What changes, the most frequent first.
    pub changes: Vec<Change>,
    /// Groups of unknown outcome, the most frequent first.
    pub unknown_for: Vec<Group>,
    #[serde(skip)]
    groups: BTreeMap<(Group, Kind, String, String), u64>,
    #[serde(skip)]
    unknown_groups: BTreeMap<Group, u64>,
}

/// Requests that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// Who calls, or from where.
    pub caller: String,
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path; numbers and other names of single things as `{id}`.
    pub path: String,
    /// How many they are.
    pub count: u64,
}

/// What changes for some requests.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Which requests.
    #[serde(flatten)]
    pub group: Group,
    /// What kind of change it is.
    pub kind: Kind,
    /// What became of them.
    pub old: String,
    /// What becomes of them.
    pub new: String,
}

/// A kind of change, the most serious first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// It passed, and is refused.
    AllowedToDenied,
    /// It was refused, and passes.
    DeniedToAllowed,
    /// The proxy answers with another status.
    Status,
    /// It goes another way.
    Route,
}

impl Difference {
    pub(super) fn add(&mut self, entry: &Entry, old: &End, new: &End) {
        if old == new {
            return;
        }
        let kind = match (old.allowed, new.allowed) {
            (true, false) => Kind::AllowedToDenied,
            (false, true) => Kind::DeniedToAllowed,
            _ if old.status != new.status => Kind::Status,
            _ => Kind::Route,
        };
        let key = (Group::of(entry), kind, old.to_string(), new.to_string());
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            self.more += 1;
        } else {
            *self.groups.entry(key).or_default() += 1;
        }
    }

    pub(super) fn add_unknown<'n>(&mut self, entry: &Entry, names: impl Iterator<Item = &'n str>) {
        self.unknown += 1;
        self.depends_on.extend(names.map(str::to_owned));
        let group = Group::of(entry);
        if self.unknown_groups.len() < MAX_GROUPS || self.unknown_groups.contains_key(&group) {
            *self.unknown_groups.entry(group).or_default() += 1;
        }
    }

    pub(super) fn sorted(mut self) -> Self {
        let groups = std::mem::take(&mut self.groups);
        let change =
            |((group, kind, old, new), count)| Change { group: Group { count, ..group }, kind, old, new };
        self.changes = groups.into_iter().map(change).collect();
        self.changes.sort_by(|one, other| (one.kind, other.group.count).cmp(&(other.kind, one.group.count)));
        let unknown = std::mem::take(&mut self.unknown_groups);
        self.unknown_for = unknown.into_iter().map(|(group, count)| Group { count, ..group }).collect();
        self.unknown_for.sort_by_key(|group| std::cmp::Reverse(group.count));
        self
    }

    /// Whether something certainly changes.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.changes.is_empty() || self.more > 0
    }
}

impl Group {
    fn of(entry: &Entry) -> Self {
        let caller = match (&entry.principal, entry.client) {
            (Some(principal), _) => principal.clone(),
            (None, Some(client)) => client.to_string(),
            (None, None) => "-".to_owned(),
        };
        let path = entry.path.split('?').next().unwrap_or_default();
        let path: Vec<&str> =
            path.split('/').map(|part| if names_one(part) { "{id}" } else { part }).collect();
        let (method, host) = (entry.method.clone(), entry.authority.clone());
        Self { caller, method, host, path: path.join("/"), count: 0 }
    }
}

/// Whether a part of a path names a single thing: a number, a UUID, a digest.
fn names_one(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hexadecimal = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (digits > 0 && digits == part.len()) || (part.len() >= 16 && hexadecimal && digits > 0)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllowedToDenied => "allowed -> denied",
            Self::DeniedToAllowed => "denied -> allowed",
            Self::Status => "another status",
            Self::Route => "another way",
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {} {}{}  by {}", self.count, self.method, self.host, self.path, self.caller)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{:<18} {}", change.kind.to_string(), change.group)?;
            writeln!(f, "{:<18}   {}, now {}", "", change.old, change.new)?;
        }
        if self.more > 0 {
            writeln!(f, "{} requests change in further groups", self.more)?;
        }
        for group in &self.unknown_for {
            writeln!(f, "{:<18} {group}", "unknown")?;
        }
        if self.unknown > 0 {
            let names: Vec<&str> = self.depends_on.iter().map(String::as_str).collect();
            writeln!(
                f,
                "{} requests are unknown: their outcome depends on what the log does not hold: {}",
                self.unknown,
                names.join(", ")
            )?;
        }
        for (count, what) in [
            (self.connections, "lines of connections that are no HTTP are left out"),
            (self.unreadable, "lines are of neither format, and left out"),
            (self.unplaced, "requests fit no proxy, and are left out; say with --as whose log it is"),
        ] {
            if count > 0 {
                writeln!(f, "{count} {what}")?;
            }
        }
        let changed: u64 = self.changes.iter().map(|change| change.group.count).sum::<u64>() + self.more;
        write!(
            f,
            "{} requests: {changed} change, {} unknown, {} as before",
            self.requests,
            self.unknown,
            self.requests - changed - self.unknown
        )
    }
}
