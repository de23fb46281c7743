"""What hostile heads and bodies cost: CPU of the service, at two sizes each, which may grow as they do."""

import base64
import gzip
import json
import socket
import sys
import time
import zlib
from contextlib import closing, suppress
from urllib.parse import urlsplit

import brotli
import pytest

from graphql_api.web.compression import decompress
from graphql_api.web.http_errors import HTTPError
from tests.web.conftest import started

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLOW_MACHINE = 5
SECONDS_PER_REQUEST = 0.05
SECONDS_PER_BYTE = 1e-6
GROWTH = 4  # from the small size to the large one
NOISE = 0.1  # seconds that the measured process spends on other things, and the clock's own step

BODY = b'{"query": "{ __typename }"}'


def post(*lines, body=BODY, path=b"/graphql"):
    head = [
        b"POST %b HTTP/1.1" % path,
        b"Host: localhost",
        b"Content-Type: application/json",
        b"Connection: close",
        *lines,
    ]
    if not any(line.startswith(b"Transfer-Encoding") for line in lines):
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", b""]) + body


def chunks(size):
    return b"1\r\n \r\n" * (size // 6) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def batch(size):
    return json.dumps([{"query": "{ __typename }", "variables": {"a": "x" * (size // 10)}}] * 10).encode()


# How much of it, in bytes: at the large size all of them are near what is accepted, or beyond.
CASES = {
    "different headers": (lambda n: post(*(b"%x: a" % number for number in range(n // 8))), 15_000),
    "one header many times": (lambda n: post(*[b"A: a"] * (n // 6)), 15_000),
    "ninety long headers": (lambda n: post(*(b"X%d: %b" % (i, b"a" * (n // 90)) for i in range(90))), 15_000),
    "a long header": (lambda n: post(b"A: " + b"a" * n), 15_000),
    "a long name": (lambda n: post(b"a" * n + b": a"), 15_000),
    "a long Accept": (lambda n: post(b"Accept: " + b"a/b;q=0.5," * (n // 10)), 15_000),
    "a long Accept-Encoding": (lambda n: post(b"Accept-Encoding: " + b"gzip;q=0.5," * (n // 11)), 15_000),
    "a long Content-Type": (lambda n: post(b"X: a", b"Content-Encoding: " + b"gzip," * (n // 5)), 15_000),
    "a long id of digits": (lambda n: post(b"X-Request-Id: " + b"4111 1111 1111 1111 " * (n // 20)), 15_000),
    "a long access token": (lambda n: post(b"Authorization: Bearer " + b"a." * (n // 2)), 15_000),
    "a long path of digits": (lambda n: post(path=b"/" + b"4111111111111111-" * (n // 17)), 15_000),
    "a long path of escapes": (lambda n: post(path=b"/" + b"%41" * (n // 3)), 15_000),
    "a long query string": (
        lambda n: (
            b"GET /graphql?query={__typename}&%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            % (b"a=b&" * (n // 4))
        ),
        15_000,
    ),
    "chunks of a byte": (lambda n: post(b"Transfer-Encoding: chunked", body=chunks(n)), 250_000),
    "a long chunk extension": (
        lambda n: post(b"Transfer-Encoding: chunked", body=b"1b;" + b"a" * n + b"\r\n%b\r\n0\r\n\r\n" % BODY),
        15_000,
    ),
    "trailers": (
        lambda n: post(b"Transfer-Encoding: chunked", body=b"1b\r\n%b\r\n0\r\n%b\r\n" % (BODY, b"A: a\r\n" * (n // 6))),
        15_000,
    ),
    "requests one after the other": (
        lambda n: b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * (n // 38) + post(),
        5_000,  # hundreds of requests, each of which may cost as much as one
    ),
    "white space": (lambda n: post(body=b" " * n + BODY), 250_000),
    "a batch": (lambda n: post(body=batch(n)), 250_000),
    "empty frames of zstd": (
        lambda n: post(b"Content-Encoding: zstd", body=b"\x50\x2a\x4d\x18\0\0\0\0" * (n // 8)),
        250_000,
    ),
    "empty blocks of deflate": (
        lambda n: post(b"Content-Encoding: deflate", body=b"\x78\x9c" + b"\0\0\0\xff\xff" * (n // 5)),
        250_000,
    ),
    "a deep access token": (
        lambda n: post(b"Authorization: Bearer %b.e30.AAAA" % base64.urlsafe_b64encode(b"[" * (n // 2))),
        15_000,
    ),
    "a bomb": (lambda n: post(b"Content-Encoding: gzip", body=gzip.compress(bytes(n * 100))), 10_000),
}


# Sixteen MiB in fourteen bytes: the largest window there is, filled by one copy.
BROTLI_BOMB = bytes.fromhex("cfffff7ff825c2e2b14020f7fe7f")
LIMIT = 1024 * 1024
BOMBS = {
    "gzip": (gzip.compress, gzip.compress(bytes(50 * LIMIT))),
    "deflate": (zlib.compress, zlib.compress(bytes(50 * LIMIT))),
    "br": (brotli.compress, BROTLI_BOMB),
    "zstd": (zstd.compress, zstd.compress(bytes(50 * LIMIT))),
}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_costs_no_more_than_a_body_of_the_allowed_length(coding):
    compress, bomb = BOMBS[coding]
    allowed = compress(bytes(LIMIT))

    def seconds(body):
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            with suppress(HTTPError):
                decompress(body, coding, LIMIT)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(bomb) <= 6 * seconds(allowed) + 0.001


@pytest.fixture(scope="module")
def service(database_url, tmp_path_factory):
    with started(database_url, tmp_path_factory.mktemp("costs") / "log") as service:
        yield service


def seconds_of(service, request, times):
    """CPU that the service takes for a request, which is sent so often on connections of their own."""
    address = urlsplit(service.url)
    before = service.process.cpu_times()
    for _ in range(times):
        with closing(socket.create_connection((address.hostname, address.port), timeout=30)) as connection:
            connection.sendall(request)
            with suppress(ConnectionError):  # of those that are refused while they are sent
                while connection.recv(65536):
                    pass
    after = service.process.cpu_times()
    return (after.user + after.system - before.user - before.system) / times


@pytest.mark.parametrize("name", CASES)
def test_a_request_costs_what_its_length_allows(service, name, record_property):
    make, size = CASES[name]
    times = 10
    small, large = make(size), make(size * GROWTH)
    seconds_of(service, small, 2)
    one, four = seconds_of(service, small, times), seconds_of(service, large, times)
    record_property("measured", (f"{len(large):,} bytes", f"{four * 1000:.1f} ms"))
    assert four <= SLOW_MACHINE * (SECONDS_PER_REQUEST + SECONDS_PER_BYTE * len(large))
    assert four <= 2 * GROWTH * one + NOISE / times
