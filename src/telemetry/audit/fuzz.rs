//! What the fuzz target does with bytes from outside.

use super::verify::{Report, Verifier};
use std::path::Path;

/// No panic; and of a chain that is intact no byte can be another one.
pub fn audit(data: &[u8]) {
    let report = verify(data);
    if report.is_intact() && !data.is_empty() {
        for at in [0, data.len() / 3, data.len() / 2, data.len() - 1] {
            let mut changed = data.to_owned();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1;
            }
            assert!(!verify(&changed).is_intact(), "byte {at}");
        }
    }
}

fn verify(mut data: &[u8]) -> Report {
    let mut verifier = Verifier::default();
    let read = verifier.read(Path::new("audit.jsonl"), &mut data);
    assert!(read.is_ok(), "memory can be read");
    verifier.report()
}
