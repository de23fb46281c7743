"""What is one request: no byte of a body is ever read as a request, however it is framed, cut or sent on by proxies.

Every request bears a canary in its body: a request for `/canary`, which the service must never see.
"""

import asyncio
import io
import json
import re
import socket
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.app import create_app
from graphql_api.observability import logs
from graphql_api.settings import Settings
from graphql_api.web.connection import RESPOND
from graphql_api.web.connection_registry import ConnectionLimits
from graphql_api.web.request import ClientDisconnectedError, Request, Response
from tests.conftest import AUTH_SECRET
from tests.web.conftest import listening
from tests.web.proxies import proxy

CANARY = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n"
SECRETS = {"stripe_webhook_secret": "whsec_c2VjcmV0", "adyen_webhook_hmac_key": "00" * 32}
BODY = b'{"query": "' + CANARY + b'"}'
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
TRAILERS = (
    b"Authorization: Bearer x\r\nHost: y\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\nX-Request-Id: x\r\n"
)
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def chunks(*pieces, trailers=b"", extension=b""):
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return framed + b"0\r\n" + trailers + b"\r\n"


def post(*lines, body, version=b"1.1", host=b"Host: x\r\n", method=b"POST"):
    return b"%b /graphql HTTP/%b\r\n%b%b\r\n%b" % (method, version, host, b"".join(lines), body)


