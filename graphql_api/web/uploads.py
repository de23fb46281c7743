"""Bodies that do not come at once."""

from collections.abc import Awaitable, Callable

from graphql_api.domain.errors import UnavailableError


class Uploads:
    """The bodies that a worker is receiving. They share a number of bytes, so that slow and large ones do not add up.

    If they exceed it, the oldest make room, so a slow client does not block others.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bodies: dict[int, bytearray] = {}  # the oldest first
        self._number = 0

    async def receive(self, read: Callable[[], Awaitable[bytes]], max_bytes: int) -> bytes:
        """The whole body, by what returns its next piece, and `b""` at its end; of one that is longer, its beginning.

        Args:
            read: returns the next piece
            max_bytes: what a body may have; the next piece is the last one that is read

        Raises:
            UnavailableError: others needed the room.
        """
        self._number = number = self._number + 1
        body = self._bodies[number] = bytearray()
        try:
            while len(body) <= max_bytes and (piece := await read()):
                if number in self._bodies:
                    body += piece
                    self._bytes += len(piece)
                    while self._bytes > self._max_bytes:
                        self._forget(next(iter(self._bodies)))
                if number not in self._bodies:
                    raise UnavailableError("The service is receiving too much data at once.")
            return bytes(body)
        finally:
            self._forget(number)

    def _forget(self, number: int) -> None:
        body = self._bodies.pop(number, None)
        if body is not None:
            self._bytes -= len(body)
            body.clear()
