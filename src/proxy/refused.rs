//! What the codec refuses, before there is an exchange: counted and logged like any other request, with the little that is known of it.

use super::connection::Downstream;
use super::record::Recorder;
use filter_api::{Cx, Protocol, Reason, Record};
use http::Version;
use std::borrow::Cow;
use std::error::Error as _;
use std::rc::Rc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Refused {
    reason: Reason,
    /// What the client was answered; 0 is nothing.
    status: u16,
    /// Envoy's `response_code_details`, where they say more than the reason's.
    details: Option<&'static str>,
    because: Cow<'static, str>,
}

impl Refused {
    /// The head that ended an HTTP/1 connection, if one did.
    pub(super) fn by_http1(error: &hyper::Error) -> Option<Self> {
        let because = error.to_string();
        let reason = match () {
            // hyper answers both by itself, and tells them apart by its words alone.
            () if error.is_parse_too_large() && because.contains("URI") => Reason::UriTooLong,
            () if error.is_parse_too_large() => Reason::HeadersTooLarge,
            () if error.is_parse() => Reason::DownstreamProtocol,
            () => return None,
        };
        Some(Self { reason, status: reason.status().as_u16(), details: None, because: because.into() })
    }

    /// The fault for which an HTTP/2 connection was ended, if one was.
    pub(super) fn by_http2(error: &hyper::Error) -> Option<Self> {
        let error = error.source()?.downcast_ref::<h2::Error>()?;
        let ours = !error.is_remote() && !error.is_io();
        let reason = error.reason().filter(|reason| ours && *reason != h2::Reason::NO_ERROR)?;
        let because = format!("the connection is ended: {}", reason.description()).into();
        Some(Self { reason: Reason::DownstreamMessage, status: 0, details: None, because })
    }

    /// A stream that the codec has reset for its own faults; `too_large`: after an answer of its own.
    pub(super) fn stream(too_large: bool) -> Self {
        let (reason, status) = match too_large {
            true => (Reason::HeadersTooLarge, Reason::HeadersTooLarge.status().as_u16()),
            false => (Reason::DownstreamMessage, 0),
        };
        Self { reason, status, details: None, because: "the stream is reset".into() }
    }

    /// A head that did not come in time.
    pub(super) fn late(answered: bool) -> Self {
        let reason = Reason::DownstreamTimeout;
        let status = if answered { reason.status().as_u16() } else { 0 };
        let details = Some("request_header_timeout");
        Self { reason, status, details, because: "the head did not arrive in time".into() }
    }

    /// Counts and logs it.
    pub(super) fn record(self, downstream: &Downstream) {
        let http = downstream.http();
        let cx = Cx::new(downstream.facts.clone(), http.port.clone(), http);
        {
            let mut facts = cx.facts.borrow_mut();
            facts.reasons.push(self.reason);
            facts.details = self.details.map(Cow::Borrowed);
            facts.client = Some(downstream.facts.remote.ip().to_canonical());
            let origin = filter_api::Origin::default();
            facts.records.push(Record { layer: "codec", origin, because: self.because, ruling: None });
        }
        // The worker's clock has counted those that were late.
        if self.reason != Reason::DownstreamTimeout {
            downstream.worker.count_limit(self.reason);
        }
        let version = match downstream.facts.protocol {
            Protocol::Http2 => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        Recorder::refused(&downstream.worker, cx, version, self.status);
    }
}

/// Records the streams that the codec has reset and nobody has accounted for.
pub(super) fn record_resets(downstream: &Rc<Downstream>) {
    while let Some(too_large) = downstream.conn.take_refused_stream() {
        Refused::stream(too_large).record(downstream);
    }
}
