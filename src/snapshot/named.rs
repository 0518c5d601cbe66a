//! Parts by name.

use crate::mesh::Name;
use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

/// Parts by name: sorted, so that it is as small as a list.
#[derive(Debug)]
pub(super) struct Named<T>(Box<[(Name, Arc<T>)]>);

impl<T> Named<T> {
    pub(super) fn collect(parts: impl Iterator<Item = (Name, Arc<T>)>) -> Self {
        let mut parts: Box<[_]> = parts.collect();
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(parts)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<T>> {
        let place = self.0.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        self.0.get(place).map(|(_, part)| part)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().map(|(_, part)| part)
    }

    /// In ascending order of names.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (&Name, &Arc<T>)> {
        self.0.iter().map(|(name, part)| (name, part))
    }
}

/// Walks parts in the order of their names beside a sorted walk: a sorted list is matched without a search for each name.
pub(super) struct Beside<'a, T: 'a, I: Iterator<Item = (&'a Name, &'a T)>>(Peekable<I>);

impl<'a, T: 'a, I: Iterator<Item = (&'a Name, &'a T)>> Beside<'a, T, I> {
    pub(super) fn walk(parts: impl IntoIterator<IntoIter = I>) -> Self {
        Self(parts.into_iter().peekable())
    }

    /// The part of this name. Names are asked for in ascending order.
    pub(super) fn find(&mut self, name: &Name) -> Option<&'a T> {
        loop {
            let (key, part) = *self.0.peek()?;
            let order = if Arc::ptr_eq(key, name) { Ordering::Equal } else { key.cmp(name) };
            match order {
                Ordering::Less => self.0.next(),
                Ordering::Equal => return Some(part),
                Ordering::Greater => return None,
            };
        }
    }
}
