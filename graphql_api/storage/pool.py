"""A pool of connections to PostgreSQL: runs statements and transactions on the connections that their kind may hold.

A statement whose connection was lost runs again if that does no harm. A read that is late is asked again elsewhere.
"""

import sys
from collections.abc import AsyncGenerator, Collection, Coroutine, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Self

import asyncpg

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.bulkheads import (
    ChangeIsLateError,
    ChangeShares,
    Share,
    SharedReadIsLateError,
    SlowKeys,
    enter_to_change,
    tries,
    was_slow,
)
from graphql_api.storage.connection import ConnectionLostError, Observer, Reads, Row, Statement, unobserved
from graphql_api.storage.connection_set import (
    ACQUIRE_TIMEOUT_SECONDS,
    STANDARD,
    ConnectionSet,
    PoolOptions,
)
from graphql_api.storage.connector import CONNECT_TIMEOUT_SECONDS, PRIMARY, Connector
from graphql_api.storage.transaction import Transaction
from graphql_api.storage.transaction_runner import TransactionRunner
from graphql_api.storage.watchdog import Watchdog

# By default, PostgreSQL plans `= any($1)` at each execution, which costs more than the query, and uses a bitmap for a
# handful of rows, which costs three times what the index alone does.
SESSION = {"plan_cache_mode": "force_generic_plan", "enable_bitmapscan": "off", "jit": "off", "timezone": "UTC"}
"""What is set on each connection, unless a pooler forbids that: an operator then sets it for the role."""
# A statement or a change whose connection was lost is run again if it began no longer ago.
RETRY_WINDOW_SECONDS = 1.5
_MIN_ACQUIRE_SECONDS = 0.3  # to get a connection, even if waiting for a place used up the time
_MOVING_SECONDS = 0.1  # while some slow read ends within this time, there is no harm in a long line of them
_MAX_KEYS, _MAX_KEY_CHARACTERS = 50, 2000  # of a read by key that is expected to be quick


class _LateError(Exception):
    """A read was given up because it was late."""


