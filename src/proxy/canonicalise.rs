//! Makes the head of a request canonical, once, before anything decides on it: what matching and policy read is what the upstream gets.

use super::authority::{Authority, request_authority};
use super::canonical::{Canonical, canonical};
use super::extended_connect;
use super::headers::{self, HeadLimits, HeadRefusal, Present, forwarded, grpc};
use super::worker::Worker;
use super::xfcc::{self, XFCC};
use crate::mesh::{ForwardClientCert, HttpChain};
use crate::snapshot::Http;
use filter_api::{Error, Peer, Reason, Request};
use http::header::{CONTENT_LENGTH, EXPECT, Entry, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Version};
use std::net::IpAddr;

/// Refuses what could be read in two ways, removes what belongs to the connection, writes the rest in one way.
pub(crate) fn check(worker: &Worker, request: &mut Request) -> Result<(), Error> {
    let chain = request.cx.chain.clone();
    let Some(http) = chain.downcast_ref::<Http>() else { return Err(Reason::Internal.into()) };
    let settings = &*http.mesh;
    if let Some(why) = request.cx.facts.borrow().refused.clone() {
        return Err(Error::new(Reason::ConnectionRefused).detail(why.to_string()).closing());
    }
    let tls = request.cx.connection.tls.as_ref();
    let peer = tls.and_then(|tls| tls.peer.as_deref());
    let present = Present::of(&request.head.headers);
    let mut caller = Caller::new(settings, &request.head.headers, present, request.cx.connection.remote.ip());
    caller.secure = tls.is_some();
    let told = present.client_cert.then(|| taken(&mut request.head.headers));
    let result = make_canonical(settings, &mut request.head, caller, present);
    if result.is_err() {
        show_authority(&mut request.head);
    }
    tell_certificate(worker, settings, &mut request.head.headers, (peer, told));
    request.body.limit(settings.max_body_bytes);
    let mut facts = request.cx.facts.borrow_mut();
    facts.client = Some(caller.client);
    let readable = result.as_ref().map_or_else(|error| error.reason() == Reason::BodyTooLarge, |()| true);
    facts.grpc = readable && present.content_type && grpc::is_grpc(&request.head.headers);
    facts.method = Some(request.head.method.clone());
    facts.target = Some(request.head.uri.clone());
    let headers = &request.head.headers;
    if settings.audited {
        facts.host = headers.get(HOST).cloned();
        facts.request_id = headers.get(forwarded::X_REQUEST_ID).cloned();
    }
    facts.kept_headers = worker.log_request_headers().iter().map(|name| headers.get(name).cloned()).collect();
    drop(facts);
    // A body that is too long is counted where the exchange ends, for it may show late.
    if let Err(error) = result.as_ref()
        && error.reason() != Reason::BodyTooLarge
    {
        worker.count_limit(error.reason());
    }
    result
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
struct Caller {
    /// The peer, as PROXY protocol or the kernel says.
    peer: IpAddr,
    /// The client, as far as it can be believed.
    client: IpAddr,
    /// It speaks TLS with us.
    secure: bool,
}

impl Caller {
    fn new(settings: &HttpChain, headers: &HeaderMap, present: Present, peer: IpAddr) -> Self {
        let hops = settings.trusted_hops as usize;
        let client = match settings.edge {
            _ if !present.forwarded_for => peer.to_canonical(),
            true => forwarded::client_at_edge(headers, peer, hops),
            false => forwarded::client_within(headers, peer, hops),
        };
        Self { peer, client, secure: false }
    }
}

/// The client of a request of `peer`, from its head as it came.
pub(crate) fn client_of(settings: &HttpChain, head: &Parts, peer: IpAddr) -> IpAddr {
    Caller::new(settings, &head.headers, Present::of(&head.headers), peer).client
}

/// Makes a head canonical as these settings say, for a request of `peer`. Pure: the data path and `explain` call the same.
pub(crate) fn canonicalise(settings: &HttpChain, head: &mut Parts, peer: IpAddr) -> Result<(), Error> {
    let present = Present::of(&head.headers);
    let caller = Caller::new(settings, &head.headers, present, peer);
    make_canonical(settings, head, caller, present)
}

/// `present`: of the head as it came.
fn make_canonical(
    settings: &HttpChain,
    head: &mut Parts,
    caller: Caller,
    present: Present,
) -> Result<(), Error> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let limits = HeadLimits {
        max_count: settings.max_headers as usize,
        max_bytes: settings.max_header_bytes as usize,
        ..HeadLimits::default()
    };
    let version = head.version;
    let refuse_head = |refusal| refuse_head(refusal, version);
    let seen = headers::inspect(version, target, &head.headers, &limits).map_err(refuse_head)?;
    if head.method == Method::CONNECT {
        headers::check_connect(&mut head.headers).map_err(refuse_head)?;
    }
    check_scheme(head)?;
    // Asked before anything is removed: whether the tunnel is wanted is known from the head as it came. That of HTTP/2 is an extended CONNECT.
    let upgrade = settings.upgrades
        && head.version >= Version::HTTP_11
        && !(present.upgrade
            && (extended_connect::offers_http2(&head.headers) || upgrades_with_body(&head.headers)));
    let authority = request_authority(head.version, &head.method, &head.uri, &head.headers)
        .map_err(|refusal| Error::new(Reason::BadAuthority).detail(refusal.to_string()).closing())?;
    if let Some(authority) = &authority
        && !serves(settings, &authority.host)
    {
        let detail = format!("this TLS server does not serve {}", authority.host);
        return Err(Error::new(Reason::Misdirected).detail(detail));
    }
    let rewritten = match canonical(&head.method, &head.uri, settings.path_normalization) {
        Ok(Canonical::Unchanged) => None,
        Ok(Canonical::Rewritten(target)) => Some(target),
        Err(refusal) => return Err(Error::new(Reason::BadPath).detail(refusal.to_string())),
    };
    // HTTP/2 names its host in the target, HTTP/1 in a header that policy and upstream read. One of both is enough inside.
    let host = match &authority {
        Some(authority) if needs_host(authority, head.headers.get(HOST)) => {
            HeaderValue::from_maybe_shared(authority.to_bytes()).ok()
        }
        _ => None,
    };
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    let absolute = head.version != Version::HTTP_2 && head.uri.scheme().is_some();
    if rewritten.is_some() || absolute {
        retarget(&mut head.uri, rewritten, &head.method)?;
    }
    headers::strip_hop_by_hop(&mut head.headers, seen, upgrade).map_err(refuse_head)?;
    extended_connect::check(head)?;
    headers::join_cookies(&mut head.headers, seen);
    if settings.edge {
        headers::strip_control(&mut head.headers, seen);
        forwarded::append_forwarded_for(&mut head.headers, caller.peer);
        forwarded::set_external_address(&mut head.headers, caller.client);
    }
    forwarded::set_forwarded_proto(
        &mut head.headers,
        caller.secure,
        !settings.edge || settings.trusted_hops > 0,
    );
    forwarded::ensure_request_id(&mut head.headers, !settings.edge || settings.trusted_hops > 0);
    // Over HTTP/1 hyper answers `100 Continue` as soon as the upstream wants the body: the expectation ends here. Over HTTP/2 it does not,
    // so the next server is asked (RFC 9110 section 10.1.1), whose refusal need not wait for the body.
    if present.expect
        && head.version != Version::HTTP_2
        && head.headers.get(EXPECT).is_some_and(expects_continue)
    {
        head.headers.remove(EXPECT);
    }
    if present.content_length { check_length(settings.max_body_bytes, &head.headers) } else { Ok(()) }
}

