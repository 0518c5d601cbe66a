//! Finds the rules that may hold without asking all of them.

use crate::attributes::View;
use crate::clause::{Clause, Test, account};
use crate::pattern::Patterns;
use crate::rule::Rule;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Numbers of rules, ascending.
pub(crate) type Candidates = SmallVec<[u32; 32]>;

/// Each rule stands under keys of which one has to fit for the rule to hold: exact identities, namespaces, methods, paths or beginnings of paths.
/// A rule that has none is tried always.
#[derive(Debug, Default)]
pub(crate) struct Index {
    principals: Buckets,
    accounts: Buckets,
    namespaces: Buckets,
    methods: Buckets,
    paths: Buckets,
    prefixes: Prefixes,
    /// Rules without a key, ascending.
    linear: Vec<u32>,
}

type Buckets = FxHashMap<Box<str>, Vec<u32>>;

/// Texts that paths begin with.
#[derive(Debug, Default)]
struct Prefixes(Vec<Prefix>);

/// One of them; they are sorted.
#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// The place of the longest other text that this one begins with.
    parent: Option<u32>,
    rules: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key<'r> {
    Principal(&'r str),
    Account(&'r str),
    Namespace(&'r str),
    Method(&'r str),
    Path(&'r str),
    Prefix(&'r str),
}

impl Index {
    /// An index over rules; `http` when it is requests that are judged, else connections, of which only the identity is known.
    pub(crate) fn new(rules: &[Rule], http: bool) -> Self {
        let mut shared: FxHashMap<Key<'_>, u32> = FxHashMap::default();
        for rule in rules {
            for key in sides(rule, http).into_iter().flatten().flatten().flatten() {
                *shared.entry(key).or_default() += 1;
            }
        }
        let mut index = Self::default();
        let mut prefixes: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        for (number, rule) in (0_u32..).zip(rules) {
            let Some(keys) = best(sides(rule, http), &shared) else {
                index.linear.push(number);
                continue;
            };
            for key in keys {
                let (buckets, text) = match key {
                    Key::Principal(text) => (&mut index.principals, text),
                    Key::Account(text) => (&mut index.accounts, text),
                    Key::Namespace(text) => (&mut index.namespaces, text),
                    Key::Method(text) => (&mut index.methods, text),
                    Key::Path(text) => (&mut index.paths, text),
                    Key::Prefix(text) => {
                        prefixes.entry(text).or_default().push(number);
                        continue;
                    }
                };
                buckets.entry(text.into()).or_default().push(number);
            }
        }
        index.prefixes = Prefixes::new(prefixes);
        index
    }

    /// The rules that are tried for every request.
    pub(crate) fn linear(&self) -> &[u32] {
        &self.linear
    }

    /// The other rules that may hold.
    pub(crate) fn candidates(&self, view: &View<'_>) -> Candidates {
        let mut found = Candidates::new();
        if let Some(principal) = view.principal {
            collect(&self.principals, principal.as_str(), &mut found);
            collect(&self.accounts, account(principal), &mut found);
            collect(&self.namespaces, principal.namespace(), &mut found);
        }
        if view.request.is_some() {
            collect(&self.methods, view.method(), &mut found);
            collect(&self.paths, view.path(), &mut found);
            self.prefixes.collect(view.path(), &mut found);
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }
}

fn collect(buckets: &Buckets, text: &str, found: &mut Candidates) {
    if buckets.is_empty() {
        return;
    }
    if let Some(rules) = buckets.get(text) {
        found.extend_from_slice(rules);
    }
}

/// What has to hold of a rule: each side by one of its alternatives, each alternative under any one of its options, each a list of keys.
type Side<'r> = Vec<Vec<Vec<Key<'r>>>>;

fn sides(rule: &Rule, http: bool) -> Vec<Side<'_>> {
    let when = rule.when.iter().filter_map(|clause| keys(clause, http)).map(|option| vec![vec![option]]);
    [side(&rule.from, http), side(&rule.to, http)].into_iter().chain(when).collect()
}

fn side(alternatives: &[Vec<Clause>], http: bool) -> Side<'_> {
    alternatives
        .iter()
        .map(|clauses| clauses.iter().filter_map(|clause| keys(clause, http)).collect())
        .collect()
}

fn exact<'r>(patterns: &'r Patterns, key: fn(&'r str) -> Key<'r>) -> Option<Vec<Key<'r>>> {
    patterns.only_exact().map(|texts| texts.iter().map(|text| key(text)).collect())
}

/// The keys of which one has to fit for the clause to hold; `None` when it can hold for others too.
fn keys(clause: &Clause, http: bool) -> Option<Vec<Key<'_>>> {
    if clause.negated || (clause.test.needs_http() && !http) {
        return None;
    }
    match &clause.test {
        Test::Principal(patterns) => exact(patterns, Key::Principal),
        Test::Account(patterns) => exact(patterns, Key::Account),
        Test::Namespace(patterns) => exact(patterns, Key::Namespace),
        Test::Method(patterns) => exact(patterns, Key::Method),
        Test::Path(patterns) => {
            let (texts, beginnings) = patterns.beginnings()?;
            // Every path begins with a slash.
            if beginnings.iter().any(|beginning| beginning.len() < 2) {
                return None;
            }
            let paths = texts.iter().map(|text| Key::Path(text));
            Some(paths.chain(beginnings.into_iter().map(Key::Prefix)).collect())
        }
        _ => None,
    }
}

/// The keys under which few other rules stand.
fn best<'r>(sides: Vec<Side<'r>>, shared: &FxHashMap<Key<'r>, u32>) -> Option<Vec<Key<'r>>> {
    let cost = |keys: &[Key<'r>]| keys.iter().filter_map(|key| shared.get(key)).max().copied().unwrap_or(0);
    let cheapest =
        |options: Vec<Vec<Key<'r>>>| options.into_iter().min_by_key(|keys| (cost(keys), keys.len()));
    let whole = sides.into_iter().filter(|side| !side.is_empty()).filter_map(|side| {
        // Every alternative needs keys: one that has none lets any request hold.
        let chosen: Option<Vec<_>> = side.into_iter().map(cheapest).collect();
        chosen.map(|keys| keys.concat())
    });
    whole.min_by_key(|keys| (cost(keys), keys.len()))
}

impl Prefixes {
    fn new(texts: FxHashMap<&str, Vec<u32>>) -> Self {
        let mut sorted: Vec<_> = texts
            .into_iter()
            .map(|(text, rules)| Prefix { text: text.into(), parent: None, rules })
            .collect();
        sorted.sort_unstable_by(|one, other| one.text.cmp(&other.text));
        for at in 1..sorted.len() {
            let (before, here) = sorted.split_at_mut(at);
            let Some(here) = here.first_mut() else { continue };
            // What begins this text begins the one before it too, or is it.
            let mut parent = u32::try_from(at - 1).ok();
            while let Some(other) = parent.and_then(|at| before.get(at as usize)) {
                if here.text.starts_with(&*other.text) {
                    break;
                }
                parent = other.parent;
            }
            here.parent = parent;
        }
        Self(sorted)
    }

    fn collect(&self, path: &str, found: &mut Candidates) {
        let after = self.0.partition_point(|prefix| &*prefix.text <= path);
        // All that begin the path are ancestors of the last text that does not come after it, or are it.
        let mut at = after.checked_sub(1);
        while let Some(prefix) = at.and_then(|at| self.0.get(at)) {
            if path.starts_with(&*prefix.text) {
                found.extend_from_slice(&prefix.rules);
            }
            at = prefix.parent.map(|at| at as usize);
        }
    }
}
