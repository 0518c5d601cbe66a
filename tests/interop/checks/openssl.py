"""`openssl s_client` against a workload under STRICT: versions, cipher suites, key exchange, certificates, ALPN."""
import re
import subprocess

from harness import Skip, check, expect, free_port, need, run, start
from mesh import Authority, Sidecar, Witness, spiffe, strict

OPENSSL = need("openssl")
AUTHENTICATED = ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
ISTIO = ("-alpn", "istio-http/1.1,istio,http/1.1")
MADE = {}


def made():
    """Two workloads, with an ECDSA and an RSA key, and a client."""
    if not MADE:
        mesh, application = Authority("openssl-mesh"), Witness()
        MADE["client"] = mesh.issue("client")
        MADE["ECDSA"] = Sidecar("openssl-ecdsa", application.port, mesh.issue("server"), [strict()]).inbound
        MADE["application"] = application
        MADE["mesh"] = mesh
    return MADE


def rsa():
    if "RSA" not in made():
        held = MADE["mesh"].forge("openssl-rsa", spiffe("server"), rsa=True)
        MADE["RSA"] = Sidecar("openssl-rsa", MADE["application"].port, held, [strict()]).inbound
    return MADE["RSA"]


def talk(port, *options, certificate=True, alpn=ISTIO):
    """What s_client says of a handshake and one request."""
    client = made()["client"]
    proof = ("-cert", client.chain, "-key", client.key) if certificate else ()
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", client.root, "-ign_eof", *proof, *alpn, *options]
    text = b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"
    done = subprocess.run(command, input=text, capture_output=True, timeout=30)
    return (done.stdout + done.stderr).decode(errors="replace")


def accepted(said, what):
    expect("HTTP/1.1 200" in said, True, f"{what}: an answer in {said[-400:]!r}")


def refused(said, what, alert=r"alert (handshake failure|protocol version|certificate required|insufficient security|no application protocol)"):
    """By an alert of ours: a client that does not even ask would prove nothing."""
    before = "HTTP/1.1 200" in said
    expect((before, bool(re.search(alert, said))), (False, True), f"{what}: (answered, refused by an alert) in {said[-400:]!r}")


def suites(kind, port):
    for suite in AUTHENTICATED:
        name = f"ECDHE-{kind}-{suite}"
        said = talk(port, "-tls1_2", "-cipher", name)
        accepted(said, name)
        expect(re.search(r"Cipher is (\S+)", said)[1], name, "suite")
    weak = [f"ECDHE-{kind}-AES128-SHA256", f"ECDHE-{kind}-AES256-SHA", "AES128-SHA", "AES128-GCM-SHA256", "AES256-SHA256",
            "DHE-RSA-AES128-GCM-SHA256"]
    for name in weak:
        refused(talk(port, "-tls1_2", "-cipher", name + ":@SECLEVEL=0"), name)


@check("TLS 1.3: each of its suites is taken")
def tls13():
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        said = talk(made()["ECDSA"], "-tls1_3", "-ciphersuites", suite)
        accepted(said, suite)
        expect(f"TLSv1.3, Cipher is {suite}" in said, True, suite)


@check("TLS 1.2 with an ECDSA key: ECDHE with AEAD is taken; CBC, DHE and RSA key exchange are refused")
def ecdsa():
    suites("ECDSA", made()["ECDSA"])


@check("TLS 1.2 with an RSA key: ECDHE with AEAD is taken; CBC, DHE and RSA key exchange are refused")
def with_rsa():
    suites("RSA", rsa())


@check("TLS 1.1 and 1.0 are refused")
def old():
    for version in ("-tls1_1", "-tls1"):
        said = talk(made()["ECDSA"], version, "-cipher", "DEFAULT:@SECLEVEL=0")
        if "no protocols available" in said or "unknown option" in said.lower():
            raise Skip(f"this openssl has no {version}")
        refused(said, version)


