"""HTTP/1.1 on a socket: what is one request, and in which order answers go back. What they say is left to others.

Framing is decided here and nowhere else, so that no byte of a body is ever read as a request: a body ends by its
length or with its last chunk, an offered `Upgrade` is ignored (RFC 9110, 7.8), trailers are dropped, and whatever is
ambiguous is refused and the connection closed (RFC 9112, 6.3 and 11.2). Everything that a client can make large, slow
or many has a limit.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, cast

import httptools
import structlog
from uvicorn import Config
from uvicorn.server import ServerState

from graphql_api.web import asgi
from graphql_api.web.connection_registry import ConnectionRegistry
from graphql_api.web.framing import (
    RefusedError,
    check_framing,
    framing_lines,
    head_too_large,
    is_head_too_large,
    refusal,
    target,
)
from graphql_api.web.request import MAX_UNREAD_BODY_BYTES, Request, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Respond = Callable[[Request], "Coroutine[Any, Any, Response | None] | None"]
"""Answers a request, or says by None that the ASGI app is to do that. An answer of None: the client has gone."""

RESPOND = "respond"
"""The key of a `Respond` in the state of the lifespan."""

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_FEED_BYTES = 4096  # parsed at once, which bounds the short requests that are read before reading pauses
_NOT_HTTP_2 = "This service speaks HTTP/1.1, not HTTP/2. Set your proxy to use HTTP/1.1."
_CLOSE = b"connection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = structlog.get_logger()


def _leave_to_the_app(_request: Request) -> None:
    """Answer nothing: what is to be done if the lifespan has no `Respond`."""


class Connections(ConnectionRegistry):
    """Makes the connections of a server, as uvicorn's `http=` asks for."""

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "HTTPProtocol":
        """Make the protocol of a new connection."""
        return HTTPProtocol(self, config, server_state, app_state, _loop or asyncio.get_running_loop())


