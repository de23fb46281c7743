"""What concurrent requests ask in one statement, as databases write concurrent transactions to disk at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from graphql_api.domain.errors import Unavailable
from graphql_api.observability import spans
from graphql_api.storage.database import SOON, Database

K = TypeVar("K")
V = TypeVar("V")

_UNDER_WAY = 4  # loads at a time; what is asked for meanwhile goes with the next one
_MOST_KEYS = 100  # of one load


class _Asked(NamedTuple, Generic[K, V]):
    """What somebody asked for, when, and in whose trace that belongs."""

    keys: Sequence[K]
    future: asyncio.Future[dict[K, V]]
    at: float
    spans: spans.Spans


class Merging(Generic[K, V]):
    """Loads by key, where many ask for few keys at once. All who ask must have the same right to what is loaded.

    To change something is to load it too, where each key is a change and what is found says which were made; a load
    that fails is tried again for each who asked, so that has to do no harm.
    """

    def __init__(self, database: Database, load: Callable[[list[K]], Awaitable[dict[K, V]]]) -> None:
        self._database = database
        self._load = load
        self._waiting: list[_Asked[K, V]] = []
        self._under_way: dict[asyncio.Task[None], list[_Asked[K, V]]] = {}
        self._starts = False

    async def load(self, keys: Sequence[K]) -> dict[K, V]:
        """What is there of these keys; what others asked for may be there too."""
        if not self._database.is_open:
            await self._database.reach()  # here each waits for a while of their own
        loop = self._database.loop
        future: asyncio.Future[dict[K, V]] = loop.create_future()
        self._waiting.append(_Asked(keys, future, monotonic(), spans.current.get()))
        if not self._starts and len(self._under_way) < _UNDER_WAY:
            self._starts = True
            loop.call_soon(self._start)  # after all that this turn of the loop will ask for
        try:
            return await future
        except asyncio.CancelledError:
            self._end_what_nobody_waits_for()
            raise

    def _end_what_nobody_waits_for(self) -> None:
        self._waiting = [asked for asked in self._waiting if not asked.future.done()]
        for task, batch in self._under_way.items():
            if all(asked.future.done() for asked in batch):
                task.cancel()

    def _start(self) -> None:
        self._starts = False
        together, count = 0, 0
        while together < len(self._waiting) and (together == 0 or count < _MOST_KEYS):
            count += len(self._waiting[together].keys)
            together += 1
        batch, self._waiting = self._waiting[:together], self._waiting[together:]
        if batch:
            task = self._database.loop.create_task(self._run(batch))
            self._under_way[task] = batch
            task.add_done_callback(self._done)

    async def _run(self, batch: list[_Asked[K, V]]) -> None:
        spans.current.set(tuple([span for asked in batch for span in asked.spans]))
        try:
            found = await self._load(list({key: None for asked in batch for key in asked.keys}))
        except Unavailable as error:
            self._fail(batch, error)
            self._fail([asked for asked in self._waiting if asked.at < monotonic() - SOON], error)
        except Exception as error:  # noqa: BLE001 - it is raised to everybody who waits
            if len(batch) > 1:  # one of them may have failed the others
                await asyncio.gather(*(self._run([asked]) for asked in batch))
            else:
                self._fail(batch, error)
        else:
            for asked in batch:
                if not asked.future.done():
                    asked.future.set_result(found)

    def _fail(self, batch: list[_Asked[K, V]], error: Exception) -> None:
        for asked in batch:
            if not asked.future.done():
                asked.future.set_exception(error)
        self._waiting = [asked for asked in self._waiting if not asked.future.done()]

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if self._waiting and not self._starts:
            self._start()
