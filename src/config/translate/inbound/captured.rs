//! Inbound listeners of captured traffic: the original port tells where a connection was to go.

use std::sync::Arc;

use filter_authorization::DestinationPort;

use super::super::World;
use super::super::captured::{OWN_PORT, port_of};
use super::super::clusters::INBOUND_PASSTHROUGH;
use super::super::index::origin;
use super::super::listeners::{
    add as add_listener, add_table, addresses, bind, chain, interception, listener,
};
use super::super::scope::Scope;
use super::{AppPort, add_cluster, inbound_http, inbound_tcp, ports, table};
use crate::config::resources::istio::mesh_config::InboundMode;
use crate::mesh::{ChainMatch, ChainProtocol, Direction, Mesh, Origin};

/// Adds `virtualInbound`, and the listeners of a Sidecar that nothing captures.
pub(in super::super) fn add(world: &World<'_>, scope: &Scope<'_>, mesh: &mut Mesh) {
    let field = "spec.inbound.addresses";
    let own = addresses(world, world.object, field, &world.proxy.inbound.addresses);
    let mut inbound = listener(world, "virtualInbound", Direction::Inbound, origin(world.object, field));
    for port in own.iter().filter_map(port_of) {
        let matches = ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
        inbound.chains.push(chain(
            "virtualInbound-blackhole",
            matches,
            ChainProtocol::Refuse(OWN_PORT.into()),
            Origin::BUILT_IN,
        ));
    }
    let mut seen = Vec::new();
    for port in ports(world, scope) {
        if seen.contains(&port.number) {
            continue;
        }
        seen.push(port.number);
        add_cluster(world, &port, mesh);
        if port.protocol.may_be_http() {
            add_table(mesh, port.table());
        }
        if port.is_bound(world) {
            add_bound(world, &port, mesh);
            continue;
        }
        let matches = ChainMatch { destination_port: Some(port.number), ..ChainMatch::default() };
        let name = format!("0.0.0.0_{}", port.number);
        let asked = world.callers.at(port.number);
        let (protocol, cluster, at) = (port.chain(world), port.cluster(), port.origin());
        inbound.chains.extend(asked.chains(world, &name, &matches, (&protocol, Some(&cluster)), &at));
    }
    add_table(mesh, table(INBOUND_PASSTHROUGH, 0, INBOUND_PASSTHROUGH, &Origin::BUILT_IN));
    if world.settings.inbound() == InboundMode::Localhost {
        let message =
            "connections to undeclared ports go to the address that the caller asked for, not to 127.0.0.1";
        let hint = "leave `LOCALHOST` out, or declare the ports in a Sidecar's `ingress`";
        let field = "spec.meshConfig.inboundTrafficPolicy";
        world.index.notes.warn(world.object, field, "inbound-localhost", message.to_owned(), hint);
    }
    let unknown = ChainProtocol::Detect {
        http: Arc::new(inbound_http(world, INBOUND_PASSTHROUGH, DestinationPort::Connection)),
        tcp: Arc::new(inbound_tcp(world, INBOUND_PASSTHROUGH, Origin::BUILT_IN, DestinationPort::Connection)),
    };
    let (asked, cluster) = (world.callers.elsewhere(), Some(INBOUND_PASSTHROUGH));
    let name = "virtualInbound-catchall";
    let mut chains =
        asked.chains(world, name, &ChainMatch::default(), (&unknown, cluster), &Origin::BUILT_IN);
    // The last one takes what no condition fits.
    inbound.default_chain = chains.pop();
    inbound.chains.extend(chains);
    inbound.addresses = own;
    inbound.bound = true;
    inbound.interception = interception(world);
    add_listener(mesh, inbound);
}

/// Adds the listener of a port that is called at its own address.
pub(super) fn add_bound(world: &World<'_>, port: &AppPort<'_, '_>, mesh: &mut Mesh) {
    let text = port.ingress.and_then(|ingress| ingress.bind.as_deref()).filter(|bind| !bind.is_empty());
    let text = text.unwrap_or("0.0.0.0");
    let Some(address) = bind(text, port.number) else {
        let message = format!("`{text}` is no address to listen on");
        let hint = "write an IP address or `unix:///path`";
        world.index.notes.error(port.object, &format!("{}.bind", port.field), "address", message, hint);
        return;
    };
    let name = format!("{text}_{}", port.number);
    let mut own = listener(world, &name, Direction::Inbound, port.origin());
    own.addresses = vec![address];
    own.bound = true;
    own.interception = None;
    let asked = world.callers.at(port.number);
    let (protocol, cluster, at) = (port.chain(world), port.cluster(), port.origin());
    let mut chains = asked.chains(world, &name, &ChainMatch::default(), (&protocol, Some(&cluster)), &at);
    own.default_chain = chains.pop();
    own.chains = chains;
    add_listener(mesh, own);
}
