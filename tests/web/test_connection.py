"""How long a client may take to ask and to read its answer, and how much it may send."""

import asyncio
import socket
import struct
import weakref
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from uvicorn.server import ServerState

from graphql_api.web import connection_registry
from graphql_api.web.connection import RESPOND, Connections, HTTPProtocol
from graphql_api.web.connection_registry import UNREAD_ANSWERS, ConnectionLimits
from graphql_api.web.request import Response
from tests.until import until
from tests.web.conftest import listening

HEAD = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"query": "{ hello }"}'
SHORT = 0.3


@pytest.fixture
def limits():
    """Those of the service, unless a test says otherwise."""
    return ConnectionLimits()


@pytest.fixture
async def peer(graphql, limits):
    """A connection to the service: what is written to it, and what is read."""
    async with listening(graphql(), limits) as address:
        reader, writer = await asyncio.open_connection(*address)
        yield reader, writer
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def pages(limits):
    """A connection to an app that does not care what it is sent: `/large` is a large page, any other says ok."""

    async def app(scope, receive, send):
        body = b"a" * 50_000_000 if scope["path"] == "/large" else b"ok"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with listening(app, limits) as address:
        reader, writer = await asyncio.open_connection(*address)
        yield reader, writer
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


short = pytest.mark.parametrize("limits", [ConnectionLimits(max_head_seconds=SHORT)])  # which a test can outlast


async def answer(reader):
    """What comes until the service closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while chunk := await asyncio.wait_for(reader.read(65536), 10):
            received += chunk
    return received


async def send_for_ever(writer, piece):
    """How much is taken before the connection is closed."""
    sent = 0
    with suppress(ConnectionError):
        while sent < 50_000_000:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
    return sent


async def test_a_head_may_come_byte_by_byte(peer):
    reader, writer = peer
    for byte in HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert b"hello you" in await answer(reader)


@pytest.mark.parametrize("limits", [ConnectionLimits(max_linger_bytes=1_000_000)])
@pytest.mark.parametrize("piece", [b"a" * 65536, b"X-A: a\r\n" * 1000])
async def test_a_head_without_an_end_is_not_read_on(peer, piece):
    _, writer = peer
    writer.write(HEAD + b"X-A: ")
    assert await send_for_ever(writer, piece) < 10_000_000


def check_refusal(received, status, told):
    """It is whole, by the id that the request was sent with, kept by nobody, and says what is wrong."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %b\r\n" % status)
    assert {b"cache-control: private, no-store", b"x-request-id: abc", b"content-length: %d" % len(body)} <= {
        *head.split(b"\r\n")
    }
    assert body == told + b"\n"


async def test_a_head_that_is_too_large_is_refused(peer):
    reader, writer = peer
    writer.write(HEAD + b"X-Request-Id: abc\r\nX-A: " + b"a" * 66_000)
    told = b"The request line and headers have more than 65,536 bytes or 100 headers. Send fewer or shorter headers."
    check_refusal(await answer(reader), b"431 Request Header Fields Too Large", told)


@short
async def test_a_head_that_does_not_come_is_not_waited_for_long(peer):
    reader, writer = peer
    writer.write(HEAD + b"X-Request-Id: abc\r\nX-A: a")
    told = b"The request line and headers did not arrive within 0.3 s."
    check_refusal(await answer(reader), b"408 Request Timeout", told)


async def test_a_coding_that_is_not_read_is_refused_with_the_reason(peer):
    reader, writer = peer
    writer.write(HEAD + b"X-Request-Id: abc \r\nTransfer-Encoding: gzip\r\n\r\n")
    told = b"The only supported Transfer-Encoding is chunked."
    check_refusal(await answer(reader), b"501 Not Implemented", told)


async def test_a_refusal_of_head_has_no_body(peer):
    reader, writer = peer
    writer.write(b"HEAD /graphql HTTP/1.1\r\n\r\n")
    received = await answer(reader)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.endswith(b"\r\n\r\n")


@short
async def test_a_head_that_comes_too_slowly_is_not_waited_for_either(peer):
    reader, writer = peer
    answered = asyncio.create_task(answer(reader))
    for byte in HEAD:
        if answered.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(SHORT / 10)
    assert (await answered).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@short
async def test_a_client_that_says_nothing_is_left(peer):
    reader, _ = peer
    assert await answer(reader) == b""


@short
async def test_a_client_that_asked_may_be_silent_for_longer(peer):
    reader, writer = peer
    for _ in range(2):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        await asyncio.sleep(2 * SHORT)


