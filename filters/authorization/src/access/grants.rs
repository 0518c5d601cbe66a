//! Roles and permissions: which requests need which permission, and who holds it.

use crate::attributes::View;
use crate::clause::Clause;
use crate::truth::Truth;
use smallvec::SmallVec;

/// The permissions of a policy and the claims that give them.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    pub(crate) permissions: Vec<Permission>,
    pub(crate) roles: Vec<Role>,
}

/// A permission and the requests that need it.
#[derive(Debug)]
pub(crate) struct Permission {
    pub(crate) name: Box<str>,
    /// Alternatives; each holds when all its clauses do. Empty: any request.
    pub(crate) matches: Vec<Vec<Clause>>,
}

/// A claim and the permissions that it gives, by their places.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) claim: Clause,
    pub(crate) permissions: Vec<usize>,
}

/// What a request needs, and what its caller has of it.
#[derive(Clone, Debug)]
pub(crate) struct Granted<'c> {
    grants: &'c Grants,
    /// Permissions that may cover it.
    needed: SmallVec<[usize; 4]>,
    /// Those of them that certainly do, and that the caller holds.
    held: SmallVec<[usize; 4]>,
}

impl Grants {
    /// What there is to say of a request.
    pub(crate) fn of(&self, view: &View<'_>) -> Granted<'_> {
        let mut granted = Granted { grants: self, needed: SmallVec::new(), held: SmallVec::new() };
        for (at, permission) in self.permissions.iter().enumerate() {
            let covers = permission.covers(view);
            if covers == Truth::No {
                continue;
            }
            granted.needed.push(at);
            if covers == Truth::Yes && self.is_held(at, view) {
                granted.held.push(at);
            }
        }
        granted
    }

    fn is_held(&self, permission: usize, view: &View<'_>) -> bool {
        let mut giving = self.roles.iter().filter(|role| role.permissions.contains(&permission));
        giving.any(|role| role.claim.truth(view) == Truth::Yes)
    }
}

impl<'c> Granted<'c> {
    /// Whether the request needs a permission and its caller holds none that covers it.
    pub(crate) fn is_missing(&self) -> bool {
        !self.needed.is_empty() && self.held.is_empty()
    }

    /// The permissions of which one would do.
    pub(crate) fn needed(&self) -> String {
        self.names(&self.needed).collect::<Vec<_>>().join(" or ")
    }

    /// The permissions that cover it and that the caller holds.
    pub(crate) fn held(&self) -> impl Iterator<Item = &'c str> {
        self.names(&self.held)
    }

    fn names(&self, places: &[usize]) -> impl Iterator<Item = &'c str> {
        let all = &self.grants.permissions;
        places.iter().filter_map(move |at| all.get(*at)).map(|permission| &*permission.name)
    }
}

impl Permission {
    fn covers(&self, view: &View<'_>) -> Truth {
        if self.matches.is_empty() {
            return Truth::Yes;
        }
        let all = |clauses: &Vec<Clause>| clauses.iter().map(|clause| clause.truth(view)).min();
        self.matches.iter().filter_map(all).max().unwrap_or(Truth::No)
    }
}
