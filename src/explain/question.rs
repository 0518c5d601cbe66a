//! What is asked.

use filter_api::Principal;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use std::net::{IpAddr, Ipv4Addr};

/// A request that nobody sends.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    inbound: bool,
    principal: Option<Principal>,
}

/// What is wrong with a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The method.
    #[error("`{0}` is no method; write GET, POST or another token")]
    Method(String),
    /// The URL.
    #[error("`{0}` is no URL of a service; write it as in http://reviews.shop:9080/path")]
    Url(String),
    /// A header.
    #[error("`{0}` is no header; write it as in 'x-canary: true'")]
    Header(String),
    /// Who asks.
    #[error("`{0}` is no principal; write it as in cluster.local/ns/shop/sa/cart")]
    Principal(String),
}

impl Question {
    /// A question of this method, absolute URL and header lines `name: value`.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] that says what to write.
    pub fn parse<'a>(
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, QuestionError> {
        let bad_url = || QuestionError::Url(url.to_owned());
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| QuestionError::Method(method.to_owned()))?;
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(bad_url());
        }
        let mut map = HeaderMap::new();
        for line in headers {
            let (name, value) = header(line).ok_or_else(|| QuestionError::Header(line.to_owned()))?;
            map.append(name, value);
        }
        Ok(Self { method, uri, headers: map, inbound: false, principal: None })
    }

    /// Asks for the way from outside to the application, not for that of the application to others.
    #[must_use]
    pub fn inbound(self, inbound: bool) -> Self {
        Self { inbound, ..self }
    }

    /// Says who asks: `cluster.local/ns/shop/sa/cart`, as its certificate would prove.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] when the text is no principal.
    pub fn by(self, principal: &str) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Principal(principal.to_owned());
        let parts: Vec<&str> = principal.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", account] = parts[..] else { return Err(wrong()) };
        if [trust_domain, namespace, account].contains(&"") {
            return Err(wrong());
        }
        Ok(Self { principal: Some(Principal::new(trust_domain, namespace, account)), ..self })
    }

    pub(super) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(super) fn is_inbound(&self) -> bool {
        self.inbound
    }

    /// `GET http://reviews/`
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.method, self.uri)
    }

    /// The port that the client would connect to.
    pub(super) fn port(&self) -> u16 {
        let default = if self.uri.scheme_str() == Some("https") { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(default)
    }

    /// The address in the URL, if it is one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.uri.host()?.trim_matches(['[', ']']).parse().ok()
    }

    /// Who asks: this machine.
    pub(super) fn peer(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    /// The head as an HTTP/1.1 client sends it. A Host header that was given wins over that of the URL, as with curl.
    pub(super) fn head(&self) -> request::Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.version = Version::HTTP_11;
        head.uri = self.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        head.headers = self.headers.clone();
        if !head.headers.contains_key(HOST)
            && let Some(authority) = self.uri.authority()
            && let Ok(host) = HeaderValue::try_from(authority.as_str())
        {
            head.headers.insert(HOST, host);
        }
        head
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, HeaderValue::try_from(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::Question;

    #[test]
    fn a_question_that_cannot_be_asked_says_what_to_write() {
        for (method, url, header, hint) in [
            ("G T", "http://a/", "a: b", "write GET"),
            ("GET", "/path", "a: b", "write it as in http://"),
            ("GET", "ftp://a/", "a: b", "write it as in http://"),
            ("GET", "http://a/", "no header", "write it as in 'x-canary: true'"),
            ("GET", "http://a/", "b ad: x", "write it as in 'x-canary: true'"),
        ] {
            let error = Question::parse(method, url, [header]).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn a_caller_is_named_as_in_policies() {
        let question = || Question::parse("GET", "http://a/", []).unwrap();
        let named = question().by("cluster.local/ns/shop/sa/cart").unwrap();
        assert_eq!(named.principal().unwrap().namespace(), "shop");
        for wrong in ["cart", "spiffe://cluster.local/ns/shop/sa/cart", "a/ns//sa/b", "a/ns/b/sa/c/d"] {
            let error = question().by(wrong).unwrap_err();
            assert!(error.to_string().contains("write it as in"), "{error}");
        }
    }

    #[test]
    fn a_host_header_wins_over_the_url() {
        let question = Question::parse("GET", "http://127.0.0.1:80/x?y", ["Host: reviews"]).unwrap();
        let head = question.head();
        assert_eq!(head.headers["host"], "reviews");
        assert_eq!(head.uri, "/x?y");
    }
}
