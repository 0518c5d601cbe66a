//! What is asked.

use crate::config::resources::scalar::Timestamp;
use filter_api::Principal;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

/// A request that nobody sends.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    inbound: bool,
    principal: Option<Principal>,
    tls: Option<Tls>,
    client: IpAddr,
    claims: Option<Map<String, Value>>,
    has_token: bool,
    at: Option<SystemTime>,
}

/// How the client of a question connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// In plain text.
    None,
    /// By TLS, without a certificate of its own.
    Simple,
    /// By TLS with a certificate, as sidecars call each other.
    Mutual,
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
    /// The token.
    #[error(
        "the token is none: write it as three parts with dots between them, or the name of a file that holds it"
    )]
    Token,
    /// Claims.
    #[error("the claims are no JSON object ({0}); write them as in '{{\"sub\": \"alice\"}}'")]
    Claims(String),
    /// The time.
    #[error("`{0}` is no time; write it in RFC 3339, as in 2026-01-02T03:04:05Z")]
    Time(String),
    /// The address of the client.
    #[error("`{0}` is no address; write it as in 10.1.2.3")]
    Client(String),
    /// Things that exclude each other.
    #[error("{0}")]
    Contradiction(&'static str),
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
        Ok(Self {
            method,
            uri,
            headers: map,
            inbound: false,
            principal: None,
            tls: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            claims: None,
            has_token: false,
            at: None,
        })
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

    /// Says how the client connects; unsaid: with a certificate where a principal is named, else as the port takes it.
    #[must_use]
    pub fn over(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Says where the client calls from.
    #[must_use]
    pub fn from(self, client: IpAddr) -> Self {
        Self { client, ..self }
    }

    /// Brings a token, which has to hold: in `authorization`, after `Bearer`.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] when the text is no token.
    pub fn with_token(mut self, token: &str) -> Result<Self, QuestionError> {
        let token = token.trim();
        let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || token.split('.').count() != 3 {
            return Err(QuestionError::Token);
        }
        let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| QuestionError::Token)?;
        self.headers.insert(AUTHORIZATION, value);
        Ok(Self { has_token: true, ..self })
    }

    /// Brings claims that are taken as if a token had been verified that holds them.
    #[must_use]
    pub fn claiming(self, claims: Map<String, Value>) -> Self {
        Self { claims: Some(claims), ..self }
    }

    /// The same for the text of a JSON object.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] when it is none.
    pub fn claiming_text(self, claims: &str) -> Result<Self, QuestionError> {
        let wrong = |error: serde_json::Error| QuestionError::Claims(error.to_string());
        Ok(self.claiming(serde_json::from_str(claims).map_err(wrong)?))
    }

    /// Says when it is asked; unsaid: now.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] when the text is no time of RFC 3339, or lies before 1970.
    pub fn at(self, time: &str) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Time(time.to_owned());
        let time: Timestamp = time.parse().map_err(|_| wrong())?;
        let since = u64::try_from(time.seconds()).map_err(|_| wrong())?;
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since)).ok_or_else(wrong)?;
        Ok(Self { at: Some(at), ..self })
    }

    /// The same request as the application of a caller hands it to its own proxy: in plain text, without anybody's certificate.
    #[must_use]
    pub fn by_application(self) -> Self {
        Self { inbound: false, principal: None, tls: Some(Tls::None), claims: None, ..self }
    }

    /// Whether what is said of the client can be true at once.
    ///
    /// # Errors
    ///
    /// A [`QuestionError`] that names what cannot.
    pub fn check(self) -> Result<Self, QuestionError> {
        if self.principal.is_some() && matches!(self.tls, Some(Tls::None | Tls::Simple)) {
            let why = "a principal is proved by a certificate: leave it out, or say that TLS is mutual";
            return Err(QuestionError::Contradiction(why));
        }
        if self.claims.is_some() && self.has_token {
            let why = "a token brings its own claims: give the token, or the claims";
            return Err(QuestionError::Contradiction(why));
        }
        Ok(self)
    }

    /// The moment that is asked about.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.at.unwrap_or_else(SystemTime::now)
    }

    /// How the client connects, as far as it is said.
    pub(super) fn tls(&self) -> Option<Tls> {
        self.tls.or_else(|| self.principal.as_ref().map(|_| Tls::Mutual))
    }

    pub(super) fn claims(&self) -> Option<&Map<String, Value>> {
        self.claims.as_ref()
    }

    pub(super) fn has_token(&self) -> bool {
        self.has_token
    }

    /// The host that is asked for.
    pub(super) fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
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

    /// Where the client calls from: this machine, if it is not said.
    pub(super) fn peer(&self) -> IpAddr {
        self.client
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
    fn a_question_brings_token_claims_and_time() {
        let question = || Question::parse("GET", "http://a/", []).unwrap();
        let with_token = question().with_token(" a.b.c\n").unwrap();
        assert_eq!(with_token.head().headers["authorization"], "Bearer a.b.c");
        assert!(question().with_token("a.b").is_err() && question().with_token("a.b.c d").is_err());
        let claims = question().claiming_text(r#"{"sub": "alice"}"#).unwrap();
        assert_eq!(claims.claims().unwrap()["sub"], "alice");
        assert!(question().claiming_text("[]").unwrap_err().to_string().contains("write them as in"));
        let at = question().at("1970-01-02T01:00:00+01:00").unwrap();
        assert_eq!(at.time().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 86_400);
        assert!(question().at("yesterday").unwrap_err().to_string().contains("RFC 3339"));
    }

    #[test]
    fn what_cannot_be_true_at_once_is_refused() {
        let question = || Question::parse("GET", "http://a/", []).unwrap();
        let named = || question().by("cluster.local/ns/shop/sa/cart").unwrap();
        assert!(named().over(super::Tls::None).check().is_err());
        assert!(named().over(super::Tls::Mutual).check().is_ok());
        let both = question().with_token("a.b.c").unwrap().claiming(serde_json::Map::new());
        assert!(both.check().is_err());
    }

    #[test]
    fn a_host_header_wins_over_the_url() {
        let question = Question::parse("GET", "http://127.0.0.1:80/x?y", ["Host: reviews"]).unwrap();
        let head = question.head();
        assert_eq!(head.headers["host"], "reviews");
        assert_eq!(head.uri, "/x?y");
    }
}
