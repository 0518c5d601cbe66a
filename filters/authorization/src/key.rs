//! The attributes that policies ask about, and the keys of conditions.

use crate::clause::HeaderKey;
use http::HeaderName;

/// An attribute that policies ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Principal,
    Namespace,
    Account,
    TrustDomain,
    User,
    Audience,
    Presenter,
    Claim(Vec<Box<str>>),
    SourceIp,
    RemoteIp,
    DestinationIp,
    Port,
    ServerName,
    Header(HeaderKey),
    Host,
    Method,
    Path,
}

impl Kind {
    /// Whether it is who the caller is, which no CUSTOM policy may ask in Istio.
    pub(crate) fn is_identity(&self) -> bool {
        use Kind::{Account, Audience, Claim, Namespace, Presenter, Principal, TrustDomain, User};
        matches!(self, Principal | Namespace | Account | TrustDomain | User | Audience | Presenter | Claim(_))
    }
}

/// What is wrong with a key, and what to write.
type Unknown = (String, &'static str);

/// The attribute of the key of a condition.
pub(crate) fn kind_of(key: &str) -> Result<Kind, Unknown> {
    Ok(match key {
        "source.ip" => Kind::SourceIp,
        "remote.ip" => Kind::RemoteIp,
        "source.namespace" => Kind::Namespace,
        "source.serviceAccount" => Kind::Account,
        "source.principal" => Kind::Principal,
        "source.trustDomain" => Kind::TrustDomain,
        "request.auth.principal" => Kind::User,
        "request.auth.audiences" => Kind::Audience,
        "request.auth.presenter" => Kind::Presenter,
        "destination.ip" => Kind::DestinationIp,
        "destination.port" => Kind::Port,
        "connection.sni" => Kind::ServerName,
        _ => return bracketed(key),
    })
}

fn bracketed(key: &str) -> Result<Kind, Unknown> {
    let wrong = |hint| (format!("`{key}` is no attribute"), hint);
    if let Some(rest) = key.strip_prefix("request.headers") {
        let hint = "write `request.headers[name]`";
        let name = in_brackets(rest).ok_or_else(|| wrong(hint))?;
        return Ok(Kind::Header(match name {
            ":authority" => HeaderKey::Authority,
            ":method" => HeaderKey::Method,
            ":path" => HeaderKey::Target,
            name if name.eq_ignore_ascii_case("host") => HeaderKey::Authority,
            name => HeaderKey::Field(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong(hint))?),
        }));
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        let hint = "write `request.auth.claims[name]`, and `[outer][inner]` for a nested claim";
        return Ok(Kind::Claim(claim_path(rest).ok_or_else(|| wrong(hint))?));
    }
    Err(match key {
        _ if key.starts_with("experimental.envoy.filters.") => (
            format!("`{key}` asks for metadata of Envoy's filters, which there is none of here"),
            "ask for `request.auth.claims[...]`, `request.headers[...]` or `connection.sni`",
        ),
        _ if key.starts_with("destination.labels") => {
            (format!("`{key}` is no attribute any more"), "write a `selector` instead")
        }
        "destination.namespace" => {
            (format!("`{key}` is no attribute any more"), "put the policy into that namespace instead")
        }
        _ => {
            wrong("see the keys of AuthorizationPolicy conditions: `source.ip`, `request.headers[...]`, ...")
        }
    })
}

fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']').filter(|name| !name.is_empty())
}

/// `[a][b]` is a nested claim; where the brackets do not pair so, all between the outermost is one name (Istio).
fn claim_path(text: &str) -> Option<Vec<Box<str>>> {
    let whole = in_brackets(text)?;
    let parts: Vec<&str> = whole.split("][").collect();
    let nested = parts.iter().all(|part| !part.contains(['[', ']']));
    if !nested {
        return Some(vec![whole.into()]);
    }
    // An empty name in between is nobody's claim.
    parts.iter().all(|part| !part.is_empty()).then(|| parts.into_iter().map(Into::into).collect())
}
