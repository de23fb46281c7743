"""Checks the settings, the database and the dependencies, and says how to fix what is wrong.

It changes nothing and uses the same code as `serve`. Each check yields one finding, which the command prints.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from time import monotonic, time
from typing import NamedTuple

import asyncpg

from graphql_api.app import PARTS, invalid_documents
from graphql_api.auth import Authenticator
from graphql_api.bulk.reconciling import payment_methods
from graphql_api.domain.errors import UnavailableError
from graphql_api.gateway_apis.client import GatewayClient, Pace, StoppedError
from graphql_api.gateway_apis.keys import GatewayKey, gateway_keys
from graphql_api.settings import ConfigurationError, Settings
from graphql_api.settings.advice import notes, weaknesses
from graphql_api.storage.connector import FAILURES, UNNAMED, adapt, addresses, connect_to_primary, described, place
from graphql_api.storage.customer_lists import OTHER_OBJECTS
from graphql_api.storage.distribution import cluster_of, outdated_functions
from graphql_api.storage.grants import elsewhere, missing_grants
from graphql_api.storage.migrate import current_revision, newest_revision
from graphql_api.storage.partitioning import KEYS, parts_of, unfinished
from graphql_api.storage.remedies import reason, remedy
from graphql_api.storage.transaction import FORBIDDEN, READ_LOG

TESTED = range(13, 19)
"""Major versions of PostgreSQL that the tests run on."""
_MAX_SKEW_SECONDS = 1.0
_CONNECT_SECONDS = 5
_INVALID_INDEXES = """
select coalesce(array_agg(indexrelid::regclass::text order by 1), '{}') from pg_index
join pg_class on pg_class.oid = indexrelid
where not indisvalid and relnamespace = current_schema()::regnamespace"""
MAX_OPEN_SECONDS = 60.0
"""How long a write transaction may be open before it counts as delaying the change feed."""
_OLDEST_WRITER = """
select * from (
  select format('process %s (database %s)', pid, datname), extract(epoch from now() - xact_start)::float8 as seconds
  from pg_stat_activity where backend_xid is not null
  union all
  select format('the prepared transaction %s (database %s)', gid, database),
    extract(epoch from now() - prepared)::float8
  from pg_prepared_xacts
) as writer order by seconds desc nulls last limit 1"""
# A process that runs leaves no entry waiting for a minute, unless it is sending or the endpoint fails.
_ENDPOINTS_BEHIND = """
select name, last_error, disabled_at is not null from event_endpoints as endpoint
where last_error is not null or (
  coalesce(leased_until, '-infinity') < clock_timestamp() and clock_timestamp() - interval '1 minute' > (%s)
)
order by name"""
_NEXT_AT = """
select at from customer_gateway_token_events as entry
where entry.position > 0 and entry.position > endpoint.position order by entry.position limit 1"""
_NEXT_AT_DISTRIBUTED = "select feed_next_at(endpoint.position, 9223372036854775807)"
_MAY_ERASE = "select has_table_privilege('customer_gateway_token_events', 'update')"
_ON_CITUS = (
    "customer ids stay unique; but readers may see a merge half-done, or a save, until Citus has recovered a worker "
    "that was killed, and every client must connect to the coordinator"
)
_KIND = "select current_database(), pg_encoding_to_char(encoding) from pg_database where datname = current_database()"
_PID = "select pg_backend_pid()"
_POOLER = (
    "runs in transaction mode, which loses prepared statements: "
    "set DATABASE_PREPARED_STATEMENTS=false, and the role's parameters as `gateway-tokens help scale` says"
)
_END_OF_LOG = "select pg_current_wal_flush_lsn()::text"
_REPLAYED = """
select pg_is_in_recovery(), pg_last_wal_replay_lsn() >= $1::text::pg_lsn,
extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8"""
_LOOK_EVERY = 0.05
_MAX_WAIT_SECONDS = 10.0  # for a replica to replay what the primary has now


class Finding(NamedTuple):
    """What a check found; if something is wrong or could be better, it says what to do."""

    check: str
    is_well: bool
    says: str
    is_note: bool = False


def _well(check: str, says: str) -> Finding:
    return Finding(check, is_well=True, says=says)


def _wrong(check: str, says: str) -> Finding:
    return Finding(check, is_well=False, says=says)


async def findings(
    settings: Settings,
    problems: Sequence[str] = (),
    *,
    tested: Sequence[int] = TESTED,
    max_open_seconds: float = MAX_OPEN_SECONDS,
) -> AsyncGenerator[Finding]:
    """Check everything that these settings name, one after another.

    Args:
        settings: what to check; invalid variables have their defaults
        problems: what is wrong with the variables
        tested: major versions of PostgreSQL to accept
        max_open_seconds: how long a write transaction may be open
    """
    problems = [*problems, *_problems(settings), *weaknesses(settings)]
    for finding in _settings(settings, problems):
        yield finding
    yield _access(settings, problems)
    if settings.authenticates:
        yield await _keys(settings)
    for key in _gateway_keys(settings):
        yield await _gateway(key)
    if (url := settings.database_url) is None:
        if any(problem.startswith("DATABASE_URL") for problem in problems):
            return
        found, url = _embedded(settings)
        yield found
    if url is None:
        return
    async with aclosing(_database(url, settings, tested, max_open_seconds)) as lines:
        async for finding in lines:
            yield finding
    for address in (address for each in settings.database_replica_url for address in addresses(each)):
        yield await _replica(address, url, settings.replica_max_lag)


def _settings(settings: Settings, problems: Sequence[str]) -> Iterator[Finding]:
    for problem in problems:
        yield _wrong("settings", problem)
    if not problems:
        yield _well("settings", "are valid")
    for note in notes(settings):
        yield Finding("settings", is_well=True, says=note, is_note=True)


def _problems(settings: Settings) -> list[str]:
    """Problems that are found only when the parts that use the settings are created."""
    found: list[str] = []
    for part in (*PARTS, gateway_keys):
        try:
            part(settings)
        except ConfigurationError as wrong:
            found += wrong.problems
    with suppress(ConfigurationError):  # which is among the problems
        found += invalid_documents(settings)
    return found


def _access(settings: Settings, problems: Sequence[str]) -> Finding:
    if settings.authenticates:
        return _well("access", "access tokens are required")
    if any(problem.startswith("AUTH_") for problem in problems):
        return _wrong("access", "cannot be judged until the settings above are valid")
    why = "authentication is off: set AUTH_JWKS_URL, or AUTH_MODE=disabled if that is what you want"
    return Finding("access", settings.auth_mode is not None, why if settings.auth_mode is None else "open to everyone")


def _embedded(settings: Settings) -> tuple[Finding, str | None]:
    """The embedded PostgreSQL, and its URL if it runs; nothing is created or started."""
    place = f"the embedded PostgreSQL in {settings.data_dir.resolve()}"
    try:
        from graphql_api.embedded import running_address  # noqa: PLC0415 - an extra, which may be missing
    except ModuleNotFoundError:
        missing = "DATABASE_URL is not set, and no embedded PostgreSQL is installed: set DATABASE_URL"
        return _wrong("database", missing), None
    if url := running_address(settings.data_dir):
        return Finding("database", is_well=True, says=f"DATABASE_URL is not set: {place} runs", is_note=True), url
    says = f"DATABASE_URL is not set: `serve` would start {place}, which is for development"
    return Finding("database", is_well=True, says=says, is_note=True), None


async def _keys(settings: Settings) -> Finding:
    secret = settings.auth_secret.get_secret_value() if settings.auth_secret else None
    url, file = settings.auth_jwks_url, settings.auth_jwks_file
    source = "AUTH_JWKS_URL" if url else "AUTH_JWKS_FILE" if file else "AUTH_SECRET"
    try:
        async with Authenticator.open(enabled=True, jwks_url=url, jwks_file=file, secret=secret) as authenticator:
            has_keys, problem = authenticator.has_keys, authenticator.problem
    except (OSError, ValueError) as error:
        return _wrong("keys", f"{source}: {error}")
    if not has_keys:
        return _wrong("keys", f"{source} gave no keys ({problem}): check the URL and the network")
    return _well("keys", f"{source} has keys")


def _gateway_keys(settings: Settings) -> Sequence[GatewayKey]:
    try:
        return [*gateway_keys(settings).values()]
    except ConfigurationError:  # it is among the problems
        return []


async def _gateway(key: GatewayKey) -> Finding:
    """Whether the gateway accepts its API key. Only a deletion would show whether the key may delete."""
    try:
        async with GatewayClient.open(key, Pace(key.api.rate)) as client:
            await client.probe()
    except StoppedError as wrong:
        is_unreachable = wrong.answer is not None and not wrong.answer.has_response
        what = "the network" if is_unreachable else "the key and the network"
        base = f" and {key.api.name.upper()}_API_BASE" if key.base_url else ""
        return _wrong("gateway", f"{key.gateway}: {wrong}. Check {what}{base}")
    return _well("gateway", f"{key.gateway}: {key.api.name} accepts the key")


async def _database(
    url: str, settings: Settings, tested: Sequence[int], max_open_seconds: float
) -> AsyncGenerator[Finding]:
    try:
        async with _primary(url) as connection:
            yield _server(connection, described(url), tested)
            async for finding in _kind(connection, url):
                yield finding
            if settings.database_prepared_statements and await _is_shared(connection, url):
                yield _wrong("pooler", _POOLER)
            async for finding in _contents(connection, settings, max_open_seconds):
                yield finding
            yield await _indexes(connection)
            yield await _clock(connection)
            async for finding in _log(connection):
                yield finding
            async for finding in _outcomes(connection):
                yield finding
    except FAILURES as error:
        yield _wrong("database", f"{described(url)} cannot be used ({reason(error)}): {remedy(error)}")


async def _contents(
    connection: asyncpg.Connection, settings: Settings, max_open_seconds: float
) -> AsyncIterator[Finding]:
    """Whether the role can use the tables, and what is in them; if it cannot, which checks are left out."""
    if missing := await missing_grants(connection):
        yield _wrong("grants", _to_grant(missing))
        yield _left_out("migrations", "grants are missing")
        yield _left_out("feed", "grants are missing")
        return
    if tables := await elsewhere(connection):
        path, schemas = tables
        to_do = f"run `alter role … set search_path = {schemas}`, or change it in DATABASE_URL"
        yield _wrong("database", f"the tables are in the schema {schemas}, but search_path is {path}: {to_do}")
        yield _left_out("migrations", "search_path is wrong")
        yield _left_out("feed", "search_path is wrong")
        return
    migrations = await _migrations(connection)
    if migrations.is_well:
        yield _well("grants", "are complete")
    yield migrations
    if not migrations.is_well:
        yield _left_out("feed", "the database is not migrated")
        return
    async for finding in _tables(connection, settings, max_open_seconds):
        yield finding


def _to_grant(missing: Sequence[str]) -> str:
    if len(missing) == 1:
        return f"one is missing: as the owner or a superuser, run `{missing[0]}`"
    statements = "".join(f"\n{' ' * 18}{statement};" for statement in missing)
    return f"{len(missing)} are missing. As the owner or a superuser, run:{statements}"


def _left_out(check: str, why: str) -> Finding:
    return Finding(check, is_well=True, says=f"not checked, because {why}", is_note=True)


async def _tables(
    connection: asyncpg.Connection, settings: Settings, max_open_seconds: float
) -> AsyncIterator[Finding]:
    """What is in the tables, which takes the grants."""
    if finding := await _customer_ids(connection, settings):
        yield finding
    async for finding in _partitions(connection):
        yield finding
    async for finding in _citus(connection):
        yield finding
    yield await _feed(connection, max_open_seconds)
    async for finding in _endpoints(connection):
        yield finding


@asynccontextmanager
async def _primary(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await connect_to_primary(url, seconds=_CONNECT_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _replica_at(address: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(address, timeout=_CONNECT_SECONDS, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


def _server(connection: asyncpg.Connection, name: str, tested: Sequence[int]) -> Finding:
    major = connection.get_server_version().major
    if major in tested:
        return _well("database", f"{name} answers, PostgreSQL {major}")
    return _wrong("database", f"{name} is PostgreSQL {major}: use one of {tested[0]} to {tested[-1]}")


async def _kind(connection: asyncpg.Connection, url: str) -> AsyncIterator[Finding]:
    """Whether the database is the one that was meant, and keeps text as Unicode."""
    [(name, encoding)] = await connection.fetch(_KIND)
    if described(url).startswith(UNNAMED):
        says = f"DATABASE_URL names no database, so it is {name}: add /{name} or another name to its end"
        yield Finding("database", is_well=True, says=says, is_note=True)
    if encoding != "UTF8":
        yield _wrong("database", f"its encoding is {encoding}: create the database with encoding UTF8")


async def _log(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """The details of errors in PostgreSQL's log quote rows, which an erasure does not reach."""
    if await connection.fetchval("show log_error_verbosity") != "terse":
        advice = "PostgreSQL logs user and customer ids with errors: set log_error_verbosity = terse for this database"
        yield Finding("log", is_well=True, says=advice, is_note=True)


