//! What a source can say of a provider: Istio's `envoyExtAuthzGrpc` and `envoyExtAuthzHttp`, and what a policy adds to them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Who decides in place of the rules of CUSTOM policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Custom {
    /// It is asked.
    Provider(Box<Provider>),
    /// It cannot be asked, for this reason: whatever a CUSTOM rule holds for is refused.
    Unaskable(String),
}

/// A service that decides requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Its name in policies.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The cluster that it is.
    pub cluster: String,
    /// Its host, the authority of gRPC calls.
    pub host: String,
    /// The most time from the question to the last byte of the answer.
    pub timeout: Duration,
    /// Whether requests pass when it cannot be asked, or answers with a failure.
    pub fail_open: bool,
    /// The status of requests that are refused because it cannot be asked.
    pub status_on_error: u16,
    /// How much of the body it sees; `None`: nothing.
    pub body: Option<BodyInCheck>,
}

/// What a provider speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`. It sees all headers.
    #[default]
    Grpc,
    /// The request itself, without its body and with some of its headers. 200 allows, 5xx is a failure, anything else denies.
    Http(HttpCheck),
}

/// What is exchanged with a provider over HTTP. Names of headers are exact, `prefix*` or `*suffix`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpCheck {
    /// Put before the path.
    pub path_prefix: String,
    /// Headers of the request that it sees besides `Host` and `Authorization`.
    pub request_headers: Vec<String>,
    /// Headers that only its request has, in place of those of the same name.
    pub added_headers: Vec<(String, String)>,
    /// Its headers that the upstream gets when it allows.
    pub upstream_on_allow: Vec<String>,
    /// Its headers that the client gets when it denies; none named: all of them.
    pub downstream_on_deny: Vec<String>,
    /// Its headers that the client gets when it allows.
    pub downstream_on_allow: Vec<String>,
}

/// How much of the body a provider sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BodyInCheck {
    /// The most bytes.
    pub most: u32,
    /// A longer body is cut for it; else the request is answered 413.
    pub partial: bool,
    /// gRPC: as `raw_body`, not as text.
    pub as_bytes: bool,
}

/// What becomes of a request whose provider gave no verdict; `None`: what the provider's `failOpen` and `statusOnError` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// It did not answer in time.
    pub timeout: Option<OnFailure>,
    /// No connection to it could be had, or it closed it.
    pub unreachable: Option<OnFailure>,
    /// It answered with a failure of its own: 5xx, a gRPC status.
    pub error: Option<OnFailure>,
}

/// What becomes of a request without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// It goes on.
    Allow,
    /// It is refused with the provider's `statusOnError`.
    Deny,
    /// It is refused with this status.
    Status(u16),
}
