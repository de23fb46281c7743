"""Standbys to read from, each while it is well: it answers, is a standby, and is not far behind the primary.

How far it is behind is seen by no clock but our own: the primary is asked now and then for the end of its log, and a
standby shows all that was written before the last time at which the log was no longer than what it has replayed. So an
idle primary is not lag, nor is one that is away.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from mmap import mmap
from time import monotonic
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import structlog

from graphql_api.domain.caller import Caller
from graphql_api.domain.errors import UnavailableError
from graphql_api.domain.filter import TokenFilter
from graphql_api.observability.supervision import supervise
from graphql_api.storage.connection import Reads, Row, Statement
from graphql_api.storage.connector import FAILURES, Connector, RawConnection, addresses, place
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.reads import Columns, Page, Pair, TokenReader, TokenReads, TokenView
from graphql_api.storage.selects import JsonField

T = TypeVar("T")
P = ParamSpec("P")

_INTERVAL_SECONDS = 0.2
_ANSWER_TIMEOUT_SECONDS = 0.4
_SLOTS = 65_536
_NEVER = float("-inf")
# What was acknowledged is in the flushed log, unless `synchronous_commit` is off.
_END_OF_LOG = Statement(
    "end_of_log", "select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint", reads=Reads.OWN
)
_REPLAYED = "select pg_is_in_recovery(), pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint"

_log = structlog.get_logger()


class RecentWrites:
    """When each user was last written, by this process or one forked from the same parent.

    Many users share a slot, so that this takes half a megabyte and no more. A user who shares one
    with a user that was written counts as written too, which does no harm.
    """

    def __init__(self) -> None:
        self._last = memoryview(mmap(-1, 8 * (_SLOTS + 1))).cast("d")  # the last slot is for writes of all users

    def note(self, users: Iterable[str]) -> None:
        """Record that these users were written just now."""
        for user in users:
            self._last[hash(user) % _SLOTS] = monotonic()  # forks agree on hashes
        self._last[_SLOTS] = monotonic()

    def of_any(self, users: Iterable[str] | None, since: float) -> bool:
        """Whether one of these users was written since this time; None means any user."""
        if users is None:
            return self._last[_SLOTS] >= since
        return any(self._last[hash(user) % _SLOTS] >= since for user in users)


class WalTracker:
    """Samples of the end of the primary's log (WAL), with their times."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: deque[tuple[float, int]] = deque()

    async def follow(self, primary: ConnectionPool) -> None:
        """Sample it, until cancelled."""
        while True:
            asked = monotonic()
            with suppress(UnavailableError, *FAILURES):
                [[end]] = await primary.fetch(_END_OF_LOG)
                self._note(asked, end)
            await asyncio.sleep(_INTERVAL_SECONDS)

    def _note(self, time: float, end: int) -> None:
        """Add a sample: at this time, the log ended no later than here."""
        if self._ends and self._ends[-1][1] == end:
            self._ends.pop()
        self._ends.append((time, end))
        while self._ends[0][0] < time - self._seconds:
            self._ends.popleft()

    @property
    def newest(self) -> float:
        """The time of the last sample."""
        return self._ends[-1][0] if self._ends else _NEVER

    def visible_at(self, replayed: int) -> float:
        """The time up to which a standby that has replayed this much shows every write."""
        return next((time for time, end in reversed(self._ends) if end <= replayed), _NEVER)


