"""Opens connections to a usable host of an address, with a bounded number of attempts per second."""

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit
from weakref import WeakKeyDictionary

import asyncpg
import orjson

from graphql_api.domain.errors import UnavailableError

RawConnection: TypeAlias = "asyncpg.Connection"

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
UNNAMED = "(default)"
"""What `described` calls a database whose name the address leaves to the driver."""
PRIMARY = "read-write"
"""asyncpg's name for the host that takes changes."""
CONNECT_TIMEOUT_SECONDS = 1.0
"""How long connecting to one host may take, and then the first answer on the new connection."""
# After this time without an answer from a host, the next host is tried as well.
_HEAD_START_SECONDS = 0.25
_SECOND_CONNECTION_SECONDS = 5.0
# With these, a peer that vanished is noticed after half a minute, by an idle connection and by one that sends.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
# Requests to cancel a statement are not counted: the driver opens a connection for each.
_MAX_ATTEMPTS_PER_SECOND = 16
_PAUSE_SECONDS = 1 / _MAX_ATTEMPTS_PER_SECOND
# A backend that computes waits for nothing: its wait_event is null. One that waits for its client has answered it; the
# answer may arrive in a moment. A statement that no backend has is lost as well: a pooler would have passed it on
# before this question, which came later. If the question does not see itself, nothing is known: PostgreSQL tracks no
# statements, or hides them from the current role. A backend of Citus that waits for a worker is active, and seems to
# wait for its client.
_LOST = """
select mark from unnest($1::text[]) mark left join pg_stat_activity on left(query, length(mark)) = mark
  and usename = session_user and (state <> 'idle' or state_change > clock_timestamp() - interval '0.25 s')
where exists (select from pg_stat_activity where pid = pg_backend_pid() and state = 'active') group by mark
having bool_and(pid is null or (wait_event is not distinct from 'ClientRead'
  and state_change < clock_timestamp() - interval '0.25 s'
  and (state <> 'active' or to_regproc('change_tokens') is null)))
"""
# By a function that `distribute` creates.
_ADAPT = "select set_config('plan_cache_mode', 'auto', false) where to_regproc('change_tokens') is not null"


class ReadOnlyError(UnavailableError):
    """No host takes changes."""


class Connector:
    """Opens connections to the database.

    Args:
        url: `postgresql://…`, with several hosts as PostgreSQL's own tools take them
        session: what is set on each connection; a pooler may forbid that
        timeout_seconds: how long connecting to one host may take, and then its first answer
        target: which of the hosts will do, unless the address says so itself; None for any
    """

    def __init__(
        self,
        url: str,
        *,
        session: Mapping[str, str] | None,
        target: str | None,
        timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    ) -> None:
        self._addresses = addresses(url)  # the last usable one comes first
        self._session = session
        self._target = _target(url, target)
        self.timeout_seconds = timeout_seconds
        self._address_of: WeakKeyDictionary[RawConnection, str] = WeakKeyDictionary()
        self._attempts = deque([0.0] * _MAX_ATTEMPTS_PER_SECOND, _MAX_ATTEMPTS_PER_SECOND)

    async def connect(self, *, only_reads: bool = False) -> RawConnection:
        """A connection to the first host that can be used; those after one that is silent need not wait for its end.

        Args:
            only_reads: whether a primary will do that takes no changes, because it is out of space or about to move

        Raises:
            ReadOnlyError: there is none, but perhaps one that takes no changes.
            UnavailableError: there is none.
        """
        target = "primary" if only_reads else self._target
        hosts, attempts = deque(self._addresses), dict[asyncio.Task[RawConnection], str]()
        reason: BaseException | None = None
        is_read_only = False
        try:
            while hosts or attempts:
                if hosts:
                    await self._turn()
                    address = hosts.popleft()
                    attempts[asyncio.create_task(self._attempt(address, target))] = address
                ended, _ = await asyncio.wait(
                    attempts, timeout=_HEAD_START_SECONDS if hosts else None, return_when=asyncio.FIRST_COMPLETED
                )
                for attempt in ended:
                    address = attempts.pop(attempt)
                    self._addresses.remove(address)
                    if not (error := attempt.exception()):
                        self._addresses.insert(0, address)
                        return attempt.result()
                    self._addresses.append(address)  # the next attempt begins with another, which may answer sooner
                    if not isinstance(error, FAILURES):
                        raise error
                    is_read_only |= isinstance(error, asyncpg.TargetServerAttributeNotMatched)
                    if reason is None or not isinstance(error, OSError):  # what a host says tells more
                        reason = error
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            for attempt in attempts:
                attempt.cancel()
                attempt.add_done_callback(_terminate)
        if is_read_only and self._target == PRIMARY and not only_reads:
            raise ReadOnlyError("The database takes no changes.") from reason
        raise UnavailableError("The database cannot be reached.") from reason

    async def _attempt(self, address: str, target: str | None) -> RawConnection:
        raw = await self._open(address, target)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await _set_codecs(raw)
        except BaseException:
            raw.terminate()
            raise
        return raw

    def address_of(self, raw: RawConnection) -> str:
        """The host that a connection leads to."""
        return self._address_of[raw]

    async def lost(self, address: str, marks: Iterable[str]) -> set[str] | None:
        """Those of the statements under way with these marks that no backend of a host works on.

        It is asked on a connection of its own; None if it says nothing at all.
        """
        await self._turn()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                raw = await self._open(address, None)
                try:
                    return {row[0] for row in await raw.fetch(_LOST, list(marks))}
                finally:
                    raw.terminate()
        except OSError:
            return None
        except FAILURES:
            return set()

    async def _turn(self) -> None:
        now = monotonic()
        turn = max(now, self._attempts[0] + 1)
        self._attempts.append(turn)
        await asyncio.sleep(turn - now)

    async def _open(self, address: str, target: str | None) -> RawConnection:
        raw = await asyncpg.connect(
            address,
            timeout=self.timeout_seconds,  # pyright: ignore[reportArgumentType]
            statement_cache_size=0,
            server_settings=self._session,
            target_session_attrs=target,
        )
        _keep_alive(raw)
        self._address_of[raw] = address
        return raw


