"""A pool of connections to PostgreSQL, and the transactions on them.

asyncpg's own pool resets a connection at every release, which costs more than the query of a hot read (240 µs against
150); here nothing that a statement does outlives it, so connections go back as they are.

Connections get lost, and the database may be away for a while. Callers then wait for it, for a short time; one attempt
at a time finds out whether it is back, however many wait. A database that does not answer at all is given up as well.
"""

import asyncio
import sys
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Hashable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Self

import asyncpg
import structlog

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.supervision import supervise
from graphql_api.storage import transaction as transactions
from graphql_api.storage.bulkheads import (
    LOOK_SECONDS,
    ChangeIsLateError,
    ChangeShares,
    Patience,
    Share,
    SharedReadIsLateError,
    SlowKeys,
    tries,
    was_slow,
)
from graphql_api.storage.connection import (
    MAX_PREPARED,
    MAX_PREPARED_BYTES,
    Connection,
    ConnectionLostError,
    Observer,
    Reads,
    Row,
    ShortageError,
    Statement,
    StatementTimeoutError,
    adapt,
    unobserved,
)
from graphql_api.storage.connector import (
    CONNECT_TIMEOUT_SECONDS,
    FAILURES,
    PRIMARY,
    Connector,
    RawConnection,
    ReadOnlyError,
)
from graphql_api.storage.transaction import LogForbiddenError, Outcome, Transaction, TransactionId

# By default, PostgreSQL plans `= any($1)` at each execution, which costs more than the query, and uses a bitmap for a
# handful of rows, which costs three times what the index alone does.
_SESSION = {"plan_cache_mode": "force_generic_plan", "enable_bitmapscan": "off", "jit": "off", "timezone": "UTC"}
# How long a caller waits for a connection.
ACQUIRE_TIMEOUT_SECONDS = 2.5
# A statement or a change whose connection was lost is run again if it began no longer ago.
RETRY_WINDOW_SECONDS = 1.5
_WATCH_INTERVAL_SECONDS = 0.25
_SEEK_INTERVAL_SECONDS = 1.0
_CLEANUP_TIMEOUT_SECONDS = 0.5
# So long after the last failed change, readiness says what the database lacks.
_SHORTAGE_SECONDS = 60.0

READ_ONLY = "The database is read-only: reads are answered, changes are not."
_BEGIN, _COMMIT, _ROLLBACK = (Statement(word, word) for word in ("begin", "commit", "rollback"))

# An answer to COMMIT that takes longer is looked for by the transaction's id, and so long at the most: with what came
# before it, a first answer takes less than three seconds.
_COMMIT_TIMEOUT_SECONDS = 0.8
_OUTCOME_TIMEOUT_SECONDS = 1.7
_MIN_OUTCOME_SECONDS = 0.2
_OUTCOME_INTERVAL_SECONDS = 0.05
_LOOKS_BEFORE_END = 6
_MOVING_SECONDS = 0.1  # while some slow read ends within this time, there is no harm in a long line of them
_MAX_KEYS, _MAX_KEY_CHARACTERS = 50, 2000  # of a read by key that is expected to be quick

_log = structlog.get_logger()


class _LateError(Exception):
    """A read was given up because it was late."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool treats its connections.

    Attributes:
        rest_seconds: after how long an idle connection is checked before it is used, because it may be lost
        ping_seconds: how long this check may take
        max_idle_seconds: about how long an idle connection is kept, so that no firewall forgets it first
        stall_seconds: after how long without an answer to a statement the database is probed
        server_grace_seconds: how much later than the client the server ends statements and idle transactions, for
            clients that were cut off
        max_prepared: prepared statements per connection
        max_prepared_bytes: bytes of their SQL
    """

    rest_seconds: float = 10.0
    ping_seconds: float = 0.25
    max_idle_seconds: float = 300.0
    stall_seconds: float = 0.75
    server_grace_seconds: float = 5.0
    max_prepared: int = MAX_PREPARED
    max_prepared_bytes: int = MAX_PREPARED_BYTES


STANDARD = PoolOptions()


