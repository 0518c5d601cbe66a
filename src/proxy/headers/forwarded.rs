//! Where a request came from: `x-forwarded-for`, `x-forwarded-proto`, `x-envoy-external-address` and `x-request-id`.

use std::io::Write;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{Entry, OccupiedEntry};
use http::{HeaderMap, HeaderName, HeaderValue};

/// `x-forwarded-for`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-envoy-external-address`.
pub const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// `x-request-id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest `x-request-id` kept, in bytes: it goes into every log line and span.
const MAX_REQUEST_ID: usize = 128;

/// Appends the address of the peer to `x-forwarded-for`, joining several lines into one; an IPv4 address
/// mapped into IPv6 is written as IPv4. As in Envoy, the separator is a bare comma.
pub fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut joined = Vec::with_capacity(48);
    for value in headers.get_all(&X_FORWARDED_FOR) {
        joined.extend_from_slice(value.as_bytes());
        joined.push(b',');
    }
    // Neither can fail: a Vec grows, and header values joined by commas are a header value.
    if write!(joined, "{}", peer.to_canonical()).is_ok()
        && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(joined))
    {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// Sets `x-envoy-external-address` to the address of the client, as Envoy does where a request enters the mesh.
pub fn set_external_address(headers: &mut HeaderMap, client: IpAddr) {
    let mut text = Vec::with_capacity(48);
    if write!(text, "{client}").is_ok()
        && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text))
    {
        headers.insert(X_ENVOY_EXTERNAL_ADDRESS, value);
    }
}

/// The address of the client where requests enter the mesh, as far as it can be believed: with `hops` trusted proxies before us, the one that
/// the outermost of them wrote, that is, the `hops`-th from the right in `x-forwarded-for` (Envoy's `xff_num_trusted_hops` with
/// `use_remote_address`). With no such proxy, too short a list, or no address at that place, it is the `peer`. To be called before
/// [`append_forwarded_for`].
#[must_use]
pub fn client_at_edge(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    hops.checked_sub(1).and_then(|skip| forwarded_for(headers, skip)).unwrap_or(peer).to_canonical()
}

/// The address of the client within the mesh: the last in `x-forwarded-for`, which the gateway wrote, after `hops` others (Envoy's
/// `xff_num_trusted_hops` without `use_remote_address`). With too short a list, or no address at that place, it is the `peer`.
#[must_use]
pub fn client_within(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    forwarded_for(headers, hops).unwrap_or(peer).to_canonical()
}

/// The address in `x-forwarded-for` from the right, after `skip` others. An IPv6 zone or a port makes it none.
fn forwarded_for(headers: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
    let text = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')).nth(skip)?;
    std::str::from_utf8(text.trim_ascii()).ok()?.parse::<IpAddr>().ok()
}

/// Sets `x-forwarded-proto` to the scheme by which the request reached us. What a `trusted` peer says, which
/// may have ended TLS itself, stays if it is `http` or `https` and said once.
pub fn set_forwarded_proto(headers: &mut HeaderMap, tls: bool, trusted: bool) {
    let ours = HeaderValue::from_static(if tls { "https" } else { "http" });
    match headers.entry(X_FORWARDED_PROTO) {
        Entry::Vacant(place) => {
            place.insert(ours);
        }
        Entry::Occupied(mut said) => {
            let kept = trusted && matches!(only(&said), Some(b"http" | b"https"));
            if !kept {
                said.insert(ours);
            }
        }
    }
}

/// Makes sure that the request has one `x-request-id`: that of a `trusted` peer, when it is of at most 128
/// visible ASCII bytes, or a new random UUID (RFC 9562 version 4).
pub fn ensure_request_id(headers: &mut HeaderMap, trusted: bool) {
    let new = || {
        let mut value = HeaderValue::from_bytes(&request_id(fastrand::u128(..))).ok()?;
        // Never the same twice: an HPACK table must not be filled with it.
        value.set_sensitive(true);
        Some(value)
    };
    match headers.entry(X_REQUEST_ID) {
        Entry::Vacant(place) => {
            new().map(|value| place.insert(value));
        }
        Entry::Occupied(mut said) => {
            let kept = trusted
                && only(&said).is_some_and(|one| {
                    (1..=MAX_REQUEST_ID).contains(&one.len()) && one.iter().all(u8::is_ascii_graphic)
                });
            if !kept && let Some(value) = new() {
                said.insert(value);
            }
        }
    }
}

/// The value of a header that was said once.
fn only<'a>(said: &'a OccupiedEntry<'_, HeaderValue>) -> Option<&'a [u8]> {
    let mut values = said.iter();
    match (values.next(), values.next()) {
        (Some(one), None) => Some(one.as_bytes()),
        _ => None,
    }
}

