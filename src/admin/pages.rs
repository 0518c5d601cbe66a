//! Handlers that need nothing but telemetry.

use std::fs;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use regex::RegexBuilder;
use serde::Serialize;

use super::routes::Methods;
use super::{Call, Reply};
use crate::telemetry::logging::Levels;
use crate::telemetry::metrics::{Registry, Scrape, scrape_process, status_bytes};
use crate::telemetry::prometheus as exposition;

/// Memory a `?filter=` expression may take once compiled.
const FILTER_BYTES: usize = 1 << 20;

/// The states of `/server_info`, under Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Serving.
    Live,
    /// Ending: no new work is wanted.
    Draining,
    /// The first configuration has not come yet.
    PreInitializing,
    /// The first configuration is being put in force.
    Initializing,
}

/// The handler of `/stats/prometheus`. A scrape also lets go of series that nobody uses any more.
pub fn prometheus(registry: Arc<Registry>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    move |_| {
        let text = exposition::render(&scrape(&registry));
        ready(Reply { content_type: exposition::CONTENT_TYPE, ..Reply::text(text) })
    }
}

/// The handler of `/stats`: one line per sample; `?filter=<regex>` selects by name and labels, `?usedonly` leaves
/// out what was never counted, `?format=prometheus` adds help and types.
pub fn stats(registry: Arc<Registry>) -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    move |call| ready(select(scrape(&registry), &call))
}

/// The handler of `/logging`: GET shows the levels; POST `?level=debug` changes all, `?<scope>=debug` one.
pub fn logging(levels: Levels) -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    move |call| ready(change_levels(&levels, &call))
}

/// The handler of `/server_info`, under Envoy's keys; beside the state, what is wrong without changing it, as `configuration_refused`.
pub fn server_info(
    version: &'static str,
    state: impl Fn() -> (State, Option<String>) + Send + Sync,
) -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    let started = Instant::now();
    move |_| {
        let uptime: Duration = started.elapsed();
        let uptime = format!("{}s", uptime.as_secs());
        let (state, refused) = state();
        ready(Reply::json(&serde_json::json!({
            "version": version,
            "state": state,
            "configuration_refused": refused,
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
        })))
    }
}

/// The handler of `/memory`: what the kernel counts for this process, in bytes.
pub fn memory() -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    |_| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let shares = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let bytes = |text: &str, field| status_bytes(text, field).map(|bytes| bytes as u64);
        ready(Reply::json(&serde_json::json!({
            "resident": bytes(&status, "VmRSS:"),
            "peak_resident": bytes(&status, "VmHWM:"),
            "proportional": bytes(&shares, "Pss:"),
            "private_dirty": bytes(&shares, "Private_Dirty:"),
            "virtual": bytes(&status, "VmSize:"),
        })))
    }
}

/// A handler for probes: 200 with what there is to say besides, or 503 with the reason.
pub fn health(
    check: impl Fn() -> Result<Option<String>, String> + Send + Sync,
) -> impl Fn(Call) -> Ready<Reply> + Send + Sync {
    move |_| {
        ready(match check() {
            Ok(None) => Reply::text("ok\n"),
            Ok(Some(besides)) => Reply::text(format!("ok, but {besides}\n")),
            Err(reason) => Reply::error(StatusCode::SERVICE_UNAVAILABLE, reason),
        })
    }
}

fn scrape(registry: &Registry) -> Scrape {
    registry.sweep(Instant::now());
    let mut scrape = registry.scrape();
    scrape.families.extend(scrape_process());
    scrape.families.sort_by_key(|family| family.spec.name);
    scrape
}

fn select(mut scrape: Scrape, call: &Call) -> Reply {
    if call.query.has("usedonly") {
        scrape.families.iter_mut().for_each(|family| family.series.retain(|series| !series.value.is_zero()));
    }
    let text = exposition::render(&scrape);
    let (samples, described): (_, bool) = match call.query.value("format") {
        None | Some("text") => (text, false),
        Some("prometheus") => (text, true),
        Some(other) => {
            return Reply::error(
                StatusCode::BAD_REQUEST,
                format!("{other:?} is no format; write text or prometheus"),
            );
        }
    };
    let filter =
        RegexBuilder::new(call.query.value("filter").unwrap_or_default()).size_limit(FILTER_BYTES).build();
    let filter = match filter {
        Ok(filter) => filter,
        Err(error) => {
            return Reply::error(
                StatusCode::BAD_REQUEST,
                format!("filter is not a usable expression: {error}"),
            );
        }
    };
    let kept = samples.lines().filter(|line| match line.strip_prefix("# ") {
        // HELP and TYPE stay with their family's name.
        Some(comment) => described && comment.split(' ').nth(1).is_some_and(|name| filter.is_match(name)),
        None => line.rsplit_once(' ').is_some_and(|(sample, _)| filter.is_match(sample)),
    });
    let text: String = kept.flat_map(|line| [line, "\n"]).collect();
    Reply::text(text)
}

fn change_levels(levels: &Levels, call: &Call) -> Reply {
    if call.query.is_empty() {
        return Reply::text(levels.to_string());
    }
    if call.method != Method::POST {
        let text = "levels are changed by POST, as in: curl -X POST '.../logging?level=debug'".to_owned();
        return Reply::error(StatusCode::METHOD_NOT_ALLOWED, text).allowing(Methods::GetAndPost);
    }
    for (key, value) in call.query.iter() {
        let changed = if key == "level" { levels.set_all(value) } else { levels.set(key, value) };
        if let Err(error) = changed {
            return Reply::error(StatusCode::BAD_REQUEST, error.to_string());
        }
    }
    tracing::info!(levels = %levels, "log levels changed");
    Reply::text(levels.to_string())
}