class ConnectionPool:
    """Runs statements on a bounded number of connections to one PostgreSQL.

    Args:
        connections: the connections
        settings: what is set in each transaction, if the session may not be changed
    """

    def __init__(self, connections: ConnectionSet, settings: Mapping[str, str]) -> None:
        self.connections = connections
        self.patience = connections.patience
        self._watchdog = Watchdog(connections)
        self._transactions = TransactionRunner(connections, self._watchdog, self, settings)
        # Reads by key that are quick find a connection whatever the rest does.
        size = connections.size
        share = partial(Share, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=_MOVING_SECONDS)
        self._slow = SlowKeys()
        self._slow_share = share(max(1, size // 5), waiting=2 * size)
        self._lists = share(max(1, size // 5), waiting=sys.maxsize)
        self.changes = ChangeShares(size, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=_MOVING_SECONDS)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        size: int = 10,
        timeout: float = 5,
        prepares: bool = True,
        watches: bool = True,
        observe: Observer = unobserved,
        target: str | None = PRIMARY,
        name: str = "database",
        connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
        options: PoolOptions = STANDARD,
    ) -> AsyncGenerator[Self]:
        """A pool whose connections are closed at the end.

        Args:
            url: `postgresql://…`
            size: how many connections there are at the most
            timeout: seconds that one statement may take
            prepares: whether statements are prepared; a pooler in transaction mode may forbid that
            watches: whether work that is late is set apart, and connections are given up if nothing is heard of the
                database; statements that take minutes are better waited for, as long as a backend works on them
            observe: is called for every statement
            target: which host to use, if there are several
            name: what the log calls it
            connect_timeout: seconds that connecting to one host may take
            options: how connections are treated
        """
        statement = timeout + options.server_grace_seconds
        limits = _server_limits(statement, min(statement, options.max_pause_seconds) if watches else statement)
        session = {**SESSION, **limits} if prepares else None
        connections = ConnectionSet(
            Connector(url, session=session, target=target, timeout_seconds=connect_timeout),
            name=name,
            size=size,
            timeout=timeout,
            prepares=prepares,
            watches=watches,
            options=options,
            observe=observe,
        )
        pool = cls(connections, {} if prepares else limits)
        connections.watch(pool._transactions.end)
        try:
            yield pool
        finally:
            await connections.close()

    def fetch(
        self, statement: Statement, *arguments: Any, users: Collection[str] = ()
    ) -> Coroutine[Any, Any, list[Row]]:
        """Run the statement in its own transaction, and again if its connection was lost.

        So it has to do no harm twice: it reads, or it changes only what is as it was read, of these `users`.

        Raises:
            UnavailableError: the database did not answer in time, or the deadline of the mutation is over.
        """
        if statement.reads is Reads.OWN or not self.connections.watches:
            fetching = self._fetch(statement, arguments, is_early=False)
        elif statement.reads is not None:
            fetching = self._read(statement, arguments)
        else:
            fetching = self._change(statement, arguments, users)
        until = deadline.current.get()
        return fetching if until is None or until.is_shared else _before_deadline(fetching)

    async def _change(self, statement: Statement, arguments: tuple[Any, ...], users: Collection[str]) -> list[Row]:
        """Run a statement that changes something."""
        async with AsyncExitStack() as stack:
            is_slow = await enter_to_change(stack, self.changes.place(users, records=True))
            began, rows = monotonic(), list[Row]()
            try:
                rows = await self._fetch(statement, arguments, is_early=False)
                self.connections.note_change()
                return rows
            finally:
                is_late = self.patience.is_late_change(monotonic() - began)
                if is_late and not is_slow and len(set(users)) == 1:
                    self.changes.note(users, is_slow=True)
                elif is_slow and not is_late and rows:  # one that changed nothing may have been quick because of that
                    self.changes.note(users, is_slow=False)

    async def _read(self, statement: Statement, arguments: tuple[Any, ...]) -> list[Row]:
        """Run a statement that reads; if it is late, it is asked again elsewhere."""
        began = monotonic()
        key = _key(statement, arguments) if self._slow.since else None
        if key not in self._slow:
            is_list = statement.reads is not Reads.BY_KEY or _are_many(arguments[0])
            with suppress(_LateError):
                if is_list:
                    async with self._lists:
                        return await self._fetch(statement, arguments, is_early=True, since=began)
                return await self._fetch(statement, arguments, is_early=True)
            if not is_list and (again := tries.get()):
                if again < 0:
                    raise SharedReadIsLateError
                with suppress(_LateError):
                    return await self._fetch(statement, arguments, is_early=True)
        return await self._fetch_slowly(statement, arguments, since=began)

    async def _fetch_slowly(self, statement: Statement, arguments: tuple[Any, ...], *, since: float) -> list[Row]:
        """Read what was slow, on the share of such reads; if it is quick, it is slow no more."""
        async with self._slow_share:
            began = monotonic()
            self.connections.suspect_idle()
            try:
                return await self._fetch(statement, arguments, is_early=False, since=since)
            finally:
                is_slow = monotonic() - began > self.patience.seconds
                self._slow.note(_key(statement, arguments), is_slow=is_slow)
                was_slow.set(is_slow)

    async def _fetch(
        self, statement: Statement, arguments: tuple[Any, ...], *, is_early: bool, since: float = inf
    ) -> list[Row]:
        """Run the statement, and again if its connection was lost; if it is early, it is given up when it is late.

        `since` is when it began to wait for a place, if it did.
        """
        began = monotonic()
        until = max(min(began, since) + ACQUIRE_TIMEOUT_SECONDS, began + _MIN_ACQUIRE_SECONDS)
        while True:
            connection = await self.connections.acquire(until)
            if is_early:
                self._watchdog.watch_read(connection)
            try:
                running = connection.fetch(statement, *arguments)
                rows = await (running if deadline.current.get() is None else _executing(running))
            except BaseException as error:
                is_late = connection.is_given_up(error)
                translated = self.connections.return_failed(connection, error, commits=statement.reads is None)
                if is_late:
                    self.connections.suspect_idle()
                    raise _LateError from None
                if translated is error:
                    raise
                if not isinstance(translated, ConnectionLostError):
                    raise translated from error
                if monotonic() - began > RETRY_WINDOW_SECONDS:
                    raise UnavailableError("The database was lost during the statement.") from error
            else:
                if is_early:
                    connection.reader = None
                    self.patience.note_answer()
                self.connections.release(connection)
                return rows

    @asynccontextmanager
    async def transaction(
        self,
        first: str = "",
        *,
        commits: bool = True,
        keys: Collection[str] = (),
        suspects: Collection[str] | None = None,
        records: bool = True,
        repeats: bool = False,
    ) -> AsyncGenerator[Transaction]:
        """Statements that take effect together or not at all.

        Args:
            first: SQL without arguments that runs in the round trip that begins the transaction
            commits: whether it takes effect at its end, which the database is asked if its answer is lost
            keys: the users whose it is, and what else another transaction may make it wait for
            suspects: those of the keys that are slow if it is late; all of them by default
            records: whether it writes the history
            repeats: whether the caller runs it again if it was late, or waited for a lock

        Raises:
            ChangeIsLateError: one of its statements was late; nothing took effect. Its suspects are slow now.
            asyncpg.LockNotAvailableError: one waited too long for a lock, and the same holds.
            UnchangedError: other changes held the places for changes for too long; nothing was begun.
            ConnectionLostError: the connection was lost, and nothing took effect.
            UnavailableError: the database did not answer in time, or the deadline of the mutation is over; the message
                says if it may have taken effect.
        """
        async with AsyncExitStack() as stack:
            is_slow = is_late = False
            if self.connections.watches:
                place = self.changes.place(keys, records=records, waits_for_locks=True)
                is_slow = await enter_to_change(stack, place)
            async with deadline.enforced():
                connection = await self.connections.acquire(monotonic() + ACQUIRE_TIMEOUT_SECONDS)
            began = monotonic()
            repeats = repeats and self.connections.watches
            ends_early = repeats and not is_slow
            if repeats:
                seconds = self.patience.lock_seconds(ends_early=ends_early)
                first = f"set local lock_timeout = {int(1000 * seconds)}; {first}"
            try:
                run = self._transactions.run(connection, first, commits=commits, ends_early=ends_early)
                with deadline.executing():
                    async with run as transaction:
                        yield transaction
            except (ChangeIsLateError, asyncpg.LockNotAvailableError):
                is_late = ends_early
                raise
            finally:
                if is_late:
                    self.changes.note(keys if suspects is None else suspects, is_slow=True)
                elif is_slow and not self.patience.is_late_change(monotonic() - began):
                    self.changes.note(keys, is_slow=False)


async def _before_deadline(fetching: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    async with deadline.enforced():
        return await fetching


async def _executing(running: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    with deadline.executing():
        return await running


def _are_many(keys: Any) -> bool:
    return len(keys) > (_MAX_KEY_CHARACTERS if isinstance(keys, str) else _MAX_KEYS)


def _key(statement: Statement, arguments: tuple[Any, ...]) -> Hashable:
    if statement.reads is Reads.FEED:
        arguments = tuple(argument for argument in arguments if not isinstance(argument, int))
    return statement, *[each if type(each) is str else repr(each) for each in arguments]


def _server_limits(statement_seconds: float, pause_seconds: float) -> dict[str, str]:
    """Settings by which the server ends statements, later than this side, which says why, and idle transactions."""
    limits = {"statement_timeout": statement_seconds, "idle_in_transaction_session_timeout": pause_seconds}
    return {name: str(int(1000 * seconds)) for name, seconds in limits.items()}