async def connect_to_primary(url: str, *, seconds: int = 10) -> RawConnection:
    """A connection to the host of an address that takes changes; it needs no session, so a pooler may be between.

    `seconds` bounds connecting to each host. It is longer than for requests, because commands can wait.

    Raises:
        Exception: one of `FAILURES`; `TargetServerAttributeNotMatched` if no host takes changes.
    """
    try:
        return await Connector(url, session=None, target=PRIMARY, timeout_seconds=seconds).connect()
    except UnavailableError as error:
        reason = error.__cause__ or error
    raise reason  # here, so that the two do not have each other as their cause


async def adapt(raw: RawConnection) -> bool:
    """Whether the tables of the database are distributed: then its planner has to know the parameters."""
    return await raw.fetchval(_ADAPT) is not None


async def connect_beside(url: str) -> RawConnection:
    """Another such connection, beside one in a transaction.

    Raises:
        UnavailableError: none was to be had, because a pooler has only one connection to PostgreSQL.
        Exception: as from `connect_to_primary`.
    """
    try:
        async with asyncio.timeout(_SECOND_CONNECTION_SECONDS):
            raw = await connect_to_primary(url)
            try:
                await raw.execute("select")
            except BaseException:
                raw.terminate()
                raise
            return raw
    except TimeoutError:
        raise UnavailableError(
            "This takes two connections to PostgreSQL at a time, and the second one did not come: set DATABASE_URL to "
            "PostgreSQL itself, or enlarge the pool of the pooler before it (PgBouncer: default_pool_size)."
        ) from None


def _target(url: str, target: str | None) -> str | None:
    asked = dict(parse_qsl(urlsplit(url).query)).get("target_session_attrs", target)
    return PRIMARY if target == PRIMARY and asked == "primary" else asked  # `connect` takes one that is read-only, too


def addresses(url: str) -> list[str]:
    """One address per host, because the driver has one time limit for all hosts, which the first one could use up."""
    parts = urlsplit(url)
    user, at, netloc = parts.netloc.rpartition("@")
    if netloc:
        return [parts._replace(netloc=f"{user}{at}{host}").geturl() for host in netloc.split(",")]
    query = dict(parse_qsl(parts.query))
    hosts, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if len(hosts) == 1:
        return [url]
    ports = ports if len(ports) == len(hosts) else ports * len(hosts)
    queries = [{**query, "host": host, "port": port} for host, port in zip(hosts, ports, strict=False)]
    return [parts._replace(query=urlencode(each)).geturl() for each in queries]


def place(address: str) -> str:
    """The host and port of an address, for logs."""
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query))
    host = query.get("host") or "the default host"
    return parts.netloc.rpartition("@")[2] or f"{host}:{query.get('port', '')}".rstrip(":")


def described(url: str) -> str:
    """The database's name and hosts, for people."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    name = unquote(parts.path.removeprefix("/")) or query.get("dbname") or query.get("database") or UNNAMED
    return f"{name} on {', '.join(map(place, addresses(url)))}"


def _keep_alive(raw: RawConnection) -> None:
    """Let the kernel detect a vanished peer (TCP keepalive). asyncpg has no public access to its socket."""
    shown = cast("Any", raw)._transport.get_extra_info("socket")  # noqa: SLF001 - said above
    if shown.family != socket.AF_UNIX:
        with socket.fromfd(shown.fileno(), shown.family, shown.type) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):  # not every system has them
                    same.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _terminate(attempt: asyncio.Task[RawConnection]) -> None:
    """Close the connection of an attempt that came too late."""
    if not attempt.cancelled() and not attempt.exception():
        attempt.result().terminate()


async def _set_codecs(raw: RawConnection) -> None:
    await raw.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")
    await raw.set_type_codec("jsonb", schema="pg_catalog", encoder=_json, decoder=orjson.loads, format="text")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
