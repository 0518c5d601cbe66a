//! Prometheus' text format 0.0.4.

use std::fmt::Write as _;

use super::metrics::{Buckets, FamilyScrape, Kind, Scrape, SeriesScrape, Value};

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders families in the order given; a family without series is left out.
#[must_use]
pub fn render(scrape: &Scrape) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for family in scrape.families.iter().filter(|family| !family.series.is_empty()) {
        let kind = match family.spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let name = family.spec.name;
        push(&mut out, &["# HELP ", name, " "]);
        escape(family.spec.help, false, &mut out);
        push(&mut out, &["\n# TYPE ", name, " ", kind, "\n"]);
        for series in &family.series {
            render_series(family, series, &mut out);
        }
    }
    out
}

/// The upper bound of a bucket as `le` shows it.
#[must_use]
pub fn bound(buckets: &Buckets, bound: u64) -> String {
    scaled(bound, buckets.divisor())
}

fn render_series(family: &FamilyScrape, series: &SeriesScrape, out: &mut String) {
    let name = family.spec.name;
    match &series.value {
        Value::Counter(value) => sample(name, "", family, series, None, &value.to_string(), out),
        Value::Gauge(value) => sample(name, "", family, series, None, &value.to_string(), out),
        Value::Float(value) => sample(name, "", family, series, None, &value.to_string(), out),
        Value::Histogram { buckets, counts, sum } => {
            let bounds = buckets.bounds().iter().map(|limit| bound(buckets, *limit));
            let mut total: u64 = 0;
            for (le, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
                total = total.wrapping_add(*count);
                sample(name, "_bucket", family, series, Some(&le), &total.to_string(), out);
            }
            sample(name, "_sum", family, series, None, &scaled(*sum, buckets.divisor()), out);
            sample(name, "_count", family, series, None, &total.to_string(), out);
        }
    }
}

fn sample(
    name: &str,
    suffix: &str,
    family: &FamilyScrape,
    series: &SeriesScrape,
    le: Option<&str>,
    value: &str,
    out: &mut String,
) {
    push(out, &[name, suffix]);
    let mut mark = "{";
    let labels = family.labels.iter().copied().zip(series.values.iter().map(|value| &**value));
    for (label, value) in labels.chain(le.map(|le| ("le", le))) {
        push(out, &[mark, label, "=\""]);
        escape(value, true, out);
        out.push('"');
        mark = ",";
    }
    push(out, &[if mark == "," { "} " } else { " " }, value, "\n"]);
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// `value / divisor` without a float's rounding.
fn scaled(value: u64, divisor: u64) -> String {
    let mut text = (value / divisor).to_string();
    let rest = value % divisor;
    if rest > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, ".{rest:03}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

#[cfg(test)]
mod tests;
