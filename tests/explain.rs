//! `sidegate explain`: the way of a request, the rules that were tried, and what to do about a refusal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo")
}

fn explain(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.arg("explain").arg("--config").arg(config).args(arguments).output().unwrap()
}

fn json(config: &Path, arguments: &[&str]) -> Value {
    let output = explain(config, &[arguments, &["--output", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_canary_takes_the_rule_that_asks_for_its_header() {
    let arguments = ["--as", "order-service", "GET", "http://product-service/api/products/7"];
    let canary = json(&demo(), &[&arguments[..], &["-H", "X-Canary: true"]].concat());
    assert_eq!(canary["route"]["name"], "v2-routes");
    let way = &canary["destinations"][0];
    assert_eq!(way["cluster"], "outbound|80|v2|product-service.ecommerce.svc.cluster.local");
    assert_eq!(way["endpoints"][0]["address"], "127.0.0.1:18206");
    assert_eq!(canary["outcome"]["kind"], "forwarded");

    let other = json(&demo(), &[&arguments[..], &["-H", "x-canary: TRUE"]].concat());
    assert_eq!(other["route"]["name"], "v1-routes");
    // The rule that did not match, why, and where it stands.
    let failed = &other["rules"][1];
    assert_eq!(failed["held"], false);
    assert!(failed["because"].as_str().unwrap().contains("x-canary"), "{failed}");
    let origin = failed["origin"].as_str().unwrap();
    assert!(
        origin.starts_with("VirtualService ecommerce/product-service-canary spec.http[0].match[0] ("),
        "{origin}"
    );
    assert!(origin.contains("istio.yaml:112:"), "{origin}");
}

#[test]
fn a_rollout_shows_its_shares() {
    let folder = tempfile::tempdir().unwrap();
    let istio = std::fs::read_to_string(demo().join("shop/istio.yaml")).unwrap();
    let without: Vec<_> =
        istio.split("\n---\n").filter(|object| !object.contains("name: product-service-canary")).collect();
    std::fs::write(folder.path().join("istio.yaml"), without.join("\n---\n")).unwrap();
    let (mesh, kubernetes) = (demo().join("mesh"), demo().join("shop/kubernetes.yaml"));
    let way = json(
        folder.path(),
        &[
            "--config",
            mesh.to_str().unwrap(),
            "--config",
            kubernetes.to_str().unwrap(),
            "--as",
            "order-service",
            "GET",
            "http://product-service.ecommerce/",
        ],
    );
    let shares: Vec<_> = way["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|way| (way["percent"].as_f64().unwrap(), way["endpoints"][0]["workload"].as_str().unwrap()))
        .collect();
    assert_eq!(shares, [(90.0, "product-service v1"), (10.0, "product-service v2")]);
}

#[test]
fn the_timeout_of_a_route_is_said() {
    let payment = text(&explain(&demo(), &["--as", "order-service", "POST", "http://payment-service/"]));
    assert!(payment.contains("total: 3s"), "{payment}");
}

#[test]
fn an_unknown_host_is_refused_with_the_name_that_was_meant() {
    let output = explain(&demo(), &["--as", "order-service", "GET", "http://prodct-service/"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains("refused: 404 NR: no service or virtual host prodct-service"), "{text}");
    assert!(text.contains("did you mean product-service?"), "{text}");
}

#[test]
fn a_path_that_no_rule_takes_lists_every_rule() {
    let output = explain(&demo(), &["--as", "ingress", "GET", "http://api.ecommerce.example.com/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    for (rule, prefix) in ["/api/products", "/api/orders", "/api/users", "/api/payments"].iter().enumerate() {
        assert!(text.contains(prefix), "{text}");
        assert!(
            text.contains(&format!("VirtualService ecommerce/ecommerce-routes spec.http[{rule}].match[0] (")),
            "{text}"
        );
    }
    assert!(
        text.contains("add a rule without `match` as the last of VirtualService ecommerce/ecommerce-routes"),
        "{text}"
    );
}

#[test]
fn an_empty_subset_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (to, from) in [
        ("istio.yaml", "shop/istio.yaml"),
        ("kubernetes.yaml", "shop/kubernetes.yaml"),
        ("order-service.yaml", "mesh/order-service.yaml"),
    ] {
        std::fs::copy(demo().join(from), folder.path().join(to)).unwrap();
    }
    let output = explain(folder.path(), &["GET", "http://product-service/"]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains(
            "refused: 503 UH: no endpoint of subset v1 of product-service.ecommerce.svc.cluster.local"
        ),
        "{text}"
    );
}

#[test]
fn rewrites_redirects_and_headers_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("mesh.yaml"),
        "apiVersion: sidegate.io/v1alpha1\nkind: Proxy\nmetadata: {name: web, namespace: shop}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\n\
         spec:\n  hosts: [cart]\n  http:\n\
         \x20 - match: [{uri: {prefix: /old}}]\n    redirect: {uri: /new, redirectCode: 308}\n\
         \x20 - match: [{uri: {prefix: /v1/}}]\n    rewrite: {uri: /}\n    headers: {request: {set: {x-from: mesh}}}\n    route: [{destination: {host: cart}}]\n",
    )
    .unwrap();
    let redirect = json(folder.path(), &["GET", "http://cart/old/x"]);
    assert_eq!(redirect["outcome"]["kind"], "answered");
    assert_eq!(redirect["outcome"]["status"], 308);
    assert_eq!(redirect["outcome"]["location"], "http://cart/new");
    let rewrite = text(&explain(folder.path(), &["GET", "http://cart/a/../v1/items?n=1"]));
    assert!(rewrite.contains("target /a/../v1/items?n=1 becomes /v1/items?n=1"), "{rewrite}");
    assert!(rewrite.contains("path /v1/items?n=1 becomes /items?n=1"), "{rewrite}");
    assert!(rewrite.contains("x-from"), "{rewrite}");
}

#[test]
fn what_the_data_path_refuses_before_routing_is_refused_here_too() {
    let output = explain(&demo(), &["--as", "order-service", "GET", "http://product-service/a/%00"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("refused: 400 DPE"), "{}", text(&output));
}

#[test]
fn a_question_that_cannot_be_asked_is_wrong_usage() {
    for (arguments, hint) in [
        (&["--as", "order-service", "GET", "/path"][..], "write it as in http://"),
        (&["--as", "order-service", "GET", "http://a/", "-H", "x"], "write it as in 'x-canary: true'"),
        (&["GET", "http://a/"], "name one with --as"),
        (&["--as", "nobody", "GET", "http://a/"], "no Proxy is named nobody"),
    ] {
        let output = explain(&demo(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(hint), "{said}");
    }
}
