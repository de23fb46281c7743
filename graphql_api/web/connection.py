"""A connection as uvicorn serves it, and what uvicorn leaves open: how long a client may take, how much it may send.

Without this a client could say nothing for ever, send one header for ever, or never read its answer, and fill the
memory of the process that waits for it.
"""

import asyncio
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from graphql_api.web.exchange import FAST_PATH

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_SECONDS = 10.0  # from the start of a connection, or of a later request on it
MAX_UNREAD_SECONDS = 30.0


class _OneWrite:
    """A transport that sends what is written in one turn of the loop, the head and the body of an answer, at once.

    uvicorn writes them one after the other, and each system call wakes the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send(self) -> None:
        if self._held:
            self._transport.write(b"".join(self._held))
            self._held.clear()


class _ShortWay:
    """The way of one request and its answer without ASGI's messages."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, connection: "Connection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle

    def body(self) -> bytes | None:
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body = bytes(cycle.body)
        cycle.body.clear()
        cycle.flow.resume_reading()
        return body

    def answer(self, status: int, head: bytes, body: bytes) -> bool:
        return self._connection.answer(self._cycle, status, head, body)


class Connection(HttpToolsProtocol):
    """Ends where a client sends too much, or too slowly, without a request or a piece of a body coming of it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._has_progressed = False
        self._pending_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._defaults: tuple[object, bytes | None] = (None, None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects is about to ask something."""
        super().connection_made(cast("asyncio.Transport", _OneWrite(transport, self.loop)))
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn leaves it, and the connection in memory, where there was an error
        self._be_patient_no_more()
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Parse what came; what is no progress must not go on for long."""
        self._has_progressed = False
        super().data_received(data)
        if not self._has_progressed:
            self._wait_for_the_rest(len(data))
        elif self._patience is not None:
            self._be_patient_no_more()

    def on_headers_complete(self) -> None:
        """The head of a request is there. Who answers it may take the short way."""
        self._has_progressed = True
        super().on_headers_complete()
        scope: Any = self.scope
        if scope["method"] != "HEAD":  # whose answers have no body, which uvicorn sees to
            scope[FAST_PATH] = _ShortWay(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of a body is there; after the answer nobody wants it any more."""
        self._has_progressed = not self.cycle.response_complete
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._has_progressed = True
        super().on_message_complete()
        self.cycle.more_body = False

    def on_response_complete(self) -> None:
        """A request was answered; where its body is still to come, that is not waited for as long as the next one."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._be_patient()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._unread = self.loop.call_later(MAX_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of what there was."""
        super().resume_writing()
        self._read_on()

    def answer(self, cycle: RequestResponseCycle, status: int, head: bytes, body: bytes) -> bool:
        """Write an answer in one piece; false where that has to be done by ASGI's messages.

        The head is whole, but for the lines that uvicorn adds; its header lines end with CRLF each.
        """
        lines = self._default_lines()
        if lines is None or not cycle.keep_alive or cycle.response_started or self.flow.write_paused:
            return False
        if not cycle.disconnected:
            cycle.response_started = cycle.response_complete = True
            self.transport.write(b"".join((STATUS_LINE[status], lines, head, b"\r\n", body)))
            cycle.message_event.set()
            cycle.on_response()
        return True

    def _default_lines(self) -> bytes | None:
        """The lines of the headers that each answer has, None where the connection is to close."""
        headers = self.server_state.default_headers  # made anew every second
        if headers is not self._defaults[0]:
            closes = any(name == b"connection" for name, _ in headers)
            self._defaults = headers, None if closes else b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._defaults[1]

    @property
    def _is_answered_early(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and cycle.response_complete and cycle.more_body

    def _wait_for_the_rest(self, received: int) -> None:
        self._be_patient()
        if not self._is_answered_early:
            self._pending_bytes += received
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _be_patient(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(MAX_HEAD_SECONDS, self._give_up, HTTPStatus.REQUEST_TIMEOUT)

    def _be_patient_no_more(self) -> None:
        self._pending_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self, why: HTTPStatus) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._pending_bytes and (cycle is None or cycle.response_complete):
            head = f"HTTP/1.1 {why.value} {why.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self._be_patient_no_more()
        self.transport.close()
