"""Migrates a database, safely for any number of concurrent processes."""

import asyncio
import logging
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import asyncpg

from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.supervision import failing
from graphql_api.storage.connection import Reads, Statement
from graphql_api.storage.connection_set import READ_ONLY
from graphql_api.storage.connector import connect_beside, connect_to_primary
from graphql_api.storage.pool import ConnectionPool

LOCK = 0x6761746577617973  # one number for all processes that migrate: "gateways" in ASCII
_READY_TIMEOUT_SECONDS = 0.8
_MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS: Final = _MIGRATIONS / "versions"
"""The folder of all migrations."""
# How long a statement waits for a table, with all later ones behind it.
_BEGIN = "set local lock_timeout = '200ms'"
_PAUSE_SECONDS = 0.5  # in which the statements behind it get the table
_TRANSIENT_ERRORS = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.CannotConnectNowError)
_CONNECTION_ERRORS = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_IS_OURS = re.compile(r"[0-9]{4}")
_TABLE = "to_regclass('customer_gateway_tokens') is not null"  # the first that a migration creates
_REVISION = Statement(
    "revision",
    f"select version_num, {_TABLE}, current_setting('transaction_read_only') = 'on' from alembic_version",  # noqa: S608
    reads=Reads.OWN,
)

_log = logging.getLogger(__name__)


def newest_revision(versions: Path = VERSIONS) -> str:
    """The revision that this code needs: the number in the last migration's file name."""
    return max(file.name.partition("_")[0] for file in versions.iterdir() if file.name[:1].isdigit())


async def current_revision(connection: asyncpg.Connection) -> str | None:
    """The database's revision; None if it was never migrated.

    Raises:
        UnavailableError: another application's migrations have run there.
    """
    try:
        rows = await connection.fetch(_REVISION.sql)
    except asyncpg.UndefinedTableError:
        return None
    return _own_revision(rows)


def _own_revision(rows: Iterable[Any]) -> str | None:
    """The revision in the rows of `_REVISION`. Alembic's table has the same name in every application."""
    for revision, has_tables, *_ in rows:
        if not has_tables or not _IS_OURS.fullmatch(revision):
            raise UnavailableError(
                f"Another application migrates this database with Alembic (revision {revision}): create a database for "
                "this service alone, and name it in DATABASE_URL."
            )
    return max((row[0] for row in rows), default=None)


async def _revision(url: str) -> str:
    connection = await connect_to_primary(url)
    try:
        return await current_revision(connection) or ""
    finally:
        await connection.close()


async def must_be_migrated(url: str, *, creates: bool = False) -> None:
    """Check that the database has the tables that this code needs; create them if it is empty and that is allowed.

    Raises:
        UnavailableError: it has not; the message says what to run.
        Exception: an error of the driver.
    """
    revision, newest = await _revision(url), newest_revision()
    if not revision:
        if creates:
            await upgrade(url)
            return
        raise UnavailableError("The database has no tables yet: run `gateway-tokens migrate`.")
    if revision < newest:
        raise UnavailableError(
            f"The database is at migration {revision}, and this release needs {newest}: run `gateway-tokens migrate`."
        )


async def must_be_ready(database: ConnectionPool) -> str:
    """Check that the database answers and is migrated. Returns why it may take no changes, or an empty text.

    Raises:
        UnavailableError: it does not answer or is not migrated; the message says which.
    """
    if dead := failing():
        raise UnavailableError(f"A background task keeps failing: {', '.join(dead)}.")
    if trouble := database.connections.trouble:
        raise UnavailableError(trouble)
    try:
        async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
            rows = await database.fetch(_REVISION)
    except asyncpg.UndefinedTableError:
        rows = []
    except TimeoutError:
        raise UnavailableError(database.connections.trouble or "The database does not answer.") from None
    if (_own_revision(rows) or "") < newest_revision():
        raise UnavailableError("The database is not migrated: run `gateway-tokens migrate`.")
    return READ_ONLY if rows[0][2] else database.connections.shortage


async def upgrade(url: str, *, timeout_seconds: float = 60, versions: Path = VERSIONS) -> str:
    """Migrate the database to the newest revision while others use it; `docs/upgrades.md` has the rules.

    One process migrates, and the others wait until nothing is left to do. If a table is in use, or the database goes
    away, the process retries for `timeout_seconds`. Returns the database's revision, which may be newer than this code.

    Raises:
        UnavailableError: the database is another application's, or its tables another role's.
        Exception: the last error of the driver or of Alembic.
    """
    deadline, has_answered, revision = monotonic() + timeout_seconds, False, ""
    while True:
        try:
            if (revision := await _revision(url)) >= newest_revision(versions):
                return revision
            has_answered = True
            if not await _upgrade_alone(url, versions):
                await asyncio.sleep(_PAUSE_SECONDS)
        except UnavailableError:
            raise
        except Exception as error:
            cause = _cause(error)
            if has_answered and isinstance(cause, asyncpg.InsufficientPrivilegeError):
                state = f"from {revision} to" if revision else "to"
                raise UnavailableError(
                    f"The database must be migrated {state} {newest_revision(versions)}, and this role cannot do it "
                    f"({cause}): run `gateway-tokens migrate` as the role that owns the tables."
                ) from None
            passes = isinstance(cause, _TRANSIENT_ERRORS) or (has_answered and isinstance(cause, _CONNECTION_ERRORS))
            if not passes or monotonic() > deadline:
                raise
            _log.warning("The migration is blocked and will be retried: %s", cause)
            await asyncio.sleep(_PAUSE_SECONDS)


async def _upgrade_alone(url: str, versions: Path) -> bool:
    """Migrate; false if another process does.

    The lock belongs to a transaction, which a pooler keeps on one connection. Building an index concurrently waits for
    every older snapshot, so no process may wait inside a statement, and the connection with the lock must hold no
    snapshot meanwhile.
    """
    connection = await connect_to_primary(url)
    try:
        async with connection.transaction():
            [(is_alone,)] = await connection.fetch("select pg_try_advisory_xact_lock($1)", LOCK)
            if is_alone:
                await connection.execute("set local idle_in_transaction_session_timeout = 0")
                await _upgrade(url, versions)
            return is_alone
    finally:
        await connection.close()


async def _upgrade(url: str, versions: Path) -> None:
    # Alembic and SQLAlchemy's engine are slow to import, and most starts find nothing to migrate.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import Connection, event  # noqa: PLC0415
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    def run(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.set_main_option("version_locations", str(versions))
        config.set_main_option("path_separator", "newline")
        command.upgrade(config, "head")

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":  # which has no transaction
            connection.exec_driver_sql(_BEGIN)

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=partial(connect_beside, url), poolclass=NullPool
    )
    event.listen(engine.sync_engine, "begin", begin)
    async with engine.connect() as connection:
        await connection.run_sync(run)


def _cause(error: BaseException) -> BaseException:
    """The driver's error, which SQLAlchemy wraps in its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
