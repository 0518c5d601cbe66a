"""nginx as upstream: connections that it closes early, ranges, big bodies."""
import hashlib
import os
import time

from harness import Sidegate, check, expect, free_port, need, nginx, run

CURL = need("curl")
need("nginx")
BIG = 64 << 20
PROXY = None


def proxy():
    global PROXY
    if PROXY is None:
        port, short = free_port(), free_port()
        locations = """location /length { default_type text/plain; return 200 "0123456789"; }
            location /gzip { gzip on; gzip_min_length 1; gzip_types text/plain; default_type text/plain; alias WWW/text; }
            location /put { client_max_body_size 0; return 200 "taken"; }"""
        www = os.path.join(os.environ["INTEROP_FOLDER"], "nginx/www")
        nginx("nginx", port, locations.replace("WWW", www))
        with open(www + "/big", "wb") as file:
            block = os.urandom(1 << 20)
            for _ in range(BIG >> 20):
                file.write(block)
        with open(www + "/text", "w") as file:
            file.write("compress me " * 1000)
        for name in ("big", "text"):
            os.chmod(f"{www}/{name}", 0o644)
        nginx("nginx-short", short, 'location / { return 200 "short"; }', extra="keepalive_timeout 1s; keepalive_requests 3;")
        PROXY = Sidegate({"nginx.interop": ("HTTP", port), "short.interop": ("HTTP", short)})
        PROXY.big = www + "/big"
    return PROXY


def curl(*options, host="nginx.interop"):
    return run(CURL, "-sf", "--max-time", "60", "-H", f"Host: {host}", *options)


@check("a file of 64 MB arrives unchanged, over HTTP/1.1 and HTTP/2")
def big():
    with open(proxy().big, "rb") as file:
        wanted = hashlib.sha256(file.read()).hexdigest()
    for version in ("--http1.1", "--http2-prior-knowledge"):
        target = proxy().big + ".copy"
        curl(version, "-o", target, proxy().url + "/big")
        with open(target, "rb") as file:
            expect(hashlib.sha256(file.read()).hexdigest(), wanted, version)


@check("a range is 206 with its part")
def ranges():
    with open(proxy().big, "rb") as file:
        file.seek(1000)
        part = file.read(500)
    target = proxy().big + ".part"
    expect(curl("-r", "1000-1499", "-o", target, "-w", "%{http_code}", proxy().url + "/big"), "206")
    with open(target, "rb") as file:
        expect(file.read() == part, True, "the part")


@check("HEAD of a file has its length")
def head():
    expect(f"content-length: {BIG}" in curl("-I", proxy().url + "/big").lower(), True, "Content-Length")


@check("a compressed, chunked answer passes as it is")
def compressed():
    expect(curl("--compressed", proxy().url + "/gzip"), "compress me " * 1000)


@check("an upload of 64 MB is taken")
def upload():
    expect(curl("-T", proxy().big, proxy().url + "/put"), "taken")


@check("a server that closes after 3 requests or 1 idle second costs no request")
def short():
    for _ in range(40):
        expect(curl(proxy().url + "/", host="short.interop"), "short")
    for pause in (0.95, 1.0, 1.05, 1.5):
        time.sleep(pause)
        for _ in range(4):
            expect(curl(proxy().url + "/", host="short.interop"), "short")
