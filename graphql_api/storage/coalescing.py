"""What concurrent requests ask in one statement, as databases write concurrent transactions to disk at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability import spans
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS, ConnectionPool

K = TypeVar("K")
V = TypeVar("V")

_MAX_KEYS = 400  # per load; a load with this many takes no more
_LATE_SECONDS = 0.01  # seconds, after which the next load does not wait for this one
_MAX_LOADS = 4  # concurrent loads, if they take long


class _Request(NamedTuple, Generic[K, V]):
    """What one request asks for, since when, and in which trace."""

    keys: Sequence[K]
    future: asyncio.Future[dict[K, V]]
    at: float
    spans: spans.Spans


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

    async def load(self, keys: Sequence[K]) -> dict[K, V]:
        """What is there of these keys; what others request for may be there too."""
        if not self._pool.is_open:
            await self._pool.wait_connected()  # here each waits for a while of their own
        future: asyncio.Future[dict[K, V]] = self._pool.loop.create_future()
        self._waiting.append(_Request(keys, future, monotonic(), spans.current.get()))
        self._start_next()
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel_abandoned()
            raise

    def _cancel_abandoned(self) -> None:
        self._waiting = [request for request in self._waiting if not request.future.done()]
        for task, batch in self._under_way.items():
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
        spans.current.set(tuple([span for request in batch for span in request.spans]))
        deadline.at.set(None)  # that of whoever had this task started
        try:
            found = await self._load(list({key: None for request in batch for key in request.keys}))
        except UnavailableError as error:
            self._fail(batch, error)
            self._fail([request for request in self._waiting if request.at < monotonic() - RETRY_WINDOW_SECONDS], error)
        except Exception as error:  # noqa: BLE001 - it is raised to everybody who waits
            if len(batch) > 1:  # one of them may have failed the others
                await asyncio.gather(*(self._run([request]) for request in batch))
            else:
                self._fail(batch, error)
        else:
            self._release_next(asyncio.current_task(self._pool.loop))  # the next goes before the answers
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