/// Whether a request that asks for an upgrade has a body. A server may ignore such a wish (RFC 9110 section 7.8), so it goes on without: else bytes of the
/// client would reach the server before it has agreed, and be taken for the tunnel's.
fn upgrades_with_body(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && (headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0"))
}

/// HTTP is all that is forwarded here, whatever scheme a target names (RFC 9110 section 7.1; Envoy refuses the same).
fn check_scheme(head: &Parts) -> Result<(), Error> {
    let Some(scheme) = head.uri.scheme() else { return Ok(()) };
    if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS {
        return Ok(());
    }
    let details = match head.version {
        Version::HTTP_2 => "http2.violation.of.messaging.rule",
        _ => "http1.invalid_scheme",
    };
    let detail = format!("the scheme of its target is {scheme}, and only http and https are served");
    Err(Error::new(Reason::BadAuthority).details(details).detail(detail).closing())
}

/// The log shows the authority of a refused request, too, wherever it stood.
fn show_authority(head: &mut Parts) {
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
        && let Entry::Vacant(place) = head.headers.entry(HOST)
    {
        place.insert(host);
    }
}

fn expects_continue(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Refuses a body that says itself that it is too long, before the upstream hears of it.
fn check_length(limit: u64, headers: &HeaderMap) -> Result<(), Error> {
    let length = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
    match (limit, length()) {
        (1.., Some(length)) if length > limit => {
            let detail = format!("its body has {length} bytes, and limits.maxBodyBytes allows {limit}");
            Err(Error::new(Reason::BodyTooLarge).detail(detail).closing())
        }
        _ => Ok(()),
    }
}

/// Whether a server that ends TLS serves a host; others serve all. Of several servers of a port the one that names the host most exactly does, as
/// for the server name of the handshake: else a client could reach one of them by the proof that another asks for.
fn serves(settings: &HttpChain, host: &str) -> bool {
    let rank = |patterns: &[String]| patterns.iter().filter_map(|pattern| rank(pattern, host)).max();
    let own = if settings.served_hosts.is_empty() { Some(0) } else { rank(&settings.served_hosts) };
    own.is_some_and(|own| rank(&settings.sibling_hosts).is_none_or(|other| other <= own))
}

/// How exactly a pattern names a host; `None`: not at all.
fn rank(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len() + 1),
        None => (pattern == host).then_some(usize::MAX),
    }
}

