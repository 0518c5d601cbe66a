//! What fuzzing does with paths of policies and of requests, and with answers of providers.

use crate::custom::{Verdict, apply, read_grpc};
use crate::pattern::Patterns;
use crate::template::Template;
use http::{HeaderName, HeaderValue};

/// Reads the first line as a path of a policy and the others as paths of requests. No panic; a template is shown as it reads, holds only for
/// paths that begin as it does, and one of literals alone is an exact text.
#[doc(hidden)]
pub fn fuzz_paths(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let Some(written) = lines.next() else { return };
    let mut patterns = Patterns::default();
    patterns.add(written);
    let mut globs = Patterns::default();
    globs.add_glob(written);
    let template = Template::is_template(written).then(|| Template::parse(written).ok()).flatten();
    for path in lines {
        if !written.starts_with('*') && patterns.matches(path.as_bytes()) {
            let beginning = written.strip_suffix('*').unwrap_or(written);
            assert!(path.starts_with(beginning), "{written:?} matched {path:?}");
            // Each way to write wildcards takes what the plainer one takes.
            assert!(globs.matches(path.as_bytes()), "{written:?} as a glob missed {path:?}");
        }
        let Some(template) = &template else { continue };
        assert_eq!(Template::parse(&template.to_string()).as_ref(), Ok(template));
        if template.matches(path.as_bytes()) {
            assert!(path.starts_with(template.beginning()), "{written:?} matched {path:?}");
            // `{**}` takes what `{*}` takes.
            if let Some((head, "")) = written.rsplit_once("{*}") {
                let wider = Template::parse(&format!("{head}{{**}}"));
                assert!(wider.is_ok_and(|wider| wider.matches(path.as_bytes())), "{written:?}, {path:?}");
            }
        }
    }
}

/// Reads bytes as the answer of a provider over gRPC. No panic; a verdict leaves host, framing and what the proxy vouches for alone, whatever it says.
#[doc(hidden)]
pub fn fuzz_check_response(bytes: &[u8]) {
    const KEPT: [&str; 5] =
        ["host", "content-length", "transfer-encoding", "connection", "x-forwarded-client-cert"];
    let fresh = || -> http::HeaderMap {
        KEPT.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("own"))).collect()
    };
    let kept = |headers: &http::HeaderMap, names: &[&str]| {
        for name in names {
            let values: Vec<_> = headers.get_all(*name).iter().collect();
            assert_eq!(values, ["own"], "{name} after {bytes:?}");
        }
    };
    match read_grpc(bytes) {
        Ok(Verdict::Allow(changes)) => {
            let (mut request, mut response) = (fresh(), fresh());
            changes.apply(&mut request);
            kept(&request, &KEPT);
            apply(&changes.response, &mut response);
            kept(&response, &["content-length", "transfer-encoding", "connection"]);
        }
        Ok(Verdict::Deny(refusal)) => {
            assert!(!refusal.status.is_informational());
            for grpc in [false, true] {
                let answer = refusal.answer(grpc);
                assert!(!answer.head.headers.contains_key("transfer-encoding"));
            }
        }
        Err(_) => {}
    }
}
