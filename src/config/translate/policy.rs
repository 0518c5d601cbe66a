//! What a DestinationRule says of one port and subset, in the terms of the model.

use std::time::Duration;

use super::service::{Port, Protocol};
use super::settings::Settings;
use crate::config::resources::istio::common::{ConnectionPool, H2UpgradePolicy, TcpKeepalive};
use crate::config::resources::istio::destination_rule::{
    ClientTls, LoadBalancer, ProxyProtocolVersion as WrittenVersion, SimpleLb, TrafficPolicy,
};
use crate::mesh::{Balance, Keepalive, Pool, ProxyProtocolVersion, UpstreamProtocol};

/// The parts of a traffic policy that hold for one port and subset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effective<'a> {
    load_balancer: Option<&'a LoadBalancer>,
    pool: Option<&'a ConnectionPool>,
    proxy_protocol: Option<WrittenVersion>,
    tls: Option<&'a ClientTls>,
}

impl<'a> Effective<'a> {
    /// The policy of a host, narrowed by port and subset. A port-level policy replaces that of its level as a whole; what a subset says
    /// replaces field by field.
    pub(super) fn new(host: Option<&'a TrafficPolicy>, subset: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let (host, _) = Self::at_port(host, port);
        let Some(subset) = subset else { return host };
        let (subset, port_level) = Self::at_port(Some(subset), port);
        if port_level {
            return Self { proxy_protocol: subset.proxy_protocol.or(host.proxy_protocol), ..subset };
        }
        Self {
            load_balancer: subset.load_balancer.or(host.load_balancer),
            pool: subset.pool.or(host.pool),
            proxy_protocol: subset.proxy_protocol.or(host.proxy_protocol),
            tls: subset.tls.or(host.tls),
        }
    }

    /// A policy that consists of a pool alone.
    pub(super) fn of_pool(pool: Option<&'a ConnectionPool>) -> Self {
        Self { pool, ..Self::default() }
    }

    /// TLS as written.
    pub(super) fn tls(&self) -> Option<&'a ClientTls> {
        self.tls
    }

    /// The pool as written.
    pub(super) fn connection_pool(&self) -> Option<&'a ConnectionPool> {
        self.pool
    }

    fn at_port(policy: Option<&'a TrafficPolicy>, port: u16) -> (Self, bool) {
        let Some(policy) = policy else { return (Self::default(), false) };
        let proxy_protocol = policy.proxy_protocol.as_ref().map(|protocol| protocol.version);
        let of_port = policy
            .port_level_settings
            .iter()
            .find(|settings| settings.port.as_ref().is_some_and(|written| written.number == port));
        match of_port {
            Some(settings) => (
                Self {
                    load_balancer: settings.load_balancer.as_ref(),
                    pool: settings.connection_pool.as_ref(),
                    proxy_protocol,
                    tls: settings.tls.as_ref(),
                },
                true,
            ),
            None => (
                Self {
                    load_balancer: policy.load_balancer.as_ref(),
                    pool: policy.connection_pool.as_ref(),
                    proxy_protocol,
                    tls: policy.tls.as_ref(),
                },
                false,
            ),
        }
    }

    /// How an endpoint is chosen. What only a filter of its own can do falls back to Istio's default.
    pub(super) fn balance(&self) -> Balance {
        match self.load_balancer.and_then(|balancer| balancer.simple).unwrap_or_default() {
            SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => Balance::LeastRequest,
            SimpleLb::RoundRobin => Balance::RoundRobin,
            SimpleLb::Random => Balance::Random,
            SimpleLb::Passthrough => Balance::Passthrough,
        }
    }

    /// Which PROXY header is written.
    pub(super) fn proxy_protocol(&self) -> Option<ProxyProtocolVersion> {
        self.proxy_protocol.map(|version| match version {
            WrittenVersion::V1 => ProxyProtocolVersion::V1,
            WrittenVersion::V2 => ProxyProtocolVersion::V2,
        })
    }

    /// What is spoken upstream: what the port declares, changed by `h2UpgradePolicy`; `useClientProtocol` wins.
    pub(super) fn protocol(&self, port: &Port, settings: &Settings<'_>) -> UpstreamProtocol {
        let http = self.pool.and_then(|pool| pool.http.as_ref());
        if http.is_some_and(|http| http.use_client_protocol == Some(true)) {
            return UpstreamProtocol::Downstream;
        }
        let upgrade = match http.and_then(|http| http.h2_upgrade_policy).unwrap_or_default() {
            H2UpgradePolicy::Upgrade => true,
            H2UpgradePolicy::DoNotUpgrade => false,
            H2UpgradePolicy::Default => settings.upgrades(),
        };
        match port.protocol {
            Protocol::Http2 => UpstreamProtocol::Http2,
            Protocol::Http | Protocol::Detect if upgrade => UpstreamProtocol::Http2,
            Protocol::Detect => UpstreamProtocol::Downstream,
            _ => UpstreamProtocol::Http1,
        }
    }

    /// Limits and times. Zero counts as not written, as in Istio.
    pub(super) fn pool(&self, settings: &Settings<'_>) -> Pool {
        let mut pool = Pool {
            connect_timeout: settings.connect_timeout(),
            keepalive: settings.keepalive().map(keepalive),
            ..Pool::default()
        };
        let Some(written) = self.pool.or_else(|| settings.pool()) else { return pool };
        if let Some(tcp) = &written.tcp {
            limit(&mut pool.max_connections, tcp.max_connections);
            time(&mut pool.connect_timeout, tcp.connect_timeout.map(Into::into));
            time(&mut pool.max_connection_duration, tcp.max_connection_duration.map(Into::into));
            time(&mut pool.tcp_idle_timeout, tcp.idle_timeout.map(Into::into));
            pool.keepalive = tcp.tcp_keepalive.as_ref().map(keepalive).or(pool.keepalive);
        }
        if let Some(http) = &written.http {
            limit(&mut pool.max_pending, http.http1_max_pending_requests);
            limit(&mut pool.max_requests, http.http2_max_requests);
            limit(&mut pool.max_requests_per_connection, http.max_requests_per_connection);
            limit(&mut pool.max_concurrent_streams, http.max_concurrent_streams);
            // An idle timeout of zero is written on purpose: never.
            pool.idle_timeout = http.idle_timeout.map_or(pool.idle_timeout, Into::into);
        }
        pool
    }
}

fn limit(field: &mut u32, written: Option<u32>) {
    if let Some(written) = written.filter(|written| *written > 0) {
        *field = written;
    }
}

fn time(field: &mut Duration, written: Option<Duration>) {
    if let Some(written) = written.filter(|written| !written.is_zero()) {
        *field = written;
    }
}

fn keepalive(written: &TcpKeepalive) -> Keepalive {
    Keepalive {
        probes: written.probes.filter(|probes| *probes > 0),
        time: written.time.map(Into::into),
        interval: written.interval.map(Into::into),
    }
}
