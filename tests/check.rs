//! `sidegate check`: what is wrong is named with object, field and place, and with what to write.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn check(path: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sidegate")).arg("check").arg(path).args(arguments).output().unwrap()
}

fn shop() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo/shop")
}

/// A folder with one file of this text.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mesh.yaml"), text).unwrap();
    folder
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The findings of one code: object, field, place, message.
fn of_code<'a>(report: &'a Value, code: &str) -> Vec<&'a Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == code).collect()
}

#[test]
fn the_conflicts_that_are_really_in_the_shop_are_found() {
    let output = check(&shop(), &["--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["errors"], 0);

    // Two DestinationRules for product-service, of which only one has a policy.
    let merged = of_code(&report, "destination-rules-merged");
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0]["object"], "DestinationRule ecommerce/product-service-versions");
    assert!(merged[0]["message"].as_str().unwrap().contains("product-service-circuit-breaker"));

    // Canary and roll-out are for the same host; the catch-all of the first hides the second.
    let merged = of_code(&report, "virtual-services-merged");
    assert_eq!(merged.len(), 1);
    assert_eq!(merged[0]["object"], "VirtualService ecommerce/product-service-rollout");
    let text = String::from_utf8(check(&shop(), &[]).stdout).unwrap();
    let hidden = text.lines().find(|line| line.contains("is never reached")).unwrap();
    assert!(
        hidden.contains("rule `v1-routes` (spec.http[1]) of VirtualService ecommerce/product-service-canary"),
        "{hidden}"
    );

    // Its pods carry no version, so both subsets are empty.
    assert_eq!(text.lines().filter(|line| line.contains("has no endpoint")).count(), 2);

    // Services that nobody defined, one of them in another namespace than its fault injection.
    let unknown: Vec<_> = of_code(&report, "destination-unknown")
        .iter()
        .map(|finding| {
            finding["message"]
                .as_str()
                .unwrap()
                .split(':')
                .next()
                .unwrap()
                .rsplit(' ')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    for host in ["order-service.ecommerce", "payment-service.ecommerce", "shipping-service.ecommerce-test"] {
        assert!(unknown.contains(&format!("{host}.svc.cluster.local")), "{host}: {unknown:?}");
    }

    // The field that Istio itself ignores.
    assert_eq!(text.lines().filter(|line| line.contains("consecutiveErrors: is deprecated")).count(), 2);
}

#[test]
fn every_finding_of_the_shop_names_its_place() {
    let report = json(&check(&shop(), &["--output", "json"]));
    for finding in report["findings"].as_array().unwrap() {
        let place = finding["place"].as_str().unwrap_or_default();
        let parts: Vec<_> = place.rsplitn(3, ':').collect();
        assert!(parts.len() == 3 && parts[1].parse::<u32>().is_ok_and(|line| line > 0), "{finding}");
    }
}

#[test]
fn the_demo_is_without_errors() {
    let report = json(&check(&shop().join(".."), &["--output", "json"]));
    assert_eq!(report["errors"], 0);
    // What the shop lacks, the demo adds.
    assert!(of_code(&report, "gateway-unused").is_empty());
    let unknown = of_code(&report, "destination-unknown");
    assert_eq!(unknown.len(), 1, "only the service of the test namespace is missing: {unknown:?}");
}

#[test]
fn a_clean_configuration_ends_with_zero() {
    let folder = folder(
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: a, namespace: shop}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: shop}\n",
    );
    let output = check(folder.path(), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("0 errors, 0 warnings, 1 remark"), "{text}");
}

#[test]
fn a_mistyped_field_is_named_with_the_right_one() {
    let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\n\
                spec:\n  hosts: [cart]\n  http:\n  - timout: 3s\n    route:\n    - destination: {host: cart}\n";
    let folder = folder(text);
    let lenient = check(folder.path(), &[]);
    let said = String::from_utf8(lenient.stdout).unwrap();
    assert_eq!(lenient.status.code(), Some(1));
    assert!(said.contains("warning: VirtualService shop/cart: spec.http[0].timout"), "{said}");
    assert!(said.contains("mesh.yaml:7:5") && said.contains("timeout"), "{said}");
    let strict = String::from_utf8(check(folder.path(), &["--strict"]).stdout).unwrap();
    assert!(strict.contains("error: VirtualService shop/cart: spec.http[0].timout"), "{strict}");
}

#[test]
fn duplicate_keys_and_broken_yaml_are_errors_with_their_line() {
    for (text, place) in [
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\napiVersion: v1\nkind: Service\n",
            "mesh.yaml:4:1",
        ),
        ("apiVersion: v1\nkind: [Service\nmetadata: {name: a}\n", "mesh.yaml:"),
    ] {
        let folder = folder(text);
        let output = check(folder.path(), &[]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.starts_with("error: ") && said.contains(place) && said.contains("hint: "), "{said}");
    }
}

#[test]
fn a_path_that_does_not_exist_is_wrong_usage() {
    let output = check(Path::new("/nonexistent"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("/nonexistent: there is no such file or folder")
    );
}
