"""One connection to PostgreSQL and the statements that it has prepared: what runs SQL, and what its errors mean."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import itemgetter
from random import uniform
from time import perf_counter
from typing import Any, Protocol

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import RawConnection

Row = asyncpg.Record

_MAX_PREPARED, _MAX_PREPARED_BYTES = 300, 1_000_000  # statements of a connection, and of their text


class ConnectionLostError(UnavailableError):
    """The connection was lost; whether the statement was run is not known."""


class StatementTimeoutError(UnavailableError):
    """A statement took longer than it may, and was ended."""


class Reads(Enum):
    """What a statement reads, if it only reads: by key, which is quick, or a list, which may not be."""

    BY_KEY = auto()
    LIST = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """SQL text, the name that metrics and traces know it by, and the class of its rows.

    Each is made once: connections remember what they prepared by identity. `sql_pg17` is the same, where there is
    something quicker, for a PostgreSQL 17 or newer in a session whose times are UTC; `partitioned` is quicker where the
    tables are partitioned.
    """

    name: str
    sql: str
    row: type[Row] = Row
    sql_pg17: str = ""
    reads: Reads | None = None
    partitioned: "Statement | None" = None


_IS_PARTITIONED = """
select {} from pg_class where oid = to_regclass('customer_gateway_tokens') and relkind = 'p'
"""
# In partitions, a plan that knows the arguments leaves out those that have nothing to do with them.
_PLAN_ANEW = "set_config('plan_cache_mode', 'force_custom_plan', false)"


async def adapt(raw: RawConnection, *, session: bool) -> bool:
    """Whether the tables are partitioned; the session, if it is ours to set, then plans each execution anew."""
    return bool(await raw.fetch(_IS_PARTITIONED.format(_PLAN_ANEW if session else "")))


class Runner(Protocol):
    """What runs statements: the database, each on its own, or a transaction, all together."""

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        ...


Observer = Callable[[Statement, float, BaseException | None], None]
"""Is told of each statement, how many seconds it took, and its error."""


def unobserved(_statement: Statement, _seconds: float, _error: BaseException | None) -> None:
    """An observer who looks away."""


class Connection:
    """One connection and the statements that it has prepared."""

    def __init__(
        self, raw: RawConnection, *, prepares: bool, is_partitioned: bool, timeout: float, observe: Observer
    ) -> None:
        self.raw = raw
        self._is_partitioned = is_partitioned
        self._observe = observe
        self.answers = 0
        self.asked_at: float | None = None  # since when a statement is under way, by `perf_counter`
        self.backend: int | None = None  # the process that runs the transaction under way, once that is known
        self.idle_since = 0.0
        self.reader: asyncio.Task[Any] | None = None  # who reads by key now
        self.looks = 0  # how often that was seen
        self.cancellations: int | None = None  # how many the reader had when it was told to give up
        self.patience = uniform(0.8, 1.2)  # noqa: S311 - so that connections of one age are not closed at once
        self._prepares = prepares
        self._has_pg17 = raw.get_server_version() >= (17,) and getattr(raw.get_settings(), "TimeZone", "") == "UTC"
        self._timeout = timeout
        self._prepared: OrderedDict[Statement, PreparedStatement] = OrderedDict()
        self._prepared_bytes = 0

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        self.asked_at = began = perf_counter()
        try:
            rows = await self._fetch(statement, arguments)
        except BaseException as error:
            self.asked_at = None
            self._observe(statement, perf_counter() - began, error)
            raise
        self.asked_at = None
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1
        return rows

    async def _fetch(self, statement: Statement, arguments: tuple[Any, ...]) -> list[Row]:
        if self._is_partitioned and statement.partitioned:
            statement = statement.partitioned
        if not self._prepares:
            return await self.raw.fetch(statement.sql, *arguments, timeout=self._timeout, record_class=statement.row)
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = await self._prepare(statement)
        else:
            self._prepared.move_to_end(statement)
        return await prepared.fetch(*arguments, timeout=self._timeout)

    async def execute(self, statement: Statement, then: str = "") -> None:
        """Run a statement without arguments, and others in the same round trip."""
        self.asked_at = began = perf_counter()
        try:
            await self.raw.execute(f"{statement.sql}; {then}", timeout=self._timeout)
        except BaseException as error:
            self.asked_at = None
            self._observe(statement, perf_counter() - began, error)
            raise
        self.asked_at = None
        self._observe(statement, perf_counter() - began, None)
        self.answers += 1

    async def _prepare(self, statement: Statement) -> PreparedStatement:
        while len(self._prepared) >= _MAX_PREPARED or self._prepared_bytes > _MAX_PREPARED_BYTES:
            oldest, _ = self._prepared.popitem(last=False)  # asyncpg closes it on the server
            self._prepared_bytes -= len(oldest.sql)
        sql = statement.sql_pg17 if statement.sql_pg17 and self._has_pg17 else statement.sql
        prepared = await self.raw.prepare(sql, name=True, timeout=self._timeout, record_class=statement.row)
        self._prepared[statement] = prepared
        self._prepared_bytes += len(statement.sql)
        return prepared

    def waits_for(self, seconds: float) -> bool:
        """Whether a statement has been under way for so long."""
        return self.asked_at is not None and perf_counter() - self.asked_at >= seconds

    def give_up(self) -> None:
        """End the read that is under way, unless it ended just now."""
        if self.reader is not None:
            self.cancellations = self.reader.cancelling()
            self.reader.cancel()
            self.reader = None

    def is_given_up(self, error: BaseException) -> bool:
        """Whether a read ended by this error because it was given up; nobody looks after it any more."""
        cancellations, self.cancellations, self.reader = self.cancellations, None, None
        if cancellations is None:
            return False
        task = asyncio.current_task()
        return task is not None and task.uncancel() <= cancellations and isinstance(error, asyncio.CancelledError)

    def translate_error(self, error: BaseException) -> BaseException:
        """What an error means to the caller: the error itself if it is about the statement or not the driver's."""
        if not isinstance(error, Exception):
            return error
        if self.raw.is_closed() or (isinstance(error, _LOSSES) and not isinstance(error, _TOO_LONG)):
            return ConnectionLostError("The database connection was lost.")
        if isinstance(error, _TOO_LONG):
            return StatementTimeoutError("A statement took longer than DATABASE_TIMEOUT.")
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


def rows_with(names: Sequence[str]) -> type[Row]:
    """A class of rows whose columns, in this order, are attributes."""

    def column(index: int) -> property:
        return property(itemgetter(index))

    return type("TokenRow", (Row,), {"__slots__": (), **{name: column(index) for index, name in enumerate(names)}})