@check("X25519, P-256 and P-384 are taken, P-521 and X448 alone are refused")
def groups():
    for group in ("X25519", "P-256", "P-384"):
        accepted(talk(made()["ECDSA"], "-tls1_3", "-groups", group), group)
    for group in ("P-521", "X448"):
        refused(talk(made()["ECDSA"], "-tls1_3", "-groups", group), group)


@check("X25519MLKEM768 is taken where openssl has it")
def hybrid():
    said = talk(made()["ECDSA"], "-tls1_3", "-groups", "X25519MLKEM768")
    if "HTTP/1.1 200" not in said and re.search(r"set(ting|_groups|1_groups)|Call to SSL_CONF_cmd\(-groups", said):
        version = subprocess.run([OPENSSL, "version"], capture_output=True, text=True).stdout.split()[1]
        raise Skip(f"openssl {version} does not know X25519MLKEM768 (3.5 does)")
    accepted(said, "X25519MLKEM768")


@check("without a certificate the handshake is refused, over TLS 1.3 and 1.2")
def nobody():
    before = made()["application"].requests
    for version in ("-tls1_3", "-tls1_2"):
        refused(talk(made()["ECDSA"], version, certificate=False), version)
    expect(made()["application"].requests, before, "requests at the application")


@check("of Istio's ALPN names the plain one is chosen, and strangers are refused")
def alpn():
    for offered, chosen in {"istio-http/1.1,istio,http/1.1": "http/1.1", "istio,http/1.1": "http/1.1", "istio": "istio"}.items():
        said = talk(made()["ECDSA"], alpn=("-alpn", offered))
        accepted(said, offered)
        expect(re.search(r"ALPN protocol: (\S+)", said)[1], chosen, f"chosen of {offered}")
    # Then HTTP/2 is spoken, and what we send is none.
    for offered in ("istio-h2,istio,h2", "h2,http/1.1"):
        expect(re.search(r"ALPN protocol: (\S+)", talk(made()["ECDSA"], alpn=("-alpn", offered)))[1], "h2", f"chosen of {offered}")
    refused(talk(made()["ECDSA"], alpn=("-alpn", "spdy/3")), "spdy/3")
    accepted(talk(made()["ECDSA"], alpn=()), "no ALPN")


@check("PERMISSIVE: TLS of the application itself passes through, mesh TLS ends here")
def permissive():
    application = free_port()
    own = made()["mesh"].issue("application", dns=["application.interop"])
    start("openssl-application", [OPENSSL, "s_server", "-accept", f"127.0.0.1:{application}", "-cert", own.chain, "-key", own.key, "-www"], application)
    proxy = Sidecar("openssl-permissive", application, made()["mesh"].issue("server"))
    for alpn, account in ((("-alpn", "http/1.1"), "application"), ((), "application"), (ISTIO, "server")):
        said = talk(proxy.inbound, "-showcerts", alpn=alpn)
        pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", said, re.S)
        shown = run(OPENSSL, "x509", "-noout", "-ext", "subjectAltName", data=pem[0].encode())
        expect(spiffe(account) in shown, True, f"the certificate of {account} for ALPN {alpn}, in {shown!r}")


@check("compression and renegotiation are not to be had")
def extras():
    said = talk(made()["ECDSA"], "-tls1_2", "-comp")
    expect("Compression: NONE" in said, True, "no compression")
    client = made()["client"]
    # `R` on a line of its own asks for a new handshake.
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{made()['ECDSA']}", "-CAfile", client.root, "-cert", client.chain, "-key", client.key,
               "-tls1_2", *ISTIO]
    done = subprocess.run(command, input=b"R\n", capture_output=True, timeout=30)
    said = (done.stdout + done.stderr).decode(errors="replace")
    expect("RENEGOTIATING" in said, True, "openssl asked for it")
    after = said.split("RENEGOTIATING", 1)[1]
    expect(bool(re.search(r"no renegotiation|no_renegotiation|unexpected message", after)), True, f"a refusal in {after[-300:]!r}")
