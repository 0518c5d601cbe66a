//! SPIFFE ids as Istio writes them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use filter_api::Principal;

/// The most bytes of an id (SPIFFE-ID, section 2.3).
const MAX_ID: usize = 2048;
/// The most bytes of a trust domain (SPIFFE-ID, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is no SPIFFE id of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It has another scheme.
    #[error("it does not start with `spiffe://`")]
    Scheme,
    /// It is longer than 2048 bytes.
    #[error("it is longer than {MAX_ID} bytes")]
    TooLong,
    /// The trust domain is empty, too long, or has other characters than `a-z0-9.-_`.
    #[error("its trust domain is not 1 to {MAX_TRUST_DOMAIN} of `a-z`, `0-9`, `.`, `-` and `_`")]
    TrustDomain,
    /// A part of the path is empty, a dot segment, or has other characters than `a-zA-Z0-9.-_`.
    #[error(
        "a part of its path is empty, holds `..` or has a character other than letters, digits, `.`, `-` and `_`"
    )]
    Part,
    /// The path has another form.
    #[error("its path is not `/ns/<namespace>/sa/<service account>`")]
    Path,
}

/// Reads an id strictly: no query, fragment, port, user, percent code, `..` or empty part, and a trust domain in lower case.
///
/// # Errors
/// What is wrong with it.
pub fn parse(id: &str) -> Result<Principal, Malformed> {
    if id.len() > MAX_ID {
        return Err(Malformed::TooLong);
    }
    let rest = id.strip_prefix("spiffe://").ok_or(Malformed::Scheme)?;
    let (domain, path) = rest.split_once('/').ok_or(Malformed::Path)?;
    check_trust_domain(domain)?;
    let mut parts = path.split('/');
    let mut next = || parts.next().ok_or(Malformed::Path).and_then(check_part);
    let (ns, namespace, sa, account) = (next()?, next()?, next()?, next()?);
    if ns != "ns" || sa != "sa" || parts.next().is_some() {
        return Err(Malformed::Path);
    }
    Ok(Principal::new(domain, namespace, account))
}

fn check_trust_domain(domain: &str) -> Result<(), Malformed> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let sound = !domain.is_empty()
        && domain.len() <= MAX_TRUST_DOMAIN
        && domain.bytes().all(plain)
        && domain.split('.').all(|label| !label.is_empty());
    if sound { Ok(()) } else { Err(Malformed::TrustDomain) }
}

fn check_part(part: &str) -> Result<&str, Malformed> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let sound = !part.is_empty() && part != "." && !part.contains("..") && part.bytes().all(plain);
    if sound { Ok(part) } else { Err(Malformed::Part) }
}

/// The trust domains whose workloads are of our mesh: our own, and its aliases (`trustDomainAliases` of MeshConfig).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomains(Box<[Box<str>]>);

impl TrustDomains {
    /// `own` and `aliases`.
    ///
    /// # Errors
    /// The first name that is no trust domain.
    pub fn new(own: &str, aliases: &[String]) -> Result<Self, super::Error> {
        let all = std::iter::once(own).chain(aliases.iter().map(String::as_str));
        let checked = all.map(|name| match check_trust_domain(name) {
            Ok(()) => Ok(name.into()),
            Err(reason) => Err(super::Error::TrustDomain { name: name.to_owned(), reason }),
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Whether workloads of `domain` are of our mesh.
    #[must_use]
    pub fn contains(&self, domain: &str) -> bool {
        self.0.iter().any(|known| **known == *domain)
    }

    /// Our own.
    #[must_use]
    pub fn own(&self) -> &str {
        self.0.first().map_or("", |own| own)
    }
}

impl std::fmt::Display for TrustDomains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Malformed, TrustDomains, parse};

    #[test]
    fn an_id_of_a_workload_is_read_into_its_parts() {
        let principal = parse("spiffe://td-1.example_x/ns/shop/sa/cart.v1").unwrap();
        assert_eq!(principal.as_str(), "td-1.example_x/ns/shop/sa/cart.v1");
        assert_eq!((principal.namespace(), principal.service_account()), ("shop", "cart.v1"));
    }

    #[test]
    fn row_8_what_is_not_exactly_an_id_is_refused_with_a_reason() {
        let long = "a".repeat(256);
        let vectors = [
            ("https://td/ns/a/sa/b", Malformed::Scheme),
            ("SPIFFE://td/ns/a/sa/b", Malformed::Scheme),
            ("spiffe:/td/ns/a/sa/b", Malformed::Scheme),
            ("", Malformed::Scheme),
            ("spiffe://TD/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe:///ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://td:443/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://user@td/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://td\0evil/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://t..d/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://t%64/ns/a/sa/b", Malformed::TrustDomain),
            ("spiffe://td", Malformed::Path),
            ("spiffe://td/", Malformed::Part),
            ("spiffe://td/ns/a/sa", Malformed::Path),
            ("spiffe://td/ns/a/sa/b/c", Malformed::Path),
            ("spiffe://td/sa/b/ns/a", Malformed::Path),
            ("spiffe://td/ns/a/sa/b/", Malformed::Path),
            ("spiffe://td/ns//sa/b", Malformed::Part),
            ("spiffe://td//ns/a/sa/b", Malformed::Part),
            ("spiffe://td/ns/../sa/b", Malformed::Part),
            ("spiffe://td/ns/./sa/b", Malformed::Part),
            ("spiffe://td/ns/a..b/sa/b", Malformed::Part),
            ("spiffe://td/ns/a%2fb/sa/b", Malformed::Part),
            ("spiffe://td/ns/a/sa/b?x=1", Malformed::Part),
            ("spiffe://td/ns/a/sa/b#x", Malformed::Part),
            ("spiffe://td/ns/a/sa/b\0", Malformed::Part),
            ("spiffe://td/ns/a/sa/b ", Malformed::Part),
            ("spiffe://td/ns/\u{e9}/sa/b", Malformed::Part),
        ];
        for (id, reason) in vectors {
            assert_eq!(parse(id), Err(reason), "{id:?}");
        }
        assert_eq!(parse(&format!("spiffe://{long}/ns/a/sa/b")), Err(Malformed::TrustDomain));
        let fits = format!("spiffe://td/ns/a/sa/{}", "b".repeat(2048 - 20));
        assert!(fits.len() == 2048 && parse(&fits).is_ok());
        assert_eq!(parse(&format!("{fits}b")), Err(Malformed::TooLong));
    }

    #[test]
    fn aliases_are_trust_domains_of_the_mesh() {
        let domains = TrustDomains::new("cluster.local", &["old.local".to_owned()]).unwrap();
        assert!(domains.contains("cluster.local") && domains.contains("old.local"));
        assert!(
            !domains.contains("cluster.loca") && !domains.contains("") && domains.own() == "cluster.local"
        );
        let error = TrustDomains::new("cluster.local", &["Old".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`Old`"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(id in "(spiffe://)?[a-z.A:]{0,4}(/[a-z.%]{0,3}){0,6}|spiffe://[a-z.]{1,3}/ns/[a-z.]{1,3}/sa/[A-Z.]{1,3}") {
            if let Ok(principal) = parse(&id) {
                prop_assert_eq!(format!("spiffe://{principal}"), id);
            }
        }
    }
}