class Replica:
    """One standby, and the stores that read from it."""

    def __init__(self, address: str, log: WalTracker, database: ConnectionPool, max_lag_seconds: float) -> None:
        self.name = place(address)
        self.reader = TokenReader(database)
        self.visible_until = _NEVER
        """The time up to which it shows every write."""
        self._connector = Connector(address, session=None, target=None)
        self._log = log
        self._database = database
        self._max_lag_seconds = max_lag_seconds
        self._last_visible = monotonic()
        self._trouble = "It was not checked yet."
        database.connections.suspend()

    @property
    def is_well(self) -> bool:
        """Whether requests may read from it."""
        return not self._trouble

    @property
    def lag(self) -> float:
        """The least number of seconds that it was behind when the primary last answered."""
        return max(0.0, self._log.newest - self._last_visible)

    async def follow(self) -> None:
        """Check whether it is healthy, until cancelled."""
        while True:
            try:
                raw = await self._connector.connect()
            except UnavailableError:
                self._mark_unhealthy("It cannot be reached.")
            else:
                self.visible_until = _NEVER  # after a crash, it may show less than before
                try:
                    await self._look_at(raw)
                except FAILURES:
                    self._mark_unhealthy("It does not answer.")
                finally:
                    raw.terminate()
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def _look_at(self, raw: RawConnection) -> None:
        while True:
            async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
                [(is_standby, replayed)] = await raw.fetch(_REPLAYED)
            if is_standby:
                self._compare(replayed)
            else:
                self._mark_unhealthy("It is not a standby.")
            await asyncio.sleep(_INTERVAL_SECONDS)

    def _compare(self, replayed: int) -> None:
        self.visible_until = max(self.visible_until, self._log.visible_at(replayed))
        if self.visible_until != _NEVER:
            self._last_visible = self.visible_until
        if self.visible_until < self._log.newest - self._max_lag_seconds:
            self._mark_unhealthy("It lags behind.")
        elif self.visible_until != _NEVER and self._trouble:
            self._trouble = ""
            self._database.connections.reopen()
            _log.info("replica healthy", replica=self.name)

    def _mark_unhealthy(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._database.connections.suspend()
            _log.warning("replica unhealthy", replica=self.name, reason=trouble)


class Replicas:
    """All replicas, and the recent writes of this machine, which they may not show yet."""

    def __init__(self, replicas: Sequence[Replica], primary: TokenReader, writes: RecentWrites) -> None:
        self._replicas = replicas
        self._primary = primary
        self._writes = writes
        self._turn = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        urls: Iterable[str],
        open_database: Callable[..., AbstractAsyncContextManager[ConnectionPool]],
        primary: TokenReader,
        writes: RecentWrites,
        *,
        max_lag_seconds: float,
    ) -> AsyncGenerator[Self]:
        """Open the replicas at these addresses, and monitor them until the context ends.

        Args:
            urls: `postgresql://…`, each with one host or several
            open_database: `ConnectionPool.open`, with what is the same for all
            primary: what they are compared with
            writes: where that notes whose tokens it wrote
            max_lag_seconds: seconds that a replica may be behind the primary and still be read from
        """
        log = WalTracker(max_lag_seconds)
        async with AsyncExitStack() as stack:
            replicas: list[Replica] = []
            for address in (address for url in urls for address in addresses(url)):
                opening = open_database(address, watches=False, target=None, name="replica")
                database = await stack.enter_async_context(opening)
                replicas.append(Replica(address, log, database, max_lag_seconds))
            loops = [("log of the primary", partial(log.follow, primary.pool))] if replicas else []
            loops += [(f"replica {replica.name}", replica.follow) for replica in replicas]
            tasks = [asyncio.create_task(supervise(name, loop)) for name, loop in loops]
            try:
                yield cls(replicas, primary, writes)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def __iter__(self) -> Iterator[Replica]:
        """The replicas."""
        return iter(self._replicas)

    def reads(self, caller: Caller) -> TokenReads:
        """What one request of this caller reads from: the next healthy replica, or the primary if there is none."""
        well = [replica for replica in self._replicas if replica.is_well]
        if not well:
            return self._primary
        self._turn += 1
        return ReplicaReads(self._primary, well[self._turn % len(well)], self._writes, caller)


