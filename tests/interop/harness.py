"""What every group of checks needs: processes, free ports, a running proxy, an application behind it."""
import http.client
import http.server
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

CHECKS = []
_STOP = []
_GIVEN = set()


class Skip(Exception):
    """The check cannot be made on this machine."""


def check(name):
    """Registers a check; its name is a sentence."""
    def register(function):
        CHECKS.append((name, function))
        return function
    return register


def expect(actual, wanted, what=""):
    if actual != wanted:
        raise AssertionError(f"{what or 'value'} is {actual!r}, not {wanted!r}")


def need(tool):
    """The path of a program, or a skip."""
    path = shutil.which(tool)
    if not path:
        raise Skip(f"{tool} is not installed")
    return path


def free_port():
    """Given once, and outside of the range that outgoing connections take theirs from."""
    for _ in range(1000):
        port = random.randrange(21000, 32000)
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port
    raise RuntimeError("no free port")


def folder():
    return os.environ["INTEROP_FOLDER"]


def write(name, text):
    path = os.path.join(folder(), name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o644)
    return path


def start(name, command, port, host="127.0.0.1", limit=15):
    """Starts a program, waits until it listens, and ends it with the group."""
    log = open(os.path.join(folder(), name + ".log"), "ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    log.close()
    _STOP.append(lambda: end(process))
    until = time.time() + limit
    while time.time() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}: {tail(name)}")
        try:
            socket.create_connection((host, port), 1).close()
            return process
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{name} does not listen on {host}:{port}: {tail(name)}")


def end(process):
    """Ends a program by its own means first: an nginx that is killed leaves its workers behind."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stop_all():
    while _STOP:
        _STOP.pop()()


def on_stop(function):
    _STOP.append(function)


def tail(name):
    with open(os.path.join(folder(), name + ".log"), errors="replace") as log:
        return log.read()[-600:]


def run(*command, limit=60, data=None):
    """Runs a client to its end; its text, or a failure that shows what it said."""
    done = subprocess.run(command, capture_output=True, timeout=limit, input=data)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")[-600:]
        raise AssertionError(f"{os.path.basename(command[0])} ended with {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


# ---------------------------------------------------------------- the proxy
class Sidegate:
    """A running proxy with explicit interception. `services`: host -> (protocol, port on 127.0.0.1)."""

    def __init__(self, services, name="sidegate", workers=2):
        self.outbound, self.inbound, self.admin, health, metrics = (free_port() for _ in range(5))
        self.log = os.path.join(folder(), f"{name}.access.log")
        entries = "".join(service_entry(host, protocol, port) for host, (protocol, port) in services.items())
        config = write(name + ".yaml", f"""apiVersion: sidegate.io/v1alpha1
kind: Proxy
metadata: {{name: {name}, namespace: interop}}
spec:
  workers: {workers}
  outbound: {{addresses: ["127.0.0.1:{self.outbound}"]}}
  inbound: {{addresses: ["127.0.0.1:{self.inbound}"]}}
  admin: {{address: "127.0.0.1:{self.admin}"}}
  health: {{address: "127.0.0.1:{health}"}}
  metrics: {{address: "127.0.0.1:{metrics}"}}
  meshConfig: {{accessLogFile: "{self.log}"}}
{entries}""")
        self.process = start(name, [os.environ["SIDEGATE"], "run", "--config", config], self.outbound)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.outbound}"

    def page(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def service_entry(host, protocol, port):
    """Port 80 for clients that name no port."""
    return f"""---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host.replace('.', '-')}, namespace: interop}}
spec:
  hosts: ["{host}"]
  ports: [{{number: 80, name: main, protocol: {protocol}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{main: {port}}}}}]
"""


# ---------------------------------------------------------------- an application
class App(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1: `/`, `/echo`, `/headers`, `/chunked`, `/status/N`, `/early`."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/headers":
            self.answer(json.dumps({name.lower(): value for name, value in self.headers.items()}).encode())
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command != "HEAD":
                for part in (b"one ", b"two ", b"three\n"):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")
        elif path.startswith("/status/"):
            self.answer(b"", int(path.rsplit("/", 1)[1]))
        else:
            self.answer(b"x" * 1024)

    do_HEAD = do_GET

    def do_POST(self):
        if self.path == "/early":
            # Answers before the body, then lingers as a good server does: a reset could overtake the answer.
            self.close_connection = True
            self.answer(b"no\n", 413)
            self.wfile.flush()
            self.connection.settimeout(5)
            try:
                self.connection.shutdown(socket.SHUT_WR)
                while self.connection.recv(65536):
                    pass
            except OSError:
                pass
            return
        self.answer(self.body())

    do_PUT = do_POST

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("X-App", "interop")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def app():
    """Starts the application and gives its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    on_stop(server.shutdown)
    return server.server_address[1]


def nginx(name, port, locations, http2=False, extra=""):
    """Starts nginx as an upstream."""
    base = os.path.join(folder(), name)
    os.makedirs(base + "/www", exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {base}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = write(name + ".conf", f"""daemon off; worker_processes 1; pid {base}.pid; error_log {base}.log warn;
events {{ worker_connections 1024; }}
http {{ access_log off; {temporary} {extra}
server {{ listen 127.0.0.1:{port} {'http2' if http2 else ''}; root {base}/www; {locations} }} }}""")
    start(name, [need("nginx"), "-c", config, "-p", base, "-e", base + ".log"], port)
    return base + "/www"
