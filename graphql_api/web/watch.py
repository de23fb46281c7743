"""Looks after requests in flight: ends those whose time is up, and those whose client has gone.

One timer looks at all of them many times a second, so that a fast request pays for no timer and no task of its own.
"""

import asyncio
from enum import Enum

from starlette.types import Receive

# After so many seconds a request is worth a task that listens for its client's going away. Of a thousand clients at
# once each waits nearly as long, and with a task for each a fifth fewer are served.
_LISTEN_AFTER_SECONDS = 0.25


class End(Enum):
    """Why a request was ended before it had an answer."""

    TIME_IS_UP = "time is up"
    CLIENT_HAS_GONE = "client has gone"


class Watched:
    """One request in flight.

    `receive` is set once its body has been read, which nothing else may call then: from now on the request ends when
    its client goes away. None: it goes on.
    """

    __slots__ = ("_began", "_deadline", "_loop", "_seconds", "_task", "ended", "listener", "receive")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._task = asyncio.current_task(loop)
        self._began: float | None = None
        self._deadline: float | None = None
        self._seconds = seconds
        self.receive: Receive | None = None
        self.listener: asyncio.Task[None] | None = None
        self.ended: End | None = None

    def allow(self, seconds: float) -> None:
        """Give the request this many seconds from now, which is the next look: most requests are over by then."""
        self._seconds = seconds
        self._deadline = None

    def look(self, now: float) -> None:
        """End the request if its time is up; once it takes long, listen for its client's going away."""
        if self._began is None:
            self._began = now
        if self._deadline is None:
            self._deadline = now + self._seconds
        if now >= self._deadline:
            self._end(End.TIME_IS_UP)
        elif self.receive is not None and self.listener is None and now - self._began >= _LISTEN_AFTER_SECONDS:
            self.listener = self._loop.create_task(self._listen(self.receive))

    def leave(self) -> None:
        """The request needs no watching any more."""
        if self.listener is not None:
            self.listener.cancel()
            self.listener = None  # how it ended leads back to here: a cycle for every request that waited
        if self.ended is not None and self._task is not None:
            self._task.uncancel()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self.receive is not None:
            self._end(End.CLIENT_HAS_GONE)

    def _end(self, why: End) -> None:
        if self.ended is None and self._task is not None:
            self.ended = why
            self._task.cancel()


class Watch:
    """All requests in flight."""

    def __init__(self, every: float = 0.05) -> None:
        self._loop = asyncio.get_running_loop()  # asking for it costs a system call each time, until Python 3.12
        self._every = every
        self._watched: set[Watched] = set()
        self._is_looking = False

    def __len__(self) -> int:
        return len(self._watched)

    def enter(self, seconds: float) -> Watched:
        """Watch the task that calls this; it has to `leave` again."""
        watched = Watched(self._loop, seconds)
        self._watched.add(watched)
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(self._every, self._look)
        return watched

    def leave(self, watched: Watched) -> None:
        """Stop watching. Where the request was ended, its task is as if it had never been cancelled."""
        self._watched.discard(watched)
        if watched.listener is not None or watched.ended is not None:
            watched.leave()

    def _look(self) -> None:
        now = self._loop.time()
        for watched in self._watched:
            watched.look(now)
        self._is_looking = bool(self._watched)
        if self._is_looking:
            self._loop.call_later(self._every, self._look)
