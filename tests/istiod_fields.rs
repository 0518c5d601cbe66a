//! Every field that a real istiod sends has a home in the model, or a named reason why not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// What becomes of a field.
enum Home {
    /// It is kept: `Type::field` or `Type::Variant` of the mesh model.
    Mesh(&'static str),
    /// It waits for the filter or part that does this.
    Later(&'static str),
    /// It needs nothing to be done, and why.
    Nothing(&'static str),
}

use Home::{Later, Mesh, Nothing};

const MTLS: Home = Later("mutual TLS between workloads");
const SDS: Home = Later("certificates by SDS");
const RETRY: Home = Later("retries");
const TRACING: Home = Later("tracing");
const JWT: Home = Later("tokens");
const RBAC: Home = Later("authorization");
const EJECTION: Home = Later("outlier ejection");
const ADS: Home =
    Nothing("the resource comes by the same ADS stream, and a first answer is always waited for");
const STATS: Home = Nothing("names Envoy's statistics; ours follow Istio's standard metrics");
const PEER_METADATA: Home = Later("metadata of the peer in metrics");
const KIND: Home = Nothing("the type of the message, told by its place");

/// Message and field, as they are on the wire; list indexes and map keys are left out.
const TABLE: &[(&str, Home)] = &[
    (
        "AccessLog.filter.responseFlagFilter.flags[]",
        Nothing("a connection without a chain is always logged, with NR"),
    ),
    ("AccessLog.name", KIND),
    ("Cluster", KIND),
    ("Cluster.altStatName", STATS),
    ("Cluster.circuitBreakers.thresholds[].maxConnections", Mesh("Pool::max_connections")),
    ("Cluster.circuitBreakers.thresholds[].maxPendingRequests", Mesh("Pool::max_pending")),
    ("Cluster.circuitBreakers.thresholds[].maxRequests", Mesh("Pool::max_requests")),
    ("Cluster.circuitBreakers.thresholds[].maxRetries", RETRY),
    ("Cluster.cleanupInterval", Nothing("original destinations are not kept as hosts")),
    ("Cluster.commonLbConfig", Nothing("an empty message")),
    ("Cluster.commonLbConfig.healthyPanicThreshold", Nothing("zero: there is no panic mode, as here")),
    ("Cluster.connectTimeout", Mesh("Pool::connect_timeout")),
    ("Cluster.edsClusterConfig.edsConfig.ads", ADS),
    ("Cluster.edsClusterConfig.edsConfig.initialFetchTimeout", ADS),
    ("Cluster.edsClusterConfig.edsConfig.resourceApiVersion", ADS),
    ("Cluster.edsClusterConfig.serviceName", Mesh("Discovery::Endpoints")),
    ("Cluster.filters[].name", PEER_METADATA),
    ("Cluster.lbPolicy", Mesh("Cluster::balance")),
    ("Cluster.metadata.filterMetadata.*.config", Mesh("Cluster::origin")),
    ("Cluster.metadata.filterMetadata.*.services[].host", Mesh("ServiceName::host")),
    ("Cluster.metadata.filterMetadata.*.services[].name", Mesh("ServiceName::name")),
    ("Cluster.metadata.filterMetadata.*.services[].namespace", Mesh("ServiceName::namespace")),
    ("Cluster.metadata.filterMetadata.*.subset", Mesh("ServiceName::subset")),
    ("Cluster.name", Mesh("Cluster::name")),
    ("Cluster.outlierDetection.baseEjectionTime", EJECTION),
    ("Cluster.outlierDetection.enforcingSuccessRate", EJECTION),
    ("Cluster.outlierDetection.interval", EJECTION),
    ("Cluster.outlierDetection.maxEjectionPercent", EJECTION),
    ("Cluster.transportSocketMatches[].match", MTLS),
    ("Cluster.transportSocketMatches[].match.tlsMode", MTLS),
    ("Cluster.transportSocketMatches[].name", MTLS),
    ("Cluster.transportSocketMatches[].transportSocket.name", MTLS),
    ("Cluster.type", Mesh("Cluster::discovery")),
    ("Cluster.upstreamBindConfig.sourceAddress.address", Mesh("Cluster::source_address")),
    ("Cluster.upstreamBindConfig.sourceAddress.portValue", Nothing("zero: any port")),
    ("ClusterLoadAssignment", KIND),
    ("ClusterLoadAssignment.clusterName", Mesh("Mesh::endpoints")),
    (
        "ClusterLoadAssignment.endpoints[].lbEndpoints[].endpoint.address.socketAddress.address",
        Mesh("EndpointAddress::Socket"),
    ),
    (
        "ClusterLoadAssignment.endpoints[].lbEndpoints[].endpoint.address.socketAddress.portValue",
        Mesh("EndpointAddress::Socket"),
    ),
    ("ClusterLoadAssignment.endpoints[].lbEndpoints[].healthStatus", Mesh("Endpoint::health")),
    ("ClusterLoadAssignment.endpoints[].lbEndpoints[].loadBalancingWeight", Mesh("Endpoint::weight")),
    ("ClusterLoadAssignment.endpoints[].lbEndpoints[].metadata.filterMetadata.*.tlsMode", MTLS),
    (
        "ClusterLoadAssignment.endpoints[].lbEndpoints[].metadata.filterMetadata.*.workload",
        Mesh("Endpoint::workload"),
    ),
    ("ClusterLoadAssignment.endpoints[].loadBalancingWeight", Later("weights of localities")),
    ("ClusterLoadAssignment.endpoints[].locality", Mesh("Endpoint::locality")),
    ("CommonTlsContext.alpnProtocols[]", MTLS),
    ("CommonTlsContext.combinedValidationContext.defaultValidationContext", MTLS),
    (
        "CommonTlsContext.combinedValidationContext.defaultValidationContext.matchSubjectAltNames[].exact",
        MTLS,
    ),
    (
        "CommonTlsContext.combinedValidationContext.defaultValidationContext.matchSubjectAltNames[].prefix",
        MTLS,
    ),
    ("CommonTlsContext.tlsParams.cipherSuites[]", MTLS),
    ("CommonTlsContext.tlsParams.tlsMaximumProtocolVersion", MTLS),
    ("CommonTlsContext.tlsParams.tlsMinimumProtocolVersion", MTLS),
    ("Cors", Nothing("an empty filter: the rules come with routes")),
    ("DownstreamTlsContext", MTLS),
    ("DownstreamTlsContext.requireClientCertificate", MTLS),
    ("FileAccessLog", KIND),
    ("FileAccessLog.logFormat.textFormatSource.inlineString", Mesh("LogFormat::CustomText")),
    ("FileAccessLog.path", Mesh("AccessLog::path")),
    ("FilterChain.filterChainMatch", Mesh("FilterChain::matches")),
    ("FilterChain.filterChainMatch.applicationProtocols[]", Mesh("ChainMatch::application_protocols")),
    ("FilterChain.filterChainMatch.destinationPort", Mesh("ChainMatch::destination_port")),
    ("FilterChain.filterChainMatch.transportProtocol", Mesh("ChainMatch::transport")),
    ("FilterChain.filters[].name", Mesh("FilterChain::protocol")),
    ("FilterChain.name", Mesh("FilterChain::name")),
    ("FilterChain.transportSocket.name", MTLS),
    ("FilterChain.transportSocketConnectTimeout", MTLS),
    // Two filters call their message so: Istio's ALPN override, and Envoy's statistics of gRPC.
    ("FilterConfig", KIND),
    ("FilterConfig.alpnOverride[].alpnOverride[]", MTLS),
    ("FilterConfig.alpnOverride[].upstreamProtocol", MTLS),
    ("FilterConfig.emitFilterState", STATS),
    ("FilterConfig.statsForAllMethods", STATS),
    ("HTTPFault", Nothing("an empty filter: faults come with routes")),
    ("HttpConnectionManager", Mesh("ChainProtocol::Http")),
    ("HttpConnectionManager.forwardClientCertDetails", MTLS),
    ("HttpConnectionManager.httpFilters[].name", Mesh("HttpChain::filters")),
    (
        "HttpConnectionManager.httpProtocolOptions.allowAbsoluteUrl",
        Nothing("absolute targets are always read"),
    ),
    ("HttpConnectionManager.normalizePath", Mesh("HttpChain::path_normalization")),
    ("HttpConnectionManager.pathWithEscapedSlashesAction", Mesh("HttpChain::path_normalization")),
    ("HttpConnectionManager.proxy100Continue", Nothing("`100-continue` is always passed through")),
    ("HttpConnectionManager.rds.configSource.ads", ADS),
    ("HttpConnectionManager.rds.configSource.initialFetchTimeout", ADS),
    ("HttpConnectionManager.rds.configSource.resourceApiVersion", ADS),
    ("HttpConnectionManager.rds.routeConfigName", Mesh("HttpChain::routes")),
    ("HttpConnectionManager.serverName", Mesh("HttpChain::server_name")),
    ("HttpConnectionManager.setCurrentClientCertDetails.dns", MTLS),
    ("HttpConnectionManager.setCurrentClientCertDetails.subject", MTLS),
    ("HttpConnectionManager.setCurrentClientCertDetails.uri", MTLS),
    ("HttpConnectionManager.statPrefix", STATS),
    ("HttpConnectionManager.streamIdleTimeout", Mesh("HttpChain::stream_idle_timeout")),
    ("HttpConnectionManager.tracing.clientSampling.value", TRACING),
    ("HttpConnectionManager.tracing.customTags[].literal.value", TRACING),
    ("HttpConnectionManager.tracing.customTags[].metadata.kind.request", TRACING),
    ("HttpConnectionManager.tracing.customTags[].metadata.metadataKey.key", TRACING),
    ("HttpConnectionManager.tracing.customTags[].metadata.metadataKey.path[].key", TRACING),
    ("HttpConnectionManager.tracing.customTags[].tag", TRACING),
    ("HttpConnectionManager.tracing.overallSampling.value", TRACING),
    ("HttpConnectionManager.tracing.provider.name", TRACING),
    ("HttpConnectionManager.tracing.randomSampling.value", TRACING),
    ("HttpConnectionManager.upgradeConfigs[].upgradeType", Mesh("HttpChain::upgrades")),
    ("HttpConnectionManager.useRemoteAddress", Mesh("HttpChain::edge")),
    ("HttpInspector", Mesh("ChainProtocol::Detect")),
    ("HttpProtocolOptions", KIND),
    ("HttpProtocolOptions.commonHttpProtocolOptions.idleTimeout", Mesh("Pool::idle_timeout")),
    (
        "HttpProtocolOptions.commonHttpProtocolOptions.maxRequestsPerConnection",
        Mesh("Pool::max_requests_per_connection"),
    ),
    ("HttpProtocolOptions.explicitHttpConfig.http2ProtocolOptions", Mesh("UpstreamProtocol::Http2")),
    ("HttpProtocolOptions.explicitHttpConfig.httpProtocolOptions", Mesh("UpstreamProtocol::Http1")),
    (
        "HttpProtocolOptions.useDownstreamProtocolConfig.http2ProtocolOptions",
        Mesh("UpstreamProtocol::Downstream"),
    ),
    (
        "HttpProtocolOptions.useDownstreamProtocolConfig.httpProtocolOptions",
        Mesh("UpstreamProtocol::Downstream"),
    ),
    ("JwtAuthentication", JWT),
    ("JwtAuthentication.bypassCorsPreflight", JWT),
    ("JwtAuthentication.providers.*.issuer", JWT),
    ("JwtAuthentication.providers.*.localJwks.inlineString", JWT),
    ("JwtAuthentication.providers.*.normalizePayloadInMetadata.spaceDelimitedClaims[]", JWT),
    ("JwtAuthentication.providers.*.payloadInMetadata", JWT),
    ("JwtAuthentication.rules[].match.prefix", JWT),
    ("JwtAuthentication.rules[].requires.requiresAny.requirements[].allowMissing", JWT),
    ("JwtAuthentication.rules[].requires.requiresAny.requirements[].providerName", JWT),
    ("Listener", KIND),
    ("Listener.address.socketAddress.address", Mesh("Listener::addresses")),
    ("Listener.address.socketAddress.portValue", Mesh("Listener::addresses")),
    ("Listener.bindToPort", Mesh("Listener::bound")),
    (
        "Listener.continueOnListenerFiltersTimeout",
        Nothing("a connection that says nothing always counts as plain TCP"),
    ),
    ("Listener.listenerFiltersTimeout", Mesh("Listener::detection_timeout")),
    (
        "Listener.listenerFilters[].filterDisabled.destinationPortRange.end",
        Nothing("a port without detection has a chain that needs none"),
    ),
    (
        "Listener.listenerFilters[].filterDisabled.destinationPortRange.start",
        Nothing("a port without detection has a chain that needs none"),
    ),
    ("Listener.listenerFilters[].name", Mesh("Listener::interception")),
    ("Listener.maxConnectionsToAcceptPerSocketEvent", Nothing("a worker accepts one connection at a time")),
    ("Listener.name", Mesh("Listener::name")),
    ("Listener.trafficDirection", Mesh("Listener::direction")),
    ("Listener.useOriginalDst", Mesh("Listener::hand_over")),
    ("OpenTelemetryConfig", TRACING),
    ("OpenTelemetryConfig.grpcService.envoyGrpc.authority", TRACING),
    ("OpenTelemetryConfig.grpcService.envoyGrpc.clusterName", TRACING),
    ("OpenTelemetryConfig.serviceName", TRACING),
    ("OriginalDst", Mesh("Listener::interception")),
    ("PluginConfig", STATS),
    ("PluginConfig.disableHostHeaderFallback", STATS),
    ("PreviousHostsPredicate", RETRY),
    ("RBAC", RBAC),
    ("RBAC.rules", RBAC),
    ("RBAC.rules.policies.*.permissions[].andRules.rules[].orRules.rules[].header.name", RBAC),
    ("RBAC.rules.policies.*.permissions[].andRules.rules[].orRules.rules[].header.stringMatch.exact", RBAC),
    ("RBAC.rules.policies.*.permissions[].andRules.rules[].orRules.rules[].urlPath.path.exact", RBAC),
    ("RBAC.rules.policies.*.permissions[].andRules.rules[].orRules.rules[].urlPath.path.prefix", RBAC),
    ("RBAC.rules.policies.*.principals[].andIds.ids[].orIds.ids[].authenticated.principalName.exact", RBAC),
    (
        "RBAC.rules.policies.*.principals[].andIds.ids[].orIds.ids[].authenticated.principalName.safeRegex.regex",
        RBAC,
    ),
    ("RBAC.shadowRulesStatPrefix", RBAC),
    ("RBAC.statPrefix", RBAC),
    ("RawBuffer", Nothing("plain text: what is spoken without mutual TLS")),
    ("RouteConfiguration", KIND),
    ("RouteConfiguration.ignorePortInHostMatching", Mesh("RouteTable::ignore_port")),
    (
        "RouteConfiguration.maxDirectResponseBodySizeBytes",
        Nothing("a body that was accepted is answered whole"),
    ),
    ("RouteConfiguration.name", Mesh("RouteTable::name")),
    (
        "RouteConfiguration.validateClusters",
        Nothing("a missing cluster never rejects a table: it is answered 503 NC"),
    ),
    ("RouteConfiguration.virtualHosts[].domains[]", Mesh("VirtualHost::domains")),
    ("RouteConfiguration.virtualHosts[].includeRequestAttemptCount", RETRY),
    ("RouteConfiguration.virtualHosts[].name", Mesh("VirtualHost::name")),
    ("RouteConfiguration.virtualHosts[].routes[].decorator.operation", TRACING),
    ("RouteConfiguration.virtualHosts[].routes[].match.caseSensitive", Mesh("RouteMatch::ignore_path_case")),
    ("RouteConfiguration.virtualHosts[].routes[].match.headers[].name", Mesh("HeaderMatch::name")),
    (
        "RouteConfiguration.virtualHosts[].routes[].match.headers[].stringMatch.exact",
        Mesh("StringMatch::Exact"),
    ),
    ("RouteConfiguration.virtualHosts[].routes[].match.prefix", Mesh("PathMatch::Prefix")),
    ("RouteConfiguration.virtualHosts[].routes[].metadata.filterMetadata.*.config", Mesh("Route::origin")),
    ("RouteConfiguration.virtualHosts[].routes[].name", Mesh("Route::name")),
    ("RouteConfiguration.virtualHosts[].routes[].route.cluster", Mesh("WeightedCluster::cluster")),
    (
        "RouteConfiguration.virtualHosts[].routes[].route.maxGrpcTimeout",
        Nothing("the timeout filter bounds `grpc-timeout` by the timeout of the route"),
    ),
    (
        "RouteConfiguration.virtualHosts[].routes[].route.maxStreamDuration.grpcTimeoutHeaderMax",
        Nothing("the timeout filter bounds `grpc-timeout` by the timeout of the route"),
    ),
    (
        "RouteConfiguration.virtualHosts[].routes[].route.maxStreamDuration.maxStreamDuration",
        Nothing("zero: no limit; the timeout of the route covers the whole exchange"),
    ),
    ("RouteConfiguration.virtualHosts[].routes[].route.retryPolicy.hostSelectionRetryMaxAttempts", RETRY),
    ("RouteConfiguration.virtualHosts[].routes[].route.retryPolicy.numRetries", RETRY),
    ("RouteConfiguration.virtualHosts[].routes[].route.retryPolicy.perTryTimeout", RETRY),
    ("RouteConfiguration.virtualHosts[].routes[].route.retryPolicy.retryHostPredicate[].name", RETRY),
    ("RouteConfiguration.virtualHosts[].routes[].route.retryPolicy.retryOn", RETRY),
    ("RouteConfiguration.virtualHosts[].routes[].route.timeout", Mesh("RouteAction::filters")),
    ("Router", Nothing("the end of the stack, which is always there")),
    ("SdsSecretConfig.name", SDS),
    ("SdsSecretConfig.sdsConfig.apiConfigSource.apiType", SDS),
    ("SdsSecretConfig.sdsConfig.apiConfigSource.grpcServices[].envoyGrpc.clusterName", SDS),
    ("SdsSecretConfig.sdsConfig.apiConfigSource.setNodeOnFirstMessageOnly", SDS),
    ("SdsSecretConfig.sdsConfig.apiConfigSource.transportApiVersion", SDS),
    ("SdsSecretConfig.sdsConfig.initialFetchTimeout", SDS),
    ("SdsSecretConfig.sdsConfig.resourceApiVersion", SDS),
    ("TcpProxy", Mesh("ChainProtocol::Tcp")),
    ("TcpProxy.cluster", Mesh("TcpChain::target")),
    ("TcpProxy.statPrefix", STATS),
    ("TlsInspector", Mesh("ChainMatch::server_names")),
    (
        "TlsInspector.initialReadBufferSize",
        Nothing("the first bytes are read into a buffer that grows to its bound"),
    ),
    ("TypedStruct", PEER_METADATA),
    ("TypedStruct.typeUrl", PEER_METADATA),
    ("TypedStruct.value.downstream_discovery[].istio_headers", PEER_METADATA),
    ("TypedStruct.value.downstream_discovery[].workload_discovery", PEER_METADATA),
    ("TypedStruct.value.downstream_propagation[].istio_headers", PEER_METADATA),
    ("TypedStruct.value.enable_discovery", PEER_METADATA),
    ("TypedStruct.value.protocol", PEER_METADATA),
    ("TypedStruct.value.upstream_discovery[].istio_headers", PEER_METADATA),
    ("TypedStruct.value.upstream_discovery[].workload_discovery", PEER_METADATA),
    ("TypedStruct.value.upstream_propagation[].istio_headers", PEER_METADATA),
    ("UpstreamTlsContext", MTLS),
    ("UpstreamTlsContext.sni", MTLS),
    ("UuidRequestIdConfig", TRACING),
    ("UuidRequestIdConfig.useRequestIdForTraceSampling", TRACING),
];

/// Messages without a type of their own on the wire that occur at several places.
const PARTS: &[(&str, &str)] = &[
    ("CommonTlsContext.combinedValidationContext.validationContextSdsSecretConfig", "SdsSecretConfig"),
    ("CommonTlsContext.tlsCertificateSdsSecretConfigs[]", "SdsSecretConfig"),
    ("DownstreamTlsContext.commonTlsContext", "CommonTlsContext"),
    ("HttpConnectionManager.accessLog[]", "AccessLog"),
    ("HttpConnectionManager.routeConfig", "RouteConfiguration"),
    ("Listener.accessLog[]", "AccessLog"),
    ("Listener.defaultFilterChain", "FilterChain"),
    ("Listener.filterChains[]", "FilterChain"),
    ("TcpProxy.accessLog[]", "AccessLog"),
    ("UpstreamTlsContext.commonTlsContext", "CommonTlsContext"),
];

/// Fields whose keys are names that somebody chose.
const MAPS: &[&str] = &[
    ".filterMetadata",
    ".policies",
    ".providers",
    ".typedExtensionProtocolOptions",
    ".typedPerFilterConfig",
];

fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let part = PARTS.iter().find(|(from, _)| *from == path).map_or(path, |(_, to)| to);
    match value {
        Value::Object(fields) => {
            let kind = fields.get("@type").and_then(Value::as_str);
            let path = kind.and_then(|kind| kind.rsplit('.').next()).unwrap_or(part);
            if fields.is_empty() || kind.is_some() {
                found.insert(path.to_owned());
            }
            let is_map = MAPS.iter().any(|map| path.ends_with(map));
            for (key, value) in fields.iter().filter(|(key, _)| *key != "@type") {
                walk(value, &format!("{path}.{}", if is_map { "*" } else { key }), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| walk(item, &format!("{part}[]"), found));
        }
        _ => {
            found.insert(part.to_owned());
        }
    }
}

#[test]
fn every_field_that_istiod_sends_has_a_home_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/istiod");
    let mut found = BTreeSet::new();
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        files += 1;
        let answers: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for answer in answers.as_object().unwrap().values() {
            for resource in answer["resources"].as_array().unwrap() {
                walk(resource, "", &mut found);
            }
        }
    }
    assert_eq!(files, 4);
    let known: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(known.len(), TABLE.len(), "a row stands twice");
    assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "fields without a row");
    assert_eq!(known.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a field");
}

#[test]
fn every_home_exists_and_every_reason_says_something() {
    let model = ["mesh.rs", "mesh/cluster.rs", "mesh/listener.rs", "mesh/route.rs"]
        .map(|file| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap())
        .concat();
    for (path, home) in TABLE {
        match home {
            Mesh(place) => {
                let (owner, part) = place.split_once("::").unwrap();
                let body = ["struct", "enum"]
                    .iter()
                    .find_map(|word| model.split(&format!("pub {word} {owner} {{")).nth(1))
                    .and_then(|rest| rest.split("\n}").next())
                    .unwrap_or_else(|| panic!("{path}: the mesh has no {owner}"));
                let exists = body.lines().map(str::trim).any(|line| {
                    let line = line.strip_prefix("pub ").unwrap_or(line);
                    line.strip_prefix(part).is_some_and(|rest| rest.starts_with([':', '(', ',', ' ']))
                });
                assert!(exists, "{path}: {owner} has no {part}");
            }
            Later(what) | Nothing(what) => assert!(what.len() > 3, "{path}"),
        }
    }
}
