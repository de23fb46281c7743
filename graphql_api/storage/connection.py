"""A connection to PostgreSQL with its prepared statements: runs SQL, and translates the driver's errors."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter
from random import uniform
from secrets import token_hex
from time import perf_counter
from typing import Any, Protocol

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import RawConnection

Row = asyncpg.Record

MAX_PREPARED, MAX_PREPARED_BYTES = 300, 1_000_000  # statements of a connection, and bytes of their text


class ConnectionLostError(UnavailableError):
    """The connection was lost. The statement may or may not have taken effect."""


class StatementTimeoutError(UnavailableError):
    """A statement exceeded its time limit and was cancelled."""


class ShortageError(UnavailableError):
    """PostgreSQL lacks what a statement needs, such as space on its disk. The statement did nothing."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"The database lacks resources (SQLSTATE {sqlstate}): reads are answered, changes may fail.")


class Reads(Enum):
    """The kind of a statement that does no harm if it is given up and run again: it decides whose connections it holds.

    A statement without a kind changes something, and holds a connection of the transactions.
    """

    BY_KEY = auto()
    LIST = auto()
    FEED = auto()  # a list whose integers are places and sizes: the same question wherever it continues
    OWN = auto()  # the process asks for itself, one at a time


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """SQL text, its name in metrics and traces, and the class of its rows.

    Create each once, because connections know prepared statements by identity. `sql_pg17` is a faster equivalent for
    PostgreSQL 17 or newer in a session with the time zone UTC, `sql_distributed` one for a database whose tables are
    distributed (`storage/distribution.py`).
    """

    name: str
    sql: str
    row: type[Row] = Row
    sql_pg17: str = ""
    sql_distributed: str = ""
    reads: Reads | None = None


class Runner(Protocol):
    """Runs statements: the database each in its own transaction, a transaction all together."""

    def fetch(self, statement: Statement, *arguments: Any) -> Awaitable[list[Row]]:
        """Run the statement and return its rows."""
        ...


Observer = Callable[[Statement, float, BaseException | None], None]
"""Is called for each statement with the seconds that it took and its error."""


def unobserved(_statement: Statement, _seconds: float, _error: BaseException | None) -> None:
    """Do nothing: the default observer."""


