//! What the proxy tells of its decisions and what it hides, as its Proxy object says.

use crate::config::resources::Resource;
use crate::config::resources::proxy::Proxy;
use crate::proxy::Reporting;
use crate::telemetry::redact::{MIN_KEY_BYTES, Redaction};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// What is read of a key file.
const MAX_KEY_BYTES: u64 = 4096;

/// The settings, compiled, and what of them cannot be used as written. Relative paths start from the folder of the Proxy's file.
///
/// A key that cannot be used is no reason to show what was to be hidden: then the process has a key of its own.
///
/// # Errors
///
/// When nothing can be hidden as it is asked for: names the field.
pub(super) fn reporting(proxy: &Proxy, object: &Resource) -> Result<(Reporting, Option<String>), String> {
    let mut rules = proxy.redaction.rules();
    let mut unusable = None;
    if let Some(key) = &proxy.redaction.pseudonym_key {
        let file = object.place("").file;
        let path = Path::new(&*file).parent().unwrap_or(Path::new("")).join(&key.file);
        match read_key(&path) {
            Ok(key) => rules.key = Some(key),
            Err(why) => {
                unusable = Some(format!(
                    "spec.redaction.pseudonymKey.file: {} {why}; until it can be used, pseudonyms change with every start",
                    path.display()
                ));
            }
        }
    }
    let redaction = Redaction::new(&rules).map_err(|error| format!("spec.redaction.{error}"))?;
    let one_in = one_in(proxy.explain.allowed_percent);
    Ok((Reporting { header: proxy.explain.header, one_in, redaction }, unusable))
}

/// A key, of a file that may be long but is no device.
fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    let mut key = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut key));
    match read {
        Ok(MIN_KEY_BYTES..) => Ok(key),
        Ok(bytes) => Err(format!("has {bytes} bytes, use {MIN_KEY_BYTES} or more random ones")),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// One of how many; 0: none.
fn one_in(percent: f64) -> u32 {
    if percent > 0.0 {
        // Bounded by both ends, so the cast cuts nothing off.
        (100.0 / percent).round().clamp(1.0, f64::from(u32::MAX)) as u32
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::one_in;

    #[test]
    fn a_share_in_percent_is_one_of_so_many() {
        let cases =
            [(0.0, 0), (100.0, 1), (1.0, 100), (0.1, 1_000), (30.0, 3), (1e-12, u32::MAX), (f64::NAN, 0)];
        for (percent, expected) in cases {
            assert_eq!(one_in(percent), expected, "{percent}");
        }
    }
}
