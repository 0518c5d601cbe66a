//! Outbound listeners that a Sidecar asks for at a port of their own.

use std::sync::Arc;

use super::World;
use super::captured::port_of;
use super::index::origin;
use super::listeners::{add, add_table, bind, chain, flow_chain, http, interception, listener};
use super::scope::{Scope, View};
use super::service::Protocol;
use super::tables::Hosts;
use super::tcp::{Caller, own_flow, tcp_flows, tls_flows};
use super::virtual_services::MESH;
use crate::config::resources::istio::sidecar::{CaptureMode, EgressListener};
use crate::mesh::{Address, ChainMatch, ChainProtocol, Direction, FilterChain, Mesh};

/// Adds them; returns the ports that they take from the listener that catches the rest.
pub(super) fn add_listeners(world: &World<'_>, scope: &Scope<'_>, mesh: &mut Mesh) -> Vec<u16> {
    let mut taken = Vec::new();
    for view in &scope.views {
        if let Some(written) = view.listener
            && let Some(port) = &written.port
        {
            let name = port.name.as_deref().unwrap_or_default();
            let protocol = port
                .protocol
                .as_deref()
                .and_then(Protocol::parse)
                .unwrap_or_else(|| Protocol::of_port(port.number, name, None, None));
            taken.push(port.number);
            add_one(world, scope, view, (written, port.number, protocol), mesh);
        }
    }
    taken
}

fn add_one(
    world: &World<'_>,
    scope: &Scope<'_>,
    view: &View<'_>,
    (written, port, protocol): (&EgressListener, u16, Protocol),
    mesh: &mut Mesh,
) {
    let Some(sidecar) = &scope.sidecar else { return };
    let captured = world.is_captured() && written.capture_mode != Some(CaptureMode::None);
    let default = if captured { "0.0.0.0" } else { "127.0.0.1" };
    let text = written.bind.as_deref().filter(|bind| !bind.is_empty()).unwrap_or(default);
    let Some(address) = bind(text, port) else {
        let message = format!("`{text}` is no address to listen on");
        let field = format!("{}.bind", view.field);
        world.index.notes.error(
            sidecar.object,
            &field,
            "address",
            message,
            "write an IP address or `unix:///path`",
        );
        return;
    };
    let is_socket = port_of(&address).is_some();
    let name = if is_socket { format!("{text}_{port}") } else { text.to_owned() };
    if mesh.listeners.contains_key(name.as_str()) {
        let message =
            format!("another egress listener already listens on {text} port {port}: this one is left out");
        world.index.notes.warn(
            sidecar.object,
            &view.field,
            "listener-conflict",
            message,
            "give it another port or `bind`",
        );
        return;
    }
    let origin = origin(sidecar.object, view.field.clone());
    let mut listener = listener(world, &name, Direction::Outbound, origin.clone());
    listener.bound = !captured || !is_socket;
    listener.interception = if listener.bound { None } else { interception(world) };
    let hosts = Hosts::new(world, view);
    if protocol.may_be_http() {
        let table =
            if mesh.routes.contains_key(port.to_string().as_str()) { name.clone() } else { port.to_string() };
        // Behind a Unix socket the port of the listener says nothing of that of the host.
        let routes = match address {
            Address::Socket(_) => hosts.of_port(&table, port, world.is_captured().then_some(scope.policy)),
            Address::Unix(_) => hosts.of_all_ports(&table),
        };
        add_table(mesh, routes);
        let protocol = ChainProtocol::Http(Arc::new(http(world, &table)));
        listener.default_chain = Some(chain(&name, ChainMatch::default(), protocol, origin));
    } else {
        listener.chains = flows(world, &hosts, port, protocol);
        if let Some(at) = listener.chains.iter().position(|chain| chain.matches == ChainMatch::default()) {
            listener.default_chain = Some(listener.chains.remove(at));
        }
    }
    listener.addresses = vec![address];
    add(mesh, listener);
}

/// Connections of a port: to the services that have it, or whose only port it stands for.
fn flows(world: &World<'_>, hosts: &Hosts<'_, '_>, number: u16, protocol: Protocol) -> Vec<Arc<FilterChain>> {
    let mut chains = Vec::new();
    for service in hosts.services() {
        let only = if let [only] = &service.ports[..] { Some(only) } else { None };
        let Some(port) = service.port(number).or(only) else { continue };
        let bound: Vec<_> = hosts.rules(&service.host).iter().map(|at| &world.bound[*at]).collect();
        let caller = Caller { port: Some(number), gateway: MESH };
        let mut found = match protocol {
            Protocol::Tls => tls_flows(world, &bound, caller, Some(&service.host)),
            _ => tcp_flows(world, &bound, caller),
        };
        if found.is_empty() {
            let mut own = own_flow(world, service, port);
            if protocol == Protocol::Tls {
                own.server_names.push(service.host.to_string());
            }
            found.push(own);
        }
        for flow in found {
            // One that takes all connections ends the list: the services after it cannot be told apart.
            let last = flow.is_final();
            chains.push(flow_chain(&format!("tcp-{}", chains.len()), flow));
            if last {
                return chains;
            }
        }
    }
    chains
}
