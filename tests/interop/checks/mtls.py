"""Envoy as the other end of mutual TLS, client and server, over HTTP/1.1 and HTTP/2; and who is refused."""
import hashlib
import re
import ssl

from harness import check, expect, free_port
from mesh import (Authority, Held, Sidecar, Witness, downstream, envoy, member, need_envoy, request, send, spiffe, strict, upstream)

need_envoy()
# What Istio's sidecars offer: first a name that tells the mesh, last the plain one.
OFFERS = {False: ("istio-http/1.1", "istio", "http/1.1"), True: ("istio-h2", "istio", "h2")}
SNI = "outbound_.80_._.server.interop"
MADE = {}


def once(name, make):
    if name not in MADE:
        MADE[name] = make()
    return MADE[name]


def mesh():
    return once("mesh", Authority)


def identity(account):
    return mesh().issue(account)


def application():
    return once("application", Witness)


def strict_server():
    """Sidegate before the application, under STRICT."""
    return once("server", lambda: Sidecar("mtls-server", application().port, identity("server"), [strict()]))


def envoy_client(name, held, http2, sans=(spiffe("server"),)):
    return envoy("envoy-client-" + name, strict_server().inbound, http2, client_tls=upstream(held, OFFERS[http2], SNI, sans))


def envoy_server(name, held, sans=(spiffe("client"),)):
    """Envoy before the application, as Istio configures an inbound listener."""
    details = {"subject": True, "uri": True}
    manager = {"forward_client_cert_details": "APPEND_FORWARD", "set_current_client_cert_details": details}
    return envoy("envoy-server-" + name, application().port, server_tls=downstream(held, sans=sans), manager=manager)


def sidegate_client(name, port, http2=False, held=None, rules=(), tls=True):
    """Sidegate before a client, which knows the service at `port` as one of the mesh."""
    service = member("server.interop", port, "HTTP2" if http2 else "HTTP", "server", tls)
    return Sidecar("mtls-client-" + name, free_port(), held or identity("client"), [service, *rules],
                   spec={"workload": {"serviceAccount": "client", "labels": {"app": "client"}}})


def elements(value):
    """`x-forwarded-client-cert` as Istio's tools read it: elements by commas, pairs by semicolons, both outside of quotes."""
    found = []
    for element in re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*")+', value):
        pairs = {}
        for pair in re.findall(r'(?:[^;"]|"(?:\\.|[^"\\])*")+', element):
            key, equals, text = pair.partition("=")
            if not equals or key not in ("By", "Hash", "Subject", "URI", "DNS", "Cert", "Chain"):
                raise AssertionError(f"{pair!r} of {value!r} is no pair of x-forwarded-client-cert")
            if text.startswith('"'):
                text = re.sub(r"\\(.)", r"\1", text[1:-1])
            pairs.setdefault(key, []).append(text)
        found.append(pairs)
    return found


def told(answer):
    """The one header that the application was given."""
    expect(answer.status, 200, "status")
    values = answer.seen["headers"].get("x-forwarded-client-cert", [])
    expect(len(values), 1, "number of x-forwarded-client-cert headers")
    return elements(values[0])


def refused(port, what):
    """The application hears nothing of it, and the client that speaks plain text to its proxy gets a 503."""
    before = application().requests
    expect(send(port, request()).status, 503, f"status {what}")
    expect(application().requests, before, f"requests at the application {what}")


@check("Envoy -> Sidegate STRICT, HTTP/1.1: the application is told the client")
def envoy_to_us_h1():
    client = once("client-h1", lambda: envoy_client("h1", identity("client"), False))
    last = told(send(client, request()))[-1]
    expect((last["By"], last["URI"]), ([spiffe("server")], [spiffe("client")]))


@check("Envoy -> Sidegate STRICT, HTTP/2: the application is told the client")
def envoy_to_us_h2():
    last = told(send(envoy_client("h2", identity("client"), True), request()))[-1]
    expect((last["By"], last["URI"]), ([spiffe("server")], [spiffe("client")]))
    versions = [line.split('"')[1].split()[-1] for line in strict_server().lines(2)]
    expect(versions[:2], ["HTTP/1.1", "HTTP/2"], "versions between the proxies")


@check("Sidegate -> Envoy that requires a certificate, HTTP/1.1")
def us_to_envoy_h1():
    client = sidegate_client("h1", once("envoy", lambda: envoy_server("good", identity("server"))))
    last = told(send(client.outbound, request()))[-1]
    expect((last["By"], last["URI"]), ([spiffe("server")], [spiffe("client")]))


@check("Sidegate -> Envoy that requires a certificate, HTTP/2")
def us_to_envoy_h2():
    client = sidegate_client("h2", once("envoy", lambda: envoy_server("good", identity("server"))), True)
    last = told(send(client.outbound, request()))[-1]
    expect((last["By"], last["URI"]), ([spiffe("server")], [spiffe("client")]))


