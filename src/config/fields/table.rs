//! The one table: what each field of each typed kind does in this release.

use crate::config::resources::Kind;

/// What a field does in this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// What it says is done.
    Enforced,
    /// It speaks to another component, such as kube-proxy or a control plane: there is nothing for a proxy to do.
    Foreign,
    /// It is not done yet, which is said wherever it is used with another value than these.
    Warned {
        /// What it would do.
        would: &'static str,
        /// Values that need nothing to be done.
        unless: &'static [&'static str],
    },
    /// The object is rejected, because without the field it would be weaker than it says.
    Refused {
        /// Why.
        why: &'static str,
        /// Values that are done.
        unless: &'static [&'static str],
    },
}

use Mark::{Enforced, Foreign};

const fn warned(would: &'static str) -> Mark {
    Mark::Warned { would, unless: &[] }
}

const fn refused(why: &'static str) -> Mark {
    Mark::Refused { why, unless: &[] }
}

/// The mark of all fields of a kind, for kinds that are not enforced at all.
#[must_use]
pub fn kind_mark(kind: Kind) -> Option<Mark> {
    Some(match kind {
        Kind::EnvoyFilter => warned("it patches Envoy, which is not used here"),
        Kind::WasmPlugin => warned("it would run a WebAssembly filter"),
        Kind::ProxyConfig => warned("it would change settings of proxies; write them into `kind: Proxy`"),
        Kind::WorkloadGroup => warned("it is a template for WorkloadEntries, which are read"),
        Kind::RateLimit => warned("it would limit rates by key"),
        Kind::CircuitBreaker => warned("it would stop calls to a failing service"),
        Kind::Bulkhead => warned("it would bound concurrency"),
        Kind::RetryPolicy => warned("it would bound and hedge retries"),
        Kind::Fallback => warned("it would answer for a failing service"),
        Kind::LoadBalancing => warned("it would balance by latency"),
        Kind::HealthCheck => warned("it would probe endpoints"),
        Kind::Reaction => warned("it would react to metrics"),
        _ => return None,
    })
}

/// Requests are routed once, behind all that judges them.
const ROUTED_AFTER: Mark = Mark::Warned {
    would: "the route would be that of the request before the provider changed it; here it is always chosen after",
    unless: &["true"],
};

/// Struct, its fields, their mark. A field below a `Warned` or `Refused` one needs no row.
type Row = (&'static str, &'static str, Mark);

