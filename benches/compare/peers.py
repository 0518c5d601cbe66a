"""What is compared: the configuration of each proxy for each scenario, with the same work for all.

A peer is a function from a scenario to the command that serves it on LISTEN and forwards to UP[...]; None: not supported.
"""
import json
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", ROOT + "/target")
CACHE = os.environ.get("SIDEGATE_INTEROP_CACHE", os.path.expanduser("~/.cache/sidegate-interop"))

W = os.environ.get("BENCH_DIR", HERE + "/out")
CERTS = W + "/certs"
BIN = {name: os.environ.get("BENCH_" + name.upper(), default) for name, default in {
    "ours": TARGET + "/release/sidegate",
    "envoy": CACHE + "/envoy",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "oha": "oha",
}.items()}
PROXY_CPU, LOAD_CPU = os.environ.get("PROXY_CPU", "0"), os.environ.get("LOAD_CPU", "1")
# BENCH_NICE=-10: for latency runs on a machine that others share.
NICE = ["nice", "-n", os.environ["BENCH_NICE"]] if os.environ.get("BENCH_NICE") else []

LISTEN = 20080
UP = {"h1": 19080, "h2": 19081, "mtls": 19443}

# scenario: (downstream, upstream, load)
SCENARIOS = {
    "h1": ("h1", "h1", "wrk"), "h2": ("h2", "h2", "h2load"), "grpc": ("h2", "h2", "grpc"),
    "big": ("h1", "h1", "wrkbig"), "rate": ("h1", "h1", "rate"),
    "out": ("h1", "mtls", "wrk"), "in": ("mtls", "h1", "oha"), "both": ("mtls", "mtls", "oha"),
    "mrate": ("mtls", "mtls", "mrate"), "hs": ("mtls", "h1", "hs"), "hspq": ("mtls", "h1", "hs"),
    "filt": ("h1", "h1", "wrk"), "denied": ("h1", "h1", "wrkdenied"), "jwt": ("h1", "h1", "wrkjwt"),
}
# The key exchange, the same for all who can be told; the hybrid one is a scenario of its own.
GROUP = {"hspq": "X25519MLKEM768"}
TRUST_DOMAIN = "bench.local"
# The 20 rules of `filt` and `denied`: (path, method). The last one alone lets a request of the load pass.
RULES = [(f"/api/service-{number}/*", "POST") for number in range(19)] + [("/", "GET")]

# Istio's default text line, as Envoy's operators say it.
ISTIO_LINE = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% '
    '%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n')


def write(name, text):
    path = f"{W}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def need_certs():
    """Makes what is missing, and leaves what is there."""
    if not os.path.exists(CERTS + "/client.pem"):
        certs()


