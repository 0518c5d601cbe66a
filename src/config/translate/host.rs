//! Host names as Istio compares them: short names, wildcards, and which of several is the most specific.

use rustc_hash::FxHashMap;

/// The full, lower-case name of a host written in an object of `namespace`. A name with a dot, or a wildcard, is already full.
pub(super) fn full(host: &str, namespace: &str, domain: &str) -> String {
    if host.is_empty() || host.starts_with('*') || host.contains('.') {
        return host.to_ascii_lowercase();
    }
    format!("{}.{namespace}.svc.{domain}", host.to_ascii_lowercase())
}

/// Whether a name stands for several hosts.
pub(super) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether `pattern` covers everything that `host` covers. Both may be wildcards.
pub(super) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.strip_prefix('*').unwrap_or(host).ends_with(suffix),
        None => pattern == host,
    }
}

/// What both names cover: the narrower one, if they overlap at all.
pub(super) fn overlap<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// `host`, or `host:port`, with brackets around an IPv6 address.
pub(super) fn with_port(host: &str, port: Option<u16>) -> String {
    let bare = host.contains(':');
    match (bare, port) {
        (true, Some(port)) => format!("[{host}]:{port}"),
        (true, None) => format!("[{host}]"),
        (false, Some(port)) => format!("{host}:{port}"),
        (false, None) => host.to_owned(),
    }
}

/// The names under which a client in `namespace` may call a host, the full one first, all without port. The second value tells how many
/// at the front are the host's own; the others are abbreviations, which never win over a host that is really called so.
pub(super) fn domains(host: &str, namespace: &str, domain: &str) -> (Vec<String>, usize) {
    let mut names = vec![host.to_owned()];
    if is_wildcard(host) || host.parse::<std::net::IpAddr>().is_ok() {
        return (names, 1);
    }
    names.push(format!("{host}."));
    // Only `NAME.NAMESPACE.svc.DOMAIN` has abbreviations: any other could be confused with the one of a service.
    let short = host
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix(".svc."))
        .and_then(|short| Some((short, short.split_once('.')?)));
    if let Some((short, (name, owner))) = short {
        if owner == namespace {
            names.push(name.to_owned());
        }
        names.push(format!("{short}.svc"));
        names.push(short.to_owned());
    }
    (names, 2)
}

/// Values by host, where a host finds its own entry or that of the longest wildcard that covers it.
#[derive(Debug)]
pub(super) struct HostMap<T> {
    exact: FxHashMap<String, T>,
    /// By what follows the `*`, which begins with a dot or is empty.
    suffixes: FxHashMap<String, T>,
    /// Wildcards such as `*shop.com`, which no dot delimits.
    odd: Vec<(String, T)>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: FxHashMap::default(), suffixes: FxHashMap::default(), odd: Vec::new() }
    }
}

impl<T: Default> HostMap<T> {
    /// The entry of exactly this name, made when it is absent.
    pub(super) fn entry(&mut self, host: &str) -> &mut T {
        match host.strip_prefix('*') {
            None => self.exact.entry(host.to_owned()).or_default(),
            Some(suffix) if suffix.is_empty() || suffix.starts_with('.') => {
                self.suffixes.entry(suffix.to_owned()).or_default()
            }
            Some(suffix) => {
                let at = self.odd.iter().position(|(odd, _)| odd == suffix).unwrap_or_else(|| {
                    self.odd.push((suffix.to_owned(), T::default()));
                    self.odd.len() - 1
                });
                &mut self.odd[at].1
            }
        }
    }
}

impl<T> HostMap<T> {
    /// The most specific entry for a host, which may be a wildcard itself.
    pub(super) fn find(&self, host: &str) -> Option<&T> {
        if let Some(found) = self.exact.get(host) {
            return Some(found);
        }
        self.find_wildcard(host)
    }

    /// The entry of exactly this host, not of a wildcard.
    pub(super) fn exact(&self, host: &str) -> Option<&T> {
        self.exact.get(host)
    }

    fn find_wildcard(&self, host: &str) -> Option<&T> {
        let host = host.strip_prefix('*').unwrap_or(host);
        let dots = host.match_indices('.').map(|(at, _)| &host[at..]);
        let dotted = dots
            .chain([""])
            .filter_map(|suffix| Some((suffix.len(), self.suffixes.get(suffix)?)))
            .max_by_key(|(length, _)| *length);
        let odd = self.odd.iter().filter(|(suffix, _)| host.ends_with(suffix.as_str()));
        let odd = odd.map(|(suffix, value)| (suffix.len(), value)).max_by_key(|(length, _)| *length);
        dotted.into_iter().chain(odd).max_by_key(|(length, _)| *length).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::{HostMap, covers, domains, full, overlap, with_port};

    #[test]
    fn a_short_name_belongs_to_the_namespace_of_its_object() {
        assert_eq!(full("Cart", "shop", "cluster.local"), "cart.shop.svc.cluster.local");
        assert_eq!(full("cart.other", "shop", "cluster.local"), "cart.other");
        assert_eq!(full("*", "shop", "cluster.local"), "*");
    }

    #[test]
    fn a_wildcard_covers_what_ends_like_it() {
        assert!(covers("*.shop.com", "a.shop.com") && covers("*.com", "*.shop.com") && covers("*", "x"));
        assert!(!covers("*.shop.com", "shop.com") && !covers("a.com", "*.com"));
        assert_eq!(overlap("*.com", "a.com"), Some("a.com"));
        assert_eq!(overlap("a.com", "b.com"), None);
    }

    #[test]
    fn abbreviations_depend_on_the_namespace_of_the_client() {
        let (own, _) = domains("cart.shop.svc.cluster.local", "shop", "cluster.local");
        assert_eq!(
            own,
            [
                "cart.shop.svc.cluster.local",
                "cart.shop.svc.cluster.local.",
                "cart",
                "cart.shop.svc",
                "cart.shop"
            ]
        );
        let (other, _) = domains("cart.shop.svc.cluster.local", "web", "cluster.local");
        assert!(!other.contains(&"cart".to_owned()) && other.contains(&"cart.shop".to_owned()));
        assert_eq!(domains("api.shop.com", "shop", "cluster.local").0, ["api.shop.com", "api.shop.com."]);
        assert_eq!(domains("*.shop.com", "shop", "cluster.local").0, ["*.shop.com"]);
    }

    #[test]
    fn the_longest_wildcard_wins_after_the_exact_name() {
        let mut map: HostMap<u8> = HostMap::default();
        for (value, host) in ["*", "*.com", "*.shop.com", "*op.com", "a.shop.com"].into_iter().enumerate() {
            *map.entry(host) = u8::try_from(value).unwrap();
        }
        for (host, value) in [
            ("a.shop.com", 4),
            ("b.shop.com", 2),
            ("shop.com", 3),
            ("x.com", 1),
            ("x.org", 0),
            ("*.shop.com", 2),
        ] {
            assert_eq!(map.find(host), Some(&value), "{host}");
        }
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        assert_eq!(with_port("::1", Some(80)), "[::1]:80");
        assert_eq!(with_port("a", None), "a");
    }
}
