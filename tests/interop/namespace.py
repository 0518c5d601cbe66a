"""The part of the interception checks that runs inside of a network namespace. Prints one line of JSON."""
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

ROLE, PROXY_UID = sys.argv[1:3]
OUTBOUND, INBOUND, ADMIN = 15001, 15006, 15000
ADDRESSES = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.5"]
ADDRESSES6 = ["fd77::1", "fd77::2"]

CONFIG = """apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {name: captured, namespace: interop}
spec:
  workers: 2
  workload: {name: captured, labels: {app: captured}}
  interception: REDIRECT
  outbound: {addresses: ["127.0.0.1:15001", "[::1]:15001"], policy: ALLOW_ANY}
  inbound: {addresses: ["0.0.0.0:15006"]}
"""


def entry(name, address, port, protocol, endpoint):
    return f"""---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: interop}}
spec:
  hosts: ["{name}.interop"]
  addresses: ["{address}"]
  ports: [{{number: {port}, name: main, protocol: {protocol}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{main: {endpoint}}}}}]
"""


def sh(*command):
    subprocess.run(command, check=True, stdout=sys.stderr)


def named(name, address, port):
    """A server of bytes that says who it is."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, port), family=family)

    def serve():
        while True:
            conn, _ = server.accept()
            with conn:
                conn.settimeout(5)
                try:
                    conn.recv(100)
                    conn.sendall(name.encode())
                except OSError:
                    pass
    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def web(name):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def ask(address, port):
    """What a server says of itself; `closed` when the connection ends without a word."""
    with socket.create_connection((address, port), 5) as conn:
        conn.settimeout(10)
        try:
            conn.sendall(b"who are you?\n")
            return conn.recv(100).decode() or "closed"
        except (ConnectionResetError, BrokenPipeError):
            return "closed"


def prepare():
    sh("ip", "link", "set", "lo", "up")
    for address in ADDRESSES:
        sh("ip", "addr", "add", address + "/32", "dev", "lo")
    six = True
    try:
        for address in ADDRESSES6:
            sh("ip", "addr", "add", address + "/128", "dev", "lo", "nodad")
        for address in ADDRESSES6:
            sh("ip6tables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", address, "--dport", "4000", "-j", "REDIRECT",
               "--to-ports", str(OUTBOUND))
    except (OSError, subprocess.CalledProcessError):
        six = False
    # The proxy's own connections stay alone: by its uid where there is more than one, by their addresses elsewhere.
    owner = ["-m", "owner", "!", "--uid-owner", PROXY_UID] if ROLE == "root" else []
    for address, port in (("10.77.0.1", 4000), ("10.77.0.2", 4000), ("10.77.0.3", 80), *([("10.77.0.4", 4004)] if owner else [])):
        sh("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", address, "--dport", str(port), *owner, "-j", "REDIRECT",
           "--to-ports", str(OUTBOUND))
    if owner:
        sh("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", "10.77.0.5", "--dport", "4005", *owner, "-j", "REDIRECT",
           "--to-ports", str(INBOUND))
    return six


def main():
    six = prepare()
    alpha, beta, gamma = named("alpha", "127.0.0.1", 0), named("beta", "127.0.0.1", 0), web("gamma")
    named("delta", "10.77.0.4", 4004)
    # Inbound traffic goes to the application on this machine, at the port that was asked for.
    named("epsilon", "0.0.0.0", 4005)
    text = CONFIG + entry("alpha", "10.77.0.1", 4000, "TCP", alpha) + entry("beta", "10.77.0.2", 4000, "TCP", beta)
    text += entry("gamma", "10.77.0.3", 80, "HTTP", gamma)
    if six:
        text += entry("alpha6", "fd77::1", 4000, "TCP", alpha) + entry("beta6", "fd77::2", 4000, "TCP", beta)
    with open("captured.yaml", "w") as file:
        file.write(text)
    command = [os.environ["SIDEGATE"], "run", "--config", os.path.abspath("captured.yaml")]
    if ROLE == "root":
        command = ["setpriv", "--reuid", PROXY_UID, "--regid", PROXY_UID, "--clear-groups", *command]
    with open("captured.log", "w") as log:
        proxy = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait(proxy)
        print(json.dumps(cases(six)))
    finally:
        proxy.kill()
        proxy.wait()


def wait(proxy):
    for _ in range(500):
        if proxy.poll() is not None:
            with open("captured.log") as log:
                sys.exit(f"the proxy ended with {proxy.returncode}: {log.read()[-600:]}")
        try:
            return socket.create_connection(("127.0.0.1", OUTBOUND), 1).close()
        except OSError:
            time.sleep(0.02)
    sys.exit("the proxy does not listen")


def attempt(function):
    try:
        return function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def cases(six):
    def get():
        conn = http.client.HTTPConnection("10.77.0.3", 80, timeout=10)
        conn.request("GET", "/", headers={"Host": "gamma.interop"})
        answer = conn.getresponse()
        return [answer.status, answer.read().decode()]

    one_user = "skip: needs a user of its own for the proxy, so root"
    found = {
        "tcp4": attempt(lambda: [ask("10.77.0.1", 4000), ask("10.77.0.2", 4000)]),
        "tcp6": attempt(lambda: [ask("fd77::1", 4000), ask("fd77::2", 4000)]) if six else "skip: no redirection of IPv6 here",
        "http": attempt(get),
        "passthrough": attempt(lambda: ask("10.77.0.4", 4004)) if ROLE == "root" else one_user,
        "inbound": attempt(lambda: ask("10.77.0.5", 4005)) if ROLE == "root" else one_user,
        "loop": attempt(lambda: [ask("127.0.0.1", OUTBOUND), ask("::1", OUTBOUND)]),
    }
    time.sleep(0.5)
    conn = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=5)
    conn.request("GET", "/listeners")
    open_now = json.loads(conn.getresponse().read())["connections"]
    found["connections"] = sum(open_now.values()) == 0 or open_now
    return found


if __name__ == "__main__":
    main()