/// Takes what the client said of certificates out of the head, so that no step between can mistake it for ours.
fn taken(headers: &mut HeaderMap) -> Vec<HeaderValue> {
    match headers.entry(XFCC) {
        Entry::Occupied(said) => said.remove_entry_mult().1.collect(),
        Entry::Vacant(_) => Vec::new(),
    }
}

/// Says by which certificate the client proved itself, or what it said of others, as the chain wants it.
fn tell_certificate(
    worker: &Worker,
    settings: &HttpChain,
    headers: &mut HeaderMap,
    (peer, told): (Option<&Peer>, Option<Vec<HeaderValue>>),
) {
    let mode = match settings.forward_client_cert {
        ForwardClientCert::Sanitize => return,
        ForwardClientCert::ForwardOnly => xfcc::Mode::ForwardOnly,
        ForwardClientCert::AppendForward => xfcc::Mode::AppendForward,
        ForwardClientCert::SanitizeSet => xfcc::Mode::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly => xfcc::Mode::AlwaysForwardOnly,
    };
    for value in told.into_iter().flatten() {
        headers.append(XFCC, value);
    }
    worker.client_elements.apply(headers, mode, peer, || worker.keyring().own_uri());
}

/// The header is missing, or not written as matching reads it (case, final dot).
fn needs_host(authority: &Authority<'_>, header: Option<&HeaderValue>) -> bool {
    let Some(header) = header else { return true };
    let header = header.as_bytes();
    let Some(rest) = header.strip_prefix(authority.host.as_bytes()) else { return true };
    match authority.port {
        None => !rest.is_empty(),
        // A leading zero is read away.
        Some(_) => !matches!(rest, [b':', first, ..] if *first != b'0'),
    }
}

fn retarget(uri: &mut Uri, target: Option<PathAndQuery>, method: &Method) -> Result<(), Error> {
    let mut parts = std::mem::take(uri).into_parts();
    if let Some(target) = target {
        parts.path_and_query = Some(target);
    }
    if *method != Method::CONNECT {
        parts.scheme = None;
        parts.authority = None;
    }
    *uri = Uri::from_parts(parts).map_err(|error| Error::new(Reason::BadPath).detail(error.to_string()))?;
    Ok(())
}

fn refuse_head(refusal: HeadRefusal, version: Version) -> Error {
    let reason = match refusal {
        HeadRefusal::TooMany | HeadRefusal::TooLarge => Reason::HeadersTooLarge,
        HeadRefusal::TargetTooLong => Reason::UriTooLong,
        _ => Reason::BadFraming,
    };
    let mut error = Error::new(reason).detail(refusal.to_string());
    if let Some(details) = refusal.details(version) {
        error = error.details(details);
    }
    if refusal.closes() { error.closing() } else { error }
}

#[cfg(test)]
mod tests {
    use super::{HttpChain, serves};

    #[test]
    fn row_3_a_host_is_served_by_the_tls_server_that_names_it_most_exactly() {
        let chain = |own: &[&str], others: &[&str]| HttpChain {
            served_hosts: own.iter().map(ToString::to_string).collect(),
            sibling_hosts: others.iter().map(ToString::to_string).collect(),
            ..HttpChain::new("t".into())
        };
        let plain = chain(&[], &[]);
        assert!(serves(&plain, "any.example"), "no TLS server, or one for every host");
        let wide = chain(&["*.example"], &["secure.example"]);
        assert!(serves(&wide, "open.example"));
        assert!(!serves(&wide, "secure.example"), "whose clients may have to prove more");
        assert!(!serves(&wide, "open.other"));
        assert!(!serves(&chain(&[], &["secure.example"]), "secure.example"));
        let exact = chain(&["secure.example"], &["*.example"]);
        assert!(serves(&exact, "secure.example") && !serves(&exact, "open.example"));
        assert!(
            serves(&chain(&["a.example"], &["a.example"]), "a.example"),
            "two of one name: as the handshake chose"
        );
    }
}
