"""Which heads of requests are refused, beyond what the parser refuses, and what is answered to them.

Whatever another server could read otherwise is refused (RFC 9112, 6.3 and 11.2), so that no byte of a body is ever
read as a request.
"""

from functools import lru_cache
from http import HTTPStatus

import httptools

from graphql_api.web import request_ids
from graphql_api.web.connection_registry import ConnectionLimits
from graphql_api.web.request import RawHeaders, Request, Response

_MAX_LENGTH_DIGITS = 18
_MAX_CACHED_TARGET = 64
_REFUSED_HEAD = (
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\ncache-control: private, no-store\r\n"
    b"x-content-type-options: nosniff\r\nx-request-id: %b\r\n"
)


class RefusedError(Exception):
    """Raised within the parser's callbacks, which ends the parsing."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_framing(request: Request) -> None:
    """Refuse what another server could read otherwise, beyond what the parser itself refuses.

    Raises:
        RefusedError: its message says what is wrong.
    """
    headers = request.headers
    if request.http_version not in {"1.0", "1.1"}:
        raise RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Use HTTP/1.0 or HTTP/1.1.")
    if request.method == "CONNECT":
        raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, "This service is not a proxy: it does not support CONNECT.")
    if (coding := headers.get(b"transfer-encoding")) is not None:
        if request.http_version == "1.0":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding. Send Content-Length.")
        if coding.lower() != b"chunked":
            message = "The only supported Transfer-Encoding is chunked."
            raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, message)
    if len(headers.get(b"content-length", b"")) > _MAX_LENGTH_DIGITS:
        message = f"Content-Length has more than {_MAX_LENGTH_DIGITS} digits."
        raise RefusedError(HTTPStatus.BAD_REQUEST, message)
    if b"host" not in headers:
        if request.http_version == "1.1":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "The Host header is missing. Send one.")
    elif len(headers) < len(request.raw_headers) and [name for name, _ in request.raw_headers].count(b"host") > 1:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "There is more than one Host header. Send one.")


def framing_lines(request: Request) -> bytes:
    """The header lines by which a request's body is framed."""
    if b"transfer-encoding" in request.headers:
        return b"transfer-encoding: chunked\r\n"
    length = request.headers.get(b"content-length")
    return b"" if length is None else b"content-length: %b\r\n" % length


def is_head_too_large(url: bytes, headers: RawHeaders, limits: ConnectionLimits) -> bool:
    """Whether a head, as far as it has come, has more bytes or lines than it may."""
    size = len(url) + sum([len(name) + len(value) + 4 for name, value in headers])
    return len(headers) > limits.max_header_lines or size > limits.max_head_bytes


def head_too_large(limits: ConnectionLimits) -> RefusedError:
    """The error of such a head."""
    most = f"{limits.max_head_bytes:,} bytes or {limits.max_header_lines} headers"
    message = f"The request line and headers have more than {most}. Send fewer or shorter headers."
    return RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)


def _parse_target(url: bytes) -> tuple[str, bytes, bytes]:
    """The path as text, the path as it was sent, and the query string.

    Nothing of the path is decoded: no path here needs it, and a proxy's rule for `/metrics` may not know `/%6detrics`.

    Raises:
        RefusedError: it is not a path.
    """
    try:
        parsed = httptools.parse_url(url)
        raw_path = parsed.path or b"/"
        path = raw_path.decode("ascii")
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        message = "The request target must be a path in ASCII. Percent-encode other characters."
        raise RefusedError(HTTPStatus.BAD_REQUEST, message) from None
    return path, raw_path, parsed.query or b""


_cached_target = lru_cache(maxsize=128)(_parse_target)


def target(url: bytes) -> tuple[str, bytes, bytes]:
    """The same, remembered for short ones."""
    return (_cached_target if len(url) <= _MAX_CACHED_TARGET else _parse_target)(url)


def refusal(status: HTTPStatus, message: str, headers: RawHeaders) -> Response:
    """What is answered instead, by the id of a request with these headers."""
    body = f"{message}\n".encode()
    request_id = request_ids.of_header(dict(headers).get(request_ids.HEADER)).encode()
    return Response(status.value, _REFUSED_HEAD % (len(body), request_id), body)