class HTTPProtocol(asyncio.Protocol):
    """One client: its requests are answered one after the other, in their order."""

    def __init__(
        self,
        connections: ConnectionRegistry,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._app = cast("ASGIApp", config.loaded_app)
        self._server_state = server_state
        self._state = app_state
        self._tasks: set[Any] = server_state.tasks
        self._respond: Respond = app_state.get(RESPOND, _leave_to_the_app)
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._server: tuple[str, int]
        self._requests: deque[Request] = deque()  # the first one is being answered
        self._task: asyncio.Task[None]  # answers all of them
        self._next: asyncio.Future[Request]
        self._receiving: Any = None  # the request whose body is being read; to say so were a call, each time
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._idle_bytes = 0  # that came and were neither a head nor a piece of a body
        self._held = b""  # that came while too many requests wait
        self._is_in_head = False
        self._is_long_head = False  # longer than a piece, which is never too large
        self._is_upgrading = self._is_replaying = False
        self._is_paused = False
        self._is_ending = False  # nothing more is read
        self._has_begun = False  # the answer that is being given
        self._closes = True  # after it
        self._lingered_bytes = 0
        self._drained: asyncio.Future[None] | None = None
        self._patience = inf  # in seconds, with the client, since the time at which waiting for it began
        self._waits_since = 0.0
        self.deadline = inf
        self.unread_deadline = inf

    # --- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client that connects is about to ask something."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(0)  # to be told of every byte that is left unread
        self._server = transport.get_extra_info("sockname")[:2]
        self._next = self._loop.create_future()
        self._task = self._loop.create_task(self._answer())
        has_room = self._connections.make_room(self._loop)
        self._connections.opened.add(self)
        self._server_state.connections.add(cast("Any", self))
        self._connections.sweep_later(self._loop)
        if has_room:
            self._wait(self._limits.max_head_seconds)
        else:
            self._refuse_at_once(HTTPStatus.SERVICE_UNAVAILABLE, "The service has too many connections. Try again.")
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the client."""
        self._connections.opened.discard(self)
        self._server_state.connections.discard(cast("Any", self))
        self._is_ending = True
        self._held = b""
        for request in self._requests:
            request.disconnect()
        self.resume_writing()
        self._next.cancel()
        self._receiving = None
        del self._parser  # which leads back to here

    def data_received(self, data: bytes) -> None:
        """Parse what came; after the last answer, throw it away for a moment."""
        if self._is_ending:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > self._limits.max_linger_bytes:
                self._pause()
        elif self._held:
            self._held += data
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        self.unread_deadline = self._loop.time() + self._limits.max_unread_seconds
        self._connections.leaves_unread(self, self.unsent_bytes, self._loop)

    def resume_writing(self) -> None:
        """The client has read what there was."""
        self.unread_deadline = inf
        self._connections.has_read(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._requests and self._requests[0].task is None and not self._transport.is_closing():
            self._begin(self._requests[0])

    @property
    def unsent_bytes(self) -> int:
        """What was answered and cannot be sent yet."""
        return self._transport.get_write_buffer_size()

    def waited(self, now: float) -> float:
        """How much of the time that the client has for its next step is over, from 0 to 1; below 0: it is our turn."""
        if self.unread_deadline < inf:
            return 1 - (self.unread_deadline - now) / self._limits.max_unread_seconds
        if self._requests and self._requests[0].is_complete:
            return -1
        return (now - self._waits_since) / self._patience

    def abandon(self, limit: str) -> None:
        """Close at once: others need the room."""
        if (metrics := self._state.get("metrics")) is not None:
            metrics.limit(limit)
        self._transport.abort()

    def shutdown(self) -> None:
        """The server stops: finish what is under way."""
        self._is_ending = True
        if not self._requests:
            self._close()

    def expire(self, now: float) -> None:
        """Give up a client that took too long."""
        if self.unread_deadline <= now or self._transport.is_closing():
            self._transport.abort()
            return
        if self._is_in_head and not self._is_ending:
            message = f"The request line and headers did not arrive within {self._limits.max_head_seconds:g} s."
            self._refuse_at_once(HTTPStatus.REQUEST_TIMEOUT, message)
        self._close()

    def _wait(self, seconds: float) -> None:
        """The client has this many seconds for its next step."""
        self._patience = seconds
        self._waits_since = self._loop.time()
        self.deadline = self._waits_since + seconds

    def _close(self) -> None:
        """Close once what was written is sent, or after a while even if the client does not read it."""
        self._is_ending = True
        self._wait(self._limits.max_unread_seconds)
        self._transport.close()

    def _linger(self) -> None:
        """Read on for a little: closing on a client that still sends would reset the connection, the answer with it."""
        self._is_ending = True
        self._held = b""
        self._wait(self._limits.max_linger_seconds)
        self._transport.write_eof()
        self._read_on()

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    # --- bytes to requests

    def _feed(self, data: bytes) -> None:
        """Parse piece by piece, as long as not too many requests wait for their answers."""
        was_in_head, was_receiving = self._is_in_head, self._receiving
        self._idle_bytes += len(data)
        place, size = 0, len(data)
        while place < size and not self._is_ending:
            if len(self._requests) >= self._limits.max_waiting_requests:
                self._held = data[place:]
                break
            place += self._parse(data[place : place + _FEED_BYTES])
            if self._headers or self._is_in_head:  # a head, or trailers, that go beyond this piece
                self._is_long_head = True
                if not self._is_ending and is_head_too_large(self._url, self._headers, self._limits):
                    self._refuse(head_too_large(self._limits))
        receiving = self._receiving
        if self._held or (receiving is not None and receiving.unread_bytes > MAX_UNREAD_BODY_BYTES):
            self._pause()
        if receiving is not was_receiving:
            self._patience, self._waits_since = self._limits.max_head_seconds, self._loop.time()
        if self._idle_bytes > self._limits.max_head_bytes and not self._is_ending:
            self._refuse(head_too_large(self._limits))
        elif self._is_in_head and not was_in_head and not self._requests:
            self._wait(self._limits.max_head_seconds)

    def _parse(self, piece: bytes) -> int:
        """Parse a piece, and say how much of it was read: all, unless a request offers an upgrade."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            return upgrade.args[0]
        except httptools.HttpParserError as error:
            if not self._is_ending:
                refused = error.__context__
                if not isinstance(refused, RefusedError):
                    is_http_2 = self._parser.get_method() == b"PRI"  # of its preface (RFC 9113, 3.4)
                    why = _NOT_HTTP_2 if is_http_2 else f"The request is not valid HTTP/1.1: {error}."
                    refused = RefusedError(HTTPStatus.BAD_REQUEST, why)
                self._refuse(refused)
        return len(piece)

    def _ignore_upgrade(self) -> None:
        """Read on behind a head that offers an upgrade, where the parser stops: a new one gets the framing."""
        self._is_upgrading = False
        self._is_replaying = True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing_lines(self._receiving))
        self._is_replaying = False

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if not self._is_replaying:
            self._is_in_head = True
            self._is_long_head = False
            self._url = b""
            self._headers = []

    def on_url(self, url: bytes) -> None:
        """Called by the parser, with a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which are counted and dropped."""
        self._headers.append((name.lower(), value.rstrip(b" \t")))  # white space is not part of it (RFC 9110, 5.5)

    def on_headers_complete(self) -> None:
        """Called by the parser when the headers are complete: the answer can start."""
        if self._is_replaying:
            return
        parser, headers, url, limits = self._parser, self._headers, self._url, self._limits
        if len(headers) > limits.max_header_lines or (self._is_long_head and is_head_too_large(url, headers, limits)):
            raise head_too_large(limits)
        version = parser.get_http_version()
        path, raw_path, query_string = target(url)
        request = Request(
            parser.get_method().decode("ascii"),
            path,
            query_string,
            headers,
            raw_path,
            version,
            version == "1.1" and parser.should_keep_alive(),
            self._server,
            self,
        )
        check_framing(request)
        self._is_upgrading = b"upgrade" in request.headers and parser.should_upgrade()
        self._is_in_head = False
        self._headers = []
        self._idle_bytes = 0
        self._receiving = request
        self._accept(request)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, with a piece of a body."""
        self._idle_bytes = 0
        self._receiving.feed(body)

    def on_message_complete(self) -> None:
        """Called by the parser; for an upgrade too early, and once more."""
        if self._is_upgrading:
            return
        request = self._receiving
        self._idle_bytes = 0
        self._receiving = None
        request.complete()
        if not request.keep_alive:
            self._is_ending = True

    def _refuse(self, refused: RefusedError) -> None:
        """Answer so once those before are answered, and read nothing more."""
        self._is_ending = True
        if (request := self._receiving) is not None:  # its own body cannot be read
            request.refusal = refusal(refused.status, str(refused), request.raw_headers)
            request.disconnect()
            return
        method = self._parser.get_method().decode("ascii") if self._is_in_head else "GET"
        request = Request(method, "", b"", (), keep_alive=False)
        request.refusal = refusal(refused.status, str(refused), self._headers if self._is_in_head else ())
        self._accept(request)

    def _refuse_at_once(self, status: HTTPStatus, message: str) -> None:
        """Answer a client that has not sent a whole head."""
        answer = refusal(status, message, self._headers if self._is_in_head else ())
        self._transport.write(b"".join((STATUS_LINES[status.value], answer.head, _CLOSE, answer.body)))

    # --- requests to answers

    def _accept(self, request: Request) -> None:
        self._requests.append(request)
        self.deadline = inf
        if len(self._requests) == 1:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        if self.unread_deadline < inf:  # the answer before is not read yet
            return
        self._has_begun = False
        self._closes = True
        request.task = self._task
        self._tasks.add(self._task)
        self._next.set_result(request)

    async def _answer(self) -> None:
        """Answer one request after the other, in one task: making one for each request would take longer."""
        while True:
            request = await self._next
            self._next = self._loop.create_future()
            response = responding = None
            try:
                response = request.refusal
                if response is None and (responding := self._respond(request)) is not None:
                    response = await responding or request.refusal
                elif response is None and not await asgi.serve(self._app, request, self, self._state):
                    if self._has_begun:
                        self._transport.abort()
                    failure = HTTPStatus.INTERNAL_SERVER_ERROR
                    response = request.refusal or refusal(failure, "Internal error.", request.raw_headers)
                if response is not None and not self._transport.is_closing():
                    self._transport.write(self._piece(request, *response))
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends this connection alone
                _log.error("unexpected error", exc_info=error)
                self._transport.abort()
            finally:
                self._tasks.discard(request.task)
                request.task = None
                self._finish(request)
            if self._is_ending and not self._requests:
                return
            del request, response, responding  # an idle connection keeps nothing of them

    def _finish(self, request: Request) -> None:
        """The request is answered: go on with the next, wait for it, or end."""
        self._requests.popleft()
        if self._transport.is_closing():
            self._requests.clear()
        elif self._closes:
            self._requests.clear()
            if request.is_complete:
                self._close()
            else:
                self._linger()
        else:
            if self._requests:
                self._begin(self._requests[0])
            else:
                self._wait(self._limits.max_head_seconds if self._is_in_head else self._limits.max_idle_seconds)
            if self._is_paused and len(self._requests) < self._limits.max_waiting_requests:
                self.read_on()

    # --- for those who answer

    def read_on(self) -> None:
        """A body was read, or a request answered: go on with what was held back."""
        if self._is_ending:
            return
        held, self._held = self._held, b""
        self._read_on()
        if held:
            self._feed(held)

    def expects(self, request: Request) -> None:
        """Tell a client that waits for it to send its body (RFC 9110, 10.1.1)."""
        is_asked = request.headers.get(b"expect", b"").lower() == b"100-continue" and request.http_version != "1.0"
        if is_asked and not self._transport.is_closing():
            self._transport.write(_CONTINUE)

    def begin(self, request: Request, status: int, head: bytes) -> None:
        """Write the head of an answer whose body follows by `write_body`."""
        self._transport.write(self._piece(request, status, head, b""))

    async def write_body(self, data: bytes) -> None:
        """Write a piece of a body, as fast as the client reads; nothing if it has gone."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self.unread_deadline < inf:
            self._drained = self._loop.create_future()
            await self._drained

    def _piece(self, request: Request, status: int, head: bytes, body: bytes) -> bytes:
        self._has_begun = True
        if request.method == "HEAD":
            body = b""
        is_last = len(self._requests) == 1 and (self._is_ending or "draining" in self._state)
        self._closes = closes = is_last or not request.keep_alive or not request.is_complete
        headers, lines = self._connections.defaults
        if headers is not self._server_state.default_headers:
            lines = self._connections.default_lines(self._server_state.default_headers)
        return b"".join((STATUS_LINES[status], lines, head, _CLOSE if closes else b"\r\n", body))