class Connection:
    """A connection and its prepared statements."""

    def __init__(
        self,
        raw: RawConnection,
        *,
        prepares: bool,
        timeout: float,
        observe: Observer,
        is_distributed: bool = False,
        max_prepared: int = MAX_PREPARED,
        max_prepared_bytes: int = MAX_PREPARED_BYTES,
    ) -> None:
        self.raw = raw
        self.server_pid: int = raw.get_server_pid()  # a pooler's own number, if one is between
        self.mark = f"/*{token_hex(8)}*/"
        """Begins the text of its statements, so that PostgreSQL can be asked about them through a pooler too."""
        self._observe = observe
        self.answers = 0
        self.asked_at: float | None = None  # when the running statement started, by `perf_counter`
        self.xid: str | None = None  # the id of the current transaction, once known
        self.idle_since = 0.0
        self.reader: asyncio.Task[Any] | None = None  # the task that reads by key now
        self.looks = 0  # how often a check has seen this read, or this statement of a transaction
        self.change: asyncio.Timeout | None = None  # the end of the transaction, if it may be rolled back and run again
        self.is_late = False  # whether a statement of the transaction was
        self._seen = 0  # answers at the last look at the transaction
        self._is_given_up = False  # that read
        self.patience = uniform(0.8, 1.2)  # noqa: S311 - so that connections of one age are not closed at once
        self._prepares = prepares
        self._max_prepared = max_prepared
        self._max_prepared_bytes = max_prepared_bytes
        is_utc = getattr(raw.get_settings(), "TimeZone", "") == "UTC"
        self._has_pg17 = prepares and is_utc and raw.get_server_version() >= (17,)
        self._is_distributed = is_distributed
        self._timeout = timeout
        self._prepared: OrderedDict[Statement, PreparedStatement] = OrderedDict()
        self._prepared_bytes = 0

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        self.asked_at = began = perf_counter()
        try:
            rows = await self._run(statement, arguments)
        except BaseException as error:
            self.asked_at = None
            self._observe(statement, perf_counter() - began, error)
            raise
        self.asked_at = None
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1
        return rows

    def _run(self, statement: Statement, arguments: Sequence[Any]) -> Awaitable[list[Row]]:
        if not self._prepares:
            sql = self._text(statement)
            return self.raw.fetch(sql, *arguments, timeout=self._timeout, record_class=statement.row)
        prepared = self._prepared.get(statement)
        if prepared is None:
            return self._prepare_and_run(statement, arguments)
        self._prepared.move_to_end(statement)
        return prepared.fetch(*arguments, timeout=self._timeout)

    async def _prepare_and_run(self, statement: Statement, arguments: Sequence[Any]) -> list[Row]:
        prepared = await self._prepare(statement)
        return await prepared.fetch(*arguments, timeout=self._timeout)

    async def execute(self, statement: Statement, then: str = "") -> None:
        """Run a statement without arguments, and others in the same round trip."""
        self.asked_at = began = perf_counter()
        try:
            await self.raw.execute(f"{self._text(statement)}; {then}", timeout=self._timeout)
        except BaseException as error:
            self.asked_at = None
            self._observe(statement, perf_counter() - began, error)
            raise
        self.asked_at = None
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1

    async def _prepare(self, statement: Statement) -> PreparedStatement:
        while len(self._prepared) >= self._max_prepared or self._prepared_bytes > self._max_prepared_bytes:
            oldest, _ = self._prepared.popitem(last=False)  # asyncpg closes it on the server
            self._prepared_bytes -= len(self.mark + oldest.sql)
        sql = self._text(statement)
        prepared = await self.raw.prepare(sql, name=True, timeout=self._timeout, record_class=statement.row)
        self._prepared[statement] = prepared
        self._prepared_bytes += len(self.mark + statement.sql)
        return prepared

    def _text(self, statement: Statement) -> str:
        """The SQL for this database."""
        if self._is_distributed and statement.sql_distributed:
            return self.mark + statement.sql_distributed
        return self.mark + (statement.sql_pg17 if self._has_pg17 and statement.sql_pg17 else statement.sql)

    def waits_for(self, seconds: float) -> bool:
        """Whether a statement has been running for this many seconds."""
        return self.asked_at is not None and perf_counter() - self.asked_at >= seconds

    def look_at_change(self) -> int:
        """How often a check has seen the statement of the transaction that runs."""
        self.looks = self.looks + 1 if self.answers == self._seen else 1
        self._seen = self.answers
        return self.looks

    def give_up(self) -> None:
        """Cancel the running read, unless it has just ended, or its request has been cancelled."""
        if self.reader is not None and not self.reader.cancelling():
            self._is_given_up = True
            self.reader.cancel()
            self.reader = None

    def is_given_up(self, error: BaseException) -> bool:
        """Whether this error comes from giving up the read. This also clears the mark."""
        is_given_up, self._is_given_up, self.reader = self._is_given_up, False, None
        task = asyncio.current_task()
        if not is_given_up or task is None:
            return False
        return not task.uncancel() and isinstance(error, asyncio.CancelledError)

    def translate_error(self, error: BaseException) -> BaseException:
        """Translate an error of the connection; errors about the statement, and others than the driver's, stay."""
        if not isinstance(error, Exception):
            return error
        if self.raw.is_closed() or (isinstance(error, _LOSSES) and not isinstance(error, _TOO_LONG)):
            return ConnectionLostError("The database connection was lost.")
        if isinstance(error, asyncpg.InternalServerError) and any(words in str(error) for words in _LOST_WORKERS):
            return ConnectionLostError("A worker of the database was lost.")
        if isinstance(error, _TOO_LONG):
            return StatementTimeoutError("A statement took longer than DATABASE_TIMEOUT.")
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith(_SHORTAGES):
            return ShortageError(state)
        return error


_TOO_LONG = (TimeoutError, asyncpg.QueryCanceledError)
# The classes "insufficient resources" and "system error": the disk is full, memory is short, a file cannot be written.
_SHORTAGES = ("53", "58")
# A coordinator of Citus says so of a worker that dies during a statement, or before a transaction is prepared.
_LOST_WORKERS = ("unexpected postmaster exit", "marked as essential")
# A connection is also useless if its server became a standby, or if a table changed under its prepared statements.
_LOSSES = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


def rows_with(names: Sequence[str]) -> type[Row]:
    """A class of rows whose columns, in this order, are attributes."""

    def column(index: int) -> property:
        return property(itemgetter(index))

    return type("TokenRow", (Row,), {"__slots__": (), **{name: column(index) for index, name in enumerate(names)}})
