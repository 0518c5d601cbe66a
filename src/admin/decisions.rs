//! The pages of recent decisions.

use super::{Call, Reply};
use crate::telemetry::decisions::{Decisions, Filter, PASSES, REFUSALS, Reach};
use crate::telemetry::timestamp::Timestamps;
use filter_api::DecisionId;
use http::StatusCode;
use serde_json::json;
use std::time::SystemTime;

/// Decisions that `/decisions` lists when nobody says how many.
const LIMIT: usize = 50;

/// `/explain/ID`: one decision, as JSON or with `?format=text` for people.
pub(crate) fn decision(decisions: &Decisions, call: &Call) -> Reply {
    let id = match call.rest.parse::<DecisionId>() {
        Ok(id) => id,
        Err(error) => {
            return Reply::error(StatusCode::BAD_REQUEST, format!("`{}` is no id: {error}", call.rest));
        }
    };
    match decisions.find(id) {
        Some(decision) if call.query.value("format") == Some("text") => Reply::text(decision.to_string()),
        Some(decision) => Reply::json(&*decision),
        None => {
            let Reach { held, capacity, total, since } = decisions.reach();
            let text = format!(
                "no decision {id} is remembered here: of {total} refusals the last {held} are (at most {capacity}), all since {}",
                shown(since)
            );
            Reply::error(StatusCode::NOT_FOUND, text)
        }
    }
}

/// `/decisions`: the latest first; `?limit=N`, `?status=403`, `?policy=NAMESPACE/NAME`, `?outcome=refused` or `passed`.
pub(crate) fn list(decisions: &Decisions, call: &Call) -> Reply {
    let query = &call.query;
    let wrong = |name: &str, value: &str, hint: &str| {
        Reply::error(StatusCode::BAD_REQUEST, format!("{name}={value}: {hint}"))
    };
    let limit = match query.value("limit").map(|text| (text, text.parse::<usize>())) {
        None => LIMIT,
        Some((_, Ok(limit))) => limit.min(64 * (REFUSALS + PASSES)),
        Some((text, Err(_))) => return wrong("limit", text, "write a number"),
    };
    let status = match query.value("status").map(|text| (text, text.parse())) {
        None => None,
        Some((_, Ok(status))) => Some(status),
        Some((text, Err(_))) => return wrong("status", text, "write a number, as in 403"),
    };
    let refused = match query.value("outcome") {
        None => None,
        Some("refused") => Some(true),
        Some("passed") => Some(false),
        Some(other) => return wrong("outcome", other, "write refused or passed"),
    };
    let filter = Filter { status, refused, policy: query.value("policy").map(str::to_owned) };
    let Reach { held, capacity, total, since } = decisions.reach();
    Reply::json(&json!({
        "refusals": {"held": held, "capacity": capacity, "total": total, "since": shown(since)},
        "decisions": decisions.latest(limit, &filter),
    }))
}

fn shown(time: SystemTime) -> String {
    let mut text = Vec::new();
    Timestamps::default().write_millis(time, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