def certs():
    """A CA, and a server and a client certificate of it."""
    os.makedirs(CERTS, exist_ok=True)

    def openssl(*args):
        subprocess.run(("openssl", *args), check=True, cwd=CERTS, stderr=subprocess.DEVNULL)

    p256 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *p256, "-days", "30", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=bench-ca")
    for role in ("server", "client"):
        write("certs/ext", f"subjectAltName=DNS:localhost,IP:127.0.0.1,URI:spiffe://{TRUST_DOMAIN}/ns/bench/sa/{role}\n"
                           "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        openssl("req", *p256, "-keyout", role + ".key", "-out", role + ".csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", role + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "30", "-extfile", "ext", "-out", role + ".crt")
        with open(f"{CERTS}/{role}.crt") as crt, open(f"{CERTS}/{role}.key") as key:
            write(f"certs/{role}.pem", crt.read() + key.read())


def jwt():
    """An RS256 token and its key set, by openssl alone."""
    import base64

    def b64(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    key = CERTS + "/jwt.key"
    if not os.path.exists(key):
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", CERTS + "/jwt.pub"], check=True,
                       stderr=subprocess.DEVNULL)
    modulus = subprocess.run(["openssl", "rsa", "-in", key, "-noout", "-modulus"], capture_output=True, text=True,
                             check=True).stdout.strip().split("=")[1]
    head = b64(json.dumps({"alg": "RS256", "typ": "JWT", "kid": "k1"}).encode())
    claims = b64(json.dumps({"iss": "bench", "sub": "alice", "aud": "bench", "exp": int(time.time()) + 864000}).encode())
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=f"{head}.{claims}".encode(),
                               capture_output=True, check=True).stdout
    keys = {"keys": [{"kty": "RSA", "kid": "k1", "alg": "RS256", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"}]}
    return f"{head}.{claims}.{b64(signature)}", json.dumps(keys)


def upstream(tls=False):
    """nginx that answers 1 KiB, 64 KiB and something like gRPC; with mutual TLS besides when `tls`."""
    big = W + "/www"
    os.makedirs(big, exist_ok=True)
    write("www/64k", "y" * 65536)
    for path in (W, big):
        os.chmod(path, 0o755)
    body = "x" * 1024
    locations = (f"location /64k {{ root {big}; }} location / {{ default_type text/plain; return 200 \"{body}\"; }} "
                 f"location /g.S/ {{ default_type application/grpc; return 200 \"{body}\"; }}")
    mutual = (f"ssl_certificate {CERTS}/server.crt; ssl_certificate_key {CERTS}/server.key; "
              f"ssl_client_certificate {CERTS}/ca.crt; ssl_verify_client on; ssl_protocols TLSv1.3;")
    secure = f"server {{ listen 127.0.0.1:{UP['mtls']} ssl; {mutual} {locations} }}" if tls else ""
    config = write("up.conf", f"""worker_processes 1; daemon off; pid {W}/up.pid; error_log {W}/up.err error; worker_rlimit_nofile 18000;
events {{ worker_connections 8000; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; sendfile on; open_file_cache max=10;
server {{ listen 127.0.0.1:{UP['h1']} reuseport; {locations} }}
server {{ listen 127.0.0.1:{UP['h2']} http2; {locations} }}
{secure} }}""")
    return NICE + ["taskset", "-c", LOAD_CPU, BIN["nginx"], "-c", config, "-p", W]


def ours(scenario):
    """Access log to a file, metrics and request ids on: as a sidecar runs. Where the downstream side has policies or mutual TLS it is the
    inbound one; where both sides have mutual TLS it is a gateway, as a sidecar speaks plain text to its application."""
    down, up, _ = SCENARIOS[scenario]
    role = "gateway" if (down, up) == ("mtls", "mtls") else "inbound" if down == "mtls" or scenario in ("filt", "denied", "jwt") else "outbound"
    protocol = "GRPC" if scenario == "grpc" else "HTTP2" if up == "h2" else "HTTP"
    identity = f"""  trustDomain: {TRUST_DOMAIN}
  identity: {{files: {{certificate: {CERTS}/ROLE.crt, privateKey: {CERTS}/ROLE.key, trustBundle: {CERTS}/ca.crt}}}}
""" if "mtls" in (down, up) else ""
    listens = {
        "outbound": f"""  outbound: {{addresses: ["127.0.0.1:{LISTEN}"]}}
  inbound: {{addresses: ["127.0.0.1:20006"]}}
""",
        "inbound": f"""  outbound: {{addresses: ["127.0.0.1:20001"]}}
  inbound: {{addresses: ["127.0.0.1:{LISTEN}"], application: "127.0.0.1:{UP[up]}"}}
""",
        "gateway": f"""  role: Gateway
  gateway: {{bind: 127.0.0.1, ports: {{443: {LISTEN}}}}}
"""}[role]
    own = f"""apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {{name: bench, namespace: bench}}
spec:
  workers: 1
  workload: {{serviceAccount: server, labels: {{app: bench}}}}
{listens}{identity.replace("ROLE", "client" if role == "outbound" else "server")}  admin: {{address: "127.0.0.1:20000"}}
  health: {{address: "127.0.0.1:20021"}}
  metrics: {{address: "127.0.0.1:20090"}}
  meshConfig:
    accessLogFile: "{log_file('ours')}"
    meshMTLS: {{ecdhCurves: [{GROUP.get(scenario, "X25519")}]}}
"""
    objects = [own] + {"outbound": [upstream_service(protocol, up)], "inbound": inbound_objects(scenario, up),
                       "gateway": [upstream_service(protocol, up), *gateway_objects()]}[role]
    # In a folder of its own: ours watches the folder, and the load generator writes its log into the one above.
    return [BIN["ours"], "run", "--config", write("ours/ours.yaml", "---\n".join(objects))]


def upstream_service(protocol, up):
    label = ", labels: {security.istio.io/tlsMode: istio}" if up == "mtls" else ""
    return f"""apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: upstream, namespace: bench}}
spec:
  # The Host headers that wrk, h2load, oha and the first probe send.
  hosts: ["127.0.0.1", "localhost"]
  ports:
  - {{number: 80, name: without-port, protocol: {protocol}}}
  - {{number: {LISTEN}, name: with-port, protocol: {protocol}}}
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{without-port: {UP[up]}, with-port: {UP[up]}}}{label}}}]
"""


def inbound_objects(scenario, up):
    """The application's Service, and what the scenario asks of its callers."""
    objects = [f"""apiVersion: v1
kind: Service
metadata: {{name: bench, namespace: bench}}
spec: {{selector: {{app: bench}}, ports: [{{name: http, port: 80, targetPort: {UP[up]}}}]}}
"""]

    def security(kind, spec):
        objects.append(f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: bench, namespace: bench}}\nspec: {spec}\n")

    if SCENARIOS[scenario][0] == "mtls":
        security("PeerAuthentication", "{mtls: {mode: STRICT}}")
    if scenario in ("filt", "denied"):
        rules = [{"to": [{"operation": {"paths": [path], "methods": [method]}}]} for path, method in RULES]
        security("AuthorizationPolicy", json.dumps({"action": "ALLOW", "rules": rules}))
    if scenario == "jwt":
        security("RequestAuthentication", json.dumps({"jwtRules": [{"issuer": "bench", "jwks": jwt()[1], "forwardOriginalToken": True}]}))
        security("AuthorizationPolicy", json.dumps({"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}))
    return objects


def gateway_objects():
    return [f"""apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: bench, namespace: bench}}
spec:
  selector: {{app: bench}}
  servers:
  - {{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ["*"], tls: {{mode: ISTIO_MUTUAL}}}}
""", """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bench, namespace: bench}
spec:
  hosts: ["*"]
  gateways: [bench]
  http: [{route: [{destination: {host: localhost, port: {number: 80}}}]}]
"""]


def log_file(peer):
    """A new access log on disk, as a container's standard output is in the end."""
    return write(f"{peer}.access.log", "")


def nginx(scenario):
    down, up, _ = SCENARIOS[scenario]
    if scenario in ("filt", "denied", "jwt", "hspq"):
        return None     # no such rules, no JWT, and Debian's OpenSSL has no hybrid key exchange
    tls = (f"ssl_certificate {CERTS}/server.crt; ssl_certificate_key {CERTS}/server.key; ssl_client_certificate {CERTS}/ca.crt; "
           "ssl_verify_client on; ssl_protocols TLSv1.3; ssl_session_tickets off;") if down == "mtls" else ""
    port = UP["h1"] if up == "h2" else UP[up]     # nginx speaks HTTP/1.1 alone to its upstreams
    tls_up = (f"proxy_ssl_certificate {CERTS}/client.crt; proxy_ssl_certificate_key {CERTS}/client.key; "
              f"proxy_ssl_trusted_certificate {CERTS}/ca.crt; proxy_ssl_verify on; proxy_ssl_name localhost; "
              "proxy_ssl_protocols TLSv1.3;") if up == "mtls" else ""
    config = write("nginx.conf", f"""worker_processes 1; daemon off; pid {W}/ng.pid; error_log {W}/ng.err error; worker_rlimit_nofile 18000;
events {{ worker_connections 8000; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
upstream u {{ server 127.0.0.1:{port} max_conns=5000; keepalive 512; keepalive_requests 100000000; keepalive_timeout 3600s; }}
server {{ listen 127.0.0.1:{LISTEN} {dict(h1='', h2='http2', mtls='ssl')[down]}; {tls}
location / {{ proxy_pass {'https' if up == 'mtls' else 'http'}://u;
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering on; {tls_up} }} }} }}""")
    return [BIN["nginx"], "-c", config, "-p", W]


def haproxy(scenario):
    down, up, _ = SCENARIOS[scenario]
    bind = dict(h1="", h2="proto h2",
                mtls=f"ssl crt {CERTS}/server.pem ca-file {CERTS}/ca.crt verify required ssl-min-ver TLSv1.3 alpn http/1.1")[down]
    server = dict(h1="", h2="proto h2",
                  mtls=f"ssl crt {CERTS}/client.pem ca-file {CERTS}/ca.crt verify required sni str(localhost) "
                       "verifyhost localhost ssl-min-ver TLSv1.3")[up]
    if scenario == "hspq":
        return None
    rules = ""
    if scenario in ("filt", "denied"):
        rules = "log global\n option httplog\n"
        for path, method in RULES:
            match = f"path_beg {path[:-1]}" if path.endswith("*") else f"path {path}"
            rules += f" http-request allow if {{ {match} }} {{ method {method} }}\n"
        rules += " http-request deny deny_status 403\n"
    if scenario == "jwt":
        rules = ("log global\n option httplog\n http-request deny deny_status 401 unless "
                 f"{{ http_auth_bearer,jwt_verify(\"RS256\",\"{CERTS}/jwt.pub\") -m int 1 }}\n")
    config = write("haproxy.cfg", f"""global
 maxconn 8000
 nbthread 1
 log stdout format raw local0
 tune.ssl.default-dh-param 2048
defaults
 mode http
 timeout connect 5s
 timeout client 3600s
 timeout server 3600s
 http-reuse always
frontend f
 bind 127.0.0.1:{LISTEN} {bind}
 {rules}
 default_backend b
backend b
 server s 127.0.0.1:{UP[up]} {server} maxconn 5000 pool-max-conn 1000
""")
    return [BIN["haproxy"], "-db", "-f", config]


EXTENSIONS = "type.googleapis.com/envoy.extensions."


def envoy(scenario, log=False, lean=False):
    """Envoy 1.40. `log` writes Istio's text line to a file, as ours does; `lean` leaves out request ids and statistics."""
    down, up, _ = SCENARIOS[scenario]
    manager = {
        "@type": EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
        "codec_type": "HTTP2" if down == "h2" else "HTTP1", "http_filters": envoy_filters(scenario),
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "0s"}}]}]}}
    if lean:
        manager["generate_request_id"] = False
    if log:
        path = log_file("envoy_log")
        manager["access_log"] = [{"name": "file", "typed_config": {
            "@type": EXTENSIONS + "access_loggers.file.v3.FileAccessLog", "path": path,
            "log_format": {"text_format_source": {"inline_string": ISTIO_LINE}}}}]
    chain = {"filters": [{"name": "hcm", "typed_config": manager}]}
    if down == "mtls":
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": EXTENSIONS + "transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True, "common_tls_context": envoy_tls("server", scenario)}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": UP[up]}}
    cluster = {
        "name": "c", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000,
                                             "max_requests": 100000, "max_retries": 100000}]}}
    if up == "h2":
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}
    if up == "mtls":
        cluster["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": EXTENSIONS + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost",
            "common_tls_context": envoy_tls("client", scenario)}}
    bootstrap = {"static_resources": {"clusters": [cluster], "listeners": [{
        "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": LISTEN}},
        "filter_chains": [chain]}]}}
    if lean:
        bootstrap["stats_config"] = {"stats_matcher": {"reject_all": True}}
    config = write("envoy.json", json.dumps(bootstrap))
    return [BIN["envoy"], "-c", config, "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"]


