use std::collections::{BTreeMap, BTreeSet};

use super::shape::{self, Shape, Type};
use super::table::{self, Mark, TABLE};
use super::{About, kind_mark, list, nearest, remarks};
use crate::config::resources::Kind;
use crate::config::spans;

const TYPED: [Kind; 16] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
    Kind::Gateway,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::AuthorizationPolicy,
    Kind::AccessPolicy,
    Kind::Telemetry,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::ConfigMap,
    Kind::Proxy,
    Kind::AuditPolicy,
];

/// Fields that are neither in the table nor below one that is marked as a whole.
fn unmarked(shape: &Shape, at: usize, seen: &mut BTreeSet<usize>, missing: &mut BTreeSet<String>) {
    if !seen.insert(at) {
        return;
    }
    match shape.kind(at) {
        Type::Object { name, fields } => {
            for (field, &below) in fields {
                match table::mark(name, field) {
                    None => {
                        missing.insert(format!("{name}.{field}"));
                    }
                    Some(Mark::Warned { unless: [], .. } | Mark::Refused { unless: [], .. }) => {}
                    Some(_) => unmarked(shape, below.at, seen, missing),
                }
            }
        }
        Type::Map(below) | Type::List(below) => unmarked(shape, *below, seen, missing),
        Type::Leaf => {}
    }
}

#[test]
fn every_field_of_every_typed_kind_has_a_mark() {
    let mut missing = BTreeSet::new();
    for kind in TYPED {
        let shape = shape::of(kind).unwrap();
        assert!(
            matches!(shape.kind(shape.root), Type::Object { fields, .. } if !fields.is_empty()),
            "{kind}"
        );
        if kind_mark(kind).is_none() {
            unmarked(shape, shape.root, &mut BTreeSet::new(), &mut missing);
        }
    }
    let mesh = shape::mesh_config();
    unmarked(mesh, mesh.root, &mut BTreeSet::new(), &mut missing);
    assert!(missing.is_empty(), "no row in the table for {missing:?}");
}

#[test]
fn every_row_names_fields_that_exist_and_no_field_twice() {
    let mut objects: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for shape in TYPED.into_iter().filter_map(shape::of).chain([shape::mesh_config()]) {
        for (name, fields) in shape.objects() {
            objects.entry(name).or_default().extend(fields.keys().map(String::as_str));
        }
    }
    let mut seen = BTreeSet::new();
    for (object, fields, _) in TABLE {
        for field in fields.split_whitespace() {
            assert!(
                objects.get(object).is_some_and(|known| known.contains(field)),
                "no field {object}.{field}"
            );
            assert!(seen.insert((object, field)), "{object}.{field} is marked twice");
        }
    }
}

#[test]
fn every_kind_is_typed_or_marked_as_a_whole() {
    for kind in Kind::ALL {
        let known = TYPED.contains(&kind) || kind_mark(kind).is_some() || kind == Kind::Namespace;
        assert!(known, "{kind}");
    }
}

#[test]
fn the_list_shows_what_is_below_a_warned_field_as_warned() {
    let all: BTreeMap<_, _> = list(Kind::VirtualService).into_iter().collect();
    assert_eq!(all["spec.http[].match[].headers[*].regex"], Mark::Enforced);
    assert!(matches!(all["spec.http[].retries.attempts"], Mark::Warned { .. }));
}

fn said(kind: Kind, yaml: &str) -> Vec<(String, About)> {
    let (documents, fault) = spans::read(yaml);
    assert_eq!(fault, []);
    remarks(kind, &documents[0].outline).into_iter().map(|r| (r.field, r.about)).collect()
}

