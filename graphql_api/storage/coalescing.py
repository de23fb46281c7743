"""What concurrent requests ask in one statement, as databases write concurrent transactions to disk at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg

from graphql_api.domain import deadline, place
from graphql_api.domain.deadline import Deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability import spans
from graphql_api.storage.bulkheads import (
    ConflictError,
    SharedReadIsLateError,
    SlowKeys,
    SlowUserError,
    avoids_slow,
    tries,
    was_slow,
)
from graphql_api.storage.connection import StatementTimeoutError
from graphql_api.storage.pool import ConnectionPool

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 400  # per load; a load with this many takes no more
# A load of reads with this many waits for no more. Measured with 1 to 50 users per request on 1 to 32 connections.
GATHERED_REQUESTS, GATHERED_KEYS = 12, 64
# A load waits no longer after this number of turns of the event loop that bring none: one writes the answers of the
# load before it, and one reads what their clients ask next.
_QUIET_TURNS = 2
# While the database is away, requests that have waited so long fail with the load before them.
_MAX_WAIT_SECONDS = 0.5
_MAX_LOADS = 4  # concurrent loads, if they take long
_new = tuple.__new__  # of a named tuple: its class would be a call more, for each request


class _Request(NamedTuple):
    """What one request asks for, since when and until when, and in which trace."""

    keys: Sequence[Any]
    future: asyncio.Future[Any]
    at: float
    deadline: Deadline | None
    spans: spans.Spans


class RequestCoalescer(Generic[K, V]):
    """Loads by key, for many requests with few keys each. All callers must have the same permissions.

    Who comes during a load goes with the next one, unless it takes long: then that does not wait for it. A small load
    of reads waits a moment for as many requests as the load before it answers, whose clients may ask again.

    To change something is to load it too, where each key is a change and what is found says which were made; a load
    that fails is tried again for each request, so that has to do no harm.

    Args:
        pool: connections that loads use
        load: finds what is there of some keys
        owner: the user whose rows a key's change locks; if it waits for a lock, all changes of that user do
        avoids: whether changes of these users wait for locks: then other changes are loaded without them
        late_seconds: the next load does not wait for one that takes longer, and for clients to ask again a fifth of it
    """

    def __init__(
        self,
        pool: ConnectionPool,
        load: Callable[[list[K]], Awaitable[dict[K, V]]],
        *,
        owner: Callable[[K], str] | None = None,
        avoids: Callable[[list[str]], bool] | None = None,
        late_seconds: float = 0.01,
    ) -> None:
        self._owner = owner
        self._avoids = avoids
        self._late_seconds = late_seconds
        self._connections = pool.connections
        self._loop = pool.connections.loop
        self._load = load
        self._waiting: list[_Request] = []
        self._under_way: dict[asyncio.Task[None], list[_Request]] = {}
        self._latest: asyncio.Task[None] | None = None  # the load that the next one waits for
        self._latest_at = 0.0
        self._answered, self._answered_at = 0, -inf  # by the last load: how many, less those who have asked since
        self._apart: dict[asyncio.Task[None], list[_Request]] = {}  # loads that may be slow
        self._slow = SlowKeys()
        self._is_looking = False

    def load(self, keys: Sequence[K]) -> Awaitable[dict[K, V]]:
        """What is there of these keys; what others asked for may be there too."""
        if not self._connections.open:
            return self._load_connected(keys)
        future = self._loop.create_future()
        request = _new(_Request, (keys, future, monotonic(), deadline.current.get(), spans.current.get()))
        if self._slow.since and any(key in self._slow for key in keys):
            self._load_apart([request])
        else:
            self._waiting.append(request)
            self._answered -= 1
            if self._latest is None:
                self._start_next()
        return future

    async def _load_connected(self, keys: Sequence[K]) -> dict[K, V]:
        async with deadline.enforced():
            await self._connections.wait_connected()  # here each waits for a while of their own
        return await self.load(keys)

    def _start_next(self) -> None:
        if self._waiting and self._latest is None and len(self._under_way) < _MAX_LOADS:
            self._latest = self._loop.create_task(self._begin())
            self._latest.add_done_callback(self._done)

    async def _begin(self) -> None:
        """Load what has been asked for when this comes to run, which is more than when it was started."""
        if self._owner is None:
            await self._gather()
        self._refuse_avoided()
        waiting = [request for request in self._waiting if not request.future.done()]
        together, count = 0, 0
        while together < len(waiting) and count < MAX_KEYS:
            count += len(waiting[together].keys)
            together += 1
        batch, self._waiting = waiting[:together], waiting[together:]
        task = self._latest
        if not batch or task is None:
            return
        self._under_way[task] = batch
        self._latest_at = monotonic()
        self._look_later()
        try:
            found = await self._load_for(batch, tries_if_late=-1)
        except UnavailableError as error:
            self._fail(batch, error)
            if not isinstance(error, StatementTimeoutError):
                old = monotonic() - _MAX_WAIT_SECONDS
                self._fail([request for request in self._waiting if request.at < old], error)
        except Exception as error:  # noqa: BLE001 - it is raised to everybody who waits
            parts = self._parts(batch, error)
            if len(parts) > 1 or isinstance(error, SharedReadIsLateError):  # one of them may have failed the others
                for part in parts:
                    self._load_apart(part)
            else:
                self._fail(batch, error)
        else:
            self._release_next(task)  # the next goes before the answers
            self._answer(batch, found)

    async def _gather(self) -> None:
        """Wait for the clients that were answered just now to ask again: one statement costs less than two."""
        quiet_turns = count = 0
        while self._answered > 0 and monotonic() < self._answered_at + self._late_seconds / 5:
            before, count = count, len(self._waiting)
            if count == before:
                quiet_turns += 1
                if quiet_turns == _QUIET_TURNS:
                    return
            elif count >= GATHERED_REQUESTS or sum([len(request.keys) for request in self._waiting]) >= GATHERED_KEYS:
                return
            else:
                quiet_turns = 0
            await asyncio.sleep(0)

    def _refuse_avoided(self) -> None:
        """Refuse the changes of users to be avoided: their callers ask again, apart."""
        if self._owner is None or self._avoids is None:
            return
        for request in self._waiting:
            if not request.future.done() and self._avoids([self._owner(request.keys[0])]):
                request.future.set_exception(SlowUserError())

    def _parts(self, batch: list[_Request], error: Exception) -> list[list[_Request]]:
        """Those of the batch that fail together, if one of them fails by this error."""
        if self._owner is not None and isinstance(error, (asyncpg.LockNotAvailableError, ConflictError)):
            parts: dict[str, list[_Request]] = {}
            for request in batch:
                parts.setdefault(self._owner(request.keys[0]), []).append(request)
            return list(parts.values())
        if all(request.keys == batch[0].keys for request in batch):
            return [batch]
        return [[request] for request in batch]

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(self._late_seconds / 2, self._look)

    def _look(self) -> None:
        """Watch loads that take long: the next does not wait for them, and one that no caller waits for ends."""
        self._is_looking = False
        self._give_up([request for request in self._waiting if request.deadline is not None])
        for task, batch in (*self._under_way.items(), *self._apart.items()):
            self._give_up([request for request in batch if request.deadline is not None])
            if all(request.future.done() for request in batch):
                task.cancel()
        if self._latest in self._under_way and monotonic() - self._latest_at >= self._late_seconds:
            self._release_next(self._latest)
        if self._under_way or self._apart:
            self._look_later()

    def _give_up(self, mutations: list[_Request]) -> None:
        """Let those wait no longer whose deadline has passed."""
        now = self._loop.time()
        for request in mutations:
            if request.deadline is not None and request.deadline.at <= now and not request.future.done():
                request.future.set_exception(deadline.exceeded_error())

    def _release_next(self, task: "asyncio.Task[Any] | None") -> None:
        if task is self._latest:
            self._latest = None
        self._start_next()

    def _load_apart(self, batch: list[_Request]) -> None:
        """Load what these ask for: other requests neither wait for this load nor fail with it."""
        batch = [request for request in batch if not request.future.done()]
        if batch:
            task = self._loop.create_task(self._run_apart(batch))
            self._apart[task] = batch
            self._look_later()
            task.add_done_callback(self._apart.pop)

    async def _run_apart(self, batch: list[_Request]) -> None:
        began = monotonic()
        was_slow.set(False)
        try:
            found = await self._load_for(batch, tries_if_late=0)
        except asyncio.CancelledError:
            was_slow.set(monotonic() - began > self._connections.patience.seconds)
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in each waiting request
            self._fail(batch, error)
        else:
            self._answer(batch, found)
        finally:
            for request in batch:
                for key in request.keys:
                    self._slow.note(key, is_slow=was_slow.get())

    def _load_for(self, batch: list[_Request], *, tries_if_late: int) -> Awaitable[dict[K, V]]:
        """Load what these ask for, in the task that calls this: it has its own context."""
        spans.current.set(tuple([span for request in batch for span in request.spans]))
        deadlines = [request.deadline for request in batch if request.deadline]
        deadline.current.set(Deadline(inf, deadlines) if deadlines else None)
        place.release.set(place.none)  # not that of the request which started this task
        tries.set(tries_if_late)
        avoids_slow.set(self._avoids is not None)
        return self._load(list({key: None for request in batch for key in request.keys}))

    def _answer(self, batch: list[_Request], found: dict[K, V]) -> None:
        self._answered, self._answered_at = len(batch), monotonic()
        for request in batch:
            if not request.future.done():
                request.future.set_result(found)

    def _fail(self, batch: list[_Request], error: Exception) -> None:
        for request in batch:
            if not request.future.done():
                request.future.set_exception(_copy(error))  # a traceback belongs to one task
        self._waiting = [request for request in self._waiting if not request.future.done()]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._release_next(task)


def _copy(error: Exception) -> Exception:
    """The same error without its traceback. `copy.copy` would call its class with arguments that it may not take."""
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    return made