def envoy_filters(scenario):
    filters = []

    def add(name, kind, **settings):
        filters.append({"name": "envoy.filters.http." + name,
                        "typed_config": {"@type": f"{EXTENSIONS}filters.http.{name}.v3.{kind}", **settings}})

    if scenario == "jwt":
        add("jwt_authn", "JwtAuthentication",
            providers={"p": {"issuer": "bench", "forward": True, "local_jwks": {"inline_string": jwt()[1]}}},
            rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}])
    if scenario in ("filt", "denied"):
        policies = {}
        for number, (path, method) in enumerate(RULES):
            matcher = {"prefix": path[:-1]} if path.endswith("*") else {"exact": path}
            both = [{"url_path": {"path": matcher}}, {"header": {"name": ":method", "string_match": {"exact": method}}}]
            policies[f"rule-{number:02}"] = {"permissions": [{"and_rules": {"rules": both}}], "principals": [{"any": True}]}
        add("rbac", "RBAC", rules={"action": "ALLOW", "policies": policies})
    add("router", "Router")
    return filters


def envoy_tls(role, scenario):
    return {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                           "ecdh_curves": [GROUP.get(scenario, "X25519")]},
            "tls_certificates": [{"certificate_chain": {"filename": f"{CERTS}/{role}.crt"},
                                  "private_key": {"filename": f"{CERTS}/{role}.key"}}],
            "validation_context": {"trusted_ca": {"filename": f"{CERTS}/ca.crt"}}}


PEERS = {
    "ours": ours,
    "envoy_log": lambda scenario: envoy(scenario, log=True),
    "envoy": envoy,
    "envoy_lean": lambda scenario: envoy(scenario, lean=True),
    "haproxy": haproxy,
    "nginx": nginx,
}
