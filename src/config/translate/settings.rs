//! What holds for the whole mesh: the Proxy's `meshConfig` over Istio's own ConfigMap over Istio's defaults.

use std::time::Duration;

use super::index::{Index, Notes};
use crate::config::resources::Resource;
use crate::config::resources::istio::common::{ConnectionPool, H2UpgradePolicy, TcpKeepalive};
use crate::config::resources::istio::mesh_config::{
    AccessLogEncoding, InboundMode, MeshConfig, Normalization,
};
use crate::config::resources::istio::provider::ExtensionProvider;
use crate::config::resources::istio::sidecar::OutboundMode;
use crate::config::resources::proxy::Proxy;
use crate::mesh::{ForwardClientCert, KeyExchange, MeshTls, PathNormalization, TlsVersion};

/// The settings of the mesh, field by field from whoever says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    own: &'a MeshConfig,
    shared: Option<&'a MeshConfig>,
}

/// The DNS domain of the cluster.
pub(super) const DOMAIN: &str = "cluster.local";

impl<'a> Settings<'a> {
    /// Those of a proxy. Of several ConfigMaps the one in `istio-system` counts, else the oldest.
    pub(super) fn new(proxy: &'a Proxy, index: &Index<'a>) -> Self {
        let shared = index
            .mesh_configs
            .iter()
            .find(|config| &**config.namespace() == "istio-system")
            .or(index.mesh_configs.first())
            .map(|config| config.spec);
        Self { own: &proxy.mesh_config, shared }
    }

    fn pick<T>(&self, field: impl Fn(&'a MeshConfig) -> Option<T>) -> Option<T> {
        field(self.own).or_else(|| field(self.shared?))
    }

    fn list(&self, field: impl Fn(&'a MeshConfig) -> &'a [String]) -> &'a [String] {
        match (field(self.own), self.shared) {
            ([], Some(shared)) => field(shared),
            (own, _) => own,
        }
    }

    /// The namespace whose objects hold for all.
    pub(super) fn root(&self) -> &'a str {
        self.pick(|config| config.root_namespace.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("istio-system")
    }

    /// The trust domain: the Proxy's, unless it leaves the default to the mesh.
    pub(super) fn trust_domain(&self, proxy: &'a Proxy) -> &'a str {
        let mesh = self.pick(|config| config.trust_domain.as_deref()).filter(|name| !name.is_empty());
        if proxy.trust_domain == DOMAIN { mesh.unwrap_or(DOMAIN) } else { &proxy.trust_domain }
    }

    /// What holds for mutual TLS in the mesh.
    pub(super) fn mesh_tls(&self, notes: &Notes, object: &Resource) -> MeshTls {
        let aliases = self.list(|config| &config.trust_domain_aliases);
        let mut tls = MeshTls {
            trust_domain_aliases: aliases.iter().map(|alias| alias.as_str().into()).collect(),
            ..MeshTls::default()
        };
        let Some(written) = self.pick(|config| config.mesh_mtls.as_ref()) else { return tls };
        if written.min_protocol_version.as_deref() == Some("TLSV1_3") {
            tls.min_version = TlsVersion::Tls13;
        }
        tls.cipher_suites = written.cipher_suites.iter().map(|suite| suite.as_str().into()).collect();
        let hybrid = |curve: &String| curve.eq_ignore_ascii_case("X25519MLKEM768");
        tls.key_exchange = match &written.ecdh_curves[..] {
            [] => KeyExchange::Prefer,
            curves if curves.iter().all(hybrid) => KeyExchange::Require,
            curves if curves.iter().any(hybrid) => KeyExchange::Prefer,
            _ => KeyExchange::Off,
        };
        for curve in written.ecdh_curves.iter().filter(|curve| !hybrid(curve)) {
            if !["X25519", "P-256", "P-384"].contains(&curve.as_str()) {
                let message = format!("`{curve}` is no key exchange that this proxy speaks");
                let hint = "write X25519MLKEM768, X25519, P-256 or P-384";
                notes.warn(object, "spec.meshConfig.meshMTLS.ecdhCurves", "curve", message, hint);
            }
        }
        tls
    }

    /// Whether sidecars are called by mutual TLS where no DestinationRule says otherwise.
    pub(super) fn auto_mtls(&self) -> bool {
        self.pick(|config| config.enable_auto_mtls).unwrap_or(true)
    }

    /// Other names of the trust domain.
    pub(super) fn trust_domain_aliases(&self) -> &'a [String] {
        self.list(|config| &config.trust_domain_aliases)
    }

    /// What happens to unknown destinations.
    pub(super) fn outbound(&self) -> OutboundMode {
        self.pick(|config| config.outbound_traffic_policy.as_ref())
            .map_or(OutboundMode::AllowAny, |policy| policy.mode)
    }

    /// Where connections to undeclared inbound ports go.
    pub(super) fn inbound(&self) -> InboundMode {
        self.pick(|config| config.inbound_traffic_policy.as_ref())
            .map_or(InboundMode::Passthrough, |policy| policy.mode)
    }

    /// Who sees a service that says nothing.
    pub(super) fn service_exports(&self) -> &'a [String] {
        self.list(|config| &config.default_service_export_to)
    }

