//! What the proxy tells of its decisions and what it hides, as its Proxy object says.

use crate::config::resources::Resource;
use crate::config::resources::proxy::Proxy;
use crate::proxy::Reporting;
use crate::telemetry::redact::Redaction;
use std::path::Path;

/// The settings, compiled. Relative paths start from the folder of the Proxy's file.
///
/// # Errors
///
/// Names the field below `spec` that cannot be used: a key that cannot be read, above all. What is hidden then stays as it was.
pub(super) fn reporting(proxy: &Proxy, object: &Resource) -> Result<Reporting, String> {
    let mut rules = proxy.redaction.rules();
    if let Some(key) = &proxy.redaction.pseudonym_key {
        let file = object.place("").file;
        let path = Path::new(&*file).parent().unwrap_or(Path::new("")).join(&key.file);
        let read = std::fs::read(&path);
        let read = read.map_err(|error| {
            format!("spec.redaction.pseudonymKey.file: {} cannot be read: {error}", path.display())
        });
        rules.key = Some(read?);
    }
    let redaction = Redaction::new(&rules).map_err(|error| format!("spec.redaction.{error}"))?;
    Ok(Reporting { header: proxy.explain.header, one_in: one_in(proxy.explain.allowed_percent), redaction })
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
