//! The index finds what trying the rules in their order finds.

use super::*;
use filter_api::TraceStep;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const PRINCIPALS: &[&str] =
    &["cluster.local/ns/a/sa/x", "cluster.local/ns/a/sa/y", "cluster.local/ns/b/sa/x", "*/sa/y", "*"];
const NAMESPACES: &[&str] = &["a", "b", "c", "a*"];
const PATHS: &[&str] = &["/", "/a", "/a*", "/a/b*", "/ab*", "/a/b", "*b", "/a/{*}", "/a/{**}", "/{*}/b", "*"];
const METHODS: &[&str] = &["GET", "POST", "P*"];
const HOSTS: &[&str] = &["shop.example.com", "*.com", "other"];

fn some(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => subsequence(values, 1..=2).prop_map(|texts| texts.into_iter().map(str::to_owned).collect()),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    (
        some(PRINCIPALS),
        some(PRINCIPALS),
        some(NAMESPACES),
        some(NAMESPACES),
        some(&["10.0.0.0/8", "10.1.2.3", "1.1.1.1"]),
    )
        .prop_map(|(principals, not_principals, namespaces, not_namespaces, ip_blocks)| Source {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            ip_blocks,
            ..Source::default()
        })
}

fn operation() -> impl Strategy<Value = Operation> {
    (some(PATHS), some(PATHS), some(METHODS), some(HOSTS), some(&["8080", "1"])).prop_map(
        |(paths, not_paths, methods, hosts, ports)| Operation {
            paths,
            not_paths,
            methods,
            hosts,
            ports,
            ..Operation::default()
        },
    )
}

fn condition() -> impl Strategy<Value = Condition> {
    let key = select(vec![
        "source.namespace",
        "source.principal",
        "request.headers[x-h]",
        "request.headers[:method]",
    ]);
    let values = subsequence(vec!["a", "b", "GET", "cluster.local/ns/a/sa/x"], 1..=2);
    (key, values, any::<bool>()).prop_map(|(key, values, negated)| {
        let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        let (values, not_values) = if negated { (Vec::new(), values) } else { (values, Vec::new()) };
        Condition { key: key.into(), values, not_values }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let from = vec(source().prop_filter("empty", |source| *source != Source::default()), 0..3);
    let to = vec(operation().prop_filter("empty", |operation| *operation != Operation::default()), 0..3);
    (from, to, vec(condition(), 0..2)).prop_map(|(from, to, when)| Rule { from, to, when, ..Rule::default() })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Audit)];
    vec((action, any::<bool>(), vec(rule(), 0..6)), 0..6).prop_map(|written| {
        let named = |(number, (action, dry_run, rules)): (usize, (Action, bool, Vec<Rule>))| Policy {
            dry_run,
            ..policy(&number.to_string(), action, rules)
        };
        written.into_iter().enumerate().map(named).collect()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let caller = prop_oneof![Just(None), select(vec!["a/x", "a/y", "b/x", "c/z"]).prop_map(Some)];
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/ab/b", "/c/b?x=1", "/b"]);
    (caller, path, select(vec!["GET", "POST", "PUT"]), vec(select(vec!["a", "b"]), 0..3)).prop_map(
        |(caller, path, method, headers)| {
            let asked = Asked::new(method, path);
            let asked = headers.into_iter().fold(asked, |asked, value| asked.header("x-h", value));
            caller.into_iter().fold(asked, Asked::by)
        },
    )
}

/// What a decision comes to, comparable.
fn words(decision: &Decision<'_>) -> String {
    let shadows: Vec<_> = decision.shadows.iter().map(|shadow| (shadow.of, shadow.rule)).collect();
    let outcome = match &decision.outcome {
        Outcome::Allowed(rule) => format!("allowed {rule:?}"),
        Outcome::Denied(denial) => denial.to_string(),
        Outcome::Ask(ask) => format!("asks {:?}", ask.rule),
    };
    format!("{outcome} {:?} {shadows:?}", decision.audited)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_index_finds_the_rule_that_trying_them_in_order_finds(policies in policies(), asked in asked()) {
        let compiled = compile(policies);
        prop_assert!(compiled.is_consistent(&asked.attributes()));
        let connection = ConnectionFacts { protocol: Protocol::Tcp, ..asked.connection.clone() };
        prop_assert!(compiled.is_consistent(&Attributes::of_connection(&connection)));
    }

    #[test]
    fn explaining_comes_to_the_same_as_deciding(policies in policies(), asked in asked()) {
        let compiled = compile(policies);
        let mut steps: Vec<TraceStep> = Vec::new();
        let explained = words(&decide(&compiled, &asked.attributes(), &mut steps));
        prop_assert_eq!(words(&decide(&compiled, &asked.attributes(), &mut NoTrace)), explained);
    }
}

#[test]
fn rules_that_differ_by_identity_path_or_method_stand_in_the_index() {
    let rules = vec![
        from(Source { principals: texts(["cluster.local/ns/a/sa/x"]), ..Source::default() }),
        from(Source { service_accounts: texts(["x"]), ..Source::default() }),
        from(Source { namespaces: texts(["a", "b"]), ..Source::default() }),
        to(paths(["/a", "/b/*", "/c/{*}"])),
        to(Operation { methods: texts(["GET"]), ..Operation::default() }),
        when("source.principal", ["cluster.local/ns/a/sa/x"]),
        // These do not.
        from(Source { principals: texts(["*"]), ..Source::default() }),
        from(Source { not_namespaces: texts(["a"]), ..Source::default() }),
        to(paths(["*.json"])),
        to(paths(["/a", "/{*}/b"])),
        when("request.headers[x]", ["y"]),
        Rule::default(),
    ];
    let compiled = compile(vec![policy("p", Action::Deny, rules)]);
    assert_eq!((compiled.rules(), compiled.linear_rules()), (12, 6));
}

#[test]
fn a_rule_stands_under_what_few_others_share() {
    // All have the same caller and method: only the path tells them apart.
    let rule = |number: usize| Rule {
        from: vec![Source { principals: texts(["cluster.local/ns/a/sa/x"]), ..Source::default() }],
        to: vec![Operation {
            methods: texts(["GET"]),
            paths: vec![format!("/{number}/*")],
            ..Operation::default()
        }],
        ..Rule::default()
    };
    let compiled = compile(vec![policy("p", Action::Allow, (0..500).map(rule).collect())]);
    let Outcome::Allowed(Some(found)) = ask(&compiled, &Asked::get("/321/x").by("a/x")).outcome else {
        panic!("refused")
    };
    assert_eq!(found.number(), 321);
}
