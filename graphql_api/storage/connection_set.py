"""The open connections of a pool: how they are opened, acquired, released, watched and lost.

asyncpg's own pool resets a connection at every release, which costs more than the query of a hot read (240 µs against
150); here nothing that a statement does outlives it, so connections go back as they are.

Connections get lost, and the database may be away for a while. Callers then wait for it, for a short time; one attempt
at a time finds out whether it is back, however many wait. A database that does not answer at all is given up as well.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg
import structlog

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.observability.supervision import supervise
from graphql_api.storage.bulkheads import Patience
from graphql_api.storage.connection import (
    MAX_PREPARED,
    MAX_PREPARED_BYTES,
    Connection,
    ConnectionLostError,
    Observer,
    ShortageError,
    StatementTimeoutError,
)
from graphql_api.storage.connector import (
    FAILURES,
    Connector,
    RawConnection,
    ReadOnlyError,
    adapt,
)
from graphql_api.storage.transaction import Abandoned

# How long a caller waits for a connection.
ACQUIRE_TIMEOUT_SECONDS = 2.5
_WATCH_INTERVAL_SECONDS = 0.25
_SEEK_INTERVAL_SECONDS = 1.0
_CLOSE_TIMEOUT_SECONDS = 0.5
_MAX_ABANDONED = 100
# So long after the last failed change, readiness says what the database lacks.
_SHORTAGE_SECONDS = 60.0

READ_ONLY = "The database is read-only: the service answers queries, but not mutations."

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool treats its connections.

    Attributes:
        rest_seconds: after how long an idle connection is checked before it is used, because it may be lost
        ping_seconds: how long this check may take
        max_idle_seconds: about how long an idle connection is kept, so that no firewall forgets it first
        stall_seconds: after how long without an answer to a statement the database is probed
        server_grace_seconds: how much later than the client the server ends statements, for clients that were cut off
        max_pause_seconds: after how long without a statement the server ends a transaction, if the pool `watches`; what
            lost connections hold of a pooler, where their backends cannot be ended, is free before who waits gives up
        cleanup_seconds: how long it may take until a connection can be used again whose statement was given up
        max_prepared: prepared statements per connection
        max_prepared_bytes: bytes of their SQL
    """

    rest_seconds: float = 10.0
    ping_seconds: float = 0.25
    max_idle_seconds: float = 300.0
    stall_seconds: float = 0.75
    server_grace_seconds: float = 5.0
    max_pause_seconds: float = 2.0
    cleanup_seconds: float = 0.5
    max_prepared: int = MAX_PREPARED
    max_prepared_bytes: int = MAX_PREPARED_BYTES


STANDARD = PoolOptions()


