//! The provider that CUSTOM policies ask: from `meshConfig.extensionProviders` to a cluster that can be called.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use filter_authorization::{
    Action, BodyInCheck, Custom, Failures, HttpCheck, OnFailure, Policy, Provider, ProviderProtocol,
    check_provider,
};

use super::World;
use super::clusters;
use super::host;
use super::policy::Effective;
use super::scope::find_service;
use super::settings::DOMAIN;
use crate::config::resources::Resource;
use crate::config::resources::istio::provider::{ExtAuthzBody, ExtAuthzGrpc, ExtAuthzHttp};
use crate::config::resources::scalar;
use crate::mesh::UpstreamProtocol;

/// Istio's time for an answer.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The longest that a verdict may be kept: what was revoked lives on as long.
const LONGEST_CACHE: Duration = Duration::from_secs(3600);

/// What becomes of a request when the provider did not answer in time, could not be reached, or answered with a failure.
const ON_TIMEOUT: &str = "sidegate.io/custom-on-timeout";
const ON_UNREACHABLE: &str = "sidegate.io/custom-on-unreachable";
const ON_ERROR: &str = "sidegate.io/custom-on-error";
/// How long a verdict is good for the same question.
const CACHE: &str = "sidegate.io/custom-cache-ttl";

/// Whom the workload's CUSTOM policies ask, and the service that it is.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) custom: Option<Arc<Custom>>,
    /// Its place among the services.
    pub(super) service: Option<usize>,
}

/// See [`Asked`]. Says once what is wrong with it.
pub(super) fn asked<'w>(world: &'w World<'_>) -> &'w Asked {
    world.asked.get_or_init(|| {
        let names: BTreeSet<&str> = world.policies.iter().filter_map(provider_of).collect();
        let mut names = names.into_iter();
        let found = match (names.next(), names.next()) {
            (None, _) => return Asked::default(),
            (Some(name), None) => provider(world, name),
            (Some(_), Some(_)) => {
                Err("policies of one workload name several providers, and one is possible".to_owned())
            }
        };
        match found {
            Ok((provider, at)) => {
                Asked { custom: Some(Arc::new(Custom::Provider(Box::new(provider)))), service: Some(at) }
            }
            Err(why) => {
                note(world, &why);
                Asked { custom: Some(Arc::new(Custom::Unaskable(why))), service: None }
            }
        }
    })
}

/// The provider that an enforced policy asks.
fn provider_of(policy: &Policy) -> Option<&str> {
    match &policy.action {
        Action::Custom { provider, .. } if !policy.dry_run => Some(provider),
        _ => None,
    }
}

fn note(world: &World<'_>, why: &str) {
    for policy in world.policies.iter().filter(|policy| provider_of(policy).is_some()) {
        let written = world.index.authorization_policies.iter().find(|written| {
            *written.object.key.namespace == *policy.namespace && *written.object.key.name == *policy.name
        });
        if let Some(written) = written {
            let message = format!("cannot be asked, so what its rules hold for is refused: {why}");
            let hint = "name one provider of `meshConfig.extensionProviders` with `envoyExtAuthzGrpc` or `envoyExtAuthzHttp`, \
                        whose service and port are part of the mesh";
            world.index.notes.error(
                written.object,
                "spec.provider.name",
                "unaskable-provider",
                message,
                hint,
            );
        }
    }
}

fn provider(world: &World<'_>, name: &str) -> Result<(Provider, usize), String> {
    let written = world.settings.provider(name);
    let written = written.ok_or_else(|| format!("meshConfig.extensionProviders has no provider `{name}`"))?;
    let (found, service, port) = match (&written.envoy_ext_authz_grpc, &written.envoy_ext_authz_http) {
        (Some(grpc), None) => (over_grpc(grpc)?, &grpc.service, grpc.port),
        (None, Some(http)) => (over_http(http)?, &http.service, http.port),
        _ => {
            return Err(format!("provider `{name}` has not one of envoyExtAuthzGrpc and envoyExtAuthzHttp"));
        }
    };
    let (cluster, host, at) = find(world, service, port, found.protocol == ProviderProtocol::Grpc)?;
    let provider = Provider { name: name.to_owned(), cluster, host, ..found };
    check_provider(&provider).map_err(|why| format!("provider `{name}`: {why}"))?;
    Ok((provider, at))
}

/// The cluster, host and place of a service as providers write it: a host, or `namespace/host`.
fn find(world: &World<'_>, written: &str, port: u16, grpc: bool) -> Result<(String, String, usize), String> {
    let (namespace, name) = written.split_once('/').unwrap_or((world.settings.root(), written));
    let name = host::full(&name.to_ascii_lowercase(), namespace, DOMAIN);
    let at =
        find_service(world, &name, namespace).ok_or_else(|| format!("there is no service `{written}`"))?;
    let service = &world.services[at];
    if host::is_wildcard(&service.host) {
        return Err(format!("service `{written}` has a wildcard, and one host is asked"));
    }
    let found = service.ports.iter().find(|one| one.number == port);
    let found = found.ok_or_else(|| format!("service `{written}` has no port {port}"))?;
    let rule = world.rules.find(service).and_then(|rule| rule.policy).map(|(policy, _)| policy);
    let protocol = Effective::new(rule, None, port).protocol(found, &world.settings);
    if grpc && protocol == UpstreamProtocol::Http1 {
        return Err(format!(
            "port {port} of service `{written}` is not declared as gRPC: name it `grpc`, or set its `appProtocol`"
        ));
    }
    Ok((clusters::name(world, port, "", &service.host).to_string(), service.host.to_string(), at))
}

