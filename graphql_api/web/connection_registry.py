"""All connections of a server: how many there may be, and which ones end because others need the room or time is up."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Protocol

import structlog

_SECONDS_BETWEEN_LINES = 10.0  # of the log, about what clients can bring about at will

UNREAD_ANSWERS = "UNREAD_ANSWERS"
"""What a connection counts as among the limits that were met, if it was closed for what it left unread."""

WAITING_CONNECTIONS = "WAITING_CONNECTIONS"
"""The same, if it was closed for a new one while it waited for its client."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client may take and send."""

    max_connections: int = 10_000  # beyond which those that wait for their clients are closed for new ones
    max_head_bytes: int = 64 * 1024  # at least one piece, which is 4 KiB
    max_header_lines: int = 100
    max_head_seconds: float = 10.0  # from the start of a connection, or from the first byte of a later request
    max_idle_seconds: float = 75.0
    max_unread_seconds: float = 30.0  # that a client may leave an answer unread
    max_unread_bytes: int = 64 * 1024 * 1024  # of the answers that all clients leave unread
    max_linger_seconds: float = 2.0  # for a client that is still sending to read an answer that came early
    max_linger_bytes: int = 16 * 1024 * 1024
    max_waiting_requests: int = 8


class OpenConnection(Protocol):
    """A connection, as far as it concerns the others."""

    deadline: float
    unread_deadline: float

    @property
    def unsent_bytes(self) -> int:
        """What was answered and cannot be sent yet."""
        ...

    def waited(self, now: float) -> float:
        """How much of the time that the client has for its next step is over, from 0 to 1; below 0: it is our turn."""
        ...

    def abandon(self, limit: str) -> None:
        """Close at once: others need the room, by this limit."""
        ...

    def expire(self, now: float) -> None:
        """Give up a client that took too long."""
        ...


class ConnectionRegistry:
    """All connections of a server: ends those whose time is up, and makes room for new ones."""

    def __init__(self, limits: ConnectionLimits | None = None, sweep_seconds: float = 0.1) -> None:
        self.limits = limits or ConnectionLimits()
        self.opened: set[OpenConnection] = set()
        self._sweep_seconds = sweep_seconds
        self._is_sweeping = False
        self._unread: dict[OpenConnection, int] = {}  # those that have waited longest first
        self._unread_bytes = 0
        self._logs_again_at: dict[str, float] = {}  # by the line
        self._closed: Counter[str] = Counter()  # and not logged yet, by the line
        self.defaults: tuple[object, bytes] = (None, b"")
        """The headers of every answer, which uvicorn renews every second, and their lines."""

    def default_lines(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Write these headers down, which every answer has."""
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.defaults = headers, lines
        return lines

    def leaves_unread(self, connection: OpenConnection, size: int, loop: asyncio.AbstractEventLoop) -> None:
        """Record how many bytes the client of this connection has not read yet."""
        self._unread[connection] = size
        self._unread_bytes += size
        if self._unread_bytes > self.limits.max_unread_bytes:
            loop.call_soon(self._close_unread, loop)  # the transport is writing

    def has_read(self, connection: OpenConnection) -> None:
        """Record that it has read them, or has disconnected."""
        self._unread_bytes -= self._unread.pop(connection, 0)

    def make_room(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether there is room for another connection, if need be in place of those that wait for their clients.

        A hundredth of all is closed together: to find those that have waited longest takes a look at all of them.
        """
        if len(self.opened) < self.limits.max_connections:
            return True
        now = loop.time()
        waiting = [connection for connection in self.opened if connection.waited(now) >= 0]
        longest = nlargest(self.limits.max_connections // 100 + 1, waiting, key=lambda each: each.waited(now))
        for connection in longest:
            self.opened.discard(connection)
            connection.abandon(WAITING_CONNECTIONS)
        self._log_closed("closed connections that waited for their clients, to make room for new ones", longest, loop)
        return bool(longest)

    def _close_unread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections whose answers have waited longest, until the others have room."""
        self._unread = {connection: connection.unsent_bytes for connection in self._unread}
        self._unread_bytes = sum(self._unread.values())
        closed: list[OpenConnection] = []
        while self._unread_bytes > self.limits.max_unread_bytes:
            longest = next(iter(self._unread))
            self.has_read(longest)
            longest.abandon(UNREAD_ANSWERS)
            closed.append(longest)
        self._log_closed("closed connections that left their answers unread", closed, loop)

    def _log_closed(self, event: str, closed: Sequence[OpenConnection], loop: asyncio.AbstractEventLoop) -> None:
        self._closed[event] += len(closed)
        if closed and loop.time() >= self._logs_again_at.get(event, 0):
            self._logs_again_at[event] = loop.time() + _SECONDS_BETWEEN_LINES
            _log.warning(event, connections=self._closed.pop(event))

    def sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """See that there is a sweep as long as there are connections."""
        if not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(self._sweep_seconds, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self.opened):
            if connection.deadline <= now or connection.unread_deadline <= now:
                connection.expire(now)
        self._is_sweeping = False
        if self.opened:
            self.sweep_later(loop)