pub(super) const TABLE: &[Row] = &[
    // VirtualService
    ("VirtualService", "hosts gateways http tls tcp exportTo", Enforced),
    ("HttpRoute", "name match route redirect directResponse delegate rewrite timeout headers", Enforced),
    ("HttpRoute", "retries", warned("a failed request would be tried again")),
    ("HttpRoute", "fault", warned("requests would be delayed or aborted on purpose")),
    (
        "HttpRoute",
        "mirror mirrors mirrorPercent mirrorPercentage",
        warned("copies of requests would be sent elsewhere"),
    ),
    ("HttpRoute", "corsPolicy", warned("cross-origin requests would be answered")),
    (
        "HttpMatch",
        "uri scheme method authority headers withoutHeaders queryParams ignoreUriCase port sourceLabels \
         sourceNamespace gateways name",
        Enforced,
    ),
    ("HttpMatch", "statPrefix", warned("it would name statistics of the route")),
    ("HttpRouteDestination", "destination weight headers", Enforced),
    ("HttpRedirect", "uri prefixRewrite authority port derivePort scheme redirectCode", Enforced),
    ("HttpDirectResponse", "status body", Enforced),
    ("HttpBody", "string bytes", Enforced),
    ("Delegate", "name namespace", Enforced),
    ("HttpRewrite", "uri authority uriRegexRewrite", Enforced),
    ("RegexRewrite", "match rewrite", Enforced),
    ("Headers", "request response", Enforced),
    ("HeaderOperations", "set add remove", Enforced),
    ("TlsRoute", "match route", Enforced),
    ("TlsMatch", "sniHosts destinationSubnets port sourceLabels sourceNamespace gateways", Enforced),
    ("TcpRoute", "match route", Enforced),
    ("L4Match", "destinationSubnets port sourceSubnet sourceLabels sourceNamespace gateways", Enforced),
    ("RouteDestination", "destination weight", Enforced),
    ("Destination", "host subset port", Enforced),
    ("PortSelector", "number", Enforced),
    ("StringMatch", "exact prefix regex", Enforced),
    // DestinationRule
    ("DestinationRule", "host trafficPolicy subsets exportTo workloadSelector", Enforced),
    ("MatchLabels", "matchLabels", Enforced),
    ("Subset", "name labels trafficPolicy", Enforced),
    ("TrafficPolicy", "loadBalancer connectionPool tls portLevelSettings proxyProtocol", Enforced),
    ("TrafficPolicy", "outlierDetection", warned(EJECTION)),
    ("TrafficPolicy", "tunnel", warned("TCP connections would go through an HTTP proxy")),
    ("TrafficPolicy", "retryBudget", warned("it would bound retries")),
    ("PortTrafficPolicy", "port loadBalancer connectionPool tls", Enforced),
    ("PortTrafficPolicy", "outlierDetection", warned(EJECTION)),
    ("LoadBalancer", "simple", Enforced),
    ("LoadBalancer", "consistentHash", warned("requests with equal keys would reach the same endpoint")),
    ("LoadBalancer", "localityLbSetting zoneAwareLbSetting", warned("near endpoints would be preferred")),
    ("LoadBalancer", "warmupDurationSecs warmup", warned("new endpoints would get less at first")),
    ("ConnectionPool", "tcp http", Enforced),
    ("TcpPool", "maxConnections connectTimeout tcpKeepalive maxConnectionDuration idleTimeout", Enforced),
    ("TcpKeepalive", "probes time interval", Enforced),
    (
        "HttpPool",
        "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection idleTimeout h2UpgradePolicy \
         useClientProtocol maxConcurrentStreams",
        Enforced,
    ),
    ("HttpPool", "http2KeepAlive", warned("idle HTTP/2 connections would be probed with PING")),
    ("HttpPool", "maxRetries", warned("it would bound retries")),
    (
        "ClientTls",
        "mode clientCertificate privateKey caCertificates caCrl credentialName subjectAltNames sni insecureSkipVerify",
        Enforced,
    ),
    ("ProxyProtocol", "version", Enforced),
    // ServiceEntry, WorkloadEntry, Sidecar, Gateway
    (
        "ServiceEntry",
        "hosts addresses ports location resolution endpoints workloadSelector exportTo subjectAltNames",
        Enforced,
    ),
    ("ServicePort", "number protocol name targetPort", Enforced),
    ("WorkloadEntry", "address ports labels locality weight serviceAccount", Enforced),
    ("WorkloadEntry", "network", warned("other networks would be reached through their gateways")),
    ("LabelsSelector", "labels", Enforced),
    ("Sidecar", "workloadSelector ingress egress inboundConnectionPool outboundTrafficPolicy", Enforced),
    ("IngressListener", "port bind captureMode defaultEndpoint connectionPool", Enforced),
    (
        "IngressListener",
        "tls",
        refused("TLS of a listener cannot be served yet, and plain text would be less than asked for"),
    ),
    ("EgressListener", "port bind captureMode hosts", Enforced),
    ("SidecarPort", "number protocol name", Enforced),
    ("SidecarPort", "targetPort", warned("it has no effect in Istio either; leave it out")),
    ("OutboundTrafficPolicy", "mode", Enforced),
    ("OutboundTrafficPolicy", "egressProxy", warned("unknown destinations would be sent to a gateway")),
    ("Gateway", "servers selector", Enforced),
    ("Server", "port bind hosts tls", Enforced),
    // Names for people, and for the route names of a control plane.
    ("Server", "name", Foreign),
    ("GatewayPort", "name", Foreign),
    (
        "ServerTls",
        "httpsRedirect mode serverCertificate privateKey caCertificates caCrl credentialName credentialNames \
         caCertCredentialName tlsCertificates subjectAltNames minProtocolVersion maxProtocolVersion cipherSuites",
        Enforced,
    ),
    (
        "ServerTls",
        "verifyCertificateSpki verifyCertificateHash",
        refused("client certificates cannot be pinned yet, and others would be let in"),
    ),
    ("ServerTls", "insecureSkipVerify", warned("client certificates are verified all the same")),
    ("TlsCertificate", "serverCertificate privateKey caCertificates", Enforced),
    ("PeerAuthentication", "selector mtls portLevelMtls", Enforced),
    ("MutualTls", "mode", Enforced),
    ("Server", "defaultEndpoint", warned("requests without a route would go there")),
    ("GatewayPort", "number protocol", Enforced),
    ("GatewayPort", "targetPort", warned("it has no effect in Istio either; leave it out")),
    // Security
    ("RequestAuthentication", "selector targetRef targetRefs jwtRules", Enforced),
    (
        "JwtRule",
        "issuer audiences jwksUri jwks fromHeaders fromParams fromCookies outputPayloadToHeader forwardOriginalToken \
         outputClaimToHeaders timeout spaceDelimitedClaims",
        Enforced,
    ),
    ("JwtHeader", "name prefix", Enforced),
    ("ClaimToHeader", "header claim", Enforced),
    ("AuthorizationPolicy", "selector targetRef targetRefs rules action provider", Enforced),
    ("AuthorizationProvider", "name", Enforced),
    ("TargetReference", "group kind name namespace", Enforced),
    ("Rule", "from to when", Enforced),
    ("From", "source", Enforced),
    (
        "PolicySource",
        "principals notPrincipals requestPrincipals notRequestPrincipals namespaces notNamespaces serviceAccounts \
         notServiceAccounts ipBlocks notIpBlocks remoteIpBlocks notRemoteIpBlocks trustDomains notTrustDomains",
        Enforced,
    ),
    ("To", "operation", Enforced),
    ("Operation", "hosts notHosts ports notPorts methods notMethods paths notPaths", Enforced),
    ("Condition", "key values notValues", Enforced),
    // AccessPolicy
    ("AccessPolicy", "selector mode priority rules default session risk roles permissions", Enforced),
    (
        "AccessPolicy",
        "host subset",
        refused(
            "access is judged where requests arrive; write `selector` with the labels of the destination",
        ),
    ),
    ("AccessRule", "name match when effect actions", Enforced),
    ("RequestMatch", "methods paths hosts headers", Enforced),
    ("AccessCondition", "key values notValues within above below", Enforced),
    ("TimeWindow", "days from to zone", Enforced),
    ("AccessAction", "addHeader audit", Enforced),
    ("AccessAction", "rateLimit", refused("there are no limits yet that it could spend from")),
    ("AddHeader", "name value", Enforced),
    ("AccessSession", "maxTokenAge maxCertificateAge revokeExisting", Enforced),
    ("AccessRisk", "header signals", Enforced),
    ("RiskHeader", "name from", Enforced),
    ("RiskSignals", "newSource failedAttempts noClientCertificate", Enforced),
    ("AccessRole", "claim value permissions", Enforced),
    ("AccessPermission", "name match", Enforced),
    ("AuditPolicy", "selector events allowedPercent file whenFull", Enforced),
    ("AuditFile", "path maxSize keep sync", Enforced),
    // Kubernetes
    ("Service", "clusterIP clusterIPs type ports selector externalName publishNotReadyAddresses", Enforced),
    (
        "Service",
        "externalIPs ipFamilyPolicy ipFamilies sessionAffinity sessionAffinityConfig externalTrafficPolicy \
         loadBalancerIP loadBalancerClass loadBalancerSourceRanges allocateLoadBalancerNodePorts healthCheckNodePort",
        Foreign,
    ),
    (
        "Service",
        "internalTrafficPolicy",
        Mark::Warned { would: "only endpoints of the own node would be used", unless: &["Cluster"] },
    ),
    ("Service", "trafficDistribution", warned("near endpoints would be preferred")),
    ("SessionAffinityConfig", "clientIP", Foreign),
    ("ClientIpConfig", "timeoutSeconds", Foreign),
    ("KubernetesServicePort", "name protocol appProtocol port targetPort", Enforced),
    ("KubernetesServicePort", "nodePort", Foreign),
    ("EndpointSlice", "endpoints ports", Enforced),
    (
        "EndpointSlice",
        "addressType",
        Mark::Refused {
            why: "endpoints of a slice are called by address, here as by kube-proxy and Istio; write a ServiceEntry with `resolution: DNS`",
            unless: &["IPv4", "IPv6"],
        },
    ),
    ("SliceEndpoint", "addresses conditions targetRef hostname zone deprecatedTopology", Enforced),
    // `internalTrafficPolicy: Local` would need the node, and has a warning of its own.
    ("SliceEndpoint", "hints nodeName", Foreign),
    ("EndpointHints", "forZones forNodes", Foreign),
    ("ForZone", "name", Foreign),
    ("EndpointConditions", "ready serving terminating", Enforced),
    ("ObjectReference", "apiVersion kind name namespace uid resourceVersion fieldPath", Foreign),
    ("SlicePort", "name port", Enforced),
    // They repeat what the Service says, which counts.
    ("SlicePort", "protocol appProtocol", Foreign),
    ("ConfigMap", "data binaryData immutable", Foreign),
    // Proxy
    (
        "Proxy",
        "role gateway workload cluster locality trustDomain workers outbound inbound interception admin \
         health metrics trust discovery state meshConfig limits drain identity credentials \
         explain redaction",
        Enforced,
    ),
    (
        "Proxy",
        "network",
        Mark::Warned {
            would: "endpoints of other networks would be reached through their gateways",
            unless: &[""],
        },
    ),
    ("Identity", "files", Enforced),
    ("Identity", "sds istio spiffe", refused("certificates come from files alone in this release")),
    ("IdentityFiles", "certificate privateKey trustBundle crl", Enforced),
    ("Credentials", "directory", Enforced),
    ("Trust", "system privateTargets", Enforced),
    ("State", "directory", Enforced),
    ("GatewayRole", "ports bind proxyProtocolFrom", Enforced),
    ("Workload", "name revision serviceAccount labels", Enforced),
    ("Locality", "region zone subzone", Enforced),
    ("Outbound", "addresses policy", Enforced),
    ("Inbound", "addresses application", Enforced),
    ("Address", "address", Enforced),
    ("Discovery", "xds", warned("configuration would come from an ADS server")),
    ("Discovery", "kubernetes", warned("configuration would come from the API server")),
    (
        "Limits",
        "maxConnections maxConcurrentStreams maxHeaderBytes maxHeaders headerTimeout idleTimeout streamIdleTimeout \
         handshakeTimeout maxBodyBytes",
        Enforced,
    ),
    ("Drain", "propagation gracePeriod", Enforced),
    ("Explain", "header allowedPercent", Enforced),
    ("Redaction", "headers query masks pseudonymKey", Enforced),
    ("Mask", "find pattern pseudonym", Enforced),
    ("PseudonymKey", "file", Enforced),
    // Telemetry
    ("Telemetry", "selector accessLogging", Enforced),
    ("Telemetry", "tracing", warned("traces would be made")),
    ("Telemetry", "metrics", warned("it would change metrics and their labels")),
    (
        "Telemetry",
        "targetRef targetRefs",
        warned("it would hold for one gateway or service; until then the whole object has no effect"),
    ),
    ("AccessLogging", "match providers disabled", Enforced),
    ("AccessLogging", "filter", warned("only some requests would be logged; now all are")),
    (
        "ModeSelector",
        "mode",
        Mark::Warned {
            would: "only one side of calls would be logged; now both are",
            unless: &["CLIENT_AND_SERVER"],
        },
    ),
    ("ProviderRef", "name", Enforced),
    // MeshConfig
    ("ExtensionProvider", "name envoyFileAccessLog envoyExtAuthzHttp envoyExtAuthzGrpc", Enforced),
    (
        "ExtAuthzHttp",
        "service port timeout pathPrefix failOpen statusOnError includeHeadersInCheck includeRequestHeadersInCheck \
         includeAdditionalHeadersInCheck includeRequestBodyInCheck headersToUpstreamOnAllow headersToDownstreamOnDeny \
         headersToDownstreamOnAllow",
        Enforced,
    ),
    ("ExtAuthzGrpc", "service port timeout failOpen statusOnError includeRequestBodyInCheck", Enforced),
    ("ExtAuthzHttp", "clearRouteCache", ROUTED_AFTER),
    ("ExtAuthzGrpc", "clearRouteCache", ROUTED_AFTER),
    ("ExtAuthzBody", "maxRequestBytes allowPartialMessage packAsBytes", Enforced),
    ("ExtensionProvider", "envoyOtelAls envoyHttpAls envoyTcpAls", warned("access logs would go there")),
    (
        "ExtensionProvider",
        "zipkin opentelemetry lightstep datadog skywalking opencensus stackdriver",
        warned("traces would go there"),
    ),
    ("ExtensionProvider", "prometheus", Foreign),
    ("ExtensionProvider", "sds", warned("certificates would come from there")),
    ("FileAccessLog", "path logFormat", Enforced),
    ("FileAccessLog", "omitEmptyValues", warned("values that are not there would be left out")),
    ("LogFormat", "text labels", Enforced),
    ("DefaultProviders", "accessLogging", Enforced),
    ("DefaultProviders", "tracing metrics", warned("traces and metrics would go there")),
    ("DefaultTrafficPolicy", "connectionPool", Enforced),
    ("DefaultTrafficPolicy", "outlierDetection", warned(EJECTION)),
    (
        "MeshConfig",
        "outboundTrafficPolicy inboundTrafficPolicy defaultConfig accessLogFile accessLogFormat accessLogEncoding \
         rootNamespace trustDomain defaultServiceExportTo defaultVirtualServiceExportTo defaultDestinationRuleExportTo \
         protocolDetectionTimeout connectTimeout tcpKeepalive h2UpgradePolicy dnsRefreshRate pathNormalization \
         extensionProviders defaultProviders defaultTrafficPolicy trustDomainAliases enableAutoMtls meshMTLS",
        Enforced,
    ),
    ("MeshConfig", "enableTracing", warned("traces would be made")),
    ("MeshConfig", "tlsDefaults", warned("it would shape TLS towards servers outside of the mesh")),
    ("MeshTls", "minProtocolVersion ecdhCurves cipherSuites", Enforced),
    ("MeshConfig", "defaultHttpRetryPolicy", warned("a failed request would be tried again")),
    ("MeshConfig", "localityLbSetting zoneAwareLbSetting", warned("near endpoints would be preferred")),
    ("MeshConfig", "serviceSettings", warned("it would keep services within their cluster")),
    ("MeshOutboundPolicy", "mode", Enforced),
    ("MeshOutboundPolicy", "tls", warned("unknown destinations would be reached by TLS")),
    ("MeshInboundPolicy", "mode", Enforced),
    ("PathNormalization", "normalization", Enforced),
    (
        "ProxyConfig",
        "concurrency",
        warned("it would set the number of workers; write `workers` into the Proxy"),
    ),
    (
        "ProxyConfig",
        "terminationDrainDuration",
        warned("it would bound the drain at the end; write `drain.gracePeriod` into the Proxy"),
    ),
    (
        "ProxyConfig",
        "drainDuration discoveryAddress interceptionMode holdApplicationUntilProxyStarts proxyMetadata statusPort meshId",
        Foreign,
    ),
    ("ProxyConfig", "gatewayTopology proxyHeaders", Enforced),
    ("Topology", "numTrustedProxies proxyProtocol forwardClientCertDetails", Enforced),
    ("ProxyHeaders", "server forwardedClientCert", Enforced),
    (
        "ProxyHeaders",
        "requestId attemptCount envoyDebugHeaders preserveHttp1HeaderCase",
        warned("it would choose the headers that the proxy adds"),
    ),
    ("ServerHeader", "disabled value", Enforced),
    ("ProxyConfig", "tracing", warned("traces would be made")),
    ("ProxyConfig", "extraStatTags", warned("it would add labels to metrics")),
];

