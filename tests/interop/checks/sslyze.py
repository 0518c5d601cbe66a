"""sslyze on a Gateway's server with `tls: {mode: SIMPLE}`: nothing found, and nothing that Mozilla's intermediate profile forbids."""
import json
import os
import shutil
import subprocess
import sys

from harness import check, expect, folder, free_port, start
from mesh import Authority, Sidecar, Witness, member, need_module

need_module("sslyze")
HOST = "shop.interop"
# The scans, made once.
REPORT = {}


def gateway():
    """A port where Sidegate ends TLS with an ECDSA certificate."""
    held = Authority("sslyze-mesh").issue("ingress", dns=[HOST])
    place = os.path.join(folder(), "credentials", "shop")
    os.makedirs(place, exist_ok=True)
    shutil.copy(held.chain, place + "/tls.crt")
    shutil.copy(held.key, place + "/tls.key")
    port = free_port()
    server = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": [HOST], "tls": {"mode": "SIMPLE", "credentialName": "shop"}}
    objects = [
        {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "shop", "namespace": "interop"},
         "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]}},
        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "shop", "namespace": "interop"},
         "spec": {"hosts": [HOST], "gateways": ["shop"], "http": [{"route": [{"destination": {"host": "server.interop", "port": {"number": 80}}}]}]}},
        member("server.interop", Witness().port, tls=False)]
    Sidecar("sslyze-gateway", 0, objects=objects, gateway={"bind": "127.0.0.1", "ports": {443: port}},
            spec={"credentials": {"directory": os.path.dirname(place)}})
    return port, held.root


def report():
    """All scans of sslyze, by name, and what its comparison with Mozilla's profile says."""
    if not REPORT:
        port, root = gateway()
        wanted = os.path.join(folder(), "sslyze.json")
        command = [sys.executable, "-m", "sslyze", f"--json_out={wanted}", "--mozilla_config=intermediate", f"--certinfo_ca_file={root}",
                   "--early_data", "--resum", f"--sni={HOST}", f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if not os.path.exists(wanted):
            raise AssertionError(f"sslyze made no report: {(done.stdout + done.stderr)[-600:]}")
        with open(wanted) as file:
            results = json.load(file)["server_scan_results"]
        expect((len(results), results[0]["scan_status"]), (1, "COMPLETED"), "scans")
        REPORT.update(results[0]["scan_result"], said=done.stdout)
    return REPORT


def result(scan):
    found = report()[scan]
    expect(found["status"], "COMPLETED", f"the scan {scan}")
    return found["result"]


@check("versions: SSL 2 to TLS 1.1 are not there, TLS 1.2 and 1.3 are, with ECDHE and AEAD alone")
def versions():
    for scan in ("ssl_2_0_cipher_suites", "ssl_3_0_cipher_suites", "tls_1_0_cipher_suites", "tls_1_1_cipher_suites"):
        expect(result(scan)["accepted_cipher_suites"], [], scan)
    for scan in ("tls_1_2_cipher_suites", "tls_1_3_cipher_suites"):
        names = [each["cipher_suite"]["name"] for each in result(scan)["accepted_cipher_suites"]]
        expect(len(names) >= 3, True, f"suites of {scan}: {names}")
        expect([name for name in names if not name.endswith(("GCM_SHA256", "GCM_SHA384", "CHACHA20_POLY1305_SHA256"))], [], "suites that are no AEAD")
        expect([name for name in names if "1_2" in scan and not name.startswith("TLS_ECDHE_")], [], "suites without forward secrecy")


@check("no Heartbleed, CCS injection, ROBOT, compression, insecure renegotiation, downgrade or early data")
def attacks():
    expect(result("heartbleed")["is_vulnerable_to_heartbleed"], False, "Heartbleed")
    expect(result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], False, "CCS injection")
    expect(result("robot")["robot_result"].startswith("NOT_VULNERABLE"), True, "ROBOT: " + result("robot")["robot_result"])
    expect(result("tls_compression")["supports_compression"], False, "compression")
    renegotiation = result("session_renegotiation")
    expect(renegotiation["is_vulnerable_to_client_renegotiation_dos"], False, "renegotiation by the client")
    expect(renegotiation["supports_secure_renegotiation"], True, "RFC 5746")
    expect(result("tls_1_3_early_data")["supports_early_data"], False, "early data")
    expect(result("tls_fallback_scsv")["supports_fallback_scsv"], True, "TLS_FALLBACK_SCSV")
    expect(result("tls_extended_master_secret")["supports_ems_extension"], True, "extended master secret")


@check("weak curves are not taken")
def curves():
    names = {each["name"] for each in result("elliptic_curves")["supported_curves"]}
    expect(names, {"X25519", "secp256r1", "secp384r1"}, "curves")


@check("Mozilla's intermediate profile is kept")
def mozilla():
    said = report()["said"]
    expect("COMPLIANCE AGAINST TLS CONFIGURATION" in said.upper(), True, "a comparison in what sslyze says")
    after = said[said.upper().index("COMPLIANCE AGAINST TLS CONFIGURATION"):]
    expect(" OK - Compliant" in after, True, after[:900])