#[test]
fn unknown_fields_are_found_everywhere_with_the_nearest_name() {
    let found = said(
        Kind::VirtualService,
        "spec:\n  host: [a]\n  http:\n  - timout: 3s\n    retries: {attemps: 3}\nmetadata: {lables: {}}\nstatus: {x: 1}\n",
    );
    assert_eq!(
        found,
        [
            ("spec.host".to_owned(), About::Unknown(Some("hosts".to_owned()))),
            ("spec.http[0].timout".to_owned(), About::Unknown(Some("timeout".to_owned()))),
            ("spec.http[0].retries".to_owned(), About::Warned("a failed request would be tried again")),
            ("spec.http[0].retries.attemps".to_owned(), About::Unknown(Some("attempts".to_owned()))),
            ("metadata.lables".to_owned(), About::Unknown(Some("labels".to_owned()))),
        ]
    );
}

#[test]
fn what_would_be_weaker_without_its_field_is_refused_and_nulls_say_nothing() {
    let pinned = |value: &str| {
        said(Kind::Gateway, &format!("spec: {{servers: [{{tls: {{verifyCertificateHash: {value}}}}}]}}"))
    };
    assert_eq!(pinned("null"), []);
    let found = pinned("[ab]");
    assert!(
        matches!(&found[..], [(field, About::Refused(_))] if field == "spec.servers[0].tls.verifyCertificateHash"),
        "{found:?}"
    );
}

#[test]
fn merge_keys_are_told_apart_from_typing_errors() {
    let found = said(Kind::VirtualService, "spec: {http: [{<<: {timeout: 3s}}]}");
    assert_eq!(found, [("spec.http[0][\"<<\"]".to_owned(), About::MergeKey)]);
}

#[test]
fn the_nearest_name_is_near() {
    let names = ["hosts", "gateways", "exportTo", "workloadSelector"];
    assert_eq!(nearest("export_to", names.into_iter()), Some("exportTo"));
    assert_eq!(nearest("gateway", names.into_iter()), Some("gateways"));
    assert_eq!(nearest("colour", names.into_iter()), None);
}

#[test]
fn what_takes_effect_is_not_said_to_have_none() {
    let telemetry = |spec: &str| said(Kind::Telemetry, &format!("spec: {{accessLogging: [{spec}]}}"));
    assert_eq!(telemetry("{providers: [{name: envoy}], match: {mode: CLIENT_AND_SERVER}}"), []);
    assert!(matches!(&telemetry("{filter: {expression: a}, match: {mode: SERVER}}")[..],
        [(one, About::Warned(_)), (other, About::Warned(_))]
            if one == "spec.accessLogging[0].filter" && other == "spec.accessLogging[0].match.mode"));
    let mesh = "spec: {meshConfig: {extensionProviders: [{name: f, envoyFileAccessLog: {path: /dev/stdout}}], \
        defaultProviders: {accessLogging: [f]}, defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}, \
        defaultConfig: {gatewayTopology: {numTrustedProxies: 1, proxyProtocol: {}}, proxyHeaders: {server: {disabled: true}}}}}";
    assert_eq!(said(Kind::Proxy, mesh), []);
    assert_eq!(said(Kind::VirtualService, "spec: {http: [{match: [{name: a}]}]}"), []);
}

#[test]
fn endpoints_that_are_names_are_refused_with_the_reason() {
    assert_eq!(said(Kind::EndpointSlice, "addressType: IPv6"), []);
    let found = said(Kind::EndpointSlice, "addressType: FQDN");
    let [(field, About::Refused(why))] = &found[..] else { panic!("{found:?}") };
    assert!(field == "addressType" && why.contains("resolution: DNS"), "{field}: {why}");
}

#[test]
fn what_takes_no_effect_is_said() {
    for (kind, spec, field) in [
        (
            Kind::DestinationRule,
            "{trafficPolicy: {connectionPool: {http: {http2KeepAlive: {interval: 3s}}}}}",
            "spec.trafficPolicy.connectionPool.http.http2KeepAlive",
        ),
        (Kind::Proxy, "{network: east}", "spec.network"),
        (
            Kind::Proxy,
            "{meshConfig: {defaultConfig: {concurrency: 2}}}",
            "spec.meshConfig.defaultConfig.concurrency",
        ),
    ] {
        let found = said(kind, &format!("spec: {spec}"));
        assert!(matches!(&found[..], [(at, About::Warned(_))] if at == field), "{found:?}");
    }
}
