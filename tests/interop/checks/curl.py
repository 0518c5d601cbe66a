"""curl: the versions of HTTP, and the corners of HTTP/1."""
import os
import json
import socket
import time

from harness import Sidegate, app, check, expect, folder, free_port, need, run

CURL = need("curl")
PROXY = None


def proxy():
    global PROXY
    if PROXY is None:
        PROXY = Sidegate({"app.interop": ("HTTP", app()), "nobody.interop": ("HTTP", free_port())})
    return PROXY


def curl(path, *options, host="app.interop"):
    """Status, version and body."""
    text = run(CURL, "-s", "--max-time", "20", "-H", f"Host: {host}", "-w", "\n%{http_code} %{http_version}",
               *options, proxy().url + path)
    body, _, last = text.rpartition("\n")
    status, version = last.split()
    return int(status), version, body


@check("HTTP/1.1 and its headers arrive")
def http11():
    status, version, body = curl("/headers", "-H", "X-Mine: 1", "--http1.1")
    expect((status, version), (200, "1.1"))
    seen = json.loads(body)
    expect(seen["host"], "app.interop", "Host")
    expect(seen["x-mine"], "1", "X-Mine")
    expect(len(seen["x-request-id"]), 36, "length of X-Request-Id")


@check("HTTP/2 with prior knowledge is told from HTTP/1.1 on the same port")
def h2c():
    expect(curl("/", "--http2-prior-knowledge"), (200, "2", "x" * 1024))


@check("a client that offers h2c by Upgrade is answered over HTTP/1.1")
def upgrade():
    status, _, body = curl("/", "--http2")
    expect((status, body), (200, "x" * 1024))


@check("HTTP/1.0 is answered with a length and a closed connection")
def http10():
    expect(curl("/", "--http1.0")[::2], (200, "x" * 1024))


@check("a chunked answer reaches an HTTP/1.0 client unchunked")
def http10_chunked():
    expect(curl("/chunked", "--http1.0")[::2], (200, "one two three\n"))


@check("Expect: 100-continue is answered before the body comes")
def expect_continue():
    upload = os.path.join(folder(), "upload")
    with open(upload, "wb") as file:
        file.write(b"u" * 300_000)
    status, _, body = curl("/echo", "-H", "Expect: 100-continue", "--expect100-timeout", "10", "--data-binary", "@" + upload,
                           "--max-time", "8")
    expect((status, len(body)), (200, 300_000))


@check("HEAD has the length and no body")
def head():
    text = run(CURL, "-sI", "--max-time", "20", "-H", "Host: app.interop", proxy().url + "/")
    expect("content-length: 1024" in text.lower(), True, "Content-Length in " + repr(text))
    expect(text.rstrip().count("x" * 1024), 0, "body")


@check("204 and 304 have no body and leave the connection in step")
def no_body():
    text = run(CURL, "-s", "--max-time", "20", "-H", "Host: app.interop", "-w", "%{http_code} %{num_connects};",
               proxy().url + "/status/204", proxy().url + "/status/304", proxy().url + "/status/204")
    expect(text, "204 1;304 0;204 0;")


@check("chunked request and response bodies arrive whole")
def chunked():
    expect(curl("/chunked")[::2], (200, "one two three\n"))
    expect(curl("/echo", "-H", "Transfer-Encoding: chunked", "--data-binary", "a" * 5000)[::2], (200, "a" * 5000))


@check("an answer that comes before the end of the request body is delivered")
def early():
    upload = os.path.join(folder(), "upload")
    with open(upload, "wb") as file:
        file.write(b"u" * 300_000)
    status, _, body = curl("/early", "-H", "Expect:", "--data-binary", "@" + upload)
    expect((status, body), (413, "no\n"))


@check("an unknown host is refused with its name")
def unknown():
    status, _, body = curl("/", host="other.interop")
    expect(status, 404)
    expect("other.interop" in body, True, f"the name in {body!r}")


@check("an upstream that refuses connections is a 503 with UF in the log")
def refused():
    expect(curl("/", host="nobody.interop")[0], 503)
    until = time.time() + 10
    while time.time() < until:
        with open(proxy().log) as log:
            lines = [line for line in log if '"nobody.interop"' in line]
        if lines:
            return expect(" 503 UF " in lines[0], True, "flag in " + lines[0])
        time.sleep(0.1)
    raise AssertionError("no line in the access log")


def raw(text):
    """All that comes back for these bytes, until the proxy closes."""
    with socket.create_connection(("127.0.0.1", proxy().outbound), 5) as conn:
        conn.sendall(text)
        conn.settimeout(10)
        answer = b""
        try:
            while chunk := conn.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def statuses(answer):
    return [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@check("pipelined requests are answered in order")
def pipelined():
    request = "GET /status/%d HTTP/1.1\r\nHost: app.interop\r\n%s\r\n"
    answer = raw("".join(request % (status, "Connection: close\r\n" if status == 203 else "")
                         for status in (200, 201, 202, 203)).encode())
    expect(statuses(answer), [200, 201, 202, 203])


@check("what follows the last request of a connection does not cost its answer")
def followed():
    expect(statuses(raw(b"GET /status/201 HTTP/1.1\r\nHost: app.interop\r\nConnection: close\r\n\r\nmore")), [201])


@check("a head that is no HTTP is answered 400")
def malformed():
    expect(statuses(raw(b"GET / HTTP/1.1\r\nHost: app.interop\r\nno colon\r\n\r\n")), [400])


@check("two framings are one request at most, and its connection closes")
def smuggling():
    # RFC 9112 6.1: refuse it, or take Transfer-Encoding alone; close in both cases, so that nothing hides behind it.
    answer = raw(b"POST /echo HTTP/1.1\r\nHost: app.interop\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"0\r\n\r\nGET /status/299 HTTP/1.1\r\nHost: app.interop\r\n\r\n")
    expect(statuses(answer) in ([200], [400]), True, f"one answer in {answer[:300]!r}")
