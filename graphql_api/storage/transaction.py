"""Transactions, and what became of one whose answer to COMMIT was lost: the database is asked by the transaction's id.

An id may mean another transaction after a failover, which begins another timeline, and after a crash, which loses what
no log had, and resets the statistics. An answer that may be about another transaction is not believed.
"""

from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple

import asyncpg

from graphql_api.storage.connection import Connection, Row, Runner, Statement
from graphql_api.storage.connector import RawConnection

_TIMELINE = "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
_IDENTIFY = Statement(
    "identify",
    f"select clock_timestamp(), pg_current_xact_id()::text, {_TIMELINE}, pg_backend_pid()",
)
# The last checkpoint is the one at the end of the recovery from the crash if no log lies between its two positions; its
# next id is then later than every id that the log had, and ours is not used again.
_IS_OURS = """
  pg_stat_get_bgwriter_stat_reset_time() <= $2 or (
    select redo_lsn = checkpoint_lsn and
      (split_part(next_xid, ':', 1)::bigint << 32) + split_part(next_xid, ':', 2)::bigint > $3::text::bigint
    from pg_control_checkpoint()
  )
"""
_ASK = Statement("outcome", f"select {_TIMELINE} = $1, {_IS_OURS}, pg_xact_status($3::text::xid8)")
_ASK_TIMELINE = Statement("timeline", f"select {_TIMELINE}")
# Ends a backend that waits for a caller who is gone, but none that waits for a standby to confirm the commit.
_END = Statement(
    "end_backend",
    """
    select pg_terminate_backend(pid) from pg_stat_activity
    where pid = $1 and backend_xid = ($2::text::xid8)::xid and wait_event is distinct from 'SyncRep'
    """,
)


class TransactionId(NamedTuple):
    """A transaction by what the database said of it at its beginning."""

    began: datetime
    xid: str
    timeline: str
    backend: int


class Transaction:
    """A transaction under way: runs statements, and knows its id if it is to be committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.id: TransactionId | None = None

    async def identify(self) -> None:
        """Learn the id, and the database's time."""
        [row] = await self.fetch(_IDENTIFY)
        self.id = TransactionId(*row)

    @property
    def began(self) -> datetime | None:
        """The database's time when it was identified."""
        return self.id.began if self.id else None

    @property
    def raw(self) -> RawConnection:
        """The driver's connection, for COPY."""
        return self._connection.raw

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        return await self._connection.fetch(statement, *arguments)


class Outcome(Enum):
    """Whether a transaction took effect."""

    COMMITTED = auto()
    ABORTED = auto()
    IN_PROGRESS = auto()
    UNKNOWN = auto()


async def ask(runner: Runner, transaction: TransactionId) -> Outcome:
    """Ask the database what became of the transaction."""
    try:
        arguments = (transaction.timeline, transaction.began, transaction.xid)
        [(is_same_server, is_ours, status)] = await runner.fetch(_ASK, *arguments)
    except asyncpg.InvalidParameterValueError:  # no transaction has this id: a crash lost ours
        [(timeline,)] = await runner.fetch(_ASK_TIMELINE)
        is_same_server, is_ours, status = timeline == transaction.timeline, True, "aborted"
    if not is_same_server or (status == "committed" and not is_ours):
        return Outcome.UNKNOWN
    known = {"committed": Outcome.COMMITTED, "aborted": Outcome.ABORTED, "in progress": Outcome.IN_PROGRESS}
    return known.get(status, Outcome.UNKNOWN)


async def end(runner: Runner, transaction: TransactionId) -> None:
    """End a transaction that is still in progress, so that its outcome gets known."""
    await runner.fetch(_END, transaction.backend, transaction.xid)
