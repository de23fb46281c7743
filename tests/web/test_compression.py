"""Requests that come compressed, and answers that go so."""

import gzip
import json
import sys
import zlib
from contextlib import suppress

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.web.compression import MIN_BYTES, accepted, coding_of, compress, decompress
from graphql_api.web.http_errors import HTTPError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bare_deflate(body):
    compressing = zlib.compressobj(wbits=-15)
    return compressing.compress(body) + compressing.flush()


COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}
MEMBERS = ("gzip", "zstd")
JSON = {"content-type": "application/json"}
LONG = "x" * 5000


@given(st.binary(max_size=5000))
def test_what_was_compressed_is_read(body):
    for coding, compressed in [*((name, of(body)) for name, of in COMPRESS.items()), ("deflate", bare_deflate(body))]:
        assert decompress(compressed, coding, 5000) == body


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_read_or_refused(body):
    for coding in COMPRESS:
        with suppress(HTTPError):
            assert len(decompress(body, coding, 1000)) <= 1000


@pytest.mark.parametrize("coding", COMPRESS)
def test_what_breaks_off_or_goes_on_is_refused(coding):
    whole = COMPRESS[coding](b"hello" * 100)
    more = [whole + b"x"] if coding in MEMBERS else [whole + b"x", whole * 2]
    for broken in (whole[:-1], whole[: len(whole) // 2], b"", *more):
        with pytest.raises(HTTPError) as refusal:
            decompress(broken, coding, 100_000)
        assert refusal.value.status == 400


@pytest.mark.parametrize("coding", MEMBERS)
@given(bodies=st.lists(st.binary(max_size=9000), min_size=1, max_size=5), cut=st.integers(1, 8))
def test_members_one_after_the_other_are_one_body(coding, bodies, cut):
    """RFC 1952, 2.2; RFC 8878, 3: what loggers and parallel compressors write."""
    plain, compressed = b"".join(bodies), b"".join(map(COMPRESS[coding], bodies))
    assert decompress(compressed, coding, len(plain)) == plain
    with pytest.raises(HTTPError) as refusal:
        decompress(compressed[:-cut], coding, len(plain))
    assert refusal.value.status == 400
    if plain:
        with pytest.raises(HTTPError) as refusal:
            decompress(compressed, coding, len(plain) - 1)
        assert refusal.value.status == 413


@pytest.mark.parametrize("coding", MEMBERS)
def test_a_body_of_thousands_of_members_is_refused(coding):
    member = COMPRESS[coding](b"")
    assert decompress(member * 1000, coding, 10) == b""
    with pytest.raises(HTTPError) as refusal:
        decompress(member * 1001, coding, 10)
    assert (refusal.value.status, str(refusal.value)) == (400, "A compressed body can have at most 1,000 members.")


@pytest.mark.parametrize("coding", COMPRESS)
def test_of_a_bomb_little_more_is_made_than_a_body_may_have(coding):
    bomb = COMPRESS[coding](bytes(5_000_000))
    with pytest.raises(HTTPError) as refusal:
        decompress(bomb, coding, 1000)
    assert refusal.value.status == 413
    assert refusal.value.limits == ["MAX_BODY_BYTES"]


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5),
    size=st.integers(0, 600_000),
    window=st.integers(10, 24),
    room=st.integers(0, 600_000),
)
@settings(max_examples=50, deadline=None)
def test_a_stream_is_read_alike_whatever_window_it_asks_for(pieces, size, window, room):
    block = b"the time of people" + b"".join(pieces)
    body = (block * (size // len(block) + 1))[:size]
    assert decompress(brotli.compress(body, lgwin=window, quality=5), "br", size + room) == body


def test_a_frame_that_wants_a_window_of_gigabytes_is_refused():
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressing = zstd.ZstdCompressor(options=options)
    frame = compressing.compress(bytes(20_000_000)) + compressing.flush()
    with pytest.raises(HTTPError) as refusal:
        decompress(frame, "zstd", 1000)
    assert refusal.value.status == 400


@pytest.mark.parametrize("header", [None, b"", b"identity", b"Identity", b" identity "])
def test_a_body_that_is_not_compressed_is_read_as_it_is(header):
    assert coding_of(header) is None


@pytest.mark.parametrize("header", [b"gzip", b"GZIP", b"x-gzip", b"gzip,", b", gzip ,"])
def test_gzip_has_another_name_and_a_list_may_have_empty_elements(header):
    assert coding_of(header) == "gzip"


@pytest.mark.parametrize("header", [b"gzip, gzip", b"gzip, identity", b"compress", b"x", b"\xff"])
def test_another_coding_or_several_are_refused(header):
    with pytest.raises(HTTPError) as refusal:
        coding_of(header)
    assert refusal.value.status == 415
    assert refusal.value.headers == [(b"accept-encoding", b"gzip, deflate, br, zstd")]


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        (b"", None),
        (b"identity", None),
        (b"gzip", "gzip"),
        (b"GZIP", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip, deflate, br", "br"),
        (b"deflate", "deflate"),
        (b"gzip;q=1, br;q=0.5", "gzip"),
        (b"gzip; q=0.2, br ; q=0.5", "br"),
        (b"gzip;q=0", None),
        (b"gzip;q=x", None),
        (b"gzip;q=2", None),
        (b"*", "zstd"),
        (b"*;q=0", None),
        (b"*;q=0, gzip", "gzip"),
        (b"zstd;q=0, *", "br"),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip", "gzip"),
        (b"x" * 1000 + b",gzip", "gzip"),
        (b"\xff", None),
    ],
)
def test_the_coding_that_a_client_likes_best_is_taken(header, coding):
    assert accepted(header) == coding


@pytest.mark.parametrize("coding", COMPRESS)
async def test_a_large_answer_is_compressed_as_a_small_one(coding):
    for size in (2000, 200_000):
        body = b"x" * size
        compressed, headers = await compress(body, coding.encode())
        assert decompress(compressed, coding, size) == body
        assert headers == [(b"vary", b"accept-encoding"), (b"content-encoding", coding.encode())]


def asking(name):
    return json.dumps({"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": name}}).encode()


