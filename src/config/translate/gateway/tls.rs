//! Servers that speak TLS: ended here with a certificate, or passed on unopened by server name.

use std::sync::Arc;

use filter_authorization::DestinationPort;

use super::{Place, bound_to, edge, full, virtual_hosts};
use crate::config::resources::istio::gateway::{ServerTls, ServerTlsMode, TlsProtocol};
use crate::config::translate::World;
use crate::config::translate::index::origin;
use crate::config::translate::listeners::{add_table, flow_chain};
use crate::config::translate::mutual_tls::mesh_tls;
use crate::config::translate::security;
use crate::config::translate::settings::DOMAIN;
use crate::config::translate::tcp::{Caller, tcp_flows, tls_flows};
use crate::mesh::{
    Certificate, ChainMatch, ChainProtocol, ClientCertificate, ClientTrust, DownstreamTls, FilterChain,
    HttpChain, Listener, Mesh, Name, Roots, RouteTable, TcpChain, TcpTarget, TlsVersion, TransportProtocol,
};

/// Adds the chains of a server.
pub(super) fn add_server(
    world: &World<'_>,
    (place, all): (&Place<'_>, &[Place<'_>]),
    port: u16,
    listener: &mut Listener,
    mesh: &mut Mesh,
) {
    let Some(written) = &place.server.tls else { return };
    match written.mode.unwrap_or_default() {
        ServerTlsMode::Passthrough => pass_through(world, place, port, listener),
        ServerTlsMode::AutoPassthrough => {
            let message = "is not served: the SNI would name the cluster of another network".to_owned();
            let field = format!("{}.tls.mode", place.field);
            let hint = "name the services, with `mode: PASSTHROUGH` and `tls` routes";
            world.index.notes.warn(place.gateway.object, &field, "auto-passthrough", message, hint);
        }
        mode => {
            let Some(tls) = ended(world, place, written, mode) else { return };
            let others = all.iter().filter(|other| !std::ptr::eq(*other, place));
            let siblings = others.flat_map(server_names).collect();
            terminate(world, (place, siblings), (port, &Arc::new(tls)), listener, mesh);
        }
    }
}

fn pass_through(world: &World<'_>, place: &Place<'_>, port: u16, listener: &mut Listener) {
    let name = place.name();
    let hosts = server_names(place);
    let caller = Caller { port: Some(port), gateway: &name };
    for mut flow in tls_flows(world, &bound_to(world, place), caller, None) {
        flow.chain.audited = world.is_audited();
        flow.chain.filters = security::of_connections(world, DestinationPort::Connection);
        // Only names that the server has: those of a VirtualService may be more.
        if !hosts.is_empty() {
            flow.server_names.retain(|sni| hosts.iter().any(|host| super::overlap(host, sni).is_some()));
        }
        if !flow.server_names.is_empty() {
            listener.chains.push(flow_chain(&format!("tls-{}", listener.chains.len()), flow));
        }
    }
}

fn terminate(
    world: &World<'_>,
    (place, siblings): (&Place<'_>, Vec<String>),
    (port, tls): (u16, &Arc<DownstreamTls>),
    listener: &mut Listener,
    mesh: &mut Mesh,
) {
    let at = origin(place.gateway.object, place.field.clone());
    let written = place.server.port.as_ref();
    let hosts = server_names(place);
    let protocol = if written.is_some_and(|port| port.protocol.eq_ignore_ascii_case("HTTPS")) {
        let port_name = written.map_or("", |port| &port.name);
        let (gateway, namespace) = (&place.gateway.object.key.name, place.gateway.namespace());
        let table: Name = format!("https.{port}.{port_name}.{gateway}.{namespace}").into();
        let found = virtual_hosts(world, std::slice::from_ref(place), port);
        add_table(
            mesh,
            RouteTable { name: table.clone(), hosts: found, ignore_port: true, origin: at.clone() },
        );
        ChainProtocol::Http(Arc::new(HttpChain {
            served_hosts: hosts.clone(),
            sibling_hosts: siblings,
            ..edge(world, &table)
        }))
    } else {
        let name = place.name();
        let caller = Caller { port: Some(port), gateway: &name };
        let flow = tcp_flows(world, &bound_to(world, place), caller).into_iter().next();
        let tcp = flow.map_or_else(
            || TcpChain::new(TcpTarget::Refuse, std::time::Duration::ZERO, at.clone()),
            |flow| TcpChain {
                audited: world.is_audited(),
                filters: security::of_connections(world, DestinationPort::Connection),
                ..flow.chain
            },
        );
        ChainProtocol::Tcp(Arc::new(tcp))
    };
    let matches =
        ChainMatch { server_names: hosts, transport: Some(TransportProtocol::Tls), ..ChainMatch::default() };
    let name = format!("{}-{}", place.name(), place.field);
    listener.chains.push(Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: Some(tls.clone()),
        protocol,
        origin: at,
    }));
}