const EJECTION: &str = "failing endpoints would be left out for a while";

/// Fields that exist, that no struct holds, and that speak to a control plane alone.
const FOREIGN: &[(&str, &str)] = &[
    (
        "MeshConfig",
        "proxyListenPort proxyInboundListenPort proxyHttpPort hboneIdleTimeout ingressClass ingressService \
         ingressControllerMode ingressSelector enableEnvoyAccessLogService disableEnvoyListenerLog configSources \
         caCertificates inboundClusterStatName outboundClusterStatName certificates serviceScopeConfigs \
         enablePrometheusMerge verifyCertificateAtClient ca discoverySelectors serviceEntryVisibility",
    ),
    (
        "ProxyConfig",
        "configPath binaryPath serviceCluster tracingServiceName discoveryRefreshDelay zipkinAddress statsdUdpAddress \
         envoyMetricsServiceAddress proxyAdminPort availabilityZone controlPlaneAuthPolicy customConfigFile \
         statNameLength proxyBootstrapTemplatePath sds envoyAccessLogService envoyMetricsService runtimeValues \
         readinessProbe proxyStatsMatcher caCertificatesPem image privateKeyProvider fileFlushInterval \
         fileFlushMinSizeKb statsCompression connectionSettings",
    ),
];

/// The mark of a field of a struct.
pub(super) fn mark(object: &str, field: &str) -> Option<Mark> {
    TABLE
        .iter()
        .find(|(name, fields, _)| *name == object && fields.split_whitespace().any(|name| name == field))
        .map(|&(.., mark)| mark)
}

/// Whether a field is known although no struct holds it.
pub(super) fn is_foreign(object: &str, field: &str) -> bool {
    FOREIGN
        .iter()
        .any(|(name, fields)| *name == object && fields.split_whitespace().any(|name| name == field))
}
