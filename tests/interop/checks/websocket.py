"""websockets: an upgrade, and the bytes after it."""
import socket
import threading

from harness import Sidegate, Skip, check, expect, on_stop

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.sync.server import serve
except ImportError as missing:
    raise Skip(f"websockets is not installed ({missing})") from None

PROXY = None


def echo(conn):
    for message in conn:
        if message == "close":
            conn.close(4321, "as asked")
            return
        conn.send(message)


def client():
    global PROXY
    if PROXY is None:
        server = serve(echo, "127.0.0.1", 0, max_size=8 << 20)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        on_stop(server.shutdown)
        PROXY = Sidegate({"ws.interop": ("HTTP", server.socket.getsockname()[1])})
    conn = socket.create_connection(("127.0.0.1", PROXY.outbound), 5)
    return connect("ws://ws.interop/chat", sock=conn, max_size=8 << 20, open_timeout=10)


@check("text, binary and 4 MB messages come back")
def messages():
    with client() as conn:
        for message in ("hello", "é" * 1000, b"\x00\xff" * 500, b"z" * (4 << 20)):
            conn.send(message)
            expect(conn.recv(timeout=20) == message, True, f"{len(message)} back")


@check("a ping is answered")
def ping():
    with client() as conn:
        expect(conn.ping().wait(10), True)


@check("the close code of the server arrives")
def close():
    with client() as conn:
        conn.send("close")
        try:
            conn.recv(timeout=10)
        except ConnectionClosed as closed:
            expect((closed.rcvd.code, closed.rcvd.reason), (4321, "as asked"))
        else:
            raise AssertionError("not closed")


@check("20 tunnels at once do not mix")
def many():
    conns = [client() for _ in range(20)]
    for number, conn in enumerate(conns):
        conn.send(f"I am {number}")
    for number, conn in enumerate(conns):
        expect(conn.recv(timeout=10), f"I am {number}")
        conn.close()
