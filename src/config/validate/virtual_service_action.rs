//! Checks of what an HTTP route does.

use super::parts;
use crate::config::decode::Report;
use crate::config::resources::istio::virtual_service::{
    FaultAbort, FaultDelay, Headers, HttpDirectResponse, HttpRedirect, HttpRewrite, HttpRoute,
};
use crate::config::translate::action_faults;

const MAX_BODY_BYTES: usize = 1 << 20;

pub(super) fn check(report: &mut Report<'_>, field: &str, route: &HttpRoute) {
    one_action(report, field, route);
    for (index, to) in route.route.iter().enumerate() {
        let field = format!("{field}.route[{index}]");
        parts::destination(report, &format!("{field}.destination"), &to.destination);
        headers(report, &format!("{field}.headers"), to.headers.as_ref());
    }
    parts::weights(
        report,
        &format!("{field}.route"),
        &route.route.iter().map(|to| to.weight).collect::<Vec<_>>(),
    );
    headers(report, &format!("{field}.headers"), route.headers.as_ref());
    if let Some(of) = &route.redirect {
        redirect(report, &format!("{field}.redirect"), of);
    }
    if let Some(of) = &route.direct_response {
        direct_response(report, &format!("{field}.directResponse"), of);
    }
    if let Some(of) = &route.rewrite {
        rewrite(report, &format!("{field}.rewrite"), of);
    }
    if route.delegate.as_ref().is_some_and(|delegate| delegate.name.is_empty()) {
        report.error(
            "no-name",
            &format!("{field}.delegate.name"),
            "is empty",
            "name the VirtualService that goes on",
        );
    }
    if let Some(retries) = &route.retries {
        parts::positive(report, &format!("{field}.retries.perTryTimeout"), retries.per_try_timeout);
        parts::positive(report, &format!("{field}.retries.backoff"), retries.backoff);
    }
    if let Some(fault) = &route.fault {
        if let Some(of) = &fault.delay {
            delay(report, &format!("{field}.fault.delay"), of);
        }
        if let Some(of) = &fault.abort {
            abort(report, &format!("{field}.fault.abort"), of);
        }
    }
    // Whatever is not said above, in the words of those who will do it.
    for (part, error) in action_faults(route) {
        let field = format!("{field}.{part}");
        if !report.is_wrong(&field) {
            parts::refused(report, "bad-action", &field, &error);
        }
    }
    parts::percent(report, &format!("{field}.mirrorPercentage"), route.mirror_percentage.as_ref());
    if let Some(mirror) = &route.mirror {
        parts::destination(report, &format!("{field}.mirror"), mirror);
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        parts::destination(report, &format!("{field}.mirrors[{index}].destination"), &mirror.destination);
        parts::percent(report, &format!("{field}.mirrors[{index}].percentage"), mirror.percentage.as_ref());
    }
    if let Some(cors) = &route.cors_policy {
        for (index, origin) in cors.allow_origins.iter().enumerate() {
            parts::string_match(report, &format!("{field}.corsPolicy.allowOrigins[{index}]"), origin, false);
        }
    }
}

/// A route forwards, redirects, answers or delegates: exactly one of them.
fn one_action(report: &mut Report<'_>, field: &str, route: &HttpRoute) {
    let actions = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    let named: Vec<_> = actions.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    match &named[..] {
        [] => report.error(
            "no-route",
            field,
            "does nothing",
            "add `route`, `redirect`, `directResponse` or `delegate`",
        ),
        [one] if route.rewrite.is_some() && matches!(*one, "redirect" | "directResponse") => {
            let field = format!("{field}.rewrite");
            report.error(
                "conflict",
                &field,
                format!("stands beside `{one}`, which forwards nothing"),
                "keep one of the two",
            );
        }
        [_] => {}
        [first, second, ..] => {
            let field = format!("{field}.{second}");
            report.error(
                "conflict",
                &field,
                format!("stands beside `{first}`"),
                format!("keep one of {}", named.join(", ")),
            );
        }
    }
}

fn headers(report: &mut Report<'_>, field: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    for (side, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        for (verb, values) in [("set", &operations.set), ("add", &operations.add)] {
            for (name, value) in values {
                let mut field = format!("{field}.{side}.{verb}");
                crate::config::spans::push_key(&mut field, name);
                changed_header(report, &field, name);
                if let Some(operator) = operator(value) {
                    let message =
                        format!("`{operator}` is sent as it stands: Envoy's operators are not read");
                    report.warning("literal-value", &field, message, "write the value itself");
                }
                if http::HeaderValue::from_str(value).is_err() {
                    report.error(
                        "bad-header",
                        &field,
                        "the value has control characters",
                        "write visible characters alone",
                    );
                }
            }
        }
        for (index, name) in operations.remove.iter().enumerate() {
            changed_header(report, &format!("{field}.{side}.remove[{index}]"), name);
        }
    }
}