# What is read as one request, with its body, and the next one after it.
READ = {
    "a length": post(LENGTH, body=BODY),
    "chunks": post(CHUNKED, body=chunks(BODY)),
    "small chunks": post(CHUNKED, body=chunks(BODY[:9], BODY[9:30], BODY[30:])),
    "a chunk for each byte": post(CHUNKED, body=chunks(*(BODY[i : i + 1] for i in range(len(BODY))))),
    "chunks with extensions": post(CHUNKED, body=chunks(BODY, extension=b";a=b")),
    "chunks with trailers": post(CHUNKED, body=chunks(BODY, trailers=TRAILERS)),
    "an upgrade with a length": post(UPGRADE, LENGTH, body=BODY),
    "an upgrade with chunks": post(UPGRADE, CHUNKED, body=chunks(BODY)),
    "an upgrade to a websocket": post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", LENGTH, body=BODY),
    "an upgrade without Connection": post(b"Upgrade: h2c\r\n", LENGTH, body=BODY),
    "a length with zeros": post(b"Content-Length: 0000%d\r\n" % len(BODY), body=BODY),
    "CHUNKED": post(b"Transfer-Encoding: CHUNKED\r\n", body=chunks(BODY)),
    "chunks with spaces after chunked": post(b"Transfer-Encoding:  chunked  \r\n", body=chunks(BODY)),
    "a tab before chunked": post(b"Transfer-Encoding:\tchunked\r\n", body=chunks(BODY)),
    "a length with white space": post(b"Content-Length: \t%d \t\r\n" % len(BODY), body=BODY),
    "GET with a body": post(LENGTH, body=BODY, method=b"GET"),
    "DELETE with an upgrade": post(UPGRADE, LENGTH, body=BODY, method=b"DELETE"),
    "an expectation": post(b"Expect: 100-continue\r\n", LENGTH, body=BODY),
    "an expectation of something else": post(b"Expect: 200-maybe\r\n", LENGTH, body=BODY),
    "an upgrade with an expectation": post(UPGRADE, b"Expect: 100-continue\r\n", CHUNKED, body=chunks(BODY)),
    "an absolute target": post(LENGTH, body=BODY).replace(b" /graphql ", b" http://y:80/graphql ", 1),
    "chunks that say so in upper case": post(CHUNKED, body=chunks(BODY).upper()[:2] + chunks(BODY)[2:]),
    "a chunk size with zeros": post(CHUNKED, body=b"0" * 14 + chunks(BODY)),
    "an extension that looks like a size": post(CHUNKED, body=chunks(BODY, extension=b";5")),
    "an extension in quotes": post(CHUNKED, body=chunks(BODY, extension=b';a="b;c"')),
    "two spaces behind the method": post(LENGTH, body=BODY).replace(b" /", b"  /", 1),
    "empty lines before": b"\r\n\r\n" + post(LENGTH, body=BODY),
    "a header that looks like a length": post(b"Content_Length: 0\r\nX-Content-Length: 0\r\n", LENGTH, body=BODY),
    "a coding named by Connection": post(b"Connection: keep-alive, Transfer-Encoding\r\n", CHUNKED, body=chunks(BODY)),
    "a length named by Connection": post(b"Connection: keep-alive, Content-Length\r\n", LENGTH, body=BODY),
    "HEAD with a body": post(LENGTH, body=BODY, method=b"HEAD"),
    "TRACE with a body": post(LENGTH, body=BODY, method=b"TRACE"),
    "OPTIONS of everything": post(LENGTH, body=BODY, method=b"OPTIONS"),
}
# The first request is the last one of its connection.
LAST = {
    "HTTP/1.0": post(LENGTH, body=BODY, version=b"1.0"),
    "HTTP/1.0 that asks to keep the connection": post(
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", LENGTH, body=BODY, version=b"1.0"
    ),
    "HTTP/1.0 with an upgrade": post(UPGRADE, LENGTH, body=BODY, version=b"1.0"),
    "a request to close": post(b"Connection: close\r\n", LENGTH, body=BODY),
    "requests to close and to keep": post(b"Connection: close, keep-alive\r\n", LENGTH, body=BODY),
    "an upgrade and a request to close": post(b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n", LENGTH, body=BODY),
}
# What other servers could read otherwise: refused, and nothing after it is read.
REFUSED = {
    "a length and chunks": post(LENGTH, CHUNKED, body=chunks(BODY)),
    "chunks and a length": post(CHUNKED, LENGTH, body=chunks(BODY)),
    "two lengths": post(LENGTH, b"Content-Length: 0\r\n", body=BODY),
    "the same length twice": post(LENGTH, LENGTH, body=BODY),
    "two lengths in a line": post(b"Content-Length: 0, %d\r\n" % len(BODY), body=BODY),
    "a length with a sign": post(b"Content-Length: +%d\r\n" % len(BODY), body=BODY),
    "a negative length": post(b"Content-Length: -1\r\n", body=BODY),
    "a length in hexadecimal": post(b"Content-Length: 0x10\r\n", body=BODY),
    "an empty length": post(b"Content-Length: \r\n", body=BODY),
    "a length of nineteen digits": post(b"Content-Length: %019d\r\n" % len(BODY), body=BODY),
    "a length of thousands of digits": post(b"Content-Length: %b\r\n" % (b"0" * 5000 + b"%d" % len(BODY)), body=BODY),
    "two codings": post(b"Transfer-Encoding: gzip, chunked\r\n", body=chunks(BODY)),
    "chunks twice": post(CHUNKED, CHUNKED, body=chunks(BODY)),
    "a coding that is none": post(b"Transfer-Encoding: xchunked\r\n", body=chunks(BODY)),
    "identity": post(b"Transfer-Encoding: identity\r\n", body=BODY),
    "a vertical tab before chunked": post(b"Transfer-Encoding: \x0bchunked\r\n", body=chunks(BODY)),
    # White space that RFC 9112 (5.1) allows, and no client sends: the parser takes it for a part of the coding.
    "a tab after chunked": post(b"Transfer-Encoding: chunked\t\r\n", body=chunks(BODY)),
    "a vertical tab after chunked": post(b"Transfer-Encoding: chunked\x0b\r\n", body=chunks(BODY)),
    "chunked twice in a line": post(b"Transfer-Encoding: chunked chunked\r\n", body=chunks(BODY)),
    "a space before the colon": post(b"Content-Length : %d\r\n" % len(BODY), body=BODY),
    "a folded header": post(b"X-A: a\r\n " + LENGTH, body=BODY),
    "a bare line feed": post(b"X-A: a\n", LENGTH, body=BODY),
    "a bare carriage return": post(b"X-A: a\r" + LENGTH, body=BODY),
    "a NUL": post(b"X-A: \0\r\n", LENGTH, body=BODY),
    "chunks in HTTP/1.0": post(CHUNKED, body=chunks(BODY), version=b"1.0"),
    "HTTP/2.0": post(LENGTH, body=BODY, version=b"2.0"),
    "HTTP/0.9": post(LENGTH, body=BODY, version=b"0.9"),
    "HTTP/1.2": post(LENGTH, body=BODY, version=b"1.2"),
    "no Host": post(LENGTH, body=BODY, host=b""),
    "two Hosts": post(b"Host: y\r\n", LENGTH, body=BODY),
    "two Hosts in HTTP/1.0": post(b"Host: y\r\n", LENGTH, body=BODY, version=b"1.0"),
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + BODY,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + BODY,
    "a hundred and one headers": post(b"X-A: a\r\n" * 99, LENGTH, body=BODY),
    "a chunk size that is none": post(CHUNKED, body=b"zz\r\n" + BODY),
    "a chunk that is too long": post(CHUNKED, body=b"1\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk size behind a line feed": post(CHUNKED, body=b"%x\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"),
    "two lengths in a line, the same": post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), body=BODY),
    "a length in digits of another script": post("Content-Length: \u0661\r\n".encode(), body=BODY),
    "a length with a point": post(b"Content-Length: %d.0\r\n" % len(BODY), body=BODY),
    "a length with a space": post(b"Content-Length: 1 0\r\n", body=BODY),
    "a length and an upgrade with chunks": post(UPGRADE, LENGTH, CHUNKED, body=chunks(BODY)),
    "identity before chunks": post(b"Transfer-Encoding: identity, chunked\r\n", body=chunks(BODY)),
    "identity after chunks": post(b"Transfer-Encoding: chunked, identity\r\n", body=chunks(BODY)),
    "a coding with a parameter": post(b"Transfer-Encoding: chunked;a=b\r\n", body=chunks(BODY)),
    "a coding in quotes": post(b'Transfer-Encoding: "chunked"\r\n', body=chunks(BODY)),
    "a coding and a length": post(b"Transfer-Encoding: identity\r\n", LENGTH, body=BODY),
    "an empty coding": post(b"Transfer-Encoding: \r\n", body=chunks(BODY)),
    "an empty coding and a length": post(b"Transfer-Encoding:\r\n", LENGTH, body=BODY),
    "a comma before chunked": post(b"Transfer-Encoding: , chunked\r\n", body=chunks(BODY)),
    "a coding on the next line": post(b"Transfer-Encoding:\r\n chunked\r\n", body=chunks(BODY)),
    "a space before the colon of a coding": post(b"Transfer-Encoding : chunked\r\n", LENGTH, body=BODY),
    "a tab before the colon of a coding": post(b"Transfer-Encoding\t: chunked\r\n", LENGTH, body=BODY),
    "a carriage return before the colon": post(b"Content-Length\r: 0\r\n", LENGTH, body=BODY),
    "a header folded at the beginning": post(
        b" Transfer-Encoding: chunked\r\n", LENGTH, body=BODY, host=b"Host: x\r\n"
    ),
    "a folded Host": post(LENGTH, body=BODY, host=b"Host: x\r\n y\r\n"),
    "a NUL in a name": post(b"X\0A: a\r\n", LENGTH, body=BODY),
    "a name with a space": post(b"X A: a\r\n", LENGTH, body=BODY),
    "a name that is empty": post(b": a\r\n", LENGTH, body=BODY),
    "a header without a colon": post(b"X-A\r\n", LENGTH, body=BODY),
    "a head of line feeds": post(LENGTH, body=b"").replace(b"\r\n", b"\n") + BODY,
    "a space before the method": b" " + post(LENGTH, body=BODY),
    "a tab behind the method": post(LENGTH, body=BODY).replace(b" /", b"\t/", 1),
    "a method that is none": post(LENGTH, body=BODY, method=b"post"),
    "a version with more": post(LENGTH, body=BODY, version=b"1.1x"),
    "a version with zeros": post(LENGTH, body=BODY, version=b"01.1"),
    "no version": b"GET /canary\r\n" + CANARY,
    "a NUL in the target": post(LENGTH, body=BODY).replace(b"/graphql", b"/graph\0ql", 1),
    "a target that is no path": post(LENGTH, body=BODY).replace(b"/graphql", b"graphql", 1),
    "an authority as the target": post(LENGTH, body=BODY).replace(b"/graphql", b"x:80", 1),
    "trailers that frame": post(
        CHUNKED, body=chunks(BODY, trailers=b"Content-Length: 5\r\nTransfer-Encoding: gzip\r\n")
    ),
    "a chunk size with a sign": post(CHUNKED, body=b"+" + chunks(BODY)),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\n" + BODY),
    "a chunk size with a prefix": post(CHUNKED, body=b"0x" + chunks(BODY)),
    "an empty chunk size": post(CHUNKED, body=b"\r\n" + BODY),
    "a chunk size with a space before": post(CHUNKED, body=b" " + chunks(BODY)),
    "a chunk without an end": post(CHUNKED, body=b"%x\r\n" % len(BODY) + BODY + b"0\r\n\r\n"),
    "a chunk that ends in a line feed": post(CHUNKED, body=b"%x\r\n" % len(BODY) + BODY + b"\n0\r\n\r\n"),
    "an extension with a line feed": post(CHUNKED, body=chunks(BODY, extension=b";a\nb")),
    "an extension with a carriage return": post(CHUNKED, body=chunks(BODY, extension=b";a\rb")),
    "an extension with a NUL": post(CHUNKED, body=chunks(BODY, extension=b";a=\0")),
    "an extension in quotes without an end": post(CHUNKED, body=chunks(BODY, extension=b';a="b')),
    "a chunk size of seventeen digits": post(CHUNKED, body=b"1" + b"0" * 16 + b"\r\n" + BODY),
}


