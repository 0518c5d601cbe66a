"""nghttp2: many streams, and a client that resets them."""
import re
import socket
import struct

from harness import Sidegate, app, check, expect, free_port, need, nginx, run

H2LOAD = need("h2load")
PROXY = None


def proxy():
    global PROXY
    if PROXY is None:
        plain, h2 = free_port(), free_port()
        body = 'location / { return 200 "' + "x" * 1024 + '"; }'
        # As many requests for each connection as the client likes: 1000 is nginx's default, after which it says GOAWAY.
        nginx("up1", plain, body)
        nginx("up2", h2, body, http2=True)
        PROXY = Sidegate({"h1.interop": ("HTTP", plain), "h2.interop": ("HTTP2", h2), "app.interop": ("HTTP", app())})
    return PROXY


def h2load(host, count, clients, streams, *options):
    text = run(H2LOAD, f"-n{count}", f"-c{clients}", f"-m{streams}", "-t1", "-H", f":authority: {host}", *options,
               proxy().url + "/", limit=120)
    total = re.search(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    if not total:
        raise AssertionError("no summary in " + text[-400:])
    codes = re.search(r"status codes: (\d+) 2xx", text)
    expect(tuple(map(int, total.groups())), (count, count, 0, 0), "total, succeeded, failed, errored")
    expect(int(codes[1]), count, "2xx")


@check("nghttp sees an ordinary response")
def nghttp():
    text = run(need("nghttp"), "-v", "-H", ":authority: app.interop", proxy().url + "/")
    expect(":status: 200" in text, True, ":status in " + text[-300:])


@check("0 of 20000 requests fail, HTTP/2 to HTTP/1.1")
def to_h1():
    h2load("h1.interop", 20000, 10, 50)


@check("0 of 20000 requests fail, HTTP/2 to HTTP/2 whose server says GOAWAY every 1000 requests")
def to_h2():
    h2load("h2.interop", 20000, 10, 50)


@check("0 of 20000 requests fail, HTTP/1.1 to HTTP/2")
def from_h1():
    h2load("h2.interop", 20000, 20, 1, "--h1")


@check("0 of 5000 requests fail on one connection with as many streams as it may have")
def streams():
    h2load("h2.interop", 5000, 1, 100)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@check("a client that opens and resets streams at speed is sent away, and nobody else notices")
def rapid_reset():
    authority = b"app.interop"
    head = b"\x82\x86\x84\x41" + bytes([len(authority)]) + authority      # GET http / :authority
    with socket.create_connection(("127.0.0.1", proxy().outbound), 5) as conn:
        conn.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        conn.settimeout(10)
        seen = b""
        try:
            for number in range(5000):
                stream = 2 * number + 1
                conn.sendall(frame(1, 5, stream, head) + frame(3, 0, stream, struct.pack(">I", 8)))
            while chunk := conn.recv(65536):
                seen += chunk
        except (ConnectionResetError, BrokenPipeError):
            return check_alive()
        except TimeoutError:
            raise AssertionError("the connection stays open") from None
    kinds = set()
    while len(seen) >= 9:
        kinds.add(seen[3])
        seen = seen[9 + int.from_bytes(seen[:3], "big"):]
    expect(7 in kinds, True, f"GOAWAY among frame types {kinds}")
    check_alive()


def check_alive():
    h2load("app.interop", 100, 1, 10)