@pytest.mark.parametrize("coding", COMPRESS)
async def test_a_compressed_request_is_answered(web, coding):
    headers = JSON | {"content-encoding": coding.upper()}
    response = await web.post("/graphql", content=COMPRESS[coding](asking("you")), headers=headers)
    assert response.json() == {"data": {"hello": "hello you"}}


async def test_the_limit_of_a_body_holds_for_what_it_is_decompressed(web):
    headers = JSON | {"content-encoding": "gzip"}
    response = await web.post("/graphql", content=gzip.compress(asking("x" * 20_000)), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_compressing_makes_longer_may_have_its_full_length(web, coding):
    compressing = zlib.compressobj(0, wbits=31 if coding == "gzip" else 15)
    body = asking("x").ljust(10_000)
    stored = compressing.compress(body) + compressing.flush()
    assert len(stored) > len(body)

    async def pieces():
        yield stored

    for content in (stored, pieces()):  # with a length, and in chunks
        response = await web.post("/graphql", content=content, headers=JSON | {"content-encoding": coding})
        assert response.json() == {"data": {"hello": "hello x"}}


@pytest.mark.parametrize("coding", COMPRESS)
async def test_an_answer_is_compressed_for_who_accepts_it(web, coding):
    for name, is_long in ((LONG, True), ("you", False)):
        headers = JSON | {"accept-encoding": coding}
        async with web.stream("POST", "/graphql", content=asking(name), headers=headers) as response:
            body = b"".join([piece async for piece in response.aiter_raw()])
        assert response.headers.get("content-encoding") == (coding if is_long else None)
        assert response.headers.get("vary") == ("accept-encoding" if is_long else None)
        assert int(response.headers["content-length"]) == len(body)
        plain = decompress(body, coding, 10_000) if is_long else body
        assert (len(plain) > MIN_BYTES) is is_long
        assert json.loads(plain) == {"data": {"hello": f"hello {name}"}}


async def test_an_answer_is_not_compressed_if_that_is_switched_off(graphql, web):
    graphql.made[-1].compresses = False
    response = await web.post("/graphql", content=asking(LONG), headers=JSON | {"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers
