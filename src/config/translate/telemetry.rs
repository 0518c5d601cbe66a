//! Access logs: those of the most specific Telemetry that speaks of them, else those of the mesh.

use std::collections::BTreeMap;

use super::World;
use super::audit;
use super::index::Written;
use super::workloads::is_subset;
use crate::config::resources::istio::mesh_config::AccessLogEncoding;
use crate::config::resources::istio::provider::FileAccessLog;
use crate::config::resources::istio::telemetry::{AccessLogging, Telemetry, WorkloadMode};
use crate::mesh::{AccessLog, LogFormat, TelemetrySettings};

/// What is recorded of each request.
pub(super) fn settings(world: &World<'_>) -> TelemetrySettings {
    let chain = applicable(world);
    let logging: Vec<&AccessLogging> = chain
        .iter()
        .rev()
        .map(|one| one.spec.access_logging.iter().filter(|one| holds(world, one)).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_default();
    let mut access_logs = Vec::new();
    if chain.iter().all(|one| one.spec.access_logging.is_empty()) {
        access_logs = default_logs(world);
    }
    for logging in logging.into_iter().filter(|logging| logging.disabled != Some(true)) {
        if logging.providers.is_empty() {
            // It names none, so it takes those of the level above.
            let parents = chain.iter().rev().flat_map(|one| &one.spec.access_logging);
            let named = parents.map(|one| &one.providers).find(|providers| !providers.is_empty());
            match named {
                Some(providers) => {
                    access_logs.extend(providers.iter().filter_map(|one| provider(world, &one.name)));
                }
                None => access_logs.extend(default_logs(world)),
            }
        }
        for named in &logging.providers {
            match provider(world, &named.name) {
                Some(log) => access_logs.push(log),
                None => unknown(world, &chain, &named.name),
            }
        }
    }
    let mut kept: Vec<AccessLog> = Vec::with_capacity(access_logs.len());
    for log in access_logs {
        if !kept.contains(&log) {
            kept.push(log);
        }
    }
    let audit::Audits { audit, missing } = &world.audits;
    TelemetrySettings { access_logs: kept, audit: audit.clone(), audit_missing: missing.clone() }
}

/// From the root namespace over the own one to the workload; the oldest of each level.
fn applicable<'a>(world: &World<'a>) -> Vec<Written<'a, Telemetry>> {
    let of = |namespace: &str, selected: bool| {
        world.index.telemetries.iter().copied().find(|one| {
            let labels = one
                .spec
                .selector
                .as_ref()
                .map(|selector| &selector.match_labels)
                .filter(|labels| !labels.is_empty());
            let attached = one.spec.target_ref.is_some() || !one.spec.target_refs.is_empty();
            **one.namespace() == *namespace
                && !attached
                && match labels {
                    Some(labels) => selected && is_subset(labels, &world.proxy.workload.labels),
                    None => !selected,
                }
        })
    };
    let root = world.settings.root();
    let own = (root != world.namespace).then(|| of(world.namespace, false)).flatten();
    of(root, false).into_iter().chain(own).chain(of(world.namespace, true)).collect()
}

fn holds(world: &World<'_>, logging: &AccessLogging) -> bool {
    let mode = logging.matches.as_ref().map_or(WorkloadMode::ClientAndServer, |one| one.mode);
    // A gateway is a client of the mesh and nobody's server.
    !(world.is_gateway() && mode == WorkloadMode::Server)
}

fn default_logs(world: &World<'_>) -> Vec<AccessLog> {
    let named = world.settings.default_log_providers();
    if !named.is_empty() {
        return named.iter().filter_map(|name| provider(world, name)).collect();
    }
    world
        .settings
        .access_log()
        .map(|(path, format, encoding)| AccessLog {
            path: path.to_owned(),
            format: match (encoding, format) {
                (AccessLogEncoding::Text, None) => LogFormat::Text,
                (AccessLogEncoding::Text, Some(text)) => LogFormat::CustomText(text.to_owned()),
                (AccessLogEncoding::Json, None) => LogFormat::Json,
                (AccessLogEncoding::Json, Some(text)) => custom_json(text),
            },
        })
        .into_iter()
        .collect()
}

/// A JSON object of strings; Istio falls back to its own format for anything else.
fn custom_json(text: &str) -> LogFormat {
    serde_json::from_str::<BTreeMap<String, String>>(text).map_or(LogFormat::Json, LogFormat::CustomJson)
}

/// A file log by the name of its provider. `envoy` is there in every mesh.
fn provider(world: &World<'_>, name: &str) -> Option<AccessLog> {
    match world.settings.provider(name) {
        Some(provider) => provider.envoy_file_access_log.as_ref().map(file_log),
        None if name == "envoy" => {
            let (format, encoding) = world
                .settings
                .access_log()
                .map_or((None, AccessLogEncoding::Text), |(_, format, encoding)| (format, encoding));
            let format = match (encoding, format) {
                (AccessLogEncoding::Text, None) => LogFormat::Text,
                (AccessLogEncoding::Text, Some(text)) => LogFormat::CustomText(text.to_owned()),
                (AccessLogEncoding::Json, None) => LogFormat::Json,
                (AccessLogEncoding::Json, Some(text)) => custom_json(text),
            };
            Some(AccessLog { path: "/dev/stdout".to_owned(), format })
        }
        None => None,
    }
}

fn file_log(written: &FileAccessLog) -> AccessLog {
    let format = match &written.log_format {
        Some(format) if !format.labels.is_empty() => {
            let text =
                |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            LogFormat::CustomJson(
                format.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
            )
        }
        Some(format) => format.text.clone().map_or(LogFormat::Text, LogFormat::CustomText),
        None => LogFormat::Text,
    };
    AccessLog { path: written.path.clone(), format }
}

fn unknown(world: &World<'_>, chain: &[Written<'_, Telemetry>], name: &str) {
    let Some(written) = chain.last() else { return };
    let message = match world.settings.provider(name) {
        Some(_) => format!("provider `{name}` writes no file, so no access log goes there"),
        None => format!("the mesh has no provider `{name}`, so no access log goes there"),
    };
    let hint = "name a provider with `envoyFileAccessLog`, or `envoy`";
    world.index.notes.warn(written.object, "spec.accessLogging", "log-provider", message, hint);
}
