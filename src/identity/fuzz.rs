//! What the fuzz targets of this module do with bytes from outside; see `src/proxy/fuzz.rs`.

use bytes::Bytes;

use super::certificate::Read;
use super::judge::workload;
use super::sds;
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

/// Responses are cut out of a stream alike, however it arrives; what is taken holds something, and why it is not can be logged as it is.
pub fn sds_response(data: &[u8]) {
    let whole = messages(&[data]);
    let half = data.len() / 2;
    assert_eq!(whole, messages(&[&data[..half], &data[half..]]));
    for message in whole.0.iter().map(Vec::as_slice).chain([data]) {
        if let Err(why) = sds::check_response(message) {
            assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}");
        }
    }
}

/// The messages of these pieces, and whether the stream broke.
fn messages(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut frames, mut found) = (sds::Frames::default(), Vec::new());
    for piece in pieces {
        frames.push(Bytes::copy_from_slice(piece));
        loop {
            match frames.next() {
                Ok(Some(message)) => found.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}
