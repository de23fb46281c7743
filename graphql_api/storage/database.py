"""Connections to PostgreSQL with prepared statements that stay: a pool, statements and transactions on asyncpg.

asyncpg's own pool resets a connection at every release, which costs more than the query of a hot read (240 µs against
150); here nothing that a statement does outlives it, so connections go back as they are.

Connections get lost, and the database may be away for a while. Whoever asks then waits for it, for a short time; one
attempt at a time finds out whether it is back, however many wait. What does not answer at all is given up as well.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from time import monotonic, perf_counter
from typing import Any, Protocol, Self

import asyncpg
import structlog
from asyncpg.prepared_stmt import PreparedStatement

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import FAILURES, PRIMARY, Connector, RawConnection

Row = asyncpg.Record

_PREPARED_PER_CONNECTION = 300
# Unless told otherwise, PostgreSQL plans `= any($1)` anew at each execution, which costs more than the query, and takes
# a bitmap for a handful of rows, which costs three times what the index alone does.
_SESSION = {"plan_cache_mode": "force_generic_plan", "enable_bitmapscan": "off", "jit": "off", "timezone": "UTC"}
# Whoever asks waits so long for a connection.
ACQUIRE_TIMEOUT = 2.5
# Whoever was served by a database that went away starts anew only where they waited no longer than this for it.
RETRY_WINDOW = 0.5
# Where some statement waits and no connection said anything for so long, the database is asked whether it is there.
STALL_TIMEOUT = 0.75
_LOOK_EVERY = 0.25
_CLEANING_SECONDS = 1.0

_log = structlog.get_logger()


class ConnectionLostError(UnavailableError):
    """The connection was lost; whether the statement was run is not known."""


class StatementTimeoutError(UnavailableError):
    """A statement took longer than it may, and was ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """SQL text, the name that metrics and traces know it by, and the class of its rows.

    Each is made once: connections remember what they prepared by identity. `quick` is the same, where there is
    something quicker, for a PostgreSQL 17 or newer in a session whose times are UTC.
    """

    name: str
    sql: str
    row: type[Row] = Row
    sql_pg17: str = ""


class Runner(Protocol):
    """What runs statements: the database, each on its own, or a transaction, all together."""

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        ...


Observer = Callable[[Statement, float, BaseException | None], None]
"""Is told of each statement, how many seconds it took, and its error."""

_BEGIN, _COMMIT, _ROLLBACK = (Statement(word, word) for word in ("begin", "commit", "rollback"))


def unobserved(_statement: Statement, _seconds: float, _error: BaseException | None) -> None:
    """An observer who looks away."""


class Connection:
    """One connection and the statements that it has prepared."""

    def __init__(self, raw: RawConnection, *, prepares: bool, timeout: float, observe: Observer) -> None:
        self.raw = raw
        self._observe = observe
        self.answers = 0
        self._prepares = prepares
        self._has_pg17 = raw.get_server_version() >= (17,) and getattr(raw.get_settings(), "TimeZone", "") == "UTC"
        self._timeout = timeout
        self._prepared: OrderedDict[Statement, PreparedStatement] = OrderedDict()

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        began = perf_counter()
        try:
            rows = await self._fetch(statement, arguments)
        except BaseException as error:
            self._observe(statement, perf_counter() - began, error)
            raise
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1
        return rows

    async def _fetch(self, statement: Statement, arguments: tuple[Any, ...]) -> list[Row]:
        if not self._prepares:
            return await self.raw.fetch(statement.sql, *arguments, timeout=self._timeout, record_class=statement.row)
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = await self._prepare(statement)
        return await prepared.fetch(*arguments, timeout=self._timeout)

    async def execute(self, statement: Statement, then: str = "") -> None:
        """Run a statement without arguments, and others in the same round trip."""
        began = perf_counter()
        try:
            await self.raw.execute(f"{statement.sql}; {then}", timeout=self._timeout)
        except BaseException as error:
            self._observe(statement, perf_counter() - began, error)
            raise
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1

    async def _prepare(self, statement: Statement) -> PreparedStatement:
        if len(self._prepared) >= _PREPARED_PER_CONNECTION:
            self._prepared.popitem(last=False)  # asyncpg closes it on the server once nobody holds it
        sql = statement.sql_pg17 if statement.sql_pg17 and self._has_pg17 else statement.sql
        prepared = await self.raw.prepare(sql, name=True, timeout=self._timeout, record_class=statement.row)
        self._prepared[statement] = prepared
        return prepared

    def translate_error(self, error: BaseException) -> BaseException:
        """What an error means to whoever asked: it itself where it is about the statement, or is not the driver's."""
        if not isinstance(error, Exception):
            return error
        if self.raw.is_closed() or (isinstance(error, _LOSSES) and not isinstance(error, _TOO_LONG)):
            return ConnectionLostError("The database's connection was lost.")
        if isinstance(error, _TOO_LONG):
            return StatementTimeoutError("A statement took too long (DATABASE_TIMEOUT).")
        return error


