//! Objects of the mesh as text.

use std::net::SocketAddr;

/// A service of one port, reached as `host` at port 80.
pub fn service(host: &str, protocol: &str, endpoints: &[SocketAddr]) -> String {
    service_at(host, 80, protocol, endpoints)
}

/// A service of one port.
pub fn service_at(host: &str, port: u16, protocol: &str, endpoints: &[SocketAddr]) -> String {
    let name = host.replace('.', "-").replace('*', "any");
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|endpoint| format!("{{address: {}, ports: {{main: {}}}}}", endpoint.ip(), endpoint.port()))
        .collect();
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [\"{host}\"]
  ports: [{{number: {port}, name: main, protocol: {protocol}}}]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{}]
",
        endpoints.join(", ")
    )
}

/// A VirtualService for one host of the sidecar; `spec` holds `http`, `tcp` or `tls` at its left margin.
pub fn virtual_service(host: &str, spec: &str) -> String {
    let name = host.replace('.', "-").replace('*', "any");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [\"{host}\"]
{}",
        indented(spec)
    )
}

/// A DestinationRule for one host; `spec` holds `trafficPolicy` or `subsets` at its left margin.
pub fn destination_rule(host: &str, spec: &str) -> String {
    let name = host.replace('.', "-").replace('*', "any");
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: shop}}
spec:
  host: \"{host}\"
{}",
        indented(spec)
    )
}

fn indented(text: &str) -> String {
    text.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect()
}
