"""grpcio: the four kinds of calls, status, deadline, and what the proxy answers by itself."""
import threading
import time
from concurrent import futures

from harness import Sidegate, Skip, check, expect, free_port, on_stop

try:
    import grpc
except ImportError as missing:
    raise Skip(f"grpcio is not installed ({missing})") from None

PROXY = None
CANCELLED = threading.Event()


class Echo(grpc.GenericRpcHandler):
    """Bytes in, bytes out: no schema is needed."""

    def service(self, call):
        return {
            "/interop.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/interop.Echo/Down": grpc.unary_stream_rpc_method_handler(down),
            "/interop.Echo/Up": grpc.stream_unary_rpc_method_handler(up),
            "/interop.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
            "/interop.Echo/Missing": grpc.unary_unary_rpc_method_handler(missing_thing),
            "/interop.Echo/Slow": grpc.unary_unary_rpc_method_handler(slow),
        }.get(call.method)


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "there"), ("x-bytes-bin", b"\x00\xff")))
    return request


def down(request, _):
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, _):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, _):
    for request in requests:
        yield request[::-1]


def missing_thing(_, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 50 % of nothing, é")


def slow(request, context):
    context.add_callback(CANCELLED.set)
    while context.is_active():
        time.sleep(0.02)
    return request


def channel(host="grpc.interop"):
    global PROXY
    if PROXY is None:
        server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        on_stop(lambda: server.stop(0))
        PROXY = Sidegate({"grpc.interop": ("GRPC", port), "nobody.interop": ("GRPC", free_port())})
    limit = 32 << 20
    return grpc.insecure_channel(f"127.0.0.1:{PROXY.outbound}", options=[
        ("grpc.default_authority", host), ("grpc.max_receive_message_length", limit), ("grpc.use_local_subchannel_pool", 1)])


def failure(call, *args, **options):
    try:
        call(*args, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


@check("a unary call brings its message and its trailing metadata")
def unary_call():
    with channel() as conn:
        answer, call = conn.unary_unary("/interop.Echo/Unary").with_call(b"hello", timeout=10)
        expect(answer, b"hello")
        trailers = {key: value for key, value in call.trailing_metadata()}
        expect((trailers.get("x-trailer"), trailers.get("x-bytes-bin")), ("there", b"\x00\xff"), "trailers")


@check("a message of 4 MB passes both ways")
def big():
    with channel() as conn:
        message = bytes(range(256)) * 15_000
        expect(conn.unary_unary("/interop.Echo/Unary")(message, timeout=20) == message, True, "equal")


@check("server, client and bidirectional streams keep their order")
def streams():
    with channel() as conn:
        expect(list(conn.unary_stream("/interop.Echo/Down")(b"1000", timeout=20)), [b"%d" % n for n in range(1000)])
        expect(conn.stream_unary("/interop.Echo/Up")((b"x" * 1000 for _ in range(500)), timeout=20), b"500000")
        words = [b"abc%d" % n for n in range(200)]
        expect(list(conn.stream_stream("/interop.Echo/Both")(iter(words), timeout=20)), [word[::-1] for word in words])


@check("a bidirectional stream answers each message before the next is sent")
def ping_pong():
    with channel() as conn:
        turn = threading.Semaphore(1)

        def messages():
            for number in range(50):
                if not turn.acquire(timeout=10):
                    return
                yield b"%d" % number

        count = 0
        for _ in conn.stream_stream("/interop.Echo/Both")(messages(), timeout=30):
            count += 1
            turn.release()
        expect(count, 50)


@check("a status and its message arrive as the server said them")
def status():
    with channel() as conn:
        error = failure(conn.unary_unary("/interop.Echo/Missing"), b"", timeout=10)
        expect((error.code(), error.details()), (grpc.StatusCode.NOT_FOUND, "no such thing: 50 % of nothing, é"))
        error = failure(conn.unary_unary("/interop.Echo/Nothing"), b"", timeout=10)
        expect(error.code(), grpc.StatusCode.UNIMPLEMENTED)


@check("a deadline ends the call on both sides")
def deadline():
    with channel() as conn:
        CANCELLED.clear()
        since = time.time()
        error = failure(conn.unary_unary("/interop.Echo/Slow"), b"", timeout=0.5)
        expect(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        expect(time.time() - since < 3, True, "in time")
        expect(CANCELLED.wait(5), True, "the server hears of it")


@check("a call that the client cancels is reset at the server")
def cancel():
    with channel() as conn:
        CANCELLED.clear()
        call = conn.unary_unary("/interop.Echo/Slow").future(b"", timeout=30)
        time.sleep(0.3)
        call.cancel()
        expect(CANCELLED.wait(5), True, "the server hears of it")


@check("an unknown host is UNIMPLEMENTED, a dead upstream UNAVAILABLE, both said in words")
def own_answers():
    with channel("other.interop") as conn:
        error = failure(conn.unary_unary("/interop.Echo/Unary"), b"", timeout=10)
        expect(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        expect("other.interop" in error.details(), True, f"the name in {error.details()!r}")
    with channel("nobody.interop") as conn:
        error = failure(conn.unary_unary("/interop.Echo/Unary"), b"", timeout=10)
        expect(error.code(), grpc.StatusCode.UNAVAILABLE)