_TOO_LONG = (TimeoutError, asyncpg.QueryCanceledError)
# Besides what closes it, a connection is of no use where its server became a standby, or its plans outlived a table's
# change.
_LOSSES = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


class Database:
    """A bounded number of connections to one PostgreSQL, opened as they are needed."""

    def __init__(
        self,
        connector: Connector,
        *,
        name: str,
        size: int,
        timeout: float,
        prepares: bool,
        observe: Observer = unobserved,
    ) -> None:
        self.loop = asyncio.get_running_loop()  # asking for it costs a system call each time, until Python 3.12
        self._connector = connector
        self._name = name
        self.size = size
        self._timeout = timeout
        self._prepares = prepares
        self._observe = observe
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._opening = 0
        self._is_sure = False  # that another connection can be opened, since the last one was and none was lost
        self._trouble = ""
        self._is_shut = False
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
    ) -> AsyncGenerator[Self]:
        """A database whose connections are closed at the end.

        Args:
            url: `postgresql://…`
            size: how many connections there are at the most
            timeout: seconds that one statement may take
            prepares: whether statements are prepared; a pooler in transaction mode may forbid that
            watches: whether connections are given up where nothing is heard of the database; statements that take
                minutes are better waited for
            observe: is told of every statement
            target: which host will do, where there are several
            name: what the log calls it
        """
        connector = Connector(url, session=_SESSION if prepares else None, target=target)
        database = cls(connector, name=name, size=size, timeout=timeout, prepares=prepares, observe=observe)
        if watches:
            database._start(database._watch())
        try:
            yield database
        finally:
            await database._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        closing = (connection.raw.close(timeout=_CLEANING_SECONDS) for connection in self._open)
        await asyncio.gather(*closing, return_exceptions=True)

    @property
    def trouble(self) -> str:
        """Why there is no connection, where the last attempt to open one failed."""
        return "" if self._open else self._trouble

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, used or not."""
        return bool(self._open)

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Connections with a statement or a transaction under way."""
        return len(self._open) - len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    async def wait_connected(self, waited: float = 0) -> None:
        """Wait until there is a connection; less long for who has waited for so many seconds already.

        Raises:
            UnavailableError: there was none in time.
        """
        if not self.is_open:
            self._release(await self._acquire(monotonic() + ACQUIRE_TIMEOUT - waited))

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement in a transaction of its own, and once more where its connection was lost.

        So it has to do no harm twice: it reads, or it changes only what is as it was read.

        Raises:
            UnavailableError: the database did not answer in time.
        """
        deadline = monotonic() + ACQUIRE_TIMEOUT
        while True:
            connection = self._idle.pop() if self._idle else await self._acquire(deadline)
            try:
                rows = await connection.fetch(statement, *arguments)
            except BaseException as error:
                translated = self._take_back(connection, error)
                if translated is error:
                    raise
                if not isinstance(translated, ConnectionLostError):
                    raise translated from error
            else:
                self._release(connection)
                return rows

    @asynccontextmanager
    async def transaction(self, first: str = "", *, commits: bool = True) -> AsyncGenerator[Connection]:
        """Statements that take effect together or not at all.

        Args:
            first: SQL without arguments that runs in the round trip that begins the transaction
            commits: whether it takes effect at its end

        Raises:
            ConnectionLostError: whether it took effect is not known.
            UnavailableError: the database did not answer in time.
        """
        connection = self._idle.pop() if self._idle else await self._acquire(monotonic() + ACQUIRE_TIMEOUT)
        try:
            await connection.execute(_BEGIN, first)
            yield connection
            await connection.execute(_COMMIT if commits else _ROLLBACK)
        except BaseException as error:
            translated = self._translate_error(connection, error)
            if isinstance(translated, ConnectionLostError):
                self._lose(connection, error)
            else:
                await asyncio.shield(self._start(self._clean(connection, "rollback")))
            if translated is error:
                raise
            raise translated from error
        self._release(connection)

    def suspend(self) -> None:
        """Give up all connections; until it is reopened, whoever wants one is told at once that there is none."""
        self._is_shut, self._trouble = True, ""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(self._shut_error())
        self._drop(self._open)

    def reopen(self) -> None:
        """Let there be connections again."""
        self._is_shut = False

    def _shut_error(self) -> UnavailableError:
        return UnavailableError(f"The {self._name} is not asked for now.")

    # --- connections go out and come back

    async def _acquire(self, deadline: float) -> Connection:
        if self._is_shut:
            raise self._shut_error()
        waiter: asyncio.Future[Connection] = self.loop.create_future()
        self._waiting.append(waiter)
        self._open_more()
        try:
            async with asyncio.timeout(deadline - monotonic()):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():  # it came at this very moment
                self._release(waiter.result())
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            raise UnavailableError(self.trouble or "No database connection became free in time.") from None

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
        self._idle.append(connection)

    def _translate_error(self, connection: Connection, error: BaseException) -> BaseException:
        translated = connection.translate_error(error)
        self.timeouts += isinstance(translated, StatementTimeoutError)
        return translated

    def _take_back(self, connection: Connection, error: BaseException) -> BaseException:
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
        try:
            await connection.raw.execute(script, timeout=_CLEANING_SECONDS)
        except FAILURES:
            connection.raw.terminate()
        self._release(connection)

    # --- connections are opened and lost

    def _open_more(self) -> None:
        """Open connections for those who wait, one alone until it has shown that the database is there."""
        wanted = min(len(self._waiting), self.size - len(self._open))
        if self._is_shut:
            wanted = 0
        elif not self._is_sure:
            wanted = 1 if wanted > 0 or self._trouble else 0
        while self._opening < wanted:
            self._opening += 1
            self._start(self._open_one())

    async def _open_one(self) -> None:
        try:
            raw = await self._connector.connect()
        except UnavailableError as trouble:
            self._notice(str(trouble), trouble.__cause__)
        else:
            self._welcome(raw)
        self._opening -= 1
        self._open_more()

    def _welcome(self, raw: RawConnection) -> None:
        if self._is_shut:
            raw.terminate()
            return
        if self._trouble:
            _log.warning(f"{self._name} is back")
        self._is_sure, self._trouble = True, ""
        connection = Connection(raw, prepares=self._prepares, timeout=self._timeout, observe=self._observe)
        self._open.add(connection)
        self._release(connection)

    def _lose(self, connection: Connection, error: BaseException) -> None:
        """This connection is of no use any more, and perhaps others are not."""
        self._is_sure = False
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._drop(self._open)
        else:
            self._drop({connection, *(each for each in self._open if each.raw.is_closed())})

    def _drop(self, connections: AbstractSet[Connection]) -> None:
        self.losses += 1
        for connection in connections:
            connection.raw.terminate()
        self._idle = [connection for connection in self._idle if connection not in connections]
        self._open = self._open - connections
        self._open_more()

    def _notice(self, trouble: str, cause: BaseException | None = None) -> None:
        self._is_sure = False
        if self._is_shut:
            return
        if not self._trouble:
            _log.warning(f"{self._name} is away", reason=trouble, cause=repr(cause) if cause else None)
        self._trouble = trouble

    async def _watch(self) -> None:
        """Give up all connections where statements wait and nothing is heard of the database."""
        heard, since = -1, monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if heard != self._answers() or len(self._open) == len(self._idle):
                heard, since = self._answers(), monotonic()
            elif monotonic() - since >= STALL_TIMEOUT:
                if not await self._connector.answers() and heard == self._answers():
                    self._notice("The database does not answer.")
                    self._drop(self._open)
                since = monotonic()

    def _answers(self) -> int:
        return sum(connection.answers for connection in self._open)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def rows_with(names: Sequence[str]) -> type[Row]:
    """A class of rows whose columns, in this order, are attributes."""

    def column(index: int) -> property:
        return property(itemgetter(index))

    return type("TokenRow", (Row,), {"__slots__": (), **{name: column(index) for index, name in enumerate(names)}})
