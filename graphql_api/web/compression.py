"""Content codings (RFC 9110, 8.4): requests that come compressed, and answers for those who accept them compressed."""

import asyncio
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import brotli
from starlette.requests import Request
from starlette.responses import Response

from graphql_api.web.http_errors import Headers, HTTPError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIN_BYTES = 1024
"""Answers that are not longer are not compressed."""

_MAX_CACHED_CHARACTERS = 200
_IN_THREAD_BYTES = 64 * 1024  # compressing more would keep other requests waiting
_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15  # zlib's `wbits`
_MAX_ZSTD_WINDOW_LOG = 23  # 8 MiB, as RFC 8878 recommends
_MAX_MEMBERS = 1000  # a body of empty ones would take far longer to read than its length allows
_PIECE_BYTES = 4096  # what follows a member is copied: of a whole body of small members, again and again
_CODINGS = ("gzip", "deflate", "br", "zstd")
PREFERRED = ("zstd", "br", "gzip", "deflate")
"""In the order of how quickly they compress well."""

_VARY = (b"vary", b"accept-encoding")
_ACCEPTS = [(b"accept-encoding", ", ".join(_CODINGS).encode())]


def coding_of(content_encoding: bytes | None) -> str | None:
    """The coding of a body, None if it is not compressed.

    Raises:
        HTTPError: 415, it is not one of ours, or there are several.
    """
    names = [name.strip().lower() for name in (content_encoding or b"").decode("latin-1").split(",")]
    coding = ",".join(filter(None, names))  # a list may have empty elements (RFC 9110, 5.6.1.2)
    if coding in {"", "identity"}:
        return None
    if coding == "x-gzip":  # the same (RFC 9110, 8.4.1.3)
        return "gzip"
    if coding not in _CODINGS:
        message = f"Send the body without Content-Encoding, or with one of {', '.join(_CODINGS)}."
        raise HTTPError(415, "UNSUPPORTED_MEDIA_TYPE", message, _ACCEPTS)
    return coding


def overhead(size: int) -> int:
    """How many bytes a body of this size may become longer by being compressed: one that cannot be made shorter."""
    return size // 16 + MIN_BYTES


def decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """The body as it was; of one that is too large only a little more than it may have is made.

    Raises:
        HTTPError: 400, it is not compressed in this way; 413, it is larger than it may be.
    """
    try:
        plain, is_whole = _DECOMPRESS[coding](body, max_bytes + 1)
    except (zlib.error, brotli.error, zstd.ZstdError):
        raise _unreadable(coding) from None
    if len(plain) > max_bytes:
        message = f"The decompressed body is larger than {max_bytes} bytes (MAX_BODY_BYTES)."
        raise HTTPError(413, "PAYLOAD_TOO_LARGE", message, limits=["MAX_BODY_BYTES"])
    if not is_whole:
        raise _unreadable(coding)
    return plain


async def compress(body: bytes, accept_encoding: bytes | None) -> tuple[bytes, Headers]:
    """The body in the coding that a client likes best, if it accepts any, and the headers that say so."""
    coding = accepted(accept_encoding)
    if coding is None:
        return body, [_VARY]
    if len(body) > _IN_THREAD_BYTES:
        body = await asyncio.to_thread(_COMPRESS[coding], body)
    else:
        body = _COMPRESS[coding](body)
    return body, [_VARY, (b"content-encoding", coding.encode())]


async def page(request: Request, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page, compressed for clients who accept that."""
    about_coding: Headers = ()
    if request.state.compresses and len(body) > MIN_BYTES:
        body, about_coding = await compress(body, request.headers.get("accept-encoding", "").encode("latin-1"))
    response = Response(body, media_type=media_type, headers=headers)
    response.raw_headers.extend(about_coding)
    return response


def accepted(accept_encoding: bytes | None, codings: tuple[str, ...] = PREFERRED) -> str | None:
    """The one of these codings that a client likes best, of equals the first; None if it accepts none."""
    if not accept_encoding:
        return None
    choose = _chosen if len(accept_encoding) <= _MAX_CACHED_CHARACTERS else _chosen.__wrapped__
    return choose(accept_encoding, codings)


@lru_cache(maxsize=256)
def _chosen(accept_encoding: bytes, codings: tuple[str, ...]) -> str | None:
    qualities: dict[str, float] = {}
    for part in accept_encoding.decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        qualities[name.strip()] = _quality(parameter)
    others = qualities.get("*", 0.0)
    weights = {coding: qualities.get(coding, others) for coding in codings}
    best = max(weights, key=lambda coding: weights[coding])
    return best if weights[best] > 0 and weights[best] >= qualities.get("identity", 0.0) else None


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if not name.strip():
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def _unreadable(coding: str) -> HTTPError:
    return HTTPError(400, "BAD_REQUEST", f"The body is not valid {coding}.")


def _members(body: bytes, size: int, start: Callable[[], Any]) -> tuple[bytes, bool]:
    """Members one after the other, which are one body: of gzip (RFC 1952, 2.2), or frames of zstd (RFC 8878, 3)."""
    reading, found, left, members = start(), [b""], size, 1
    for place in range(0, len(body), _PIECE_BYTES):
        piece = body[place : place + _PIECE_BYTES]
        while piece and left:
            if reading.eof:
                members += 1
                if members > _MAX_MEMBERS:
                    raise HTTPError(400, "BAD_REQUEST", f"A compressed body can have at most {_MAX_MEMBERS:,} members.")
                reading = start()
            found.append(reading.decompress(piece, left))
            left -= len(found[-1])
            piece = reading.unused_data if reading.eof else b""
    return b"".join(found), reading.eof


def _inflate(body: bytes, size: int, wbits: int) -> tuple[bytes, bool]:
    inflating = zlib.decompressobj(wbits)
    return inflating.decompress(body, size), inflating.eof and not inflating.unused_data


def _deflate(body: bytes, size: int) -> tuple[bytes, bool]:
    """Both formats that are called so: zlib's (RFC 1950), and the bare one that some clients send (RFC 1951)."""
    try:
        return _inflate(body, size, _ZLIB)
    except zlib.error:
        return _inflate(body, size, _RAW_DEFLATE)


def _unbrotli(body: bytes, size: int) -> tuple[bytes, bool]:
    reading = brotli.Decompressor()
    plain = reading.process(_with_window_for(body, size), output_buffer_limit=size)
    return plain, reading.is_finished()


def _with_window_for(body: bytes, size: int) -> bytes:
    """The brotli stream, with no larger window than `size` bytes need.

    The decoder fills its window, of up to 16 MiB, before it says how much there is: a few bytes would cost as much. Up
    to the size of the window, streams with all larger ones are read alike (RFC 7932, 4). The low four bits of a stream
    are odd for a window of 18 to 24 bits, and grow with it (9.1).
    """
    bits = max(18, (size + 15).bit_length())
    code = 2 * (bits - 17) + 1
    if body and body[0] & 1 and body[0] & 0xF > code:
        return bytes([body[0] & 0xF0 | code]) + body[1:]
    return body


def _zstd_frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW_LOG})


def _brotli(body: bytes) -> bytes:
    return brotli.compress(body, quality=1)


_DECOMPRESS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    "gzip": lambda body, size: _members(body, size, lambda: zlib.decompressobj(_GZIP)),
    "deflate": _deflate,
    "br": _unbrotli,
    "zstd": lambda body, size: _members(body, size, _zstd_frame),
}
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: zstd.compress(body, 1),
    "br": _brotli,
    "gzip": lambda body: zlib.compress(body, 1, _GZIP),
    "deflate": lambda body: zlib.compress(body, 1, _ZLIB),
}
