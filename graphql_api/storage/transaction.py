"""Transactions, and the outcome of one whose answer to COMMIT was lost: the database knows it by the transaction's id.

An id may mean another transaction after a failover, which begins another timeline, and after a crash, which loses what
no log had, and resets the statistics. An answer that may be about another transaction is not believed. The process
that ran ours, without a crash since then, is believed; any other one has to show its log. A managed PostgreSQL may
forbid to look at that: the outcome is then not known.
"""

from collections.abc import Collection
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple

import asyncpg

from graphql_api.storage.connection import Connection, Reads, Row, Runner, Statement
from graphql_api.storage.connector import RawConnection

TIMELINE = "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
_IDENTITY = "select clock_timestamp(), pg_current_xact_id()::text, pg_postmaster_start_time(), pg_backend_pid()"
_IDENTIFY = Statement("identify", f"{_IDENTITY}, {TIMELINE}")
_IDENTIFY_WITHOUT_LOG = Statement("identify", f"{_IDENTITY}, null::text")
_ASK = Statement(
    "outcome",
    """
    select pg_postmaster_start_time() = $1 and pg_stat_get_bgwriter_stat_reset_time() <= $2,
      pg_xact_status($3::text::xid8)
    """,
    reads=Reads.OWN,
)
# The last checkpoint is the one at the end of the recovery from the crash if no log lies between its two positions; its
# next id is then later than every id that the log had, and ours is not used again.
_ASK_LOG = Statement(
    "outcome_by_log",
    f"""
    select {TIMELINE} = $1, pg_stat_get_bgwriter_stat_reset_time() <= $2 or (
      redo_lsn = checkpoint_lsn and
      (split_part(next_xid, ':', 1)::bigint << 32) + split_part(next_xid, ':', 2)::bigint > $3::text::bigint
    )
    from pg_control_checkpoint()
    """,  # noqa: S608 - a constant of ours
    reads=Reads.OWN,
)
READ_LOG = f"select {TIMELINE} from pg_control_checkpoint()"  # noqa: S608 - a constant of ours
"""What has to work for an outcome to be known after a restart of PostgreSQL; `FORBIDDEN` is raised if it does not."""
FORBIDDEN = (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFunctionError)
# Ends a backend that waits for a caller who is gone, but none that waits for a standby to confirm the commit.
_END = Statement(
    "end_backend",
    """
    select pg_terminate_backend(pid) from pg_stat_activity
    where pid = $1 and backend_xid = ($2::text::xid8)::xid and wait_event is distinct from 'SyncRep'
    """,
    reads=Reads.OWN,
)
# Those that are idle belong to a pooler, unless it is this service that knows their number. The driver's own questions
# about types have no mark; a transaction in which one was lost is known by its id.
_END_ABANDONED = Statement(
    "end_abandoned",
    """
    select pg_terminate_backend(a.pid) from unnest($1::text[], $2::integer[], $3::text[]) as abandoned (mark, pid, xid)
    join pg_stat_activity a on usename = session_user and wait_event is distinct from 'SyncRep' and (
      left(query, length(mark)) = mark and (state <> 'idle' or a.pid = abandoned.pid)
      or backend_xid = (xid::xid8)::xid
    )
    """,
    reads=Reads.OWN,
)


class LogForbiddenError(Exception):
    """The database forbids reading the position of its log."""


class TransactionId(NamedTuple):
    """A transaction's identity, as the database gave it at its start; without a timeline if reading it is forbidden."""

    began: datetime
    xid: str
    server: datetime
    backend: int
    timeline: str | None


class Transaction:
    """A running transaction: runs statements, and knows its id if it will be committed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.id: TransactionId | None = None

    async def identify(self, *, by_log: bool) -> None:
        """Learn the id, and the database's time; by its log too, if that may be read.

        Raises:
            LogForbiddenError: it may not, and the transaction has failed.
        """
        try:
            [row] = await self.fetch(_IDENTIFY if by_log else _IDENTIFY_WITHOUT_LOG)
        except FORBIDDEN as error:
            raise LogForbiddenError from error
        self.id = TransactionId(*row)
        self.connection.xid = self.id.xid

    @property
    def began(self) -> datetime | None:
        """The database's time when it got its id."""
        return self.id.began if self.id else None

    @property
    def raw(self) -> RawConnection:
        """The driver's connection, for COPY."""
        return self.connection.raw

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        return await self.connection.fetch(statement, *arguments)

    async def execute(self, sql: str, distributed: str = "") -> None:
        """Run SQL that has no arguments, or `distributed` in its place if the tables are distributed."""
        await self.connection.execute(Statement("script", sql, sql_distributed=distributed))


class CommitStatus(Enum):
    """Whether a transaction took effect."""

    COMMITTED = auto()
    ABORTED = auto()
    IN_PROGRESS = auto()
    UNKNOWN = auto()


async def ask(runner: Runner, transaction: TransactionId) -> CommitStatus:
    """Ask the database for the outcome of the transaction."""
    try:
        [(is_same_process, status)] = await runner.fetch(_ASK, transaction.server, transaction.began, transaction.xid)
    except asyncpg.InvalidParameterValueError:  # no transaction has this id: a crash lost it
        is_same_process, status = False, "aborted"
    if not is_same_process and not await _is_shown_by_log(runner, transaction, status):
        return CommitStatus.UNKNOWN
    known = {
        "committed": CommitStatus.COMMITTED,
        "aborted": CommitStatus.ABORTED,
        "in progress": CommitStatus.IN_PROGRESS,
    }
    return known.get(status, CommitStatus.UNKNOWN)


async def _is_shown_by_log(runner: Runner, transaction: TransactionId, status: str | None) -> bool:
    """Whether the status is ours; a crash may have given our id to another transaction only if ours was lost."""
    if transaction.timeline is None:
        return False
    try:
        arguments = (transaction.timeline, transaction.began, transaction.xid)
        [(is_same_timeline, is_ours)] = await runner.fetch(_ASK_LOG, *arguments)
    except FORBIDDEN:
        return False
    return is_same_timeline and (is_ours or status != "committed")


async def end(runner: Runner, transaction: TransactionId) -> None:
    """End a transaction that is still in progress, so that its outcome becomes known."""
    await runner.fetch(_END, transaction.backend, transaction.xid)


class Abandoned(NamedTuple):
    """A lost connection, by all that PostgreSQL may know it by."""

    mark: str
    server_pid: int
    xid: str | None


async def end_abandoned(runner: Runner, connections: Collection[Abandoned]) -> None:
    """End the backends of connections that are lost, with what they have locked."""
    await runner.fetch(_END_ABANDONED, *map(list, zip(*connections, strict=True)))