@short
@pytest.mark.parametrize("dribbles", [True, False])
async def test_a_body_that_nobody_wants_is_not_waited_for_long(pages, dribbles):
    reader, writer = pages
    writer.write(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 100_000)
    answered = asyncio.create_task(answer(reader))
    while dribbles and not answered.done():
        writer.write(b"a")
        await asyncio.sleep(SHORT / 10)
    received = await answered
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("limits", [ConnectionLimits(max_unread_seconds=SHORT)])
async def test_a_client_that_does_not_read_its_answer_is_left(pages):
    _, writer = pages
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: writer.write(b"\r\n") or writer.is_closing(), "the connection is closed")


class Counted:
    """The metrics, as far as connections know them."""

    def __init__(self):
        self.limits = []

    def limit(self, name):
        self.limits.append(name)


async def test_of_too_many_unread_answers_those_that_have_waited_longest_are_closed(log):
    counted, size = Counted(), 20_000_000  # far more than sockets take

    async def respond(_request):
        return Response(200, b"content-length: %d\r\n" % size, bytes(size))

    async def app(scope, receive, send):
        await receive()
        scope["state"].update({RESPOND: respond, "metrics": counted})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    limits = ConnectionLimits(max_unread_bytes=2 * size, max_unread_seconds=300)
    async with listening(app, limits, lifespan="on") as address, AsyncExitStack() as stack:
        peers = []
        for number in range(5):
            peer = stack.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            peer.setblocking(False)  # noqa: FBT003
            await asyncio.get_running_loop().sock_connect(peer, address)
            reader, writer = await asyncio.open_connection(sock=peer)
            stack.callback(writer.close)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            peers.append(reader)
            await until(lambda: len(counted.limits) == max(0, number - 1), "the longest waiting one is closed")  # noqa: B023
        received = [len(await answer(reader)) for reader in peers]
    assert [length == size for length in received] == [False, False, False, True, True]
    assert counted.limits == [UNREAD_ANSWERS] * 3
    assert [line["event"] for line in log()].count("closed connections that left their answers unread") == 1


@pytest.mark.parametrize("limits", [ConnectionLimits(max_linger_bytes=1_000_000)])
async def test_trailers_without_an_end_close_the_connection(peer):
    reader, writer = peer
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + BODY + b"\r\n0\r\nX-A: ")
    assert await send_for_ever(writer, b"a" * 65536) < 10_000_000
    assert b"200 OK" not in await answer(reader)


@pytest.mark.parametrize("limits", [ConnectionLimits(max_head_bytes=1000)])
async def test_waiting_for_one_head_does_not_count_against_the_next(peer):
    reader, writer = peer
    request = HEAD + b"X-A: %s\r\nContent-Length: %d\r\n\r\n" % (b"a" * 500, len(BODY)) + BODY
    for _ in range(5):
        writer.write(request[:400])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(request[400:])
        assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)


async def test_a_client_that_waits_for_it_is_told_to_go_on(peer):
    reader, writer = peer
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)


async def test_a_client_of_http_1_0_is_told_nothing_in_between(peer):
    reader, writer = peer
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    for piece in (head, BODY):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.05)
    received = await answer(reader)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1 ") == 1


async def test_a_client_that_is_refused_early_is_not_told_to_go_on(peer):
    reader, writer = peer
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 413 ")


# What a client may do to keep a connection, and how much of it is answered first.
WAITING = {
    "says nothing": (b"", b""),
    "sends half a head": (HEAD, b""),
    "asked once": (HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, b"}}"),
    "asked once, and sends half a head": (HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + HEAD, b"}}"),
    "sends half a body": (HEAD + b"Content-Length: %d\r\n\r\n{" % len(BODY), b""),
    "was refused and still sends": (HEAD + b"Content-Length: 99999999\r\n\r\n{", b"}]}"),
}


@pytest.mark.parametrize("limits", [ConnectionLimits(max_connections=3, max_linger_seconds=10)])
@pytest.mark.parametrize("name", WAITING)
async def test_new_connections_win_over_those_that_wait_for_their_clients(graphql, limits, name):
    sent, answered = WAITING[name]
    async with listening(graphql(), limits) as address:
        waiting = []
        for _ in range(limits.max_connections):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            await asyncio.wait_for(reader.readuntil(answered), 5) if answered else await writer.drain()
            waiting.append((reader, writer))
        for _ in range(2 * limits.max_connections):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)
            waiting.append((reader, writer))
        for reader, _ in waiting[: -limits.max_connections]:
            await answer(reader)
        for reader, writer in waiting[-limits.max_connections :]:  # the newest ones stay
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        for _, writer in waiting:
            writer.close()


@pytest.mark.parametrize("limits", [ConnectionLimits(max_connections=3)])
async def test_connections_that_are_being_answered_are_kept(limits):
    app = Slow()
    async with listening(app, limits) as address:
        asking = [await asyncio.open_connection(*address) for _ in range(limits.max_connections)]
        for _, writer in asking:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: app.asked == len(asking), "all are being answered")
        reader, writer = await asyncio.open_connection(*address)
        received = await answer(reader)
        assert received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert received.endswith(b"The service has too many connections. Try again.\n")
        writer.close()
        app.go_on.set()
        for reader, writer in asking:
            assert await asyncio.wait_for(reader.readuntil(b"ok"), 5)
            writer.close()


