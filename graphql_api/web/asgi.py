"""ASGI in both directions: ASGI apps that answer the protocol's requests, and answers for ASGI servers."""

from typing import Any, Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphql_api.web.request import ClientDisconnectedError, Request, Response

_WITHOUT_BODY = {204, 304}

_log = structlog.get_logger()


class Writer(Protocol):
    """The way back to a client."""

    def begin(self, request: Request, status: int, head: bytes) -> None:
        """Write the head of an answer."""
        ...

    async def write_body(self, data: bytes) -> None:
        """Write a piece of its body."""
        ...


async def serve(app: ASGIApp, request: Request, writer: Writer, state: dict[str, Any]) -> bool:
    """Let an ASGI app answer a request; whether it did so to the end."""
    answer = _Answer(request, writer)
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version,
        "method": request.method,
        "scheme": "http",
        "root_path": "",
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query_string,
        "headers": list(request.raw_headers),
        "server": request.server,
        "state": state.copy(),
    }
    try:
        await app(scope, answer.receive, answer.send)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends this answer alone
        _log.error("unexpected error", exc_info=error)
    return answer.is_whole


class _Answer:
    """The messages of one request, and of the answer to it."""

    def __init__(self, request: Request, writer: Writer) -> None:
        self._request = request
        self._writer = writer
        self._status = 0
        self._head = b""
        self._has_length = self._is_chunked = self._has_begun = self._is_read = False
        self.is_whole = False

    async def receive(self) -> Message:
        request = self._request
        if not self._is_read:
            try:
                body = await request.read()
            except ClientDisconnectedError:
                return {"type": "http.disconnect"}
            self._is_read = request.is_complete
            return {"type": "http.request", "body": body, "more_body": not request.is_complete}
        if not self.is_whole:
            await request.disconnected()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            self._status = message["status"]
            self._head = b"".join(b"%b: %b\r\n" % (name, value) for name, value in headers)
            self._has_length = any(name.lower() == b"content-length" for name, _ in headers)
            return
        request, body, more = self._request, message.get("body", b""), message.get("more_body", False)
        if not self._has_begun:
            self._begin(len(body), more=more)
        if body and request.method != "HEAD":
            await self._writer.write_body(b"%x\r\n%b\r\n" % (len(body), body) if self._is_chunked else body)
        if not more:
            self.is_whole = True
            if self._is_chunked and request.method != "HEAD":
                await self._writer.write_body(b"0\r\n\r\n")

    def _begin(self, size: int, *, more: bool) -> None:
        self._has_begun = True
        if not self._has_length and self._status not in _WITHOUT_BODY:
            # Before HTTP/1.1, the connection's end is the body's.
            self._is_chunked = more and self._request.http_version == "1.1"
            if self._is_chunked:
                self._head += b"transfer-encoding: chunked\r\n"
            elif not more:
                self._head += b"content-length: %d\r\n" % size
        if not self._request.is_disconnected:
            self._writer.begin(self._request, self._status, self._head)


class ASGIRequest(Request):
    """A request that came by ASGI, its body by messages."""

    __slots__ = ("_receive",)

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope["method"], scope["path"], scope["query_string"], scope["headers"])
        self._receive = receive

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises `ClientDisconnectedError` if the client has gone."""
        while not self.is_complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnectedError
            self.is_complete = not message.get("more_body", False)
            if body := message.get("body", b""):
                return body
        return b""


async def write_response(send: Send, response: Response, *, is_head: bool) -> None:
    """Answer by ASGI."""
    headers = [tuple(line.split(b": ", 1)) for line in response.head.split(b"\r\n") if line]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else response.body})
