//! A mesh in which everything that a log does not tell is decided beforehand, one way or the other.
//!
//! Sound by Kleene's logic: a condition that is not known is taken out where it is to hold, and with what it is part of where it is not. If a request
//! comes to the same end both ways, it does so whatever the truth is.

use crate::mesh::{ChainProtocol, FilterChain, HttpChain, Mesh, RouteMatch};
use filter_authorization::{Action, Policy, Rule, Source};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a log does not tell of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unknown {
    /// Who calls, although it is proved by a certificate.
    pub(super) principal: bool,
    /// The peer of the connection, which is another than the client behind trusted hops.
    pub(super) peer: bool,
    /// What a token claims.
    pub(super) token: bool,
}

/// Which way what is not known is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// So that a request passes; conditions of routes hold.
    Lenient,
    /// So that it does not; conditions of routes do not hold.
    Strict,
}

/// Headers that logs tell.
const KNOWN: [&str; 5] = ["host", ":authority", "x-forwarded-for", "user-agent", "x-request-id"];

/// Decides what is not known, and names it.
pub(super) fn decide(mesh: &mut Mesh, unknown: Unknown, way: Way) -> BTreeSet<String> {
    let mut decider = Decider { unknown, way, named: BTreeSet::new() };
    for listener in mesh.listeners.values_mut() {
        let listener = Arc::make_mut(listener);
        for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
            decider.chain(Arc::make_mut(chain));
        }
    }
    for table in mesh.routes.values_mut() {
        let table = Arc::make_mut(table);
        for host in &mut table.hosts {
            let routes = &mut Arc::make_mut(host).routes;
            routes.retain_mut(|route| decider.route(&mut route.matches));
        }
    }
    decider.named
}

struct Decider {
    unknown: Unknown,
    way: Way,
    named: BTreeSet<String>,
}

impl Decider {
    fn chain(&mut self, chain: &mut FilterChain) {
        match &mut chain.protocol {
            ChainProtocol::Http(http) | ChainProtocol::Detect { http, .. } => self.http(Arc::make_mut(http)),
            ChainProtocol::Tcp(_) | ChainProtocol::Refuse(_) => {}
        }
    }

    fn http(&mut self, http: &mut HttpChain) {
        // Whether there was a token, and a good one, is not in the log: who replays compares these rules as they stand.
        http.filters.jwt.clear();
        // Nor is most of what access policies ask.
        http.filters.arrival.clear();
        http.filters.access.clear();
        for settings in &mut http.filters.authorization {
            let policies = settings.policies.iter().map(|policy| self.policy(policy.clone()));
            settings.policies = Arc::new(policies.collect());
        }
    }

    fn policy(&mut self, mut policy: Policy) -> Policy {
        let allows = policy.action == Action::Allow;
        let holds = allows == (self.way == Way::Lenient);
        policy.rules = policy.rules.into_iter().filter_map(|rule| self.rule(rule, holds)).collect();
        policy
    }

    /// A rule whose unknown conditions hold, or `None` for one that does not hold because of them.
    fn rule(&mut self, mut rule: Rule, holds: bool) -> Option<Rule> {
        let any_caller = rule.from.is_empty();
        rule.from.retain_mut(|source| {
            let mut asks = false;
            macro_rules! forget {
                ($unknown:expr, $name:literal, $($list:ident)*) => {
                    if $unknown {
                        $(if !source.$list.is_empty() {
                            asks = true;
                            source.$list.clear();
                        })*
                        if asks {
                            self.named.insert($name.to_owned());
                        }
                    }
                };
            }
            forget!(self.unknown.peer, "the address of the peer", ip_blocks not_ip_blocks);
            let by_address = std::mem::take(&mut asks);
            forget!(self.unknown.token, "the token", request_principals not_request_principals);
            let by_token = std::mem::take(&mut asks);
            forget!(self.unknown.principal, "the caller", principals not_principals namespaces not_namespaces
                service_accounts not_service_accounts trust_domains not_trust_domains);
            holds || !(asks || by_address || by_token)
        });
        if rule.from.is_empty() && !any_caller {
            return None;
        }
        // A caller of whom nothing is asked any more is anybody.
        if rule.from.contains(&Source::default()) {
            rule.from.clear();
        }
        let before = rule.when.len();
        rule.when.retain(|condition| match self.asks(&condition.key) {
            Some(name) => {
                self.named.insert(name);
                false
            }
            None => true,
        });
        (holds || rule.when.len() == before).then_some(rule)
    }

    /// What a condition asks that is not known.
    fn asks(&self, key: &str) -> Option<String> {
        let known = match key {
            "source.principal" | "source.namespace" | "source.serviceAccount" | "source.trustDomain" => {
                !self.unknown.principal
            }
            "source.ip" => !self.unknown.peer,
            "remote.ip" => true,
            _ if key.starts_with("request.auth.") => !self.unknown.token,
            _ if key.starts_with("destination.") => true,
            _ => match key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
                Some(name) => KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)),
                None => false,
            },
        };
        (!known).then(|| key.to_owned())
    }

    /// Whether a rule of a route table stays.
    fn route(&mut self, matches: &mut RouteMatch) -> bool {
        let before = matches.headers.len();
        matches.headers.retain(|header| {
            let known = KNOWN.contains(&header.name.as_str());
            if !known {
                self.named.insert(format!("header {}", header.name));
            }
            known
        });
        self.way == Way::Lenient || matches.headers.len() == before
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