    /// Who sees a VirtualService that says nothing.
    pub(super) fn virtual_service_exports(&self) -> &'a [String] {
        self.list(|config| &config.default_virtual_service_export_to)
    }

    /// Who sees a DestinationRule that says nothing.
    pub(super) fn destination_rule_exports(&self) -> &'a [String] {
        self.list(|config| &config.default_destination_rule_export_to)
    }

    /// How long the first bytes may take. Zero: as long as any handshake; Istio waits for ever.
    pub(super) fn detection_timeout(&self) -> Duration {
        self.pick(|config| config.protocol_detection_timeout).map_or(Duration::ZERO, Into::into)
    }

    /// Time to connect.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.pick(|config| config.connect_timeout).map_or(Duration::from_secs(10), Into::into)
    }

    /// TCP keep-alive of clusters that say nothing.
    pub(super) fn keepalive(&self) -> Option<&'a TcpKeepalive> {
        self.pick(|config| config.tcp_keepalive.as_ref())
    }

    /// Whether HTTP/1.1 is sent on as HTTP/2 where nothing is said.
    pub(super) fn upgrades(&self) -> bool {
        self.pick(|config| config.h2_upgrade_policy) == Some(H2UpgradePolicy::Upgrade)
    }

    /// Time between DNS look-ups without a lifetime.
    pub(super) fn dns_refresh(&self) -> Duration {
        self.pick(|config| config.dns_refresh_rate).map_or(Duration::from_secs(60), Into::into)
    }

    /// Limits of hosts without a rule.
    pub(super) fn pool(&self) -> Option<&'a ConnectionPool> {
        self.pick(|config| config.default_traffic_policy.as_ref())
            .and_then(|policy| policy.connection_pool.as_ref())
    }

    /// How paths are made canonical.
    pub(super) fn normalization(&self) -> PathNormalization {
        match self
            .pick(|config| config.path_normalization.as_ref())
            .map_or(Normalization::Default, |path| path.normalization)
        {
            Normalization::None => PathNormalization::None,
            Normalization::Default | Normalization::Base => PathNormalization::Base,
            Normalization::MergeSlashes => PathNormalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        }
    }

    /// What becomes of `x-forwarded-client-cert`; `None`: as it is usual where the request arrives.
    pub(super) fn forward_client_cert(&self, gateway: bool) -> Option<ForwardClientCert> {
        let topology = || {
            self.pick(|config| {
                config
                    .default_config
                    .as_ref()?
                    .gateway_topology
                    .as_ref()?
                    .forward_client_cert_details
                    .as_deref()
            })
        };
        let headers = self.pick(|config| {
            config.default_config.as_ref()?.proxy_headers.as_ref()?.forwarded_client_cert.as_deref()
        });
        match headers.or_else(|| topology().filter(|_| gateway))? {
            "SANITIZE" => Some(ForwardClientCert::Sanitize),
            "FORWARD_ONLY" => Some(ForwardClientCert::ForwardOnly),
            "APPEND_FORWARD" => Some(ForwardClientCert::AppendForward),
            "SANITIZE_SET" => Some(ForwardClientCert::SanitizeSet),
            "ALWAYS_FORWARD_ONLY" => Some(ForwardClientCert::AlwaysForwardOnly),
            _ => None,
        }
    }

    /// How many proxies in front of a gateway are trusted.
    pub(super) fn trusted_hops(&self) -> u32 {
        self.pick(|config| config.default_config.as_ref()?.gateway_topology.as_ref()?.num_trusted_proxies)
            .unwrap_or(0)
    }

    /// Whether connections to a gateway begin with a PROXY protocol header.
    pub(super) fn proxy_protocol(&self) -> bool {
        self.pick(|config| config.default_config.as_ref()?.gateway_topology.as_ref()?.proxy_protocol.as_ref())
            .is_some()
    }

    /// The `server` header of inbound answers; empty leaves it alone.
    pub(super) fn server_header(&self) -> &'a str {
        let header =
            self.pick(|config| config.default_config.as_ref()?.proxy_headers.as_ref()?.server.as_ref());
        match header {
            Some(header) if header.disabled == Some(true) => "",
            Some(header) => header.value.as_deref().unwrap_or("istio-envoy"),
            None => "istio-envoy",
        }
    }

    /// The access log of a mesh without Telemetry: file, format and encoding.
    pub(super) fn access_log(&self) -> Option<(&'a str, Option<&'a str>, AccessLogEncoding)> {
        let path = self.pick(|config| config.access_log_file.as_deref()).filter(|path| !path.is_empty())?;
        let format =
            self.pick(|config| config.access_log_format.as_deref()).filter(|format| !format.is_empty());
        Some((path, format, self.pick(|config| config.access_log_encoding).unwrap_or_default()))
    }

    /// Providers of access logs where no Telemetry names one.
    pub(super) fn default_log_providers(&self) -> &'a [String] {
        self.list(|config| {
            config.default_providers.as_ref().map_or(&[], |providers| &providers.access_logging)
        })
    }

    /// A provider by its name.
    pub(super) fn provider(&self, name: &str) -> Option<&'a ExtensionProvider> {
        let find = |config: &'a MeshConfig| config.extension_providers.iter().find(|one| one.name == name);
        self.pick(find)
    }
}