class ConnectionPool:
    """A bounded number of connections to one PostgreSQL, opened as they are needed."""

    def __init__(
        self,
        connector: Connector,
        *,
        name: str,
        size: int,
        timeout: float,
        prepares: bool,
        watches: bool = True,
        options: PoolOptions = STANDARD,
        observe: Observer = unobserved,
    ) -> None:
        self.loop = asyncio.get_running_loop()  # asking for it costs a system call each time, until Python 3.12
        self._connector = connector
        self._name = name
        self.size = size
        self._timeout = timeout
        self._prepares = prepares
        self._watches = watches
        self._options = options
        limits = _server_limits(timeout + options.server_grace_seconds).items()
        self._set_limits = "; ".join(f"set local {name} = {value}" for name, value in limits)
        self._commit_timeout = _COMMIT_TIMEOUT_SECONDS if watches else timeout
        self._observe = observe
        self._idle: list[Connection] = []
        self._rested: list[Connection] = []  # idle, and not used for a while
        self._open: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._opening = 0
        self._is_reachable = False  # that another connection can be opened, since the last one was and none was lost
        self._trouble = ""
        self._is_suspended = False
        self.is_read_only = False
        """Whether only reads are answered."""
        self._shortage, self._short_until = "", 0.0
        self._shows_log = True  # as far as is known
        self._is_direct = False  # whether no pooler is between, as far as is known
        self.patience = Patience()
        self._slow, self._is_looking = SlowKeys(), False
        # Reads by key that are quick find a connection whatever the rest does.
        share = partial(Share, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=_MOVING_SECONDS)
        self._slow_share = share(max(1, size // 5), waiting=2 * size)
        self._lists = share(max(1, size // 5), waiting=sys.maxsize)
        self.changes = ChangeShares(size, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=_MOVING_SECONDS)
        self.losses = 0
        self.timeouts = 0
        self._tasks: set[asyncio.Task[None]] = set()

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
        """A database whose connections are closed at the end.

        Args:
            url: `postgresql://…`
            size: how many connections there are at the most
            timeout: seconds that one statement may take
            prepares: whether statements are prepared; a pooler in transaction mode may forbid that
            watches: whether connections are given up where nothing is heard of the database; statements that take
                minutes are better waited for
            observe: is called for every statement
            target: which host to use, if there are several
            name: what the log calls it
            connect_timeout: seconds that connecting to one host may take
            options: how connections are treated
        """
        session = {**_SESSION, **_server_limits(timeout + options.server_grace_seconds)} if prepares else None
        connector = Connector(url, session=session, target=target, timeout_seconds=connect_timeout)
        database = cls(
            connector,
            name=name,
            size=size,
            timeout=timeout,
            prepares=prepares,
            watches=watches,
            options=options,
            observe=observe,
        )
        database._start(supervise(f"{name} connections", database._watch))
        try:
            yield database
        finally:
            await database._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = (connection.raw.close(timeout=_CLEANUP_TIMEOUT_SECONDS) for connection in self._open)
        await asyncio.gather(*closing, return_exceptions=True)

    @property
    def trouble(self) -> str:
        """Why the last attempt to open a connection failed; None if it did not."""
        return "" if self._open else self._trouble

    @property
    def shortage(self) -> str:
        """What the database lacked for a change a short time ago, unless another change was made since; else empty."""
        return self._shortage if monotonic() < self._short_until else ""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, used or not."""
        return bool(self._open)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle) + len(self._rested)

    @property
    def in_use(self) -> int:
        """Connections with a statement or a transaction under way."""
        return len(self._open) - self.idle

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    async def wait_connected(self, waited: float = 0) -> None:
        """Wait until there is a connection; `waited` seconds count towards the time limit.

        Raises:
            UnavailableError: there was none in time.
        """
        if not self.is_open:
            self._release(await self._acquire(monotonic() + ACQUIRE_TIMEOUT_SECONDS - waited))

    async def fetch(self, statement: Statement, *arguments: Any, users: Collection[str] = ()) -> list[Row]:
        """Run the statement in its own transaction, and again if its connection was lost.

        So it has to do no harm twice: it reads, or it changes only what is as it was read, of these `users`.

        Raises:
            UnavailableError: the database did not answer in time, or the deadline of the mutation is over.
        """
        if (until := deadline.current.get()) is None or until.at == inf:  # those who share it have their own
            return await self._fetch_on_share(statement, arguments, users)
        async with deadline.kept():
            return await self._fetch_on_share(statement, arguments, users)

    async def _fetch_on_share(
        self, statement: Statement, arguments: tuple[Any, ...], users: Collection[str]
    ) -> list[Row]:
        """Run the statement on a connection of those that its kind may hold."""
        if statement.reads is Reads.OWN or not self._watches:
            return await self._fetch(statement, arguments, is_early=False)
        if statement.reads is not None:
            return await self._read(statement, arguments)
        async with self.changes.place(users, records=True) as is_slow:
            began = monotonic()
            try:
                rows = await self._fetch(statement, arguments, is_early=False)
                self._shortage = ""
                return rows
            finally:
                is_late = self.patience.is_late_change(monotonic() - began)
                if is_late != is_slow and (is_slow or len(set(users)) == 1):
                    self.changes.note(users, is_slow=is_late)

    async def _read(self, statement: Statement, arguments: tuple[Any, ...]) -> list[Row]:
        """Run a statement that reads; if it is late, it is asked again elsewhere."""
        key = _key(statement, arguments) if self._slow.since else None
        if key not in self._slow:
            is_list = statement.reads is not Reads.BY_KEY or _are_many(arguments[0])
            with suppress(_LateError):
                if is_list:
                    async with self._lists.place():
                        return await self._fetch(statement, arguments, is_early=True)
                return await self._fetch(statement, arguments, is_early=True)
            if not is_list and (again := tries.get()):
                if again < 0:
                    raise SharedReadIsLateError
                with suppress(_LateError):
                    return await self._fetch(statement, arguments, is_early=True)
        return await self._fetch_slowly(statement, arguments)

    async def _fetch_slowly(self, statement: Statement, arguments: tuple[Any, ...]) -> list[Row]:
        """Read what was slow, on the share of such reads; if it is quick, it is slow no more."""
        async with self._slow_share.place():
            began = monotonic()
            self._suspect_idle()
            try:
                return await self._fetch(statement, arguments, is_early=False)
            finally:
                is_slow = monotonic() - began > self.patience.seconds
                self._slow.note(_key(statement, arguments), is_slow=is_slow)
                was_slow.set(is_slow)

    async def _fetch(self, statement: Statement, arguments: tuple[Any, ...], *, is_early: bool) -> list[Row]:
        """Run the statement, and again if its connection was lost; if it is early, it is given up when it is late."""
        began = monotonic()
        until = began + ACQUIRE_TIMEOUT_SECONDS
        while True:
            connection = self._idle.pop() if self._idle else await self._acquire(until)
            if is_early:
                self._look_after(connection)
            try:
                rows = await connection.fetch(statement, *arguments)
            except BaseException as error:
                is_late = connection.is_given_up(error)
                translated = self._return_failed(connection, error)
                if is_late:
                    self._suspect_idle()
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
                self._release(connection)
                return rows

    def _suspect_idle(self) -> None:
        """Have idle connections asked whether they answer before they are used: where one hangs, others may."""
        self._rested, self._idle = [*self._rested, *self._idle], []

    def _look_after(self, connection: Connection) -> None:
        connection.reader, connection.looks = asyncio.current_task(self.loop), 0
        self._go_on_looking()

    def _go_on_looking(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Give up what was seen some times already, so that no moment of ours without time counts."""
        reading = [connection for connection in self._open if connection.reader is not None]
        changing = [connection for connection in self._open if connection.change is not None]
        for connection in changing:
            limit, looks = connection.change, connection.look_at_change()
            if limit is not None and self.patience.ends_change(looks):
                connection.is_late, connection.change = True, None
                limit.reschedule(self.loop.time())
        for connection in reading:
            connection.looks += 1
            if self.patience.ends(connection.looks):
                connection.give_up()
        self._is_looking = bool(reading or changing)
        if self._is_looking:
            self.loop.call_later(LOOK_SECONDS, self._look)

    @asynccontextmanager
    async def transaction(
        self,
        first: str = "",
        *,
        commits: bool = True,
        keys: Collection[str] = (),
        records: bool = True,
        repeats: bool = False,
    ) -> AsyncGenerator[Transaction]:
        """Statements that take effect together or not at all.

        Args:
            first: SQL without arguments that runs in the round trip that begins the transaction
            commits: whether it takes effect at its end, which the database is asked if its answer is lost
            keys: the users whose it is, and what else another transaction may make it wait for
            records: whether it writes the history
            repeats: whether the caller runs it again if it was late

        Raises:
            ChangeIsLateError: one of its statements was late; nothing took effect. Its keys are slow now.
            ConnectionLostError: the connection was lost, and nothing took effect.
            UnavailableError: the database did not answer in time, or the deadline of the mutation is over; the message
                says if it may have taken effect.
        """
        if self.is_read_only and commits:
            raise UnavailableError(READ_ONLY)
        async with AsyncExitStack() as stack:
            is_slow = False
            async with deadline.kept():
                if self._watches:
                    is_slow = await stack.enter_async_context(self.changes.place(keys, records=records))
                until = monotonic() + ACQUIRE_TIMEOUT_SECONDS
                connection = self._idle.pop() if self._idle else await self._acquire(until)
            began = monotonic()
            ends_early = repeats and self._watches and not is_slow
            try:
                async with self._transaction(connection, first, commits=commits, ends_early=ends_early) as transaction:
                    yield transaction
            finally:
                if connection.is_late or (is_slow and not self.patience.is_late_change(monotonic() - began)):
                    self.changes.note(keys, is_slow=connection.is_late)

    @asynccontextmanager
    async def _may_end_early(self, connection: Connection, *, ends_early: bool) -> AsyncGenerator[None]:
        """What is done in this ends once one of its statements is late.

        Raises:
            ChangeIsLateError: one was.
        """
        connection.is_late = False
        if not ends_early:
            yield
            return
        limit = asyncio.timeout(None)
        try:
            async with limit:
                connection.change, connection.looks = limit, 0
                self._go_on_looking()
                try:
                    yield
                finally:
                    connection.change = None
        except TimeoutError as error:
            if connection.is_late and limit.expired():
                raise ChangeIsLateError from error
            raise

    @asynccontextmanager
    async def _transaction(
        self, connection: Connection, first: str, *, commits: bool, ends_early: bool
    ) -> AsyncGenerator[Transaction]:
        limit: asyncio.Timeout | None = None
        transaction = Transaction(connection)
        try:
            async with deadline.limit() as limit, self._may_end_early(connection, ends_early=ends_early):
                await self._begin(transaction, first, commits=commits)
                yield transaction
                if not commits:
                    await connection.execute(_ROLLBACK)
        except BaseException as error:
            translated = self._translate_error(connection, error)
            if limit and limit.expired() and isinstance(translated, StatementTimeoutError):
                translated = UnavailableError("The change took too long, and nothing was changed.")
            if isinstance(translated, ConnectionLostError):
                self._lose(connection, error)
            else:
                await asyncio.shield(self._start(self._clean(connection, "rollback")))
            if connection.raw.is_closed():
                self._end_on_server(connection, transaction.id)
                if isinstance(translated, ChangeIsLateError):  # the connection was, and not this change
                    connection.is_late = False
                    translated = ConnectionLostError("The database connection was lost.")
            if translated is error:
                raise
            raise translated from error
        finally:
            connection.backend = None
        if transaction.id is None:
            self._release(connection)
        else:
            await self._commit(connection, transaction.id)

    def _end_on_server(self, connection: Connection, transaction: TransactionId | None) -> None:
        """Free at once what a transaction has locked whose connection is lost."""
        if transaction is not None:
            self._start(self._tidy(partial(transactions.end, self, transaction)))
        elif self._is_direct:
            self._start(self._tidy(partial(transactions.end_abandoned, self, [connection.server_pid])))

    async def _tidy(self, work: Callable[[], Awaitable[None]]) -> None:
        """End on the server what was lost here; if that fails, it notices itself later."""
        with suppress(UnavailableError, *FAILURES), deadline.lifted():
            await work()

    async def _begin(self, transaction: Transaction, first: str, *, commits: bool) -> None:
        first = first if self._prepares else f"{self._set_limits}; {first}"
        await transaction.connection.execute(_BEGIN, first)
        if not commits:
            return
        try:
            await transaction.identify(by_log=self._shows_log)
        except LogForbiddenError as error:
            if self._shows_log:
                _log.warning(f"{self._name} hides its log", reason=str(error.__cause__))
            self._shows_log = False
            await transaction.connection.execute(_ROLLBACK, f"begin; {first}")
            await transaction.identify(by_log=False)
        self._is_direct = transaction.connection.backend == transaction.connection.server_pid

    async def _commit(self, connection: Connection, transaction: TransactionId) -> None:
        try:
            async with asyncio.timeout(_seconds_for_answer(self._commit_timeout)):
                await connection.execute(_COMMIT)
        except asyncio.CancelledError as error:
            self._return_failed(connection, error)
            raise
        except Exception as error:
            if not isinstance(self._translate_error(connection, error), UnavailableError):
                self._release(connection)
                raise
            self._lose(connection, error)
            self._suspect_idle()
            await self._settle(transaction, error)
        else:
            self._shortage = ""
            self._release(connection)

    async def _settle(self, transaction: TransactionId, error: BaseException) -> None:
        """Return if the transaction took effect, whose answer to COMMIT was lost by this error.

        Raises:
            ConnectionLostError: it did not.
            UnavailableError: that is not known.
        """
        try:
            async with asyncio.timeout(_seconds_for_answer(_OUTCOME_TIMEOUT_SECONDS)):
                with deadline.lifted():
                    outcome = await self._outcome(transaction)
        except (TimeoutError, UnavailableError, *FAILURES):
            outcome = Outcome.UNKNOWN
        if outcome is Outcome.ABORTED:
            raise ConnectionLostError("The database's connection was lost, and nothing was changed.") from error
        if outcome is Outcome.UNKNOWN:
            raise UnavailableError("The database was lost during the change, which may have been made.") from error

    async def _outcome(self, transaction: TransactionId) -> Outcome:
        looks = 0
        while (outcome := await transactions.ask(self, transaction)) is Outcome.IN_PROGRESS:
            looks += 1
            if looks == _LOOKS_BEFORE_END:
                await transactions.end(self, transaction)
            await asyncio.sleep(_OUTCOME_INTERVAL_SECONDS)
        return outcome

    def suspend(self) -> None:
        """Close all connections. Until it is reopened, acquiring one fails immediately."""
        self._is_suspended, self._trouble = True, ""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(self._suspended_error())
        self._drop(self._open)

    def reopen(self) -> None:
        """Let there be connections again."""
        self._is_suspended = False

    def _suspended_error(self) -> UnavailableError:
        return UnavailableError(f"The {self._name} is suspended.")

    # --- connections go out and come back

    async def _acquire(self, until: float) -> Connection:
        if self._is_suspended:
            raise self._suspended_error()
        while self._rested:
            connection = self._rested.pop()
            if await self._still_answers(connection):
                return connection
        waiter: asyncio.Future[Connection] = self.loop.create_future()
        self._waiting.append(waiter)
        self._open_more()
        try:
            async with asyncio.timeout(until - monotonic()):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():  # it came at this very moment
                self._release(waiter.result())
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            raise UnavailableError(self.trouble or "No database connection became available in time.") from None

    async def _still_answers(self, connection: Connection) -> bool:
        """Whether a connection that rested can be used; if not, none of those that rested with it is kept."""
        try:
            async with asyncio.timeout(max(self._options.ping_seconds, self.patience.seconds)):
                await self._ping(connection.raw)
        except (TimeoutError, *FAILURES):
            self._drop({connection, *self._rested})
            return False
        except BaseException:
            self._drop({connection})
            raise
        return True

    async def _ping(self, raw: RawConnection) -> None:
        began = monotonic()
        await raw.execute("select")
        self.patience.note_round_trip(monotonic() - began)

    def _release(self, connection: Connection) -> None:
        if connection.raw.is_closed():
            self._open.discard(connection)
            self._open_more()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def _translate_error(self, connection: Connection, error: BaseException) -> BaseException:
        if self.is_read_only and isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            return UnavailableError(READ_ONLY)
        translated = connection.translate_error(error)
        self.timeouts += isinstance(translated, StatementTimeoutError)
        if isinstance(translated, ShortageError):
            if not self.shortage:
                _log.warning(f"{self._name} lacks resources", reason=str(error))
            self._shortage, self._short_until = str(translated), monotonic() + _SHORTAGE_SECONDS
        return translated

    def _return_failed(self, connection: Connection, error: BaseException) -> BaseException:
        """Do with the connection of a statement that failed what has to be done; answers what the error means."""
        translated = self._translate_error(connection, error)
        if isinstance(translated, ConnectionLostError):
            self._lose(connection, error)
        elif isinstance(translated, (UnavailableError, asyncio.CancelledError)):
            self._start(self._clean(connection, "select"))
        else:
            self._release(connection)
        return translated

    async def _clean(self, connection: Connection, script: str) -> None:
        """Make the connection whole: the driver first waits until what was under way is cancelled."""
        began = monotonic()
        try:
            await connection.raw.execute(script, timeout=_CLEANUP_TIMEOUT_SECONDS)
        except FAILURES as error:
            self._lose(connection, error)
        else:
            self.patience.note_round_trip(monotonic() - began)  # rather too long: it may have waited for the end
            self._release(connection)

    # --- connections are opened and lost

    def _open_more(self) -> None:
        """Open connections for those who wait, one alone until it has shown that the database is there."""
        wanted = min(len(self._waiting), self.size - len(self._open))
        if self._is_suspended:
            wanted = 0
        elif not self._is_reachable:
            wanted = 1 if wanted > 0 or self._trouble else 0
        while self._opening < wanted:
            self._opening += 1
            self._start(self._open_one())

    async def _open_one(self) -> None:
        try:
            try:
                await self._add(await self._connector.connect(), takes_changes=True)
            except ReadOnlyError:
                await self._add(await self._connector.connect(only_reads=True), takes_changes=False)
        except UnavailableError as trouble:
            self._notice(str(trouble), trouble.__cause__)
        except Exception as error:  # noqa: BLE001 - the driver raises bare ones at authentication
            self._notice("The database cannot be reached.", error)
        finally:
            self._opening -= 1
        self._open_more()

    async def _add(self, raw: RawConnection, *, takes_changes: bool) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._ping(raw)
                is_partitioned = await adapt(raw, session=self._prepares)
        except BaseException:
            raw.terminate()
            raise
        if self._is_suspended:
            raw.terminate()
            return
        if self._trouble:
            _log.warning(f"{self._name} is available again")
        if self.is_read_only is takes_changes:
            _log.warning(f"{self._name} {'takes changes again' if takes_changes else 'is read-only'}")
            self.is_read_only = not takes_changes
            self._drop(self._open)
        self._is_reachable, self._trouble = True, ""
        connection = Connection(
            raw,
            prepares=self._prepares,
            is_partitioned=is_partitioned,
            timeout=self._timeout,
            observe=self._observe,
            max_prepared=self._options.max_prepared,
            max_prepared_bytes=self._options.max_prepared_bytes,
        )
        self._open.add(connection)
        self._release(connection)

    async def _seek_changes(self) -> None:
        """See whether some host takes changes again."""
        with suppress(UnavailableError, *FAILURES):
            await self._add(await self._connector.connect(), takes_changes=True)

    def _lose(self, connection: Connection, error: BaseException) -> None:
        """This connection is of no use any more, and perhaps others are not."""
        deadline.hurry()
        self._is_reachable = False
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._drop(self._open)
        else:
            self._drop({connection, *(each for each in self._open if each.raw.is_closed())})

    def _drop(self, connections: AbstractSet[Connection]) -> None:
        self.losses += 1
        for connection in connections:
            connection.raw.terminate()
        self._idle = [connection for connection in self._idle if connection not in connections]
        self._rested = [connection for connection in self._rested if connection not in connections]
        self._open = self._open - connections
        self._open_more()

    def _notice(self, trouble: str, cause: BaseException | None = None) -> None:
        self._is_reachable = False
        if self._is_suspended:
            return
        if not self._trouble:
            _log.warning(f"{self._name} is unavailable", reason=trouble, cause=repr(cause) if cause else None)
        self._trouble = trouble

    async def _watch(self) -> None:
        """Put idle connections aside, close old ones, and give up those on which an answer will never come."""
        sought = asked = monotonic()
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)
            self._rest()
            if self.is_read_only and monotonic() - sought >= _SEEK_INTERVAL_SECONDS:
                sought = monotonic()
                self._start(self._seek_changes())
            if self._watches and monotonic() - asked >= self._options.stall_seconds and (late := self._late()):
                asked = monotonic()
                await asyncio.gather(*(self._ask_about(address, late[address]) for address in late))

    def _late(self) -> dict[str, list[Connection]]:
        """By their hosts, the connections whose statements have taken so long that the cause may be a lost one."""
        late: defaultdict[str, list[Connection]] = defaultdict(list)
        for connection in self._open:
            if connection.waits_for(max(self._options.stall_seconds, self.patience.seconds)):
                late[self._connector.address_of(connection.raw)].append(connection)
        return late

    async def _ask_about(self, address: str, late: Sequence[Connection]) -> None:
        """Give up connections whose backends do not work for them, and all to a host that says nothing at all."""
        there = {each for each in self._open if self._connector.address_of(each.raw) == address}
        heard, asked = sum(each.answers for each in there), {each: each.asked_at for each in late}
        backends = await self._connector.backends(address, {_backend(each) for each in late})
        if backends is None:
            if heard == sum(each.answers for each in there):
                self._notice("The database does not answer.")
                self._drop(there & self._open)
            return
        is_missing_lost = self._is_direct
        lost = {
            each
            for each in late
            if each.asked_at == asked[each]
            and each in self._open
            and backends.get(_backend(each), is_missing_lost or each.backend is not None)
        }
        if lost:
            _log.warning(f"{self._name} connections were lost without a word", connections=len(lost))
            self._suspect_idle()
            gone = [_backend(each) for each in lost]
            self._drop(lost)
            self._start(self._tidy(partial(transactions.end_abandoned, self, gone)))

    def _rest(self) -> None:
        """Mark connections that were idle for a while, and close those that were idle for long."""
        now = monotonic()
        while self._idle and now - self._idle[0].idle_since >= self._options.rest_seconds:  # the last one is used first
            self._rested.append(self._idle.pop(0))
        old = {each for each in self._rested if now - each.idle_since >= self._options.max_idle_seconds * each.patience}
        if old:
            self._rested = [each for each in self._rested if each not in old]
            self._open -= old
            for connection in old:
                self._start(self._close_one(connection))

    async def _close_one(self, connection: Connection) -> None:
        with suppress(*FAILURES):
            await connection.raw.close(timeout=_CLEANUP_TIMEOUT_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _seconds_for_answer(seconds: float) -> float:
    """How long to wait for what the database says of a commit: a little, even if there is no time left."""
    return min(seconds, max(deadline.left(), _MIN_OUTCOME_SECONDS))


def _backend(connection: Connection) -> int:
    """The process that runs what is under way, as far as is known: a pooler says something else."""
    return connection.backend or connection.server_pid


def _are_many(keys: Any) -> bool:
    return len(keys) > (_MAX_KEY_CHARACTERS if isinstance(keys, str) else _MAX_KEYS)


def _key(statement: Statement, arguments: tuple[Any, ...]) -> Hashable:
    if statement.reads is Reads.FEED:
        arguments = tuple(argument for argument in arguments if not isinstance(argument, int))
    return statement, repr(arguments)


def _server_limits(timeout_seconds: float) -> dict[str, str]:
    """Settings by which the server ends statements and idle transactions, later than this side, which says why."""
    milliseconds = str(int(timeout_seconds * 1000))
    return {"statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}
