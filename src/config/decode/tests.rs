use std::path::Path;

use proptest::prelude::*;

use super::{Reading, Strictness, decode, fuzz_yaml};
use crate::config::finding::Severity;
use crate::config::resources::{Kind, Resource, Spec};

fn read(yaml: &str) -> Reading {
    decode(&Path::new("t.yaml").into(), yaml, Strictness::default())
}

fn demo(name: &str) -> Reading {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/shop").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    decode(&path.into(), &text, Strictness::default())
}

fn said(reading: &Reading) -> Vec<String> {
    let all = reading.findings.iter().chain(reading.objects.iter().flat_map(|object| &object.findings));
    all.map(ToString::to_string).collect()
}

fn resource(reading: &Reading) -> &Resource {
    reading.objects[0].resource.as_ref().unwrap_or_else(|| panic!("{:?}", said(reading)))
}

const HEAD: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: shop}\n";

#[test]
fn the_shop_is_read_whole() {
    let istio = demo("istio.yaml");
    assert!(!istio.unreadable);
    assert_eq!(istio.objects.len(), 15);
    assert!(istio.objects.iter().all(|object| object.resource.is_some()), "{:#?}", said(&istio));
    let timeout = istio.objects.iter().find(|object| &*object.key.name == "payment-service-timeout").unwrap();
    let Some(Resource { spec: Spec::VirtualService(spec), .. }) = timeout.resource.as_deref() else {
        panic!()
    };
    assert_eq!(spec.http[0].timeout.unwrap().0.as_secs(), 3);
    let said = said(&istio);
    let retries = said.iter().find(|text| text.contains("inventory-service-retry")).unwrap();
    assert!(
        retries.contains("spec.http[0].retries: is not enforced yet") && retries.contains("istio.yaml:"),
        "{retries}"
    );
    assert!(
        said.iter().any(|text| text.contains("consecutiveErrors") && text.contains("consecutive5xxErrors"))
    );
    assert!(
        !said.iter().any(|text| text.contains("AuthorizationPolicy")),
        "all of it is enforced: {said:#?}"
    );
    assert!(!said.iter().any(|text| text.starts_with("error")), "{said:#?}");
}

#[test]
fn kinds_that_are_not_ours_are_listed_quietly() {
    let kubernetes = demo("kubernetes.yaml");
    assert_eq!(kubernetes.objects.iter().filter(|object| object.key.kind == Kind::Service).count(), 1);
    assert!(kubernetes.findings.iter().all(|finding| finding.severity == Severity::Info));
    assert!(kubernetes.findings.iter().any(|finding| finding.message.contains("Deployment")));
}

#[test]
fn a_wrong_value_is_named_with_field_line_and_form() {
    let reading = read(&format!(
        "---\n{HEAD}spec:\n  hosts: [cart]\n  http:\n  - timeout: 3 seconds\n    route: [{{destination: {{host: cart}}}}]\n"
    ));
    assert!(reading.objects[0].resource.is_none());
    let text = &said(&reading)[0];
    assert!(text.starts_with("error: VirtualService shop/x: spec.http[0].timeout: `3 seconds`"), "{text}");
    assert!(text.contains("(t.yaml:8:5)"), "{text}");
}

#[test]
fn a_number_out_of_range_says_what_to_write() {
    let reading = read(
        "apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 70000}]}
",
    );
    let text = &said(&reading)[0];
    assert!(text.contains("spec.ports[0].port: invalid value") && text.contains("0 to 65535"), "{text}");
}

#[test]
fn the_namespace_is_default_and_cluster_kinds_have_none() {
    let reading = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {a: b}}\n",
    );
    let keys: Vec<_> = reading.objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(keys, ["Service default/a", "Namespace n"]);
    assert_eq!(reading.objects[1].resource.as_ref().unwrap().meta.labels.get("a"), Some("b"));
}

#[test]
fn duplicate_keys_are_refused_with_a_hint() {
    let reading = read(&format!("{HEAD}spec:\n  hosts: [a]\n  hosts: [b]\n"));
    assert!(!reading.unreadable, "the object is known, so the file is readable");
    assert!(reading.objects[0].resource.is_none());
    assert!(said(&reading)[0].contains("spec.hosts: the key `hosts` stands twice"), "{:?}", said(&reading));
}

#[test]
fn unknown_fields_warn_or_reject() {
    let yaml = format!(
        "{HEAD}spec:\n  hosts: [a]\n  http: [{{timout: 3s, route: [{{destination: {{host: a}}}}]}}]\n"
    );
    let reading = read(&yaml);
    assert!(said(&reading)[0].contains("write `timeout`"), "{:?}", said(&reading));
    assert!(reading.objects[0].resource.is_some());
    let strict = decode(&Path::new("t.yaml").into(), &yaml, Strictness { unknown_fields: true });
    assert!(strict.objects[0].resource.is_none());
    let security = read(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rule: []}\n",
    );
    assert!(security.objects[0].resource.is_none());
}

