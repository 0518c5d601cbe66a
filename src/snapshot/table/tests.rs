use super::super::samples::{head, host, rule, share};
use super::super::{Named, filters_off};
use super::*;
use crate::mesh::{Action, PathMatch, RouteMatch};
use filter_api::NoTrace;
use proptest::prelude::*;
use rustc_hash::FxHashSet;

fn compile(mesh: mesh::RouteTable) -> (Arc<RouteTable>, Vec<Problem>) {
    let (clusters, changed) = (Named::collect(std::iter::empty()), FxHashSet::default());
    let keep = filter_api::Keep::default();
    let linker = Linker { clusters: &clusters, changed: &changed, off: filters_off(), keep: &keep };
    let mut problems = Vec::new();
    (RouteTable::link(&Arc::new(mesh), None, &linker, &mut problems), problems)
}

fn table(hosts: Vec<Arc<mesh::VirtualHost>>) -> mesh::RouteTable {
    mesh::RouteTable { name: "80".into(), hosts, ..mesh::RouteTable::default() }
}

#[test]
fn a_request_without_host_or_rule_is_told_which() {
    let rules = vec![rule("r", PathMatch::Exact("/a".to_owned()), vec![share("c", 1)])];
    let (table, _) = compile(table(vec![host("h", &["h"], rules)]));
    let mut steps = Vec::new();
    assert_eq!(table.select("x", Some(81), &head("/a"), &mut steps).unwrap_err(), Miss::Host);
    assert_eq!(steps[0].because, "no virtual host of table \"80\" has a domain for \"x:81\"");

    steps.clear();
    let missed = table.select("h", None, &head("/b"), &mut steps).unwrap_err();
    assert!(matches!(missed, Miss::Rule { virtual_host } if &*virtual_host.name == "h"));
    assert_eq!(steps[1].because, "route \"r\": path \"/b\" is not \"/a\"");
    assert!(!steps[1].held);

    steps.clear();
    assert_eq!(&*table.select("h", None, &head("/a"), &mut steps).unwrap().name, "r");
    assert_eq!(steps.iter().map(|step| step.held).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn a_domain_that_two_hosts_claim_is_listed() {
    let (_, problems) = compile(table(vec![host("a", &["x"], vec![]), host("b", &["x"], vec![])]));
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(problem.message.contains("domain \"x\" belongs to virtual host \"a\""), "{problem}");
}

#[test]
fn a_route_that_answers_has_one_destination_without_cluster() {
    let mut reply = rule("reply", PathMatch::Any, Vec::new());
    let filters = reply.action.filters.clone();
    reply.action = Arc::new(mesh::RouteAction { action: Action::Respond, filters });
    let (table, problems) = compile(table(vec![host("h", &["h"], vec![reply])]));
    assert!(problems.is_empty());
    let route = table.select("h", None, &head("/"), &mut NoTrace).unwrap();
    let destination = route.pick(u64::MAX);
    assert!(destination.cluster.is_none() && destination.cluster_name.is_empty());
    assert_eq!(&*destination.route, "reply");
}

#[test]
fn matches_of_one_rule_share_its_destinations_and_keep_their_origins() {
    let first = rule("r", PathMatch::Exact("/a".to_owned()), vec![share("c", 1)]);
    let matches = RouteMatch { path: PathMatch::Exact("/b".to_owned()), ..RouteMatch::default() };
    let origin = mesh::Origin::xds("t", "second", "1", None);
    let second = mesh::Route { matches, origin, ..first.clone() };
    let (table, _) = compile(table(vec![host("h", &["h"], vec![first, second])]));
    let route = |path: &str| table.select("h", None, &head(path), &mut NoTrace).unwrap();
    assert!(Arc::ptr_eq(route("/a").pick(0), route("/b").pick(0)));
    assert!(route("/b").origin.to_string().contains("second"));
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let text = "(/[ab]{0,2}){1,3}";
    prop_oneof![
        1 => Just(PathMatch::Any),
        4 => text.prop_map(PathMatch::Exact),
        4 => text.prop_map(PathMatch::Prefix),
        4 => "(/[ab]{1,2}){1,3}".prop_map(PathMatch::SegmentPrefix),
        1 => text.prop_map(PathMatch::Regex),
    ]
}

fn holds(matches: &RouteMatch, path: &str, query: &str) -> bool {
    let (mut path, parameter) = (path.to_owned(), matches.query.first());
    let fold = |text: &str| if matches.ignore_path_case { text.to_lowercase() } else { text.to_owned() };
    if !matches!(matches.path, PathMatch::Regex(_)) {
        path = fold(&path);
    }
    let path_holds = match &matches.path {
        PathMatch::Any => true,
        PathMatch::Exact(text) | PathMatch::Regex(text) => path == fold(text),
        PathMatch::Prefix(text) => path.starts_with(&fold(text)),
        PathMatch::SegmentPrefix(text) => path == fold(text) || path.starts_with(&format!("{}/", fold(text))),
    };
    path_holds && parameter.is_none_or(|parameter| parameter.name == query)
}

proptest! {
    #[test]
    fn the_first_rule_in_order_that_matches_wins(
        written in prop::collection::vec((path_match(), any::<bool>(), prop::option::weighted(0.3, "[xy]")), 0..90),
        path in "(/[abAB]{0,2}){1,4}",
        query in "[xy]",
    ) {
        let rules: Vec<_> = written.into_iter().enumerate().map(|(place, (path, ignore_path_case, parameter))| {
            let mut rule = rule(&place.to_string(), path, vec![share("c", 1)]);
            rule.matches.ignore_path_case = ignore_path_case && !matches!(rule.matches.path, PathMatch::Regex(_));
            rule.matches.query.extend(parameter.map(|name| mesh::QueryMatch { name, value: mesh::ValueMatch::Present }));
            rule
        }).collect();
        let expected = rules.iter().position(|rule| holds(&rule.matches, &path, &query)).map(|place| place.to_string());
        let (table, problems) = compile(table(vec![host("h", &["h"], rules)]));
        prop_assert!(problems.is_empty());
        let head = head(&format!("{path}?{query}"));
        let found = table.select("h", None, &head, &mut NoTrace).ok().map(|route| route.name.to_string());
        prop_assert_eq!(&found, &expected);
        // Explaining finds the same winner.
        let explained = table.select("h", None, &head, &mut Vec::new()).ok().map(|route| route.name.to_string());
        prop_assert_eq!(&explained, &expected);
    }

    #[test]
    fn each_destination_gets_exactly_its_weight_of_the_range(weights in prop::collection::vec(0u32..30, 1..8)) {
        let sum: u32 = weights.iter().sum();
        prop_assume!(sum > 0);
        let shares = weights.iter().enumerate().map(|(place, weight)| share(&place.to_string(), *weight)).collect();
        let (table, _) = compile(table(vec![host("h", &["h"], vec![rule("r", PathMatch::Any, shares)])]));
        let route = table.select("h", None, &head("/"), &mut NoTrace).unwrap();
        let mut counts = vec![0; weights.len()];
        for random in 0..u64::from(sum) {
            counts[route.pick(random).cluster_name.parse::<usize>().unwrap()] += 1;
        }
        prop_assert_eq!(&counts, &weights);
        route.pick(u64::MAX);
    }
}