fn over_grpc(written: &ExtAuthzGrpc) -> Result<Provider, String> {
    Ok(Provider {
        protocol: ProviderProtocol::Grpc,
        timeout: timeout(written.timeout),
        fail_open: written.fail_open.unwrap_or(false),
        status_on_error: status(written.status_on_error.as_deref())?,
        body: body(written.include_request_body_in_check.as_ref())?,
        ..Provider::default()
    })
}

fn over_http(written: &ExtAuthzHttp) -> Result<Provider, String> {
    let added = written.include_additional_headers_in_check.iter();
    let headers =
        written.include_request_headers_in_check.iter().chain(&written.include_headers_in_check).cloned();
    Ok(Provider {
        protocol: ProviderProtocol::Http(HttpCheck {
            path_prefix: written.path_prefix.clone().unwrap_or_default(),
            request_headers: headers.collect(),
            added_headers: added.map(|(name, value)| (name.clone(), value.clone())).collect(),
            upstream_on_allow: written.headers_to_upstream_on_allow.clone(),
            downstream_on_deny: written.headers_to_downstream_on_deny.clone(),
            downstream_on_allow: written.headers_to_downstream_on_allow.clone(),
        }),
        timeout: timeout(written.timeout),
        fail_open: written.fail_open.unwrap_or(false),
        status_on_error: status(written.status_on_error.as_deref())?,
        body: body(written.include_request_body_in_check.as_ref())?,
        ..Provider::default()
    })
}

/// Zero counts as not written, as elsewhere in Istio.
fn timeout(written: Option<scalar::Duration>) -> Duration {
    written.filter(|timeout| !timeout.is_zero()).map_or(TIMEOUT, Into::into)
}

fn status(written: Option<&str>) -> Result<u16, String> {
    let Some(text) = written.filter(|text| !text.is_empty()) else { return Ok(403) };
    parse_status(text).ok_or_else(|| format!("its statusOnError `{text}` is no status of an answer"))
}

fn parse_status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| (200..600).contains(status))
}

fn body(written: Option<&ExtAuthzBody>) -> Result<Option<BodyInCheck>, String> {
    let Some(written) = written else { return Ok(None) };
    if written.max_request_bytes == 0 {
        return Err("its includeRequestBodyInCheck.maxRequestBytes is not set".to_owned());
    }
    Ok(Some(BodyInCheck {
        most: written.max_request_bytes,
        partial: written.allow_partial_message.unwrap_or(false),
        as_bytes: written.pack_as_bytes.unwrap_or(false),
    }))
}

/// What is wrong with an annotation, and what to write.
pub(in crate::config) type WrongAnnotation = (String, &'static str);

/// What annotations of a CUSTOM policy say of failures and of keeping verdicts.
///
/// # Errors
///
/// Each annotation that cannot be read. The policy is then no good: what was meant might be stricter than what would hold.
pub(in crate::config) fn terms(
    object: &Resource,
) -> Result<(Failures, Option<Duration>), Vec<WrongAnnotation>> {
    let mut wrong = Vec::new();
    let mut failure = |key| {
        let text = object.meta.annotations.get(key)?;
        let parsed = on_failure(text);
        if parsed.is_none() {
            let hint = "write `allow`, `deny` (with the provider's statusOnError), or a status such as `503`";
            wrong.push((format!("`{key}: {text}` does not say what becomes of requests"), hint));
        }
        parsed
    };
    let failures = Failures {
        timeout: failure(ON_TIMEOUT),
        unreachable: failure(ON_UNREACHABLE),
        error: failure(ON_ERROR),
    };
    let cache = object.meta.annotations.get(CACHE).and_then(|text| {
        let time = text.parse::<scalar::Duration>().ok().map(Duration::from);
        let time = time.filter(|time| !time.is_zero() && *time <= LONGEST_CACHE);
        if time.is_none() {
            wrong.push((
                format!("`{CACHE}: {text}` is no time to keep verdicts"),
                "write as in `5s`, at most `1h`",
            ));
        }
        time
    });
    if wrong.is_empty() { Ok((failures, cache)) } else { Err(wrong) }
}

/// Whether an object has annotations that only CUSTOM policies read.
pub(in crate::config) fn has_terms(object: &Resource) -> bool {
    [ON_TIMEOUT, ON_UNREACHABLE, ON_ERROR, CACHE].iter().any(|key| object.meta.annotations.get(key).is_some())
}

fn on_failure(text: &str) -> Option<OnFailure> {
    match text {
        "allow" => Some(OnFailure::Allow),
        "deny" => Some(OnFailure::Deny),
        status => parse_status(status).filter(|status| *status >= 400).map(OnFailure::Status),
    }
}