class ConnectionSet:
    """A bounded number of connections to one PostgreSQL, opened as they are needed; see `ConnectionPool.open`."""

    def __init__(
        self,
        connector: Connector,
        *,
        name: str,
        size: int,
        timeout: float,
        prepares: bool,
        watches: bool,
        options: PoolOptions,
        observe: Observer,
    ) -> None:
        self.loop = asyncio.get_running_loop()  # asking for it costs a system call each time, until Python 3.12
        self._connector = connector
        self.name = name
        self.size = size
        self.timeout = timeout
        self._prepares = prepares
        self.watches = watches
        self._options = options
        self._observe = observe
        self.open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._rested: list[Connection] = []  # idle, and not used for a while
        self._abandoned: list[Abandoned] = []  # lost ones whose backends may still hold locks
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._opening = 0
        self._is_reachable = False  # that another connection can be opened, since the last one was and none was lost
        self._trouble = ""
        self._is_suspended = False
        self.is_read_only = False
        """Whether only reads are answered."""
        self._shortage, self._short_until = "", 0.0
        self.patience = Patience()
        self.losses = 0
        self.timeouts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, end: Callable[[list[Abandoned]], Coroutine[Any, Any, None]]) -> None:
        """Watch the connections from now on, and have the backends of lost ones ended."""
        self.start(supervise(f"{self.name} connections", lambda: self._watch(end)))

    def abandon(self, abandoned: list[Abandoned]) -> None:
        """Have the backends of these ended soon."""
        self._abandoned = [*self._abandoned, *abandoned][-_MAX_ABANDONED:]

    async def close(self) -> None:
        """End what runs in the background, and close all connections; what still runs on them fails."""
        self._is_suspended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The driver answers with None what runs while it closes a connection, as if a COMMIT had gone well.
        self._drop({connection for connection in self.open if connection.asked_at is not None})
        closing = (connection.raw.close(timeout=_CLOSE_TIMEOUT_SECONDS) for connection in self.open)
        await asyncio.gather(*closing, return_exceptions=True)

    @property
    def trouble(self) -> str:
        """Why the last attempt to open a connection failed; empty if it did not."""
        return "" if self.open else self._trouble

    @property
    def shortage(self) -> str:
        """What the database lacked for a change a short time ago, unless another change was made since; else empty."""
        return self._shortage if monotonic() < self._short_until else ""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, used or not."""
        return bool(self.open)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle) + len(self._rested)

    @property
    def in_use(self) -> int:
        """Connections with a statement or a transaction under way."""
        return len(self.open) - self.idle

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._waiting)

    def note_change(self) -> None:
        """A change was made: the database lacks nothing that changes need."""
        self._shortage = ""

    async def wait_connected(self, waited: float = 0) -> None:
        """Wait until there is a connection; `waited` seconds count towards the time limit.

        Raises:
            UnavailableError: there was none in time.
        """
        if not self.is_open:
            self.release(await self.acquire(monotonic() + ACQUIRE_TIMEOUT_SECONDS - waited))

    def suspend(self) -> None:
        """Close all connections. Until it is reopened, acquiring one fails immediately."""
        self._is_suspended, self._trouble = True, ""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(self._suspended_error())
        self._drop(self.open)

    def reopen(self) -> None:
        """Let there be connections again."""
        self._is_suspended = False

    def _suspended_error(self) -> UnavailableError:
        return UnavailableError(f"The {self.name} is suspended.")

    async def acquire(self, until: float) -> Connection:
        """A free connection, as soon as there is one, before that moment of the monotonic clock.

        Raises:
            UnavailableError: there was none in time, or the connections are suspended.
        """
        if self._idle:
            return self._idle.pop()
        if self._is_suspended:
            raise self._suspended_error()
        while self._rested:
            connection = self._rested.pop()
            if await self._still_answers(connection):
                return connection
        is_away = not self.open and not self._is_reachable and (self.losses or self._trouble)
        if self.watches and is_away:
            deadline.note_loss()  # also bounds mutations that began after the loss
        waiter: asyncio.Future[Connection] = self.loop.create_future()
        self._waiting.append(waiter)
        self._open_more()
        try:
            async with asyncio.timeout(until - monotonic()):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():  # it came at this very moment
                self.release(waiter.result())
            with suppress(ValueError):
                self._waiting.remove(waiter)
            if not isinstance(error, TimeoutError):
                raise
            raise UnavailableError(self.trouble or "No database connection became available in time.") from None

    async def _still_answers(self, connection: Connection) -> bool:
        """Whether a connection that rested can be used; if not, none of those that rested with it is kept."""
        try:
            async with asyncio.timeout(max(self._options.ping_seconds, self.patience.seconds)):
                await self._ping(connection.raw, connection.mark)
        except (TimeoutError, *FAILURES):
            self._drop({connection, *self._rested})
            return False
        except BaseException:
            self._drop({connection})
            raise
        return True

    async def _ping(self, raw: RawConnection, mark: str = "") -> None:
        began = monotonic()
        await raw.execute(f"{mark}select")
        self.patience.note_round_trip(monotonic() - began)

    def release(self, connection: Connection) -> None:
        """Give the connection to who waits for one, or keep it idle."""
        connection.xid = None
        if connection.raw.is_closed():
            self.open.discard(connection)
            self._open_more()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = monotonic()
        self._idle.append(connection)

    def translate_error(self, connection: Connection, error: BaseException) -> BaseException:
        """What the error of a statement means, which is counted and logged."""
        if self.is_read_only and isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            return UnchangedError("The database is read-only")
        translated = connection.translate_error(error)
        self.timeouts += isinstance(translated, StatementTimeoutError)
        if isinstance(translated, ShortageError):
            if not self.shortage:
                _log.warning(f"{self.name} lacks resources", reason=str(error))
            self._shortage, self._short_until = str(translated), monotonic() + _SHORTAGE_SECONDS
        return translated

    def return_failed(self, connection: Connection, error: BaseException, *, commits: bool = False) -> BaseException:
        """Do with the connection of a statement that failed what has to be done; answers what the error means.

        A statement that commits is not cancelled. If PostgreSQL waits for a synchronous standby, to cancel that would
        show a change that a failover can lose.
        """
        translated = self.translate_error(connection, error)
        if isinstance(translated, ConnectionLostError):
            self.lose(connection, error)
        elif isinstance(translated, (StatementTimeoutError, asyncio.CancelledError)):
            if commits:
                self._drop({connection})  # before the driver has sent the request to cancel
            else:
                self.start(self.clean(connection, "select"))
        else:
            self.release(connection)
        return translated

    async def clean(self, connection: Connection, script: str) -> None:
        """Make the connection whole: the driver first waits until what was under way is cancelled."""
        began = monotonic()
        try:
            await connection.raw.execute(connection.mark + script, timeout=self._options.cleanup_seconds)
        except FAILURES as error:
            self.lose(connection, error)
        else:
            self.patience.note_round_trip(monotonic() - began)  # rather too long: it may have waited for the end
            self.release(connection)

    def suspect_idle(self) -> None:
        """Have idle connections asked whether they answer before they are used: if one hangs, others may."""
        self._rested, self._idle = [*self._rested, *self._idle], []

    def _open_more(self) -> None:
        """Open connections for those who wait, one alone until it has shown that the database is there."""
        wanted = min(len(self._waiting), self.size - len(self.open))
        if self._is_suspended:
            wanted = 0
        elif not self._is_reachable:
            wanted = 1 if wanted > 0 or self._trouble else 0
        while self._opening < wanted:
            self._opening += 1
            self.start(self._open_one(), context=Context())  # not that of the request which happens to need it

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
            async with asyncio.timeout(self._connector.timeout_seconds):
                await self._ping(raw)
                is_distributed = await adapt(raw)
        except BaseException:
            raw.terminate()
            raise
        if self._is_suspended:
            raw.terminate()
            return
        if self._trouble:
            _log.info(f"{self.name} is available again")
        if self.is_read_only is takes_changes:
            if takes_changes:
                _log.info(f"{self.name} takes changes again")
            else:
                _log.warning(f"{self.name} is read-only")
            self.is_read_only = not takes_changes
            self._drop(self.open)
        self._is_reachable, self._trouble = True, ""
        connection = Connection(
            raw,
            prepares=self._prepares,
            timeout=self.timeout,
            observe=self._observe,
            is_distributed=is_distributed,
            max_prepared=self._options.max_prepared,
            max_prepared_bytes=self._options.max_prepared_bytes,
        )
        self.open.add(connection)
        self.release(connection)

    async def _seek_changes(self) -> None:
        """See whether some host takes changes again."""
        with suppress(UnavailableError, *FAILURES):
            await self._add(await self._connector.connect(), takes_changes=True)

    def lose(self, connection: Connection, error: BaseException) -> None:
        """This connection is of no use any more, and perhaps others are not."""
        if self.watches:  # a replica's are not watched, and no mutation waits for them
            deadline.note_loss()
        self._is_reachable = False
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._drop(self.open)
        else:
            self._drop({connection, *(each for each in self.open if each.raw.is_closed())})

    def _drop(self, connections: AbstractSet[Connection]) -> None:
        self.losses += 1
        for connection in connections:
            connection.raw.terminate()
        self._idle = [connection for connection in self._idle if connection not in connections]
        self._rested = [connection for connection in self._rested if connection not in connections]
        self.open = self.open - connections
        self.abandon([Abandoned(each.mark, each.server_pid, each.xid) for each in connections])
        self._open_more()

    def _notice(self, trouble: str, cause: BaseException | None = None) -> None:
        self._is_reachable = False
        if self._is_suspended:
            return
        if not self._trouble:
            _log.warning(f"{self.name} is unavailable", reason=trouble, cause=repr(cause) if cause else None)
        self._trouble = trouble

    async def _watch(self, end: Callable[[list[Abandoned]], Coroutine[Any, Any, None]]) -> None:
        """Put idle connections aside, close old ones, and give up those on which an answer will never come."""
        sought = asked = monotonic()
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)
            self._rest()
            if self._abandoned:
                abandoned, self._abandoned = self._abandoned, []
                self.start(end(abandoned))
            if self.is_read_only and monotonic() - sought >= _SEEK_INTERVAL_SECONDS:
                sought = monotonic()
                self.start(self._seek_changes())
            if monotonic() - asked >= self._options.stall_seconds and (late := self._late()):
                asked = monotonic()
                await asyncio.gather(*(self._ask_about(address, late[address]) for address in late))

    def _late(self) -> dict[str, list[Connection]]:
        """By their hosts, the connections whose statements have taken so long that the cause may be a lost one."""
        late: defaultdict[str, list[Connection]] = defaultdict(list)
        for connection in self.open:
            if connection.waits_for(max(self._options.stall_seconds, self.patience.seconds)):
                late[self._connector.address_of(connection.raw)].append(connection)
        return late

    async def _ask_about(self, address: str, late: Sequence[Connection]) -> None:
        """Give up connections that no backend works for, and all to a host that says nothing at all."""
        there = {each for each in self.open if self._connector.address_of(each.raw) == address}
        heard, asked = sum(each.answers for each in there), {each: each.asked_at for each in late}
        marks = await self._connector.lost(address, [each.mark for each in late])
        if marks is None:
            if self.watches and heard == sum(each.answers for each in there):
                self._notice("The database does not answer.")
                self._drop(there & self.open)
            return
        lost = {each for each in late if each.mark in marks and each.asked_at == asked[each] and each in self.open}
        if lost:
            _log.warning(f"{self.name} connections were dropped silently", connections=len(lost))
            self.suspect_idle()
            self._drop(lost)

    def _rest(self) -> None:
        """Mark connections that were idle for a while, and close those that were idle for long."""
        now = monotonic()
        while self._idle and now - self._idle[0].idle_since >= self._options.rest_seconds:  # the last one is used first
            self._rested.append(self._idle.pop(0))
        old = {each for each in self._rested if now - each.idle_since >= self._options.max_idle_seconds * each.patience}
        if old:
            self._rested = [each for each in self._rested if each not in old]
            self.open -= old
            for connection in old:
                self.start(self._close_one(connection))

    async def _close_one(self, connection: Connection) -> None:
        with suppress(*FAILURES):
            await connection.raw.close(timeout=_CLOSE_TIMEOUT_SECONDS)

    def start(self, work: Coroutine[Any, Any, None], *, context: Context | None = None) -> asyncio.Task[None]:
        """Do this in the background, by default in a copy of this context, until the connections are closed."""
        task = self.loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