@pytest.mark.parametrize("limits", [ConnectionLimits(max_connections=2, max_head_seconds=5, max_idle_seconds=1000)])
async def test_the_one_that_has_used_most_of_its_time_is_closed_first(graphql, limits, log):
    async with listening(graphql(), limits) as address:
        idle, silent = [await asyncio.open_connection(*address) for _ in range(2)]
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        idle[1].write(request)
        assert b"hello you" in await asyncio.wait_for(idle[0].readuntil(b"}}"), 5)
        await asyncio.sleep(0.1)  # a fiftieth of what the silent one has, and little of what the other has
        new = await asyncio.open_connection(*address)
        assert await answer(silent[0]) == b""
        for reader, writer in (idle, new):
            writer.write(request)
            assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        for _, writer in (idle, silent, new):
            writer.close()
    told = "closed connections that waited for their clients, to make room for new ones"
    assert [line["connections"] for line in log() if line["event"] == told] == [1]


@pytest.mark.parametrize("limits", [ConnectionLimits(max_connections=1)])
async def test_the_log_counts_every_connection_that_was_closed_to_make_room(graphql, limits, log, monkeypatch):
    monkeypatch.setattr(connection_registry, "_SECONDS_BETWEEN_LINES", 0.2)
    async with listening(graphql(), limits) as address:
        last = await asyncio.open_connection(*address)
        for pause in (0, 0, 0.3):  # the second one comes too soon for a line of its own
            await asyncio.sleep(pause)
            new = await asyncio.open_connection(*address)
            assert await answer(last[0]) == b""
            last[1].close()
            last = new
        last[1].close()
    assert sum(line.get("connections", 0) for line in log()) == 3


class Slow:
    """An app that answers one request after the other when it is told to."""

    def __init__(self):
        self.go_on = asyncio.Event()
        self.asked = 0

    async def __call__(self, _scope, _receive, send):
        self.asked += 1
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_reading_pauses_while_requests_wait_and_goes_on_afterwards(monkeypatch):
    waiting = []
    accept = HTTPProtocol._accept
    monkeypatch.setattr(
        HTTPProtocol, "_accept", lambda self, request: (accept(self, request), waiting.append(len(self._requests)))[0]
    )
    app, request, count = Slow(), b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", 3000
    async with listening(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"".join(request % number for number in range(count)))
        await asyncio.sleep(0.2)
        read_before_an_answer = len(waiting)
        app.go_on.set()
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < count:
            received += await asyncio.wait_for(reader.read(65536), 10)
        writer.close()
    assert read_before_an_answer < 200
    assert max(waiting) < 200


@pytest.mark.parametrize(
    "request_", [b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n\0"]
)
async def test_a_client_that_resets_the_connection_leaves_no_word_in_the_log(pages, caplog, log, request_):
    _, writer = pages
    reset = struct.pack("ii", 1, 0)
    writer.write(request_ * 20)
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert [line for line in log() if line["level"] in {"error", "warning"}] == []
    assert [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}] == []


async def test_an_app_that_fails_is_answered_for_and_logged_once(log):
    async def app(_scope, _receive, _send):
        raise ValueError("x")

    async with listening(app) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)) == b"HTTP/1.1 500 Internal Server Error\r\n"
        writer.close()
    assert [line["event"] for line in log() if line["level"] == "error"] == ["unexpected error"]


def connected(respond):
    """A connection and its transport, without a socket."""
    connection = Connections()(SimpleNamespace(loaded_app=None), ServerState(), {RESPOND: respond})
    transport = Mock(**{"get_extra_info.return_value": ("127.0.0.1", 1), "is_closing.return_value": False})
    connection.connection_made(transport)
    return connection, transport


async def responds(_request):
    return Response(200, b"", b"ok")


WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.mark.parametrize("sent", [b"", HEAD, WHOLE, WHOLE * 2])
async def test_a_connection_that_is_lost_leaves_no_task(sent):
    """Even in the turn of the loop in which a request begins."""
    before = asyncio.all_tasks()
    connection, transport = connected(responds)
    connection.data_received(sent)
    transport.is_closing.return_value = True
    connection.connection_lost(None)
    await until(lambda: asyncio.all_tasks() == before, "its task ends")


async def test_a_connection_keeps_nothing_of_a_request_that_is_answered():
    kept = []

    def respond(request):
        kept.append(weakref.ref(request))
        return responds(request)

    connection, transport = connected(respond)
    connection.data_received(WHOLE * 2)
    await until(lambda: transport.write.call_count == 2, "both are answered")
    await until(lambda: [each() for each in kept] == [None, None], "they are gone")
    connection.connection_lost(None)