/// A version 4 UUID as text, out of 128 random bits. It names a request and protects nothing, so the bits need
/// not be hard to guess.
#[must_use]
pub fn request_id(random: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = random.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(lines: &[&str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn the_peer_is_appended_to_all_that_was_said() {
        for (lines, peer, expected) in [
            (&[][..], "10.0.0.1", "10.0.0.1"),
            (&["1.2.3.4"], "::1", "1.2.3.4,::1"),
            (&["1.2.3.4, 5.6.7.8", "garbage"], "::ffff:10.0.0.1", "1.2.3.4, 5.6.7.8,garbage,10.0.0.1"),
        ] {
            let mut headers = forwarded(lines);
            append_forwarded_for(&mut headers, peer.parse().unwrap());
            let said: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
            assert_eq!(said, [expected]);
        }
    }

    #[test]
    fn only_what_a_trusted_hop_wrote_is_believed() {
        let lines = &["6.6.6.6, 1.1.1.1", "2.2.2.2 ,::ffff:3.3.3.3"][..];
        let nobody = "9.9.9.9";
        for (lines, hops, at_edge, within) in [
            (lines, 0, nobody, "3.3.3.3"),
            (lines, 1, "3.3.3.3", "2.2.2.2"),
            (lines, 2, "2.2.2.2", "1.1.1.1"),
            (lines, 3, "1.1.1.1", "6.6.6.6"),
            (lines, 4, "6.6.6.6", nobody),
            (lines, 5, nobody, nobody),
            (lines, usize::MAX, nobody, nobody),
            (&["1.1.1.1,2001:DB8::1"], 1, "2001:db8::1", "1.1.1.1"),
            (&["1.1.1.1,fe80::1%eth0"], 1, nobody, "1.1.1.1"),
            (&["1.1.1.1:80,"], 1, nobody, nobody),
            (&["1.1.1.1:80,[::1]"], 1, nobody, nobody),
            (&["1.1.1.1, 01.2.3.4"], 1, nobody, "1.1.1.1"),
            (&["\u{e9}, 1.1.1.1"], 1, "1.1.1.1", nobody),
            (&["unknown, 1.1.1.1 2.2.2.2"], 1, nobody, nobody),
            (&[""], 1, nobody, nobody),
            (&[], 1, nobody, nobody),
        ] {
            let peer = "::ffff:9.9.9.9".parse().unwrap();
            let headers = forwarded(lines);
            assert_eq!(client_at_edge(&headers, peer, hops).to_string(), at_edge, "{lines:?} {hops}");
            assert_eq!(client_within(&headers, peer, hops).to_string(), within, "{lines:?} {hops}");
        }
    }

    #[test]
    fn the_scheme_is_ours_unless_a_trusted_peer_says_better() {
        let proto = |said: &[&str], tls, trusted| {
            let mut headers: HeaderMap =
                said.iter().map(|said| (X_FORWARDED_PROTO, said.parse().unwrap())).collect();
            set_forwarded_proto(&mut headers, tls, trusted);
            let said: Vec<_> = headers.get_all(X_FORWARDED_PROTO).iter().cloned().collect();
            assert_eq!(said.len(), 1);
            said[0].to_str().unwrap().to_owned()
        };
        assert_eq!(proto(&[], false, true), "http");
        assert_eq!(proto(&[], true, false), "https");
        assert_eq!(proto(&["https"], false, true), "https");
        assert_eq!(proto(&["https"], false, false), "http");
        assert_eq!(proto(&["ftp"], true, true), "https");
        assert_eq!(proto(&["http", "https"], true, true), "https");
    }

    #[test]
    fn a_request_id_is_kept_from_a_trusted_peer_only() {
        let id = |said: &[&str], trusted| {
            let mut headers: HeaderMap =
                said.iter().map(|said| (X_REQUEST_ID, said.parse().unwrap())).collect();
            ensure_request_id(&mut headers, trusted);
            let said: Vec<_> = headers.get_all(X_REQUEST_ID).iter().cloned().collect();
            assert_eq!(said.len(), 1);
            said[0].to_str().unwrap().to_owned()
        };
        assert_eq!(id(&["abc"], true), "abc");
        let long = "a".repeat(129);
        for (said, trusted) in [
            (&[][..], true),
            (&["abc"], false),
            (&["a", "b"], true),
            (&[""], true),
            (&["a b"], true),
            (&[&long], true),
        ] {
            let made = id(said, trusted);
            assert_eq!(made.len(), 36, "{said:?}");
            assert_ne!(made, id(said, trusted));
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_of_version_4() {
        let text = |random| String::from_utf8(request_id(random).to_vec()).unwrap();
        assert_eq!(text(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(text(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(text(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), "01234567-89ab-4def-8123-456789abcdef");
    }
}
