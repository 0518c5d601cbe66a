//! Outbound listeners of clients that call us on purpose: the host decides, and an unknown one is refused.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::World;
use super::host;
use super::index::origin;
use super::listeners::{add, add_table, addresses, chain, flow_chain, http, listener};
use super::scope::Scope;
use super::service::Protocol;
use super::settings::DOMAIN;
use super::tables::Hosts;
use super::tcp::{Caller, Flow, own_flow, tls_flows};
use super::virtual_services::MESH;
use crate::mesh::{ChainMatch, ChainProtocol, Direction, Mesh};

/// The name of the listener and of its table.
pub(super) const OUTBOUND: &str = "outbound";

/// Adds the listener that takes every host of every port.
pub(super) fn add_outbound(world: &World<'_>, scope: &Scope<'_>, mesh: &mut Mesh) {
    let Some(view) = scope.catch_all() else { return };
    let hosts = Hosts::new(world, view);
    let field = "spec.outbound.addresses";
    let origin = origin(world.object, field);
    let mut listener = listener(world, OUTBOUND, Direction::Outbound, origin.clone());
    listener.addresses = addresses(world, world.object, field, &world.proxy.outbound.addresses);
    listener.bound = true;
    listener.chains = flows(world, &hosts)
        .into_iter()
        .enumerate()
        .map(|(at, flow)| flow_chain(&format!("tls-{at}"), flow))
        .collect();
    let protocol = ChainProtocol::Http(Arc::new(http(world, OUTBOUND)));
    listener.default_chain = Some(chain(OUTBOUND, ChainMatch::default(), protocol, origin));
    add_table(mesh, hosts.of_all_ports(OUTBOUND));
    add(mesh, listener);
}

/// TLS by server name: each name once, 443 before other ports.
fn flows(world: &World<'_>, hosts: &Hosts<'_, '_>) -> Vec<Flow> {
    let mut used: FxHashSet<String> = FxHashSet::default();
    let mut flows = Vec::new();
    for service in hosts.services() {
        let mut ports: Vec<_> = service.ports.iter().filter(|port| port.protocol == Protocol::Tls).collect();
        ports.sort_by_key(|port| (port.number != 443, port.number));
        let bound: Vec<_> = hosts.rules(&service.host).iter().map(|at| &world.bound[*at]).collect();
        for port in ports {
            let caller = Caller { port: Some(port.number), gateway: MESH };
            let mut found = tls_flows(world, &bound, caller, None);
            if found.is_empty() {
                let (mut names, _) = host::domains(&service.host, world.namespace, DOMAIN);
                names.retain(|name| !name.ends_with('.'));
                found.push(Flow { server_names: names, ..own_flow(world, service, port) });
            }
            for mut flow in found {
                // Nobody knows here which address the client meant, so destinations cannot tell flows apart.
                flow.destinations.clear();
                flow.server_names.retain(|name| used.insert(name.clone()));
                if !flow.server_names.is_empty() {
                    flows.push(flow);
                }
            }
        }
    }
    flows
}