class ReplicaReads:
    """The reads of one request (`TokenReads`): from a replica, until something makes it change to the primary.

    That moment comes when the replica fails, when it may not show yet what was written of the users asked for, and when
    a token that is looked up is not there: it may be new. A token that the caller may not see is one that is not there,
    so that the time until the answer tells nothing of it.
    """

    def __init__(self, primary: TokenReader, replica: Replica, writes: RecentWrites, caller: Caller) -> None:
        self._primary = primary
        self._replica = replica
        self._writes = writes
        self._caller = caller
        self._at = replica.reader

    async def by_ids(
        self, ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> dict[str, TokenView]:
        """Tokens by id."""
        found = await self._ask((), TokenReader.by_ids, ids, columns, coalesce=coalesce)
        if self._shows(ids, found):
            return found
        return await self._ask_primary(TokenReader.by_ids, ids, columns, coalesce=coalesce)

    async def by_customers(
        self, pairs: Sequence[Pair], columns: Columns = None, *, owner: str | None = None, former: bool = True
    ) -> dict[Pair, TokenView]:
        """Tokens by (gateway, gateway customer id)."""
        found = await self._ask((), TokenReader.by_customers, pairs, columns, owner=owner, former=former)
        if self._shows(pairs, found):
            return found
        return await self._ask_primary(TokenReader.by_customers, pairs, columns, owner=owner, former=former)

    async def by_users_and_gateways(
        self, pairs: Sequence[Pair], columns: Columns = None, *, coalesce: bool = False
    ) -> dict[Pair, TokenView]:
        """Tokens by (user id, gateway). Only a single missing token is looked up again at the primary."""
        users = [user_id for user_id, _ in pairs]
        found = await self._ask(users, TokenReader.by_users_and_gateways, pairs, columns, coalesce=coalesce)
        if len(pairs) > 1 or self._shows(pairs, found):
            return found
        return await self._ask_primary(TokenReader.by_users_and_gateways, pairs, columns, coalesce=coalesce)

    async def of_users(
        self, user_ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> dict[str, list[TokenView]]:
        """Every token of these users."""
        return await self._ask(user_ids, TokenReader.of_users, user_ids, columns, coalesce=coalesce)

    async def of_users_as_json(
        self, user_ids: Sequence[str], fields: tuple[JsonField, ...], *, coalesce: bool = False
    ) -> dict[str, str]:
        """The same as JSON text."""
        return await self._ask(user_ids, TokenReader.of_users_as_json, user_ids, fields, coalesce=coalesce)

    async def page(
        self,
        wanted: TokenFilter,
        *,
        size: int,
        after: tuple[datetime, str] | None = None,
        before: tuple[datetime, str] | None = None,
        backwards: bool = False,
    ) -> Page:
        """A page of tokens in creation order."""
        return await self._ask(
            _users_of(wanted), TokenReader.page, wanted, size=size, after=after, before=before, backwards=backwards
        )

    async def count(self, wanted: TokenFilter) -> int:
        """The number of tokens."""
        return await self._ask(_users_of(wanted), TokenReader.count, wanted)

    async def identifiers(self, pairs: Sequence[Pair]) -> dict[Pair, list[str]]:
        """Current and former customer ids of users whose tokens this request has read."""
        return await self._ask((), TokenReader.identifiers, pairs)

    async def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> dict[str, list[Row]]:
        """History entries of tokens that this request has read."""
        return await self._ask((), TokenReader.history, token_ids, size=size, before=before)

    async def _ask(
        self,
        users: Iterable[str] | None,
        question: Callable[Concatenate[TokenReader, P], Awaitable[T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Run a read about these users (None: all users) on the replica or the primary."""
        if self._at is not self._primary and not self._writes.of_any(users, since=self._replica.visible_until):
            try:
                return await question(self._at, *arguments, **options)
            except (UnavailableError, *FAILURES):
                pass
        return await self._ask_primary(question, *arguments, **options)

    async def _ask_primary(
        self, question: Callable[Concatenate[TokenReader, P], Awaitable[T]], *arguments: P.args, **options: P.kwargs
    ) -> T:
        self._at = self._primary
        return await question(self._primary, *arguments, **options)

    def _shows(self, keys: Sequence[Any], found: Mapping[Any, TokenView]) -> bool:
        """Whether the primary would answer the same, as far as this process can know."""
        if self._at is self._primary:
            return True
        asked = set(keys)
        owners = [found[key].user_id for key in asked if key in found]
        is_all_seen = len(owners) == len(asked) and all(map(self._caller.may_read, owners))
        return is_all_seen and not self._writes.of_any(owners, since=self._replica.visible_until)


def _users_of(wanted: TokenFilter) -> list[str] | None:
    return None if wanted.user_id is None else [wanted.user_id]