#[test]
fn tls_towards_a_service_needs_its_certificates() {
    let rule = |mode: &str| {
        read(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec: {{host: a, trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n"
        ))
    };
    assert!(rule("DISABLE").objects[0].resource.is_some());
    assert!(rule("SIMPLE").objects[0].resource.is_some());
    let mutual = rule("MUTUAL");
    assert!(mutual.objects[0].resource.is_none());
    assert!(said(&mutual)[0].contains("credentialName"), "{:?}", said(&mutual));
}

#[test]
fn own_security_kinds_are_refused_and_other_own_kinds_warn() {
    let own = |kind: &str| {
        read(&format!(
            "apiVersion: sidegate.io/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{host: a}}\n"
        ))
    };
    assert!(own("AccessPolicy").objects[0].resource.is_none());
    assert!(matches!(resource(&own("RateLimit")).spec, Spec::Untyped(_)));
    assert!(said(&own("RateLimits"))[0].contains("write `kind: RateLimit`"));
}

#[test]
fn the_items_of_a_list_are_objects() {
    let reading = read(
        "apiVersion: v1
kind: List
metadata: {resourceVersion: ''}
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a, labels: &l {version: \"1.10\"}}
  spec: {selector: *l, ports: [{port: 80}]}
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata: {name: b}
  spec:
    hosts: [a]
    http:
    - timeout: 3 seconds
      route: [{destination: {host: a}}]
- apiVersion: apps/v1
  kind: Deployment
",
    );
    assert!(!reading.unreadable, "{:?}", said(&reading));
    let keys: Vec<_> = reading.objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(keys, ["Service default/a", "VirtualService default/b"]);
    let Spec::Service(service) = &resource(&reading).spec else { panic!() };
    assert_eq!(service.selector.get("version"), Some("1.10"));
    assert_eq!(resource(&reading).place("spec.ports[0].port").line, 8);
    let said = said(&reading);
    assert!(
        said.iter().any(|text| text.contains("spec.http[0].timeout") && text.contains("(t.yaml:15:7)")),
        "{said:?}"
    );
}

#[test]
fn the_mesh_configuration_is_read_out_of_its_config_map() {
    let reading = read(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n    ingressClass: istio\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n    rootNamespce: x\n",
    );
    let Spec::MeshConfig(mesh) = &resource(&reading).spec else { panic!() };
    assert_eq!(mesh.access_log_file.as_deref(), Some("/dev/stdout"));
    let said = said(&reading);
    assert!(said.len() == 1 && said[0].contains("line 4 of the text: `rootNamespce`"), "{said:?}");
}

#[test]
fn a_proxy_has_a_default_for_every_field() {
    let reading =
        read("apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: reviews, namespace: shop}\n");
    let Spec::Proxy(proxy) = &resource(&reading).spec else { panic!() };
    assert_eq!(proxy.outbound.addresses, ["127.0.0.1:15001"]);
    assert_eq!(proxy.metrics.address, "0.0.0.0:15090");
    assert!(reading.objects[0].findings.is_empty(), "{:?}", said(&reading));
}

#[test]
fn the_documented_proxy_is_read() {
    let yaml = "apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {name: reviews, namespace: shop}
spec:
  role: Sidecar
  workload: {name: reviews, revision: v1, serviceAccount: reviews, labels: {app: reviews, version: v1}}
  cluster: Kubernetes
  network: \"\"
  locality: {region: eu, zone: eu-1}
  trustDomain: cluster.local
  workers: 2
  outbound: {addresses: [\"127.0.0.1:15001\"], policy: ALLOW_ANY}
  inbound: {addresses: [\"0.0.0.0:15006\"], application: 127.0.0.1:9080}
  interception: EXPLICIT
  admin: {address: 127.0.0.1:15000}
  health: {address: 0.0.0.0:15021}
  metrics: {address: 0.0.0.0:15090}
  identity:
    files: {certificate: certs/cert-chain.pem, privateKey: certs/key.pem, trustBundle: certs/root-cert.pem}
  trust: {system: /etc/ssl/certs}
  discovery: {}
  state: {directory: /var/lib/sidegate}
  meshConfig: {}
  limits: {}
  drain: {propagation: 5s, gracePeriod: 25s}
";
    let reading = read(yaml);
    let Spec::Proxy(proxy) = &resource(&reading).spec else { panic!() };
    assert_eq!(proxy.workers, Some(2));
    let fields: Vec<_> = reading.objects[0].findings.iter().map(|finding| finding.field.as_str()).collect();
    assert_eq!(fields, [""; 0]);
}

#[test]
fn what_is_written_by_us_is_read_back_equal() {
    for object in demo("istio.yaml").objects {
        let Some(Resource { spec: Spec::VirtualService(spec), .. }) = object.resource.as_deref() else {
            continue;
        };
        let text = serde_yaml::to_string(spec).unwrap();
        assert_eq!(
            serde_yaml::from_str::<crate::config::resources::istio::virtual_service::VirtualService>(&text)
                .unwrap(),
            **spec
        );
    }
}

#[test]
fn nasty_inputs_are_refused_without_a_panic() {
    let deep = "a:\n".chars().cycle().take(3000).collect::<String>();
    let nasty: &[&str] = &[
        "",
        "\0",
        "---",
        "...",
        "&a *a",
        "*x",
        "? [a]\n: b",
        "? {a: b}\n: c",
        "!!binary x",
        "%YAML 9.9\n---\na: b",
        "\u{feff}",
        "a: &x\n- *x",
        "apiVersion: v1\nkind: Service\nmetadata: {name: *x}",
        "{",
        "[[[[",
        "\"\\ud800\"",
        "a: \"\\x",
        "- - - -",
        "apiVersion: v1\nkind: Service\nmetadata: 5",
        "apiVersion: [v1]\nkind: {a: b}",
        "<<: {a: b}",
        "a: !<x> 1",
        "\t",
        "a: |9\n x",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: [1]",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: {http: [{match: [{uri: {regex: '(a{1000}){1000}'}}]}]}",
        &deep,
    ];
    for text in nasty {
        fuzz_yaml(text.as_bytes());
    }
    fuzz_yaml(&[0xff, 0xfe, 0, 0x80]);
}

#[test]
fn the_corpus_of_the_fuzz_target_passes() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let target = std::fs::read_to_string(fuzz.join("fuzz_targets/yaml.rs")).unwrap();
    assert!(target.contains("sidegate::config::decode::fuzz_yaml"), "{target}");
    let seeds: Vec<_> = std::fs::read_dir(fuzz.join("corpus/yaml")).unwrap().collect();
    assert!(seeds.len() >= 4, "{seeds:?}");
    for seed in seeds {
        fuzz_yaml(&std::fs::read(seed.unwrap().path()).unwrap());
    }
    let objects = std::fs::read_to_string(fuzz.join("corpus/yaml/objects")).unwrap();
    assert_eq!(read(&objects).objects.iter().filter(|object| object.resource.is_some()).count(), 2);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz_yaml(&bytes);
    }

    #[test]
    fn pieces_of_yaml_never_panic(pieces in proptest::collection::vec(
        prop_oneof![
            Just("apiVersion: networking.istio.io/v1\n"), Just("kind: VirtualService\n"), Just("metadata: {name: x}\n"),
            Just("spec:\n"), Just("  http:\n"), Just("  - match: [{uri: {prefix: /}}]\n"), Just("    route: []\n"), Just("---\n"),
            Just("&a "), Just("*a\n"), Just("? "), Just("!!str "), Just("- "), Just("{"), Just("}"), Just("["), Just("]"),
            Just("\""), Just("'"), Just("|\n"), Just(": "), Just("\t"), Just("#"), Just("é"), Just("```\n"), Just("\r"),
        ],
        0..30,
    )) {
        fuzz_yaml(pieces.concat().as_bytes());
    }
}

#[test]
fn a_rejected_security_object_has_a_stand_in_for_its_scope() {
    let closed = |kind: &str, spec: &str| {
        let group = if kind == "AccessPolicy" { "sidegate.io/v1alpha1" } else { "security.istio.io/v1" };
        let yaml = format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
        );
        let reading = read(&yaml);
        let object = reading.objects.into_iter().next().unwrap();
        assert!(object.resource.is_none(), "{kind} {spec} is not rejected");
        match &object.stand_in.unwrap().spec {
            Spec::Closed(closed) => closed.clone(),
            other => panic!("{other:?}"),
        }
    };
    for (kind, bad) in [
        ("AuthorizationPolicy", "rules: [{when: [{key: ''}]}]"),
        ("RequestAuthentication", "jwtRules: [{issuer: ''}]"),
        ("PeerAuthentication", "mtls: {mode: STRIKT}"),
        ("AccessPolicy", "default: Perhaps"),
    ] {
        let found = closed(kind, &format!("{{selector: {{matchLabels: {{app: a}}}}, {bad}}}"));
        assert_eq!(found.selector.match_labels.get("app"), Some("a"), "{kind}");
        let unreadable = closed(kind, &format!("{{selector: a, {bad}}}"));
        assert!(unreadable.selector.match_labels.is_empty(), "{kind}: the whole namespace");
    }
}
