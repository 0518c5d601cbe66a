//! The access logs of a worker.

use super::Worker;
use crate::telemetry::access_log::{self, Format, Formatter, Kept};
use crate::telemetry::log_sink::{LogSink, WorkerLog};
use crate::telemetry::redact::{HIDDEN, Redaction, Treatment};
use filter_api::Facts;
use http::header::HOST;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::cell::Ref;
use std::sync::Arc;

/// One access log: where, and in which form.
#[derive(Clone, Debug)]
pub struct LogTarget {
    /// The file.
    pub sink: LogSink,
    /// The line.
    pub format: Arc<Format>,
}

#[derive(Default)]
pub(super) struct Logs {
    of: Option<Arc<Vec<LogTarget>>>,
    pub(super) sinks: Vec<(WorkerLog, Arc<Format>)>,
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
    /// Some value that lines show has to be redacted first.
    redacts: bool,
    formatter: Formatter,
}

/// What is kept of every request, log or not: by them people ask about a decision.
const ALWAYS: [HeaderName; 2] = [HOST, HeaderName::from_static("x-request-id")];

impl Worker {
    pub(super) fn reconcile_logs(&self) {
        let targets = self.shared.logs.load_full();
        let mut logs = self.logs.borrow_mut();
        if logs.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &targets)) {
            return;
        }
        logs.sinks = targets.iter().map(|target| (target.sink.worker(), target.format.clone())).collect();
        for (log, _) in &logs.sinks {
            tokio::task::spawn_local(log.clone().flush_in_time());
        }
        logs.request_headers =
            targets.iter().flat_map(|target| target.format.request_headers()).chain(ALWAYS).collect();
        logs.response_headers = targets.iter().flat_map(|target| target.format.response_headers()).collect();
        logs.request_headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        logs.request_headers.dedup();
        logs.response_headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        logs.response_headers.dedup();
        let redaction = self.redaction();
        let mut shown = logs.request_headers.iter().chain(&logs.response_headers);
        let redacts = redaction.has_masks() || shown.any(|name| redaction.treatment(name) != Treatment::Text);
        logs.redacts = redacts;
        logs.of = Some(targets);
    }

    /// True when an access log is written.
    pub(crate) fn logs(&self) -> bool {
        !self.logs.borrow().sinks.is_empty()
    }

    /// Request headers that a log line shows.
    pub(crate) fn log_request_headers(&self) -> Ref<'_, Vec<HeaderName>> {
        Ref::map(self.logs.borrow(), |logs| &logs.request_headers)
    }

    /// Response headers that a log line shows.
    pub(crate) fn log_response_headers(&self) -> Ref<'_, Vec<HeaderName>> {
        Ref::map(self.logs.borrow(), |logs| &logs.response_headers)
    }

    /// Writes a line to every access log, without the secrets of its header fields. Header values are those of `log_request_headers` and `log_response_headers`, in their order.
    pub(crate) fn log(
        &self,
        record: access_log::Record<'_>,
        request: &[Option<HeaderValue>],
        response: &[Option<HeaderValue>],
    ) {
        let mut logs = self.logs.borrow_mut();
        let Logs { sinks, request_headers, response_headers, formatter, redacts, .. } = &mut *logs;
        let (shown_request, shown_response);
        let (request, response) = if *redacts {
            let redaction = self.redaction();
            shown_request = redacted(request_headers, request, &redaction);
            shown_response = redacted(response_headers, response, &redaction);
            (&*shown_request, &*shown_response)
        } else {
            (request, response)
        };
        let request = Kept::new(request_headers, request);
        let response = Kept::new(response_headers, response);
        // For the borrows of this function alone.
        let mut record: access_log::Record<'_> = record;
        record.request_headers = Some(&request);
        record.response_headers = Some(&response);
        for (log, format) in sinks {
            log.line(|line| formatter.write(format, &record, line));
        }
    }

    /// What the log shows as authority.
    pub(crate) fn logged_authority<'a>(&self, facts: &'a Facts) -> Option<&'a str> {
        let logs = self.logs.borrow();
        let place = logs.request_headers.iter().position(|name| name == HOST)?;
        facts.kept_headers.get(place)?.as_ref()?.to_str().ok()
    }
}

/// Header values as a line may show them.
fn redacted(
    names: &[HeaderName],
    values: &[Option<HeaderValue>],
    redaction: &Redaction,
) -> SmallVec<[Option<HeaderValue>; 5]> {
    let shown = |name, value: &HeaderValue| {
        if redaction.treatment(name) == Treatment::Text && !redaction.has_masks() {
            return value.clone();
        }
        let shown = redaction.header(name, value);
        HeaderValue::from_bytes(shown.as_bytes()).unwrap_or(HeaderValue::from_static(HIDDEN))
    };
    names.iter().zip(values).map(|(name, value)| value.as_ref().map(|value| shown(name, value))).collect()
}
