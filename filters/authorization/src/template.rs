//! Paths with operators: `{*}` is one segment, `{**}` any number of them.

use std::fmt;

/// A path template as Istio takes it, which is a part of Envoy's URI templates.
///
/// Unlike Envoy, an operator takes any byte of a path, also one that RFC 3986 has no place for: a DENY rule must not be evaded by a `*` or a `|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// What has to be there, literally, with one segment between each two.
    parts: Vec<Box<str>>,
    /// Where the template goes on with anything: what the path ends with.
    rest: Option<Box<str>>,
}

const ONE: &str = "{*}";
const ANY: &str = "{**}";

impl Template {
    /// Whether a path is a template rather than a text.
    pub(crate) fn is_template(path: &str) -> bool {
        path.contains(ONE) || path.contains(ANY)
    }

    /// Reads a template. The error says what is wrong with it.
    pub(crate) fn parse(path: &str) -> Result<Self, &'static str> {
        if !path.starts_with('/') {
            return Err("a path with `{*}` or `{**}` has to start with `/`");
        }
        let inner = path.strip_suffix('/').unwrap_or(path);
        let mut any = false;
        for segment in inner.split('/').skip(1) {
            match segment {
                ONE | ANY if any => return Err("`{**}` has to be the last operator"),
                ONE => {}
                ANY => any = true,
                _ if segment.contains(['{', '}']) => {
                    return Err("an operator has to be a whole segment, `/{*}/` or `/{**}/`");
                }
                "" => return Err("a path with `{*}` or `{**}` has no empty segments"),
                _ if !segment.bytes().all(is_literal) => {
                    return Err(
                        "beside `{*}` and `{**}` a segment holds only characters of a URI, and no `*`",
                    );
                }
                _ => {}
            }
        }
        let (head, rest) = match path.split_once(ANY) {
            Some((head, rest)) => (head, Some(rest.into())),
            None => (path, None),
        };
        Ok(Self { parts: head.split(ONE).map(Into::into).collect(), rest })
    }

    /// What every path that matches begins with.
    pub(crate) fn beginning(&self) -> &str {
        self.parts.first().map_or("", |part| part)
    }

    /// Whether a path matches.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let Some((first, others)) = self.parts.split_first() else { return false };
        let Some(mut left) = path.strip_prefix(first.as_bytes()) else { return false };
        for part in others {
            // An operator is a whole segment: it ends where the segment does.
            let end = left.iter().position(|byte| *byte == b'/').unwrap_or(left.len());
            if end == 0 {
                return false;
            }
            match left.split_at(end).1.strip_prefix(part.as_bytes()) {
                Some(after) => left = after,
                None => return false,
            }
        }
        match &self.rest {
            Some(rest) => left.ends_with(rest.as_bytes()),
            None => left.is_empty(),
        }
    }
}

/// What Envoy takes as a literal of a URI template.
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join(ONE))?;
        self.rest.iter().try_for_each(|rest| write!(f, "{ANY}{rest}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::Template;

    fn matches(template: &str, path: &str) -> bool {
        Template::parse(template).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn one_operator_is_one_segment_that_is_not_empty() {
        assert!(matches("/foo/{*}", "/foo/bar") && !matches("/foo/{*}", "/foo/bar/baz"));
        assert!(
            !matches("/foo/{*}", "/foo/")
                && !matches("/foo/{*}", "/foo")
                && !matches("/foo/{*}", "/foo/bar/")
        );
        assert!(matches("/{*}/b/{*}/", "/a/b/c/") && !matches("/{*}/b/{*}/", "/a/b/c"));
        assert!(!matches("/{*}/b", "/a/c") && !matches("/{*}/b", "/a/bc"));
    }

    #[test]
    fn two_stars_are_any_number_of_segments() {
        assert!(matches("/foo/{**}", "/foo/") && matches("/foo/{**}", "/foo/bar/baz"));
        assert!(!matches("/foo/{**}", "/foo") && !matches("/foo/{**}", "/food/x"));
        assert!(
            matches("/foo/{*}/bar/{**}", "/foo/buzz/bar/")
                && matches("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz")
        );
        assert!(matches("/foo/{**}/", "/foo/bar/") && matches("/foo/{**}/", "/foo//"));
        assert!(!matches("/foo/{**}/", "/foo/bar") && !matches("/foo/{**}/", "/foo/"));
        assert!(matches("/{**}/x", "/a/b/x") && !matches("/{**}/x", "/x"));
    }

    #[test]
    fn an_operator_takes_bytes_that_envoy_would_not_so_that_no_deny_rule_is_evaded() {
        assert!(matches("/admin/{*}", "/admin/a*b") && matches("/admin/{**}", "/admin/a|b/c"));
    }

    #[test]
    fn what_istio_refuses_is_refused_here() {
        for wrong in
            ["/{**}/foo/{*}", "/foo/{*}.txt", "/*/baz/{*}", "/**/baz/{*}", "{*}/a", "/a/{b}/{*}", "/a//{*}"]
        {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_template_is_shown_as_it_was_written() {
        for text in ["/a/{*}/b/{**}/c", "/{*}", "/{**}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
    }
}