/// What Envoy would take for an operator such as `%REQ(x-user)%` or `%PROTOCOL%`.
fn operator(value: &str) -> Option<&str> {
    value.match_indices('%').find_map(|(begin, _)| {
        let rest = &value[begin + 1..];
        let name = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let end = match rest.as_bytes().get(name)? {
            b'%' => name,
            b'(' => name + rest[name..].find('%')?,
            _ => return None,
        };
        let is_word = rest.starts_with(|c: char| c.is_ascii_uppercase());
        is_word.then(|| &value[begin..begin + end + 2])
    })
}

fn changed_header(report: &mut Report<'_>, field: &str, name: &str) {
    if name.eq_ignore_ascii_case(":authority") {
        return;
    }
    if name.starts_with(':') {
        report.error(
            "bad-header",
            field,
            format!("`{name}` cannot be changed here"),
            "use `rewrite` for path and authority",
        );
    } else {
        parts::header_name(report, field, name);
    }
}

fn redirect(report: &mut Report<'_>, field: &str, of: &HttpRedirect) {
    if of.redirect_code.is_some_and(|code| !matches!(code, 301 | 302 | 303 | 307 | 308)) {
        let field = format!("{field}.redirectCode");
        report.error("bad-status", &field, "is no redirect", "write 301, 302, 303, 307 or 308");
    }
    for (one, other, both) in [
        ("uri", "prefixRewrite", of.uri.is_some() && of.prefix_rewrite.is_some()),
        ("port", "derivePort", of.port.is_some() && of.derive_port.is_some()),
    ] {
        if both {
            report.error(
                "conflict",
                &format!("{field}.{other}"),
                format!("stands beside `{one}`"),
                "keep one of the two",
            );
        }
    }
    if *of == (HttpRedirect { redirect_code: of.redirect_code, ..HttpRedirect::default() }) {
        let hint = "add `uri`, `prefixRewrite`, `authority`, `port` or `scheme`";
        report.error("empty-redirect", field, "leads back to the same place", hint);
    }
    if let Some(port) = of.port {
        parts::port(report, &format!("{field}.port"), port);
    }
    if of.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        report.error("bad-scheme", &format!("{field}.scheme"), "is no scheme of HTTP", "write http or https");
    }
}

fn direct_response(report: &mut Report<'_>, field: &str, of: &HttpDirectResponse) {
    if !(200..=599).contains(&of.status) {
        report.error(
            "bad-status",
            &format!("{field}.status"),
            format!("`{}` is no final status", of.status),
            "write 200 to 599",
        );
    }
    let Some(body) = &of.body else { return };
    if body.string.is_some() == body.bytes.is_some() {
        report.error(
            "bad-body",
            &format!("{field}.body"),
            "has not exactly one form",
            "write either `string` or `bytes`",
        );
    }
    let length =
        body.string.as_ref().map_or(0, String::len).max(body.bytes.as_ref().map_or(0, |bytes| bytes.0.len()));
    if length > MAX_BODY_BYTES {
        report.error(
            "body-too-large",
            &format!("{field}.body"),
            "is larger than 1 MiB",
            "serve large bodies from a service",
        );
    }
}

fn rewrite(report: &mut Report<'_>, field: &str, of: &HttpRewrite) {
    if of.uri.is_some() && of.uri_regex_rewrite.is_some() {
        report.error(
            "conflict",
            &format!("{field}.uriRegexRewrite"),
            "stands beside `uri`",
            "keep one of the two",
        );
    }
    if let Some(uri) = of.uri.as_deref().filter(|uri| !uri.is_empty() && !uri.starts_with('/')) {
        let message = format!("`{uri}` is taken for `/{uri}`: a path begins with `/`");
        report.warning("no-slash", &format!("{field}.uri"), message, format!("write `/{uri}`"));
    }
    if *of == HttpRewrite::default() {
        report.error(
            "empty-rewrite",
            field,
            "changes nothing",
            "add `uri`, `authority` or `uriRegexRewrite`",
        );
    }
    if let Some(regex) = &of.uri_regex_rewrite {
        parts::regex(report, &format!("{field}.uriRegexRewrite.match"), &regex.pattern);
    }
}

fn delay(report: &mut Report<'_>, field: &str, of: &FaultDelay) {
    if of.fixed_delay.is_none() {
        report.error("no-delay", &format!("{field}.fixedDelay"), "is missing", "write how long, as in `3s`");
    }
    parts::positive(report, &format!("{field}.fixedDelay"), of.fixed_delay);
    parts::percent(report, &format!("{field}.percentage"), of.percentage.as_ref());
}

fn abort(report: &mut Report<'_>, field: &str, of: &FaultAbort) {
    if of.http_status.is_some() == of.grpc_status.is_some() {
        report.error(
            "bad-abort",
            field,
            "has not exactly one status",
            "write either `httpStatus` or `grpcStatus`",
        );
    }
    if of.http_status.is_some_and(|status| !(200..=599).contains(&status)) {
        report.error("bad-status", &format!("{field}.httpStatus"), "is no final status", "write 200 to 599");
    }
    parts::percent(report, &format!("{field}.percentage"), of.percentage.as_ref());
}
