use super::{codes, proxy, run};
use crate::mesh::LogFormat;

fn telemetry(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn the_access_log_is_that_of_the_most_specific_telemetry() {
    let mesh = "accessLogFile: /m, extensionProviders: [{name: file, envoyFileAccessLog: {path: /p, logFormat: {labels: {a: '%PROTOCOL%'}}}}]";
    let root = telemetry("istio-system", "r", "{accessLogging: [{providers: [{name: envoy}]}]}");
    let own = telemetry("shop", "n", "{accessLogging: [{providers: [{name: file}]}]}");
    let off =
        telemetry("shop", "w", "{selector: {matchLabels: {app: me}}, accessLogging: [{disabled: true}]}");
    let tracing = telemetry("shop", "t", "{tracing: [{randomSamplingPercentage: 1}]}");
    for (objects, expected) in [
        (String::new(), vec!["/m"]),
        (tracing, vec!["/m"]),
        (root.clone(), vec!["/dev/stdout"]),
        (format!("{root}{own}"), vec!["/p"]),
        (format!("{root}{own}{off}"), vec![]),
    ] {
        let me = proxy(&format!("{{workload: {{labels: {{app: me}}}}, meshConfig: {{{mesh}}}}}"));
        let output = run(&(objects.clone() + &me));
        let paths: Vec<_> = output.mesh.telemetry.access_logs.iter().map(|log| log.path.as_str()).collect();
        assert_eq!(paths, expected, "{objects}");
    }
}

#[test]
fn the_mesh_says_how_lines_are_written() {
    let json = LogFormat::CustomJson([("a".to_owned(), "b".to_owned())].into());
    for (fields, expected) in [
        ("accessLogFile: /dev/stdout", Some(LogFormat::Text)),
        ("accessLogFile: /x, accessLogEncoding: JSON", Some(LogFormat::Json)),
        (
            "accessLogFile: /x, accessLogFormat: '%PROTOCOL%'",
            Some(LogFormat::CustomText("%PROTOCOL%".into())),
        ),
        ("accessLogFile: /x, accessLogEncoding: JSON, accessLogFormat: '{\"a\": \"b\"}'", Some(json)),
        ("enableTracing: true", None),
    ] {
        let output = run(&proxy(&format!("{{meshConfig: {{{fields}}}}}")));
        assert_eq!(
            output.mesh.telemetry.access_logs.first().map(|log| log.format.clone()),
            expected,
            "{fields}"
        );
    }
}

#[test]
fn an_unknown_provider_is_named() {
    let output = run(&telemetry("shop", "n", "{accessLogging: [{providers: [{name: gone}]}]}"));
    assert!(output.mesh.telemetry.access_logs.is_empty());
    assert_eq!(codes(&output), ["log-provider"]);
}
