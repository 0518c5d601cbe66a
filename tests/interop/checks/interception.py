"""Captured connections: redirected by the kernel in a network namespace, routed by their original destination."""
import json
import os
import subprocess
import sys

from harness import Skip, check, expect, folder, need

PROXY_UID = "1337"
AS_ROOT = os.geteuid() == 0
UNSHARE = [need("unshare"), "-n"] if AS_ROOT else [need("unshare"), "-Urn"]
RESULTS = None

need("ip")
need("iptables")
probe = subprocess.run([*UNSHARE, "sh", "-c", "ip link set lo up && iptables -t nat -A OUTPUT -p tcp -d 10.77.0.1 -j REDIRECT --to-ports 15001"],
                       capture_output=True, text=True)
if probe.returncode:
    raise Skip("this kernel lets us redirect nothing: " + (probe.stderr.strip().splitlines() or ["no reason given"])[-1])


def results():
    """Runs the part inside of the namespace once: what came back for each case."""
    global RESULTS
    if RESULTS is None:
        inside = os.path.join(os.path.dirname(os.path.dirname(__file__)), "namespace.py")
        done = subprocess.run([*UNSHARE, sys.executable, inside, "root" if AS_ROOT else "user", PROXY_UID],
                              capture_output=True, text=True, timeout=90, cwd=folder())
        if done.returncode:
            raise AssertionError(f"inside of the namespace: {done.stderr.strip()[-900:]}")
        RESULTS = json.loads(done.stdout.splitlines()[-1])
    return RESULTS


def case(name, wanted):
    found = results()[name]
    if isinstance(found, str) and found.startswith("skip:"):
        raise Skip(found[5:].strip())
    expect(found, wanted, name)


@check("TCP to two addresses of one port reaches their two services, IPv4")
def tcp4():
    case("tcp4", ["alpha", "beta"])


@check("TCP to two addresses of one port reaches their two services, IPv6")
def tcp6():
    case("tcp6", ["alpha", "beta"])


@check("HTTP is routed by its host among the services of its port")
def http():
    case("http", [200, "gamma"])


@check("an undeclared destination is passed through to where it was going")
def passthrough():
    case("passthrough", "delta")


@check("a redirected inbound connection reaches the port that it was for")
def inbound():
    case("inbound", "epsilon")


@check("a connection straight to the outbound port is refused as a loop, IPv4 and IPv6")
def loop():
    case("loop", ["closed", "closed"])


@check("it is refused at once: the proxy has not called itself")
def calls():
    case("connections", True)
