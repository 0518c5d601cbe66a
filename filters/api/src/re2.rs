//! Regular expressions as RE2 reads them: what validation accepts is what routes, rewrites and policies run.

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const MAX_BYTES: usize = 1 << 20;

const OPEN: &str = r"\A(?:";
const CLOSE: &str = r")\z";

/// A pattern that may match anywhere, within a bounded size and in linear time.
///
/// Classes such as `\d` are ASCII, as in RE2; only a pattern that needs Unicode tables (`\p{Greek}`) gets them. `\Q...\E` quotes.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn anywhere(pattern: &str) -> Result<Regex, String> {
    let unquoted = unquote(pattern);
    build(&unquoted, false).or_else(|_| build(&unquoted, true)).map_err(|error| {
        format!(
            "regex {pattern:?}: {}; write it in RE2 syntax: no look-around, no back-references",
            why(&error)
        )
    })
}

/// The same for a pattern that has to match the whole text.
///
/// # Errors
/// As [`anywhere`].
pub fn whole(pattern: &str) -> Result<Regex, String> {
    // Alone first: `a)(?:b` must not become valid by what is put around it, and the error shows what was written.
    anywhere(pattern)?;
    anywhere(&format!("{OPEN}{pattern}{CLOSE}"))
}

/// A pattern of [`whole`] or [`anywhere`], as it was written but for its quotes.
#[must_use]
pub fn written(regex: &Regex) -> &str {
    let whole = regex.as_str();
    whole.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE)).unwrap_or(whole)
}

fn build(pattern: &str, unicode: bool) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(unicode).size_limit(MAX_BYTES).dfa_size_limit(MAX_BYTES).build()
}

/// The sentence of an error that spans several lines.
fn why(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!("it takes more than {MAX_BYTES} bytes when it is compiled")
        }
        error => {
            let text = error.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

/// Puts a backslash before what `\Q...\E` quotes.
fn unquote(pattern: &str) -> String {
    if !pattern.contains(r"\Q") {
        return pattern.to_owned();
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(escape) = rest.find('\\') {
        let Some(after) = rest[escape + 1..].chars().next() else { break };
        let end = escape + 1 + after.len_utf8();
        if after == 'Q' {
            out.push_str(&rest[..escape]);
            let (quoted, behind) = rest[end..].split_once(r"\E").unwrap_or((&rest[end..], ""));
            out.push_str(&regex::escape(quoted));
            rest = behind;
        } else {
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{anywhere, whole, written};

    #[test]
    fn classes_are_ascii_and_quotes_are_literal() {
        assert!(whole(r"\w+").unwrap().is_match(b"abc"));
        assert!(!whole(r"\w+").unwrap().is_match("ä".as_bytes()));
        assert!(whole(r"/\Qa.b(\E[0-9]").unwrap().is_match(b"/a.b(7"));
        assert!(!whole(r"/\Qa.b\E").unwrap().is_match(b"/axb"));
        assert!(whole(r"\\Qa").unwrap().is_match(br"\Qa"), "a backslash that is escaped quotes nothing");
        assert!(whole(r"\p{Greek}").unwrap().is_match("α".as_bytes()));
        assert!(whole(r"/[\w-]{1,200}/[\w-]{1,200}").is_ok(), "small enough with classes of ASCII");
    }

    #[test]
    fn what_is_no_pattern_says_what_to_write() {
        for wrong in ["(", "(?=a)", r"(a)\1", r"(\w{1000}){1000}", "a)(?:b"] {
            let error = whole(wrong).unwrap_err();
            assert!(error.contains("RE2") && error.contains(&format!("{wrong:?}")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(anywhere("(").is_err());
        assert_eq!(written(&whole("a|b").unwrap()), "a|b");
    }
}
