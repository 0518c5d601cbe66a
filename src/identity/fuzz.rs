//! What the fuzz targets of this module do with bytes from outside; see `src/proxy/fuzz.rs`.

use super::certificate::Read;
use super::judge::workload;
use super::spiffe;

/// An id that is read is written the same.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(principal) = spiffe::parse(text) {
        assert_eq!(format!("spiffe://{principal}"), text);
        let parts = [principal.trust_domain(), principal.namespace(), principal.service_account()];
        assert!(parts.iter().all(|part| !part.is_empty() && !part.contains(['/', '\0', '%'])), "{text:?}");
    }
}

/// Reading never panics, a subject fits into a header as it is, and an identity is that of the one URI.
pub fn certificate(data: &[u8]) {
    let Ok(read) = Read::new(data) else { return };
    assert!(
        read.subject.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b'"'),
        "{}",
        read.subject
    );
    if let Ok(principal) = workload(&read) {
        assert_eq!(read.uris.len(), 1);
        assert_eq!(*read.uris[0], *format!("spiffe://{principal}"));
    }
}