async def _outcomes(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """Whether the service can find out if a change that a restart of PostgreSQL interrupted was made."""
    try:
        await connection.execute(READ_LOG)
    except FORBIDDEN as forbidden:
        says = (
            f"PostgreSQL hides its log ({forbidden.args[0]}): a change that a restart of PostgreSQL interrupts may be "
            "answered UNAVAILABLE although it was made. If your provider allows it, grant execute on "
            "pg_walfile_name(pg_lsn), pg_current_wal_insert_lsn() and pg_control_checkpoint() to the service's role"
        )
        yield Finding("outcomes", is_well=True, says=says, is_note=True)


async def _is_shared(connection: asyncpg.Connection, url: str) -> bool:
    """Whether two connections that are both open are one at the server: a pooler lends it to each for a transaction."""
    async with _primary(url) as other:
        pids = [await each.fetchval(_PID) for each in (connection, other, connection)]
    return pids[1] in pids[::2] or pids[0] != pids[2]


async def _migrations(connection: asyncpg.Connection) -> Finding:
    try:
        current, newest = await current_revision(connection), newest_revision()
    except UnavailableError as foreign:
        return _wrong("migrations", str(foreign))
    if current is not None and current >= newest:
        newer = "" if current == newest else f", newer than this release's {newest}"
        return _well("migrations", f"are current, {current}{newer}")
    state = f"are at {current}, not {newest}" if current else "have not run (the database is empty)"
    to_do = "run `gateway-tokens migrate` as the role that owns the tables, then run `doctor` again"
    return _wrong("migrations", f"{state}: {to_do}")


async def _customer_ids(connection: asyncpg.Connection, settings: Settings) -> Finding | None:
    """Whether ids of other objects, such as cards, were saved at a gateway for which CUSTOMER_IDS requires no form."""
    rows = await connection.fetch(OTHER_OBJECTS.sql)
    asked_for = settings.rules_of_gateways.id_patterns
    says = payment_methods((gateway, count) for gateway, count in rows if gateway not in asked_for)
    return Finding("customers", is_well=True, says=says, is_note=True) if says else None


async def _partitions(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """Which tables are partitioned, if any, and which are on their way."""
    parts = {table: await parts_of(connection, table) for table in KEYS}
    if any(parts.values()):
        yield _well("partitions", ", ".join(f"{count or 'none'} of {table}" for table, count in parts.items()))
    for table in await unfinished(connection):
        command = f"gateway-tokens partition --table {table}"
        begun = await parts_of(connection, f"{table}_parted")
        says = (
            f"{table} is being partitioned, or that stopped: `{command} --parts {begun}` continues, "
            f"`{command} --cancel` undoes it"
        )
        yield Finding("partitions", is_well=True, says=says, is_note=True)


async def _citus(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """Whether the tables are distributed, what of that is wrong, and what does not hold there."""
    cluster = await cluster_of(connection)
    if cluster is None:
        return
    if not cluster.is_coordinator:
        yield _wrong("citus", "this node is a worker: set DATABASE_URL to the coordinator")
        return
    name = f"version {cluster.version} with {cluster.workers} workers"
    if not cluster.is_distributed:
        yield Finding("citus", is_well=True, says=f"{name}: no table is distributed", is_note=True)
        return
    for node in cluster.silent:
        yield _wrong("citus", f"the worker {node} does not answer, and nor does what asks for its users: start it")
    if not await connection.fetchval(_MAY_ERASE):
        yield _wrong("citus", "erasures need a grant: run `grant update on customer_gateway_token_events` to this role")
    if await outdated_functions(connection):
        yield _wrong("citus", "the functions are of another release: run `gateway-tokens migrate`")
    shards = ", ".join(f"{count} shards of {table}" for table, count in cluster.shards.items())
    yield _well("citus", f"{name}: {shards}")
    yield Finding("citus", is_well=True, says=_ON_CITUS, is_note=True)


async def _feed(connection: asyncpg.Connection, max_open_seconds: float) -> Finding:
    """Whether a transaction delays the change feed. PostgreSQL may hide those of other roles."""
    row = await connection.fetchrow(_OLDEST_WRITER)
    if row is not None and row[1] is None:
        return _well("feed", "is not held up by what this role may see: membership in pg_read_all_stats shows the rest")
    if row is None or row[1] < max_open_seconds:
        return _well("feed", "is not held up")
    who, seconds = row
    return _wrong("feed", f"is held up by {who}, a write transaction that has been open for {seconds:.0f} s: end it")


async def _endpoints(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    next_at = _NEXT_AT_DISTRIBUTED if await adapt(connection) else _NEXT_AT
    for name, error, is_disabled in await connection.fetch(_ENDPOINTS_BEHIND % next_at):
        if error is None:
            yield _wrong(
                "endpoint", f"{name} gets nothing: run `gateway-tokens deliver`, or see why it does not deliver"
            )
        elif is_disabled:
            yield _wrong("endpoint", f"{name} is disabled, since it {error}: fix it, then `deliver --resume {name}`")
        else:
            yield _wrong("endpoint", f"{name} {error}: fix it; entries are sent again")


async def _indexes(connection: asyncpg.Connection) -> Finding:
    invalid: list[str] = await connection.fetchval(_INVALID_INDEXES) or []
    if not invalid:
        return _well("indexes", "are valid")
    commands = "; ".join(f"reindex index concurrently {name}" for name in invalid)
    return _wrong("indexes", f"some are invalid and not used: run `{commands}`")


async def _clock(connection: asyncpg.Connection) -> Finding:
    before = time()
    database: float = await connection.fetchval("select extract(epoch from clock_timestamp())::float8") or 0.0
    after = time()
    skew = max(before - database, database - after, 0.0)
    if skew <= _MAX_SKEW_SECONDS:
        return _well("clock", "agrees with the database's")
    return _wrong("clock", f"is {skew:.1f} s off the database's: use the same NTP servers for both")


async def _replica(address: str, primary_url: str, most: float) -> Finding:
    name = place(address)
    try:
        return await _lag(name, address, primary_url, most)
    except FAILURES as error:
        to_do = "check DATABASE_REPLICA_URL. Until then, reads use the primary"
        return _wrong("replica", f"{name} cannot be reached or compared with the primary ({reason(error)}): {to_do}")


async def _lag(name: str, address: str, primary_url: str, most: float) -> Finding:
    """How long the replica takes to replay what the primary has now."""
    async with _primary(primary_url) as primary:
        [(end,)] = await primary.fetch(_END_OF_LOG)
    began = monotonic()
    async with _replica_at(address) as replica:
        while True:
            [(is_standby, has_all, age)] = await replica.fetch(_REPLAYED, end)
            lag = monotonic() - began
            if not is_standby:
                return _wrong(
                    "replica",
                    f"{name} is not a standby and is not used: set DATABASE_REPLICA_URL to a streaming replica",
                )
            if has_all:
                return _well("replica", f"{name} is in sync with the primary")
            if lag > min(most, _MAX_WAIT_SECONDS):
                break
            await asyncio.sleep(_LOOK_EVERY)
    lag = max(lag, age or 0.0)
    if lag <= most:
        return _well("replica", f"{name} is up to {lag:.0f} s behind")
    to_do = "check its load, its network and its replication"
    return _wrong("replica", f"{name} is {lag:.0f} s or more behind, which exceeds REPLICA_MAX_LAG: {to_do}")