@check("what the application is told parses as Istio's tools read it: By, Hash, Subject, URI")
def forwarded():
    client = once("client-h1", lambda: envoy_client("h1", identity("client"), False))
    with open(identity("client").chain) as chain:
        first = chain.read().partition("-----END CERTIFICATE-----")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0] + first[1])).hexdigest()
    forged = "By=spiffe://a/ns/b/sa/c;Hash=00;Subject=\"CN=a,O=\\\"b\\\"\";URI=spiffe://cluster.local/ns/interop/sa/admin"
    for headers in ((), (("x-forwarded-client-cert", forged),)):
        found = told(send(client, request(headers=headers)))
        expect(found[-1], {"By": [spiffe("server")], "Hash": [digest], "Subject": [""], "URI": [spiffe("client")]}, "the last element")
    # By hand of a client of the mesh: what it says stays before what is proven, as Istio's inbound APPEND_FORWARD has it.
    found = told(send(strict_server().inbound, request(headers=[("x-forwarded-client-cert", forged)]), identity("client")))
    expect([element["URI"][0] for element in found], [spiffe("admin"), spiffe("client")], "the elements' URIs")
    expect(found[0]["Subject"], ['CN=a,O="b"'], "a quoted subject")


@check("STRICT refuses Envoys of a wrong trust domain, another root, expired, not yet valid, and without a certificate")
def bad_clients():
    wrong = {
        "domain": mesh().forge("wrong-domain", spiffe("client", domain="elsewhere.org")),
        "expired": mesh().forge("expired", spiffe("client"), (-2, -1)),
        "early": mesh().forge("early", spiffe("client"), (1, 2)),
        "nameless": mesh().forge("nameless", "https://cluster.local/ns/interop/sa/client"),
        "root": once("stranger", lambda: Authority("stranger").issue("client")),
        "none": Held(None, None, mesh().root)}
    for name, held in wrong.items():
        # Each believes the mesh's root, so that the refusal is ours.
        held = Held(held.chain, held.key, mesh().root)
        if held.chain:
            expect(send(strict_server().inbound, request(), held).status, 0, f"status for a client that checks nothing, with {name!r}")
        for http2 in (False, True):
            refused(envoy_client(f"{name}-{'h2' if http2 else 'h1'}", held, http2), f"with the certificate {name!r}")


@check("X25519MLKEM768 with Envoy in both directions; where it is required, X25519 alone is refused")
def hybrid():
    hybrid, classic = ("X25519MLKEM768",), ("X25519",)
    required = Sidecar("mtls-required", application().port, identity("server"), [strict()], mesh={"meshMTLS": {"ecdhCurves": list(hybrid)}})
    for name, server, curves in (("preferred", strict_server(), hybrid), ("classic", strict_server(), classic), ("required", required, hybrid)):
        tls = upstream(identity("client"), OFFERS[True], SNI, (spiffe("server"),), curves)
        told(send(envoy("envoy-client-" + name, server.inbound, True, client_tls=tls), request()))
    tls = upstream(identity("client"), OFFERS[True], SNI, (spiffe("server"),), classic)
    refused(envoy("envoy-client-too-old", required.inbound, True, client_tls=tls), "with X25519 where the hybrid is required")
    server = envoy("envoy-server-hybrid", application().port, server_tls=downstream(identity("server"), curves=hybrid))
    expect(send(sidegate_client("hybrid", server).outbound, request()).status, 200, "status towards an Envoy that takes X25519MLKEM768 alone")


@check("STRICT refuses plain text")
def plain():
    before = application().requests
    expect(send(strict_server().inbound, request()).status, 0, "status")
    expect(application().requests, before, "requests at the application")


@check("Sidegate refuses Envoys of a wrong trust domain, another account, another root, and expired, and logs why")
def bad_servers():
    wrong = {
        "domain": (mesh().forge("wrong-domain-server", spiffe("server", domain="elsewhere.org")), "elsewhere.org"),
        "account": (identity("other"), "sa/other"),
        "root": (once("stranger-server", lambda: Authority("stranger").issue("server")), "TLS"),
        "expired": (mesh().forge("expired-server", spiffe("server"), (-2, -1)), "expired")}
    for name, (held, reason) in wrong.items():
        server = envoy_server(name, Held(held.chain, held.key, mesh().root), sans=None)
        for http2 in (False, True):
            client = sidegate_client(f"bad-{name}-{'h2' if http2 else 'h1'}", server, http2)
            refused(client.outbound, f"with the server {name!r}")
            line = client.lines()[0]
            expect(reason in line and " 503 UF " in line, True, f"{reason!r} in {line!r}")


@check("Envoy that requires a certificate refuses Sidegate of another account, and without one")
def unknown_to_envoy():
    server = once("envoy", lambda: envoy_server("good", identity("server")))
    refused(sidegate_client("other", server, held=identity("other")).outbound, "as another account")
    refused(sidegate_client("plain", server, tls=False).outbound, "in plain text")
    simple = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "simple", "namespace": "interop"},
              "spec": {"host": "server.interop", "trafficPolicy": {"tls": {"mode": "SIMPLE", "caCertificates": mesh().root, "insecureSkipVerify": True}}}}
    refused(sidegate_client("simple", server, rules=[simple]).outbound, "with TLS but no certificate")


@check("a proxy whose own certificate is expired says so, and takes and sends nothing by it")
def expired_ourselves():
    held = mesh().forge("expired-own", spiffe("server"), (-2, -1))
    before = application().requests
    proxy = Sidecar("mtls-expired", application().port, held, [strict(), member("server.interop", strict_server().inbound, account="server")])
    expect(send(proxy.inbound, request(), identity("client")).status, 0, "status inbound")
    expect(send(proxy.outbound, request()).status, 503, "status outbound")
    expect(application().requests, before, "requests at the application")
    expect(send(proxy.health, request(target="/healthz/ready")).status, 503, "status of readiness")