/// The names by which a client asks for a server; empty: any.
fn server_names(place: &Place<'_>) -> Vec<String> {
    let hosts = place.server.hosts.iter().map(|written| {
        let host = written.split_once('/').map_or(written.as_str(), |(_, host)| host);
        full(host, place.gateway.namespace(), DOMAIN)
    });
    let hosts: Vec<String> = hosts.collect();
    if hosts.iter().any(|host| host == "*") { Vec::new() } else { hosts }
}

fn ended(
    world: &World<'_>,
    place: &Place<'_>,
    tls: &ServerTls,
    mode: ServerTlsMode,
) -> Option<DownstreamTls> {
    let alpn = ["h2", "http/1.1"].map(Name::from).into();
    note_unheld(world, place, tls);
    let min_version = match tls.min_protocol_version.unwrap_or_default() {
        TlsProtocol::Tls13 => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let max_version = match tls.max_protocol_version.unwrap_or_default() {
        TlsProtocol::Tls12 => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    };
    let cipher_suites = tls.cipher_suites.iter().map(|suite| suite.as_str().into()).collect();
    if mode == ServerTlsMode::IstioMutual {
        return Some(DownstreamTls { alpn, min_version, max_version, cipher_suites, ..mesh_tls(world) });
    }
    let certificate = match (&tls.credential_name, tls.credential_names.first()) {
        (Some(name), _) | (None, Some(name)) => Certificate::Credential(name.as_str().into()),
        (None, None) => {
            let listed = tls.tls_certificates.first();
            let pick = |own: &Option<String>, listed: Option<&Option<String>>| {
                own.clone().or_else(|| listed.cloned().flatten()).filter(|path| !path.is_empty())
            };
            let chain = pick(&tls.server_certificate, listed.map(|one| &one.server_certificate));
            let key = pick(&tls.private_key, listed.map(|one| &one.private_key));
            let (Some(chain), Some(key)) = (chain, key) else {
                let message = "names no certificate: the server is not opened".to_owned();
                let field = format!("{}.tls", place.field);
                let hint = "write `credentialName`, or `serverCertificate` and `privateKey`";
                world.index.notes.error(place.gateway.object, &field, "no-certificate", message, hint);
                return None;
            };
            Certificate::Files { certificate: chain.into(), private_key: key.into() }
        }
    };
    let trust = || {
        let roots = match (&tls.ca_cert_credential_name, &tls.ca_certificates, &certificate) {
            (Some(name), _, _) => Roots::Credential(name.as_str().into()),
            (None, Some(file), _) => Roots::File {
                bundle: file.into(),
                crl: tls.ca_crl.as_deref().filter(|path| !path.is_empty()).map(Into::into),
            },
            (None, None, Certificate::Credential(name)) => Roots::Credential(name.clone()),
            // Nobody says whose clients are let in: nobody's.
            _ => Roots::Mesh,
        };
        let names = tls.subject_alt_names.iter().map(|name| name.as_str().into()).collect();
        ClientTrust { roots, mesh: false, names }
    };
    let client = match mode {
        ServerTlsMode::Mutual => ClientCertificate::Required(trust()),
        ServerTlsMode::OptionalMutual => ClientCertificate::Optional(trust()),
        _ => ClientCertificate::None,
    };
    Some(DownstreamTls { certificate, client, alpn, min_version, max_version, cipher_suites })
}

/// Says what of the settings does not hold.
fn note_unheld(world: &World<'_>, place: &Place<'_>, tls: &ServerTls) {
    let note = |field: &str, message: String, hint: &str| {
        let field = format!("{}.tls.{field}", place.field);
        world.index.notes.warn(place.gateway.object, &field, "tls-setting", message, hint);
    };
    let oldest =
        [("minProtocolVersion", tls.min_protocol_version), ("maxProtocolVersion", tls.max_protocol_version)];
    for (field, version) in oldest {
        if matches!(version, Some(TlsProtocol::Tls10 | TlsProtocol::Tls11)) {
            let message = "is older than what is spoken: TLS 1.2 is the oldest".to_owned();
            note(field, message, "write TLSV1_2 or TLSV1_3");
        }
    }
    for (field, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > 1 {
            let message = format!("names {count} certificates, and only the first is shown");
            note(field, message, "name one; ECDSA is understood by all clients of today");
        }
    }
}