class Seen:
    """An endpoint, and what requests came to it."""

    def __init__(self):
        self.paths, self.bodies, self.headers = [], [], []

    async def respond(self, request: Request):
        self.paths.append(request.path)
        self.headers.append(request.headers)
        body = b""
        try:
            while piece := await request.read():
                body += piece
        except ClientDisconnectedError:
            return None
        self.bodies.append(body)
        return Response(200, b"content-length: 2\r\n", b"ok")

    async def app(self, scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        scope["state"][RESPOND] = self.respond
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
async def seen():
    return Seen()


@pytest.fixture
async def address(seen):
    async with listening(seen.app, ConnectionLimits(max_linger_seconds=0.1), lifespan="on") as address:
        yield address


async def exchange(address, *pieces):
    """What is answered to pieces that are sent one by one, until the connection is closed."""
    reader, writer = await asyncio.open_connection(*address)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while got := await reader.read(65536):
                received += got
    writer.close()
    return received


@pytest.mark.parametrize("name", READ)
async def test_a_body_is_read_to_its_end_and_the_next_request_after_it(seen, address, name):
    received = await exchange(address, READ[name] + NEXT)
    assert seen.paths == ["/graphql", "/next"]
    assert seen.bodies == [BODY, b""]
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert seen.headers[0][b"host"] == b"x"
    assert seen.headers[0].keys().isdisjoint({b"authorization", b"content-encoding", b"content-type", b"x-request-id"})


@pytest.mark.parametrize("name", LAST)
async def test_nothing_is_read_after_the_last_request_of_a_connection(seen, address, name):
    request = LAST[name] + NEXT
    for cut in range(0, len(request), len(request) // 20):
        seen.paths.clear()
        received = await exchange(address, request[:cut], request[cut:])
        assert seen.paths == ["/graphql"]
        assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
        assert b"connection: close\r\n" in received
    assert set(seen.bodies) == {BODY}


@pytest.mark.parametrize("name", READ)
async def test_it_makes_no_difference_where_a_request_is_cut(seen, address, name):
    request = READ[name] + NEXT
    for cut in range(1, len(request)):
        await exchange(address, request[:cut], request[cut:])
    assert set(seen.paths) == {"/graphql", "/next"}
    assert seen.bodies == [BODY, b""] * (len(request) - 1)


@pytest.mark.parametrize("name", READ)
async def test_it_makes_no_difference_when_every_byte_comes_alone(seen, address, name):
    request = READ[name] + NEXT
    await exchange(address, *(request[i : i + 1] for i in range(len(request))))
    assert seen.bodies == [BODY, b""]


async def test_a_proxy_that_speaks_http_2_is_told_what_to_do(address):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for cut in range(1, len(preface)):
        received = await exchange(address, preface[:cut], preface[cut:])
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"Set your proxy to use HTTP/1.1." in received, cut


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_ambiguous_is_refused_and_nothing_after_it_is_read(seen, address, name):
    request = REFUSED[name] + NEXT
    cuts = range(0, len(request), max(1, len(request) // 100))
    for cut in cuts:
        seen.paths.clear()
        received = await exchange(address, request[:cut], request[cut:])
        assert "/canary" not in seen.paths
        assert "/next" not in seen.paths
        assert received[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 501", b"HTTP/1.1 505"}, (cut, received)
        assert received.count(b"HTTP/1.1 ") == 1
        assert b"connection: close\r\n" in received
        assert b"\r\ncache-control: private, no-store\r\n" in received
        assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", received)
        head, _, told = received.partition(b"\r\n\r\n")
        assert re.search(rb"content-length: (\d+)", head)[1] == b"%d" % len(told)
        assert re.fullmatch(rb"[A-Z].+\.\n", told)


@given(
    names=st.lists(st.sampled_from(sorted(READ)), min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 5000), max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_requests_that_are_sent_together_are_answered_one_by_one(names, cuts):
    async def run():
        seen = Seen()
        async with listening(seen.app, lifespan="on") as address:
            request = b"".join(READ[name] for name in names) + NEXT
            edges = [0, *sorted({cut % len(request) for cut in cuts}), len(request)]
            pieces = [request[start:end] for start, end in pairwise(edges)]
            received = await exchange(address, *pieces)
        assert seen.bodies == [BODY] * len(names) + [b""]
        assert received.count(b"HTTP/1.1 200 OK\r\n") == len(names) + 1

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/webhooks/stripe", "/readyz", "/x"])
async def test_no_path_of_the_service_reads_a_body_as_a_request(path, database_url):
    service = create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET, log_format="json", **SECRETS))
    async with listening(service, lifespan="on") as address:
        logs.configure("info", "json", log := io.BytesIO())
        for name, request in READ.items():
            sent = request.replace(b"/graphql", path.encode(), 1) + NEXT
            received = await exchange(address, *(sent[i : i + 1] for i in range(len(sent))))
            told = re.findall(rb"HTTP/1.1 (?!100)(\d+)", received)
            assert len(told) == 2 or b"connection: close\r\n" in received, (name, received)
        logs.access.flush()
    logs.configure("info", "json")
    paths = {json.loads(line).get("path") for line in log.getvalue().splitlines()}
    assert set() < paths <= {path, "/next", None}


async def test_a_bad_request_behind_good_ones_is_refused_after_they_are_answered(seen, address):
    received = await exchange(address, READ["a length"] * 2 + REFUSED["two lengths"] + NEXT)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"400"]
    assert seen.paths == ["/graphql"] * 2


async def test_a_body_that_was_not_asked_for_is_not_read_as_a_request(seen, address):
    async def respond(_request):
        return Response(413, b"content-length: 0\r\n", b"")

    seen.respond = respond
    async with listening(seen.app, lifespan="on") as early:
        reader, writer = await asyncio.open_connection(*early)
        head, body = READ["a length"].split(b"\r\n\r\n", 1)
        writer.write(head + b"\r\n\r\n")
        received = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(body + NEXT)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in received


# --- through proxies

PARTS = {
    "nginx": {
        "http": "map $http_upgrade $upgrading { default upgrade; '' ''; }",
        "server": """
    location /canary { return 403; }
    location / {
      proxy_pass http://127.0.0.1:UPSTREAM; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrading;
    }""",
    },
    "haproxy": {
        "frontend": "http-request deny if { path_beg /canary }",
        "backend": """
backend gateway_tokens
  http-reuse always
  server service 127.0.0.1:UPSTREAM""",
    },
}


@pytest.mark.parametrize("name", PARTS)
async def test_no_canary_is_seen_behind_a_proxy(seen, address, tmp_path, name):
    parts = {part: text.replace("UPSTREAM", str(address[1])) for part, text in PARTS[name].items()}
    async with proxy(name, tmp_path, **parts) as front:
        for request in [*READ.values(), *LAST.values(), *REFUSED.values()]:
            for cut in {len(request) - len(BODY), len(request.partition(b"\r\n\r\n")[0]) + 4, len(request) // 2}:
                await exchange(front, request[:cut], request[cut:] + NEXT)
        assert "/canary" not in seen.paths
        assert set(seen.bodies) <= {BODY, b""}

        seen.bodies.clear()
        for name_ in ("a length", "chunks", "an upgrade with a length", "a length with zeros", "GET with a body"):
            await exchange(front, READ[name_] + NEXT)
        assert seen.bodies.count(BODY) >= 4  # honest requests do arrive
