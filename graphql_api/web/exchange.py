"""One HTTP request and its answer: headers, a body within its limit, an answer that arrives even where it is early."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from starlette.types import Message, Receive, Scope, Send

from graphql_api.web import request_ids
from graphql_api.web.http_errors import Headers, HTTPError
from graphql_api.web.media_types import MediaType

if TYPE_CHECKING:
    from graphql_api.domain.caller import Caller
    from graphql_api.engine import Operation

# What is read and thrown away after a refusal, so that a client that is still sending hears the answer.
_MAX_LINGER_SECONDS, _MAX_LINGER_BYTES = 2.0, 16 * 1024 * 1024
_PRIVATE = (b"cache-control", b"private, no-store")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_HEAD = b"%%b: %%b\r\ncontent-length: %%d\r\n%b: %b\r\n%b: %b\r\n%b: %%b\r\n" % (
    *_PRIVATE,
    *_NO_SNIFFING,
    request_ids.HEADER,
)
_CLOSE = (b"connection", b"close")

FAST_PATH = "gateway_tokens.fast_path"
"""The key in the scope of a `FastPath`, where the connection has one and nothing stands between it and the exchange
that has to see the answer's headers."""


class FastPath(Protocol):
    """Reads a request and writes its answer at once, each in one piece."""

    def body(self) -> bytes | None:
        """The request's body; None where a part of it is still to come."""
        ...

    def answer(self, status: int, head: bytes, body: bytes) -> bool:
        """Whether the answer could be written; its head lacks the status and the headers of every answer."""
        ...


class ClientDisconnectedError(Exception):
    """Nobody waits for the answer."""


class Exchange:
    """A request as far as it was read, what has become known of it, and the way back to its caller."""

    __slots__ = (
        "_send",
        "_short_way",
        "_unread",
        "caller",
        "headers",
        "media",
        "method",
        "operation",
        "path",
        "query_string",
        "receive",
        "request_id",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive = receive
        self._send = send
        self._short_way: FastPath | None = scope.pop(FAST_PATH, None)
        self.media = MediaType.JSON
        self.caller: Caller | None = None
        self.operation: Operation | None = None
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.headers = _by_name(scope["headers"])
        self.request_id = request_ids.taken_over(self.headers.get(request_ids.HEADER))
        self._unread = b"content-length" in self.headers or b"transfer-encoding" in self.headers

    async def body(self, most: int) -> bytes:
        """The body, of this many bytes at most.

        Raises:
            HTTPError: 413, it is larger, or says that it will be.
            ClientDisconnectedError: it breaks off.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > most:
            raise _too_large(most)
        body = b""
        if self._unread and self._short_way is not None and (whole := self._short_way.body()) is not None:
            body, self._unread = whole, False
        while self._unread and len(body) <= most:
            body += self._read(await self.receive())
        if len(body) > most:
            raise _too_large(most)
        return body

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Answer with JSON. Where the request was not read to its end, the connection closes after a moment."""
        if self._short_way is not None and not self._unread and not headers:
            head = _HEAD % (*self.media.header, len(body), self.request_id.encode())
            if self._short_way.answer(status, head, body):
                return
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    self.media.header,
                    (b"content-length", b"%d" % len(body)),
                    _PRIVATE,
                    _NO_SNIFFING,
                    (request_ids.HEADER, self.request_id.encode()),
                    *headers,
                    *([_CLOSE] if self._unread else ()),
                ],
            }
        )
        if self._unread:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._linger()
            body = b""
        await self._send({"type": "http.response.body", "body": body})

    def _read(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        self._unread = message.get("more_body", False)
        return message.get("body", b"")

    async def _linger(self) -> None:
        """Read on for a little: closing on a client that still sends would reset the connection, the answer with it."""
        with suppress(TimeoutError, ClientDisconnectedError):
            async with asyncio.timeout(_MAX_LINGER_SECONDS):
                read = 0
                while self._unread and read < _MAX_LINGER_BYTES:
                    read += len(self._read(await self.receive()))


def _by_name(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers; one that is sent several times is one list, as HTTP has it."""
    found = dict(headers)
    if len(found) < len(headers):
        for name in found:
            found[name] = b", ".join(value for other, value in headers if other == name)
    return found


def _too_large(most: int) -> HTTPError:
    message = f"The body is larger than {most} bytes (MAX_BODY_BYTES)."
    return HTTPError(413, "PAYLOAD_TOO_LARGE", message, limit="MAX_BODY_BYTES")
