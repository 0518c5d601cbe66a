//! What fuzzing does with paths of policies and of requests.

use crate::pattern::Patterns;
use crate::template::Template;

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
