//! Route match: host, then rules, then one destination by weight.

use super::authority::split_canonical;
use super::worker::Worker;
use crate::snapshot::{Http, Miss};
use filter_api::{Error, Matched, NoTrace, Reason, Request};
use http::HeaderValue;
use http::header::HOST;

/// Finds the route of a request whose head is canonical.
pub(crate) fn check(worker: &Worker, request: &mut Request) -> Result<(), Error> {
    let chain = request.cx.chain.clone();
    let Some(http) = chain.downcast_ref::<Http>() else { return Err(Reason::Internal.into()) };
    let head = &request.head;
    // Written by the canonicaliser; HTTP/1.0 may have none.
    let host = head.headers.get(HOST).map_or(&[][..], HeaderValue::as_bytes);
    let (host, port) = split_canonical(host);
    let route = http.routes.select(host, port, head, &mut NoTrace).map_err(|miss| {
        let table = &http.routes.mesh.name;
        let host = if host.is_empty() { "(none)" } else { host };
        Error::new(Reason::NoRoute).detail(match miss {
            Miss::Host => format!("no service or virtual host {host} in route table {table}"),
            Miss::Rule { virtual_host } => {
                format!("no rule of virtual host {} matches this request", virtual_host.name)
            }
        })
    })?;
    let destination = route.pick(worker.random()).clone();
    request.cx.set_matched(Matched {
        slots: destination.slots.clone(),
        route: destination.route.clone(),
        origin: destination.origin.clone(),
        target: destination,
    });
    Ok(())
}
