"""One HTTP request: its head, its body as far as it has come, and the end that may come before its answer."""

import asyncio
from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from graphql_api.web.media_types import MediaType

if TYPE_CHECKING:
    from graphql_api.domain.caller import Caller
    from graphql_api.domain.deadline import RequestDeadline
    from graphql_api.engine import Operation, Result
    from graphql_api.web.answers import BatchRoom
    from graphql_api.web.concurrency import ConcurrencyLimiter

RawHeaders = Sequence[tuple[bytes, bytes]]

MAX_UNREAD_BODY_BYTES = 64 * 1024
"""What is kept of a body before it is read: then the connection is not read on."""


class ClientDisconnectedError(Exception):
    """The client has disconnected and does not wait for the answer."""


class Interruption(Enum):
    """Why a request was ended before it had an answer."""

    TIME_IS_UP = "time is up"
    CLIENT_HAS_GONE = "client has gone"


class Response(NamedTuple):
    """An answer: `head` is its header lines, each with its CRLF, without those that the connection adds."""

    status: int
    head: bytes
    body: bytes


class BodySource(Protocol):
    """Where a body comes from, as fast as it is read."""

    def read_on(self) -> None:
        """What had come was taken."""
        ...

    def expects(self, request: "Request") -> None:
        """The body is waited for now."""
        ...


class Request:
    """A request, its body, and what becomes known of it.

    The code that answers it sets `task`, and may set a `deadline` by the loop's clock.
    """

    # What most requests never change lies in the class.
    refusal: Response | None = None
    is_complete = False
    is_disconnected = False
    unread_bytes = 0
    task: "asyncio.Task[object] | None" = None
    deadline = inf
    is_interruptible = False
    interruption: Interruption | None = None
    id = ""
    media_type = MediaType.JSON
    caller: "Caller | None" = None
    owner: str | None = None
    operation: "Operation | None" = None
    place: "ConcurrencyLimiter | None" = None
    mutation: "asyncio.Future[Result] | None" = None
    mutations_deadline: "RequestDeadline | None" = None
    batch_size = 0
    failures = 0
    room: "BatchRoom | None" = None
    _is_expected = False
    _waiter: "asyncio.Future[None] | None" = None

    def __init__(
        self,
        method: str,
        path: str,
        query_string: bytes,
        raw_headers: RawHeaders,
        raw_path: bytes = b"",
        http_version: str = "1.1",
        keep_alive: bool = True,  # noqa: FBT001, FBT002 - names cost a dictionary for each request
        server: tuple[str, int] | None = None,
        connection: BodySource | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.raw_path = raw_path
        self.query_string = query_string
        self.raw_headers = raw_headers
        self.headers = dict(raw_headers)
        if len(self.headers) < len(raw_headers):
            self.headers = by_name(raw_headers)
        self.http_version = http_version
        self.keep_alive = keep_alive
        self.server = server
        self.user_errors: list[str] = []
        self._connection = connection
        self._chunks: list[bytes] = []

    def give_up_place(self) -> None:
        """Let another request run, if this one has a place."""
        place, self.place = self.place, None
        if place is not None:
            place.release()

    # --- the body, from the connection

    def feed(self, chunk: bytes) -> None:
        """A piece of the body is there."""
        self._chunks.append(chunk)
        self.unread_bytes += len(chunk)
        if self._waiter is not None:
            self._wake()

    def complete(self) -> None:
        """The body is there as a whole."""
        self.is_complete = True
        if self._waiter is not None:
            self._wake()

    def disconnect(self) -> None:
        """The client has gone: a query is of no use any more; a mutation that has begun goes on."""
        self.is_disconnected = True
        self._wake()
        if self.is_interruptible:
            self.interrupt(Interruption.CLIENT_HAS_GONE)

    # --- the body, for the code that answers

    def whole_body(self) -> bytes | None:
        """The body, or None while a part of it is still to come."""
        if not self.is_complete:
            return None
        return self._chunks.pop() if len(self._chunks) == 1 else self._take()

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end.

        Raises:
            ClientDisconnectedError: it breaks off.
        """
        while not self._chunks and not self.is_complete:
            if self.is_disconnected:
                raise ClientDisconnectedError
            if self._connection is not None and b"expect" in self.headers and not self._is_expected:
                self._is_expected = True
                self._connection.expects(self)
            await self._wait()
        return self._take()

    async def disconnected(self) -> None:
        """Return once the client has gone."""
        while not self.is_disconnected:
            await self._wait()

    def interrupt(self, why: Interruption) -> None:
        """Cancel the task that answers, once."""
        if self.interruption is None and self.task is not None:
            self.interruption = why
            self.task.cancel()

    def _take(self) -> bytes:
        chunks = self._chunks
        if not chunks:
            return b""
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.unread_bytes = 0
        if not self.is_complete and self._connection is not None:
            self._connection.read_on()
        return body

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def by_name(headers: RawHeaders) -> dict[bytes, bytes]:
    """The headers by their names; one that is sent several times is one list (RFC 9110, 5.3)."""
    found = dict(headers)
    if len(found) < len(headers):
        values: dict[bytes, list[bytes]] = {name: [] for name in found}
        for name, value in headers:
            values[name].append(value)
        found = {name: b", ".join(each) for name, each in values.items()}
    return found
