//! Which rules of a large host can match a path at all.

use super::matcher::{PathKey, Rule};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// Places of rules by the literal that their path condition has, so that a host with thousands of paths costs a few probes.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    exact: FxHashMap<Box<[u8]>, Places>,
    heads: FxHashMap<Box<[u8]>, Places>,
    /// The lengths that `heads` has, ascending.
    lengths: Box<[usize]>,
    /// Rules that a literal does not tell apart.
    rest: Box<[u32]>,
}

type Places = SmallVec<[u32; 2]>;

impl RuleIndex {
    /// Below it a walk over all rules is as fast.
    const WORTHWHILE: usize = 32;

    /// An index of these rules, if they are so many that it pays.
    pub(super) fn new(rules: &[Rule]) -> Option<Box<Self>> {
        if rules.len() < Self::WORTHWHILE {
            return None;
        }
        let mut index = Box::<Self>::default();
        let mut rest = Vec::new();
        for (place, rule) in (0..).zip(rules) {
            let places = match rule.path_key() {
                PathKey::Exact(path) => index.exact.entry(path.as_bytes().into()).or_default(),
                PathKey::Head(head) => index.heads.entry(head.as_bytes().into()).or_default(),
                PathKey::None => {
                    rest.push(place);
                    continue;
                }
            };
            places.push(place);
        }
        index.rest = rest.into();
        let mut lengths: Vec<_> = index.heads.keys().map(|head| head.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        index.lengths = lengths.into();
        Some(index)
    }

    /// The first rule in order that `matches`, out of those that can match this path.
    pub(super) fn first(&self, path: &str, matches: impl Fn(usize) -> bool) -> Option<usize> {
        let path = path.as_bytes();
        let mut found: SmallVec<[u32; 32]> = SmallVec::new();
        found.extend(self.exact.get(path).into_iter().flatten().copied());
        for head in self.lengths.iter().map_while(|length| path.get(..*length)) {
            found.extend(self.heads.get(head).into_iter().flatten().copied());
        }
        found.sort_unstable();
        let mut rest = self.rest.iter().copied().peekable();
        for place in found {
            while let Some(earlier) = rest.next_if(|other| *other < place) {
                if matches(earlier as usize) {
                    return Some(earlier as usize);
                }
            }
            if matches(place as usize) {
                return Some(place as usize);
            }
        }
        rest.map(|place| place as usize).find(|place| matches(*place))
    }
}
