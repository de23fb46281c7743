"""What concurrent requests ask in one statement, as databases write concurrent transactions to disk at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from math import inf
from time import monotonic
from typing import Any, Generic, TypeVar

from graphql_api.domain import deadline
from graphql_api.domain.deadline import Deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability import spans
from graphql_api.storage.bulkheads import SharedReadIsLateError, SlowKeys, tries, was_slow
from graphql_api.storage.connection import StatementTimeoutError
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS, ConnectionPool

K = TypeVar("K")
V = TypeVar("V")

_MAX_KEYS = 400  # per load; a load with this many takes no more
_LATE_SECONDS = 0.01  # seconds, after which the next load does not wait for this one
_MAX_LOADS = 4  # concurrent loads, if they take long


class _Request(Generic[K, V]):
    """What one request asks for, since when and until when, and in which trace."""

    __slots__ = ("at", "deadline", "future", "keys", "spans")

    def __init__(self, keys: Sequence[K], future: asyncio.Future[dict[K, V]]) -> None:
        self.keys = keys
        self.future = future
        self.at = monotonic()
        self.deadline = deadline.current.get()
        self.spans = spans.current.get()


class RequestCoalescer(Generic[K, V]):
    """Loads by key, for many requests with few keys each. All callers must have the same permissions.

    Who comes during a load goes with the next one, unless it takes long: then that does not wait for it.

    To change something is to load it too, where each key is a change and what is found says which were made; a load
    that fails is tried again for each who request, so that has to do no harm.
    """

    def __init__(self, pool: ConnectionPool, load: Callable[[list[K]], Awaitable[dict[K, V]]]) -> None:
        self._pool = pool
        self._load = load
        self._waiting: list[_Request[K, V]] = []
        self._under_way: dict[asyncio.Task[None], list[_Request[K, V]]] = {}
        self._latest: asyncio.Task[None] | None = None  # the load that the next one waits for
        self._apart: dict[asyncio.Task[None], list[_Request[K, V]]] = {}  # loads of one request, which may be slow
        self._slow = SlowKeys()

    async def load(self, keys: Sequence[K]) -> dict[K, V]:
        """What is there of these keys; what others request for may be there too."""
        if not self._pool.is_open:
            await self._pool.wait_connected()  # here each waits for a while of their own
        future: asyncio.Future[dict[K, V]] = self._pool.loop.create_future()
        request = _Request(keys, future)
        if self._slow and any(key in self._slow for key in keys):
            self._load_apart(request)
        else:
            self._waiting.append(request)
            if self._latest is None:
                self._start_next()
        try:
            if request.deadline is None:
                return await future
            async with deadline.kept():
                return await future
        except (asyncio.CancelledError, UnavailableError):
            self._cancel_abandoned()
            raise

    def _cancel_abandoned(self) -> None:
        self._waiting = [request for request in self._waiting if not request.future.done()]
        for task, batch in (*self._under_way.items(), *self._apart.items()):
            if all(request.future.done() for request in batch):
                task.cancel()

    def _start_next(self) -> None:
        if self._waiting and self._latest is None and len(self._under_way) < _MAX_LOADS:
            self._latest = self._pool.loop.create_task(self._begin())
            self._latest.add_done_callback(self._done)

    async def _begin(self) -> None:
        """Load what has been request for when this comes to run, which is more than when it was started."""
        together, count = 0, 0
        while together < len(self._waiting) and count < _MAX_KEYS:
            count += len(self._waiting[together].keys)
            together += 1
        batch, self._waiting = self._waiting[:together], self._waiting[together:]
        task = self._latest
        if batch and task is not None:
            self._under_way[task] = batch
            timer = self._pool.loop.call_later(_LATE_SECONDS, self._release_next, task)
            try:
                await self._run(batch)
            finally:
                timer.cancel()

    def _release_next(self, task: "asyncio.Task[Any] | None") -> None:
        if task is self._latest:
            self._latest = None
        self._start_next()

    async def _run(self, batch: list[_Request[K, V]]) -> None:
        try:
            found = await self._load_for(batch, tries_if_late=-1)
        except UnavailableError as error:
            self._fail(batch, error)
            if not isinstance(error, StatementTimeoutError):
                old = monotonic() - RETRY_WINDOW_SECONDS
                self._fail([request for request in self._waiting if request.at < old], error)
        except Exception as error:  # noqa: BLE001 - it is raised to everybody who waits
            if len(batch) > 1 or isinstance(error, SharedReadIsLateError):  # one of them may have failed the others
                for request in batch:
                    self._load_apart(request)
            else:
                self._fail(batch, error)
        else:
            self._release_next(asyncio.current_task(self._pool.loop))  # the next goes before the answers
            self._answer(batch, found)

    def _load_apart(self, request: _Request[K, V]) -> None:
        """Load what one request asks for, alone: other requests neither wait for this load nor fail with it."""
        if not request.future.done():
            task = self._pool.loop.create_task(self._run_apart(request))
            self._apart[task] = [request]
            task.add_done_callback(self._apart.pop)

    async def _run_apart(self, request: _Request[K, V]) -> None:
        began = monotonic()
        was_slow.set(False)
        try:
            found = await self._load_for([request], tries_if_late=0)
        except asyncio.CancelledError:
            was_slow.set(monotonic() - began > self._pool.patience.seconds)
            raise
        except Exception as error:  # noqa: BLE001 - it is raised in each waiting request
            self._fail([request], error)
        else:
            self._answer([request], found)
        finally:
            for key in request.keys:
                self._slow.note(key, is_slow=was_slow.get())

    async def _load_for(self, batch: list[_Request[K, V]], *, tries_if_late: int) -> dict[K, V]:
        spans.current.set(tuple([span for request in batch for span in request.spans]))
        deadlines = [request.deadline for request in batch if request.deadline]
        deadline.current.set(Deadline(inf, deadlines) if deadlines else None)
        tries.set(tries_if_late)
        return await self._load(list({key: None for request in batch for key in request.keys}))

    def _answer(self, batch: list[_Request[K, V]], found: dict[K, V]) -> None:
        for request in batch:
            if not request.future.done():
                request.future.set_result(found)

    def _fail(self, batch: list[_Request[K, V]], error: Exception) -> None:
        for request in batch:
            if not request.future.done():
                request.future.set_exception(copy(error))  # a traceback belongs to one task
        self._waiting = [request for request in self._waiting if not request.future.done()]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._release_next(task)
