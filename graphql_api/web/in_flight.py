"""Looks after requests in flight, and ends those whose time is up.

One timer looks at all of them many times a second, so that a fast request pays for no timer of its own.
"""

import asyncio

from graphql_api.web.request import Interruption, Request

_LOOK_SECONDS = 0.05


class RequestsInFlight:
    """All requests that are being answered."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()  # asking for it costs a system call each time, until Python 3.12
        self._requests: set[Request] = set()
        self._is_looking = False
        self.leave = self._requests.discard

    def __len__(self) -> int:
        return len(self._requests)

    def enter(self, request: Request) -> None:
        """End the request when its deadline has passed; it has to `leave` again."""
        self._requests.add(request)
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def allow(self, request: Request, seconds: float) -> None:
        """Give the request this many seconds from now."""
        request.deadline = self._loop.time() + seconds

    def _look(self) -> None:
        now = self._loop.time()
        for request in [request for request in self._requests if request.deadline <= now]:
            request.interrupt(Interruption.TIME_IS_UP)
        self._is_looking = bool(self._requests)
        if self._is_looking:
            self._loop.call_later(_LOOK_SECONDS, self._look)
