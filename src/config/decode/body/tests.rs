use std::path::Path;

use crate::config::decode::{Reading, Strictness, decode};
use crate::config::resources::Spec;

fn read(yaml: &str, strict: bool) -> Reading {
    decode(&Path::new("t.yaml").into(), yaml, Strictness { unknown_fields: strict })
}

/// Fields, hints and severities of what is said of the first object.
fn said(reading: &Reading) -> Vec<(String, String)> {
    let findings = reading.objects[0].findings.iter();
    findings
        .map(|finding| (finding.field.clone(), format!("{}: {}", finding.severity, finding.hint)))
        .collect()
}

fn fields(reading: &Reading) -> Vec<String> {
    said(reading).into_iter().map(|(field, _)| field).collect()
}

#[test]
fn every_wrong_value_of_an_object_is_told_in_one_run() {
    let reading = read(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [one.shop]
  hosts: [two.shop]
  http:
  - timeout: 3
    timout: 4s
    route: [{destination: {host: one.shop, port: {number: '80x'}}, weight: many}]
  - match: [{uri: {prefix: 5, exact: /x}}]
    redirect: {redirectCode: 999}
",
        false,
    );
    assert!(reading.objects[0].resource.is_none());
    let mut fields = fields(&reading);
    fields.sort();
    assert_eq!(
        fields,
        [
            "spec.hosts",
            "spec.http[0].route[0].destination.port.number",
            "spec.http[0].route[0].weight",
            "spec.http[0].timeout",
            "spec.http[0].timout",
            "spec.http[1].match[0].uri",
            // It changes nothing of the URL.
            "spec.http[1].redirect",
            "spec.http[1].redirect.redirectCode",
        ]
    );
}

#[test]
fn a_value_that_is_wrong_has_no_consequences() {
    let reading = read(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: [a]}
",
        false,
    );
    assert_eq!(fields(&reading), ["spec.host"], "nobody says that there is no host");
}

#[test]
fn an_unknown_word_is_told_with_the_nearest() {
    let reading = read(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: a}
spec: {mtls: {mode: STRIKT}}
",
        false,
    );
    assert_eq!(said(&reading), [("spec.mtls.mode".to_owned(), "error: write `STRICT`".to_owned())]);
}

fn mesh(name: &str, namespace: &str, text: &str, strict: bool) -> Reading {
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  mesh: |-\n    {text}\n"
    );
    read(&yaml, strict)
}

#[test]
fn the_mesh_configuration_is_read_as_strictly_as_objects() {
    let text = "outboundTrafficPolicyy: {mode: REGISTRY_ONLY}";
    let lenient = mesh("istio", "istio-system", text, false);
    let hint = "write `outboundTrafficPolicy`, or remove it";
    assert_eq!(said(&lenient), [("data.mesh".to_owned(), format!("warning: {hint}"))]);
    let strict = mesh("istio", "istio-system", text, true);
    assert_eq!(said(&strict), [("data.mesh".to_owned(), format!("error: {hint}"))]);
    assert!(strict.objects[0].resource.is_none());
}

#[test]
fn a_config_map_of_an_application_is_none_of_istios() {
    let spec = |name: &str, namespace: &str, text: &str| {
        let reading = mesh(name, namespace, text, false);
        matches!(reading.objects[0].resource.as_ref().unwrap().spec, Spec::MeshConfig(_))
    };
    assert!(!spec("istio-my-app-config", "shop", "some text: [1, 2"));
    assert!(spec("istio-canary", "istio-system", "trustDomain: a"));
    assert!(spec("istio", "control", "trustDomain: a"));
}
