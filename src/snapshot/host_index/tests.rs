use super::super::samples::host;
use super::*;
use proptest::prelude::*;

fn index(hosts: &[&[&str]]) -> (HostIndex, Vec<Conflict>) {
    let hosts: Vec<_> = hosts.iter().map(|domains| host("h", domains, Vec::new())).collect();
    HostIndex::new(hosts.iter())
}

fn find(hosts: &[&[&str]], host: &str, port: Option<u16>, ignore_port: bool) -> Option<usize> {
    index(hosts).0.find(host, port, ignore_port)
}

#[test]
fn exact_beats_the_longest_suffix_beats_the_longest_prefix_beats_any() {
    let hosts: &[&[&str]] = &[
        &["*"],
        &["web.*"],
        &["web.shop.*"],
        &["*.com"],
        &["*.shop.com"],
        &["web.shop.com"],
        &["*-x.shop.com"],
    ];
    let found = |host| find(hosts, host, None, false);
    assert_eq!(found("web.shop.com"), Some(5));
    assert_eq!(found("app.shop.com"), Some(4));
    assert_eq!(found("a.b.shop.com"), Some(4));
    assert_eq!(found("app-x.shop.com"), Some(6));
    assert_eq!(found("shop.com"), Some(3));
    assert_eq!(found("web.shop.org"), Some(2));
    assert_eq!(found("web.org"), Some(1));
    assert_eq!(found("org"), Some(0));
    // The `*` stands for something.
    assert_eq!(find(&[&["*.com"]], ".com", None, false), None);
    assert_eq!(find(&[&["web.*"]], "web.", None, false), None);
}

#[test]
fn a_port_is_part_of_the_domain_unless_it_is_to_be_ignored() {
    let hosts: &[&[&str]] = &[&["a"], &["a:80"], &["*.b"], &["*.b:80"], &["*:90"]];
    assert_eq!(find(hosts, "a", None, false), Some(0));
    assert_eq!(find(hosts, "a", Some(80), false), Some(1));
    assert_eq!(find(hosts, "a", Some(81), false), None);
    assert_eq!(find(hosts, "a", Some(81), true), Some(0));
    assert_eq!(find(hosts, "x.b", Some(80), true), Some(3));
    assert_eq!(find(hosts, "x.b", Some(81), true), Some(2));
    assert_eq!(find(hosts, "x.b", Some(81), false), None);
    assert_eq!(find(hosts, "x", Some(90), false), Some(4));
    assert_eq!(find(hosts, "x", None, false), None);
    // A domain without a port takes every port only as `*`.
    assert_eq!(find(&[&["*"]], "x", Some(81), false), Some(0));
}

#[test]
fn a_host_of_very_many_labels_is_no_reason_to_probe_them_all() {
    let (index, _) = index(&[&["*.shop.com"], &["web.*"]]);
    let endless = |tail: &str| format!("{}{tail}", "a.".repeat(50_000));
    assert_eq!(index.find(&endless("shop.com"), None, false), Some(0));
    assert_eq!(index.find(&endless("org"), None, false), None);
    assert_eq!(index.find(&format!("web.{}", endless("org")), None, false), Some(1));
}

#[test]
fn addresses_are_domains_too() {
    let hosts: &[&[&str]] = &[&["10.0.0.1:80"], &["[2001:db8::1]:80"], &["2001:db8::2"], &["[2001:db8::3]"]];
    assert_eq!(find(hosts, "10.0.0.1", Some(80), false), Some(0));
    assert_eq!(find(hosts, "[2001:db8::1]", Some(80), false), Some(1));
    assert_eq!(find(hosts, "2001:db8::2", None, false), Some(2));
    assert_eq!(find(hosts, "[2001:db8::3]", None, false), Some(3));
}

#[test]
fn the_first_host_keeps_a_domain_that_two_claim() {
    let (index, conflicts) = index(&[&["a", "a.", "A"], &["b", "a"], &["*"], &["*"]]);
    assert_eq!(index.find("a", None, false), Some(0));
    let conflict = |domain: &str, first, second| Conflict { domain: domain.to_owned(), first, second };
    assert_eq!(conflicts, [conflict("a", 0, 1), conflict("*", 2, 3)]);
}

/// What Envoy's documentation says, by looking at every domain.
fn oracle(hosts: &[Vec<String>], name: &str, port: Option<u16>, ignore_port: bool) -> Option<usize> {
    let mut best: Option<((u8, usize, bool), usize)> = None;
    for (place, domain) in
        hosts.iter().enumerate().flat_map(|(place, domains)| domains.iter().map(move |d| (place, d)))
    {
        let (pattern, own) = match domain.split_once(':') {
            Some((pattern, own)) => (pattern, Some(own.parse::<u16>().unwrap())),
            None => (domain.as_str(), None),
        };
        let any_port = pattern == "*" || (pattern.ends_with('*') && own.is_none());
        let port_holds = own == port || (own.is_none() && (ignore_port || any_port));
        let rank = if pattern == "*" {
            (0, 0)
        } else if let Some(suffix) = pattern.strip_prefix('*') {
            if !name.ends_with(suffix) || name.len() == suffix.len() {
                continue;
            }
            (2, suffix.len())
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            if !name.starts_with(prefix) || name.len() == prefix.len() {
                continue;
            }
            (1, prefix.len())
        } else if pattern == name {
            (3, 0)
        } else {
            continue;
        };
        let rank = (rank.0, rank.1, own.is_some());
        if port_holds && best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, place));
        }
    }
    best.map(|(_, place)| place)
}

proptest! {
    #[test]
    fn the_index_finds_what_a_look_at_every_domain_finds(
        hosts in prop::collection::vec(
            prop::collection::vec("(\\*|\\*[.-][ab](\\.[ab]){0,2}|[ab](\\.[ab]){0,2}[.-]\\*|[ab]([.-][ab]){0,3}|[ab](\\.[ab]){0,2}:8[01]|\\*\\.[ab]:8[01])", 0..4),
            0..8,
        ),
        name in "[ab]([.-][ab]){0,3}",
        port in prop::option::of(80u16..82),
        ignore_port in any::<bool>(),
    ) {
        let built: Vec<_> = hosts
            .iter()
            .map(|domains| host("h", &domains.iter().map(String::as_str).collect::<Vec<_>>(), Vec::new()))
            .collect();
        let (index, _) = HostIndex::new(built.iter());
        prop_assert_eq!(index.find(&name, port, ignore_port), oracle(&hosts, &name, port, ignore_port));
    }
}
