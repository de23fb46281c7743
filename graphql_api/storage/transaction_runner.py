"""Transactions on a connection: how they begin and end, and what became of one whose answer to COMMIT was lost."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import structlog

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.storage import transaction as transactions
from graphql_api.storage.bulkheads import ChangeIsLateError
from graphql_api.storage.connection import (
    Connection,
    ConnectionLostError,
    Runner,
    Statement,
    StatementTimeoutError,
)
from graphql_api.storage.connection_set import ConnectionSet
from graphql_api.storage.connector import FAILURES
from graphql_api.storage.transaction import Abandoned, CommitStatus, LogForbiddenError, Transaction, TransactionId
from graphql_api.storage.watchdog import Watchdog

_BEGIN, _COMMIT, _ROLLBACK = (Statement(word, word) for word in ("begin", "commit", "rollback"))

# An answer to COMMIT that takes longer is looked for by the transaction's id, and so long at the most. Each takes the
# time that is left before the deadline, or at least a little.
_COMMIT_TIMEOUT_SECONDS = 0.8
_OUTCOME_TIMEOUT_SECONDS = 1.7
_MIN_OUTCOME_SECONDS = 0.2
_OUTCOME_INTERVAL_SECONDS = 0.05
_LOOKS_BEFORE_END = 6

_log = structlog.get_logger()


class TransactionRunner:
    """Begins transactions on connections of a set, commits them, and finds out what became of them.

    Args:
        connections: where connections go back to
        watchdog: ends transactions that are late
        runner: runs statements about other transactions
        settings: what is set in each transaction, if the session may not be changed
    """

    def __init__(
        self, connections: ConnectionSet, watchdog: Watchdog, runner: Runner, settings: Mapping[str, str]
    ) -> None:
        self._connections = connections
        self._watchdog = watchdog
        self._runner = runner
        self._settings = "".join(f"set local {name} = {value}; " for name, value in settings.items())
        self._commit_timeout = _COMMIT_TIMEOUT_SECONDS if connections.watches else connections.timeout
        self._shows_log = True  # as far as is known

    @asynccontextmanager
    async def run(
        self, connection: Connection, first: str, *, commits: bool, ends_early: bool
    ) -> AsyncGenerator[Transaction]:
        """A transaction on this connection, which is released at the end: see `ConnectionPool.transaction`.

        If it `ends_early`, it is rolled back once one of its statements is late.
        """
        limit: asyncio.Timeout | None = None
        transaction = Transaction(connection)
        try:
            async with deadline.timeout() as limit, self._watchdog.may_end_early(connection, ends_early=ends_early):
                await self._begin(transaction, first, commits=commits)
                yield transaction
                if not commits:
                    await connection.execute(_ROLLBACK)
        except BaseException as error:
            translated = self._connections.translate_error(connection, error)
            if limit and limit.expired() and isinstance(translated, StatementTimeoutError):
                translated = UnchangedError("The change took too long")
            if isinstance(translated, ConnectionLostError):
                self._connections.lose(connection, error)
            else:
                cleaning = self._connections.start(self._connections.clean(connection, "rollback"))
                if not (limit and limit.expired()):
                    await asyncio.shield(cleaning)
            if connection.raw.is_closed() and isinstance(translated, ChangeIsLateError):
                translated = ConnectionLostError("The database connection was lost.")  # it was late, not this change
            if translated is error:
                raise
            raise translated from error
        if transaction.id is None:
            self._connections.release(connection)
        else:
            await self._commit(connection, transaction.id)

    async def end(self, abandoned: list[Abandoned]) -> None:
        """Free at once what lost connections have locked; if that is forbidden, the server notices it later."""
        try:
            with deadline.suspended():
                await transactions.end_abandoned(self._runner, abandoned)
        except UnavailableError:
            self._connections.abandon(abandoned)  # they are tried again
        except FAILURES as error:
            _log.warning(f"{self._connections.name} does not let lost connections be ended", reason=str(error))

    async def _begin(self, transaction: Transaction, first: str, *, commits: bool) -> None:
        first = self._settings + first
        await transaction.connection.execute(_BEGIN, first)
        if not commits:
            return
        try:
            await transaction.identify(by_log=self._shows_log)
        except LogForbiddenError as error:
            if self._shows_log:
                _log.warning(f"{self._connections.name} hides its log", reason=str(error.__cause__))
            self._shows_log = False
            await transaction.connection.execute(_ROLLBACK, f"begin; {first}")
            await transaction.identify(by_log=False)

    async def _commit(self, connection: Connection, transaction: TransactionId) -> None:
        try:
            async with asyncio.timeout(_seconds_for_answer(self._commit_timeout)):
                await connection.execute(_COMMIT)
        except asyncio.CancelledError as error:
            self._connections.return_failed(connection, error, commits=True)
            raise
        except Exception as error:
            if not isinstance(self._connections.translate_error(connection, error), UnavailableError):
                self._connections.release(connection)
                raise
            self._connections.lose(connection, error)
            self._connections.suspect_idle()
            await self._settle(transaction, error)
        else:
            self._connections.note_change()
            self._connections.release(connection)
        deadline.note_change()

    async def _settle(self, transaction: TransactionId, error: BaseException) -> None:
        """Return if the transaction took effect, whose answer to COMMIT was lost by this error.

        Raises:
            ConnectionLostError: it did not.
            UnavailableError: that is not known.
        """
        try:
            async with asyncio.timeout(_seconds_for_answer(_OUTCOME_TIMEOUT_SECONDS)):
                with deadline.suspended():
                    outcome = await self._outcome(transaction)
        except (TimeoutError, UnavailableError, *FAILURES):
            outcome = CommitStatus.UNKNOWN
        if outcome is CommitStatus.ABORTED:
            raise ConnectionLostError("The database's connection was lost, and nothing was changed.") from error
        if outcome is CommitStatus.UNKNOWN:
            raise UnavailableError("The database was lost during the change, which may have been made.") from error

    async def _outcome(self, transaction: TransactionId) -> CommitStatus:
        looks = 0
        while (outcome := await transactions.ask(self._runner, transaction)) is CommitStatus.IN_PROGRESS:
            looks += 1
            if looks == _LOOKS_BEFORE_END:
                await transactions.end(self._runner, transaction)
            await asyncio.sleep(_OUTCOME_INTERVAL_SECONDS)
        return outcome


def _seconds_for_answer(seconds: float) -> float:
    """How long to wait for what the database says of a commit: a little, even if there is no time left."""
    return min(seconds, max(deadline.seconds_left(), _MIN_OUTCOME_SECONDS))
