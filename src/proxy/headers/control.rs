//! Headers by which proxies speak to each other, which end where the mesh does.

use http::header::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::Seen;

/// Headers by which one proxy steers or identifies itself to the next: a name, or a prefix when it ends with
/// `-`. From a peer that is not trusted they are removed before any filter runs (CVE-2023-27487,
/// CVE-2024-45806). A prefix covers the names that Envoy, Istio and Linkerd will invent tomorrow.
pub const CONTROL: &[&str] = &[
    // Envoy, "HTTP header sanitizing": x-envoy-retry-on, -max-retries, -upstream-rq-timeout-ms,
    // -original-dst-host, -original-path, -internal, -decorator-operation, -peer-metadata and all others.
    "x-envoy-",
    // Istio: x-istio-source, x-istio-attributes.
    "x-istio-",
    // Linkerd: l5d-client-id, l5d-dst-override, l5d-require-id and all others.
    "l5d-",
    // The peer's certificate, as the hop before says it saw it.
    "x-forwarded-client-cert",
];

/// Removes every header of [`CONTROL`]; for heads of peers that are not trusted.
pub fn strip_control(headers: &mut HeaderMap, seen: Seen) {
    if seen.control() {
        remove_control(headers);
    }
}

/// Removes every header of [`CONTROL`] from an answer that leaves the mesh: they tell of its inside, and steer proxies and health checks.
pub fn strip_control_of_response(headers: &mut HeaderMap) {
    if headers.keys().any(is_control) {
        remove_control(headers);
    }
}

fn remove_control(headers: &mut HeaderMap) {
    let doomed: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| is_control(name)).cloned().collect();
    for name in &doomed {
        headers.remove(name);
    }
}

/// Whether a name is in [`CONTROL`].
pub(super) fn is_control(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Every name of the table starts so; most headers do not.
    if !matches!(name.as_bytes().first(), Some(b'x' | b'l')) {
        return false;
    }
    CONTROL.iter().any(|entry| if entry.ends_with('-') { name.starts_with(entry) } else { name == *entry })
}
