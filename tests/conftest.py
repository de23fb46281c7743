"""What tests share: a PostgreSQL for the whole run, a migrated database for each worker, and clients of the service."""

import os
import secrets
import shutil
import signal
from contextlib import AsyncExitStack, nullcontext
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.embedded import embedded_postgres, running_address
from graphql_api.settings import Settings
from graphql_api.storage import migrate
from graphql_api.storage.bulkheads import Patience
from graphql_api.storage.connection import Connection
from graphql_api.storage.distribution import distribute
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.partitioning import KEYS, Partitioning, alone
from graphql_api.storage.pool import SESSION, ConnectionPool
from tests.asgi import Client, opened
from tests.citus import Cluster
from tests.coming import Coming
from tests.faults.proxy import Proxy
from tests.graph import Graph
from tests.pooler import count_on_no_session, pgbouncer

AUTH_SECRET = "a secret of the tests, which is no secret"
POOLED = "TEST_POOLER" in os.environ
PARTITIONS = int(os.environ.get("TEST_PARTITIONS", "0"))
CITUS = os.environ.get("TEST_CITUS_URL", "")
SHARDS = 4
WAITING_ON_WORKERS = "(select count(*) from citus_lock_waits)" if CITUS else "0"
"""SQL for how many statements wait for locks on workers, which `pg_stat_activity` of the coordinator does not show."""
GIVEN = CITUS or os.environ.get("TEST_DATABASE_URL", "")


def pytest_configure():
    """Let a run that is told to end close what it opened, as after Ctrl-C, which a shell's background jobs ignore."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.default_int_handler)
    if POOLED:
        count_on_no_session()


def pytest_terminal_summary(terminalreporter):
    """The table of what was measured, by this process or its workers: those alone look into the folders of tests."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    figures = [
        (report.nodeid.partition("::")[2], *figure)
        for report in reports
        for name, figure in report.user_properties
        if name == "measured"
    ]
    if figures:
        terminalreporter.section("measured")
        for test, what, figure in figures:
            terminalreporter.write_line(f"{test:72} {what:48} {figure}")


@pytest.fixture(scope="session")
def server_url(tmp_path_factory, worker_id):
    """A PostgreSQL to make databases on: the one of TEST_DATABASE_URL, or one of our own that all workers share."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder if worker_id == "master" else folder.parent
    unsafe = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    with nullcontext(GIVEN) if GIVEN else embedded_postgres(shared, unsafe) as url:
        yield url
    if not GIVEN and not running_address(shared):  # no other worker uses it
        shutil.rmtree(shared / "postgresql")


@pytest.fixture(scope="session")
def pooled(server_url, tmp_path_factory):
    """The way to a database that the service takes: where TEST_POOLER is set, one that leads through PgBouncer."""
    if not POOLED:
        yield lambda url: url
        return
    # Every test's database has a pool of its own, which must not keep what the next ones need.
    with pgbouncer(tmp_path_factory.mktemp("pgbouncer"), server_url, server_idle_timeout=5) as pooler:
        yield pooler.to


@pytest.fixture(scope="session")
def straight(server_url):
    """The way to a database that passes no pooler."""
    return lambda url: urlsplit(server_url)._replace(path=urlsplit(url).path).geturl()


@pytest.fixture
async def by_tcp(server_url, straight, monkeypatch):
    """A proxy before the server, and the way through it to a database, without TLS: it looks into what passes."""
    monkeypatch.setenv("PGSSLMODE", "disable")
    server = urlsplit(server_url)
    socket = {name: value for name, [value] in parse_qs(server.query).items()}
    there = (
        Proxy.to_socket("{host}/.s.PGSQL.{port}".format(**socket)) if socket else Proxy.to(server.hostname, server.port)
    )
    async with there as proxy:

        def way(url):
            user, _, _ = urlsplit(server_url).netloc.rpartition("@")
            return f"postgresql://{user}@127.0.0.1:{proxy.port}{urlsplit(url).path}"

        yield proxy, way


@pytest.fixture(scope="session")
async def administrator(server_url):
    """A connection that makes and drops databases."""
    connection = await asyncpg.connect(server_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def cluster():
    """The Citus cluster of TEST_CITUS_URL, the address of its coordinator; None without it."""
    async with Cluster.of(CITUS) if CITUS else nullcontext() as cluster:
        yield cluster


@pytest.fixture(scope="session")
async def new_database(pooled, straight, administrator, cluster):
    """Makes databases, empty or as copies of another one, that are gone after the run."""
    names = []

    async def make(template="template0"):
        names.append(f"test_{secrets.token_hex(6)}")
        if cluster and template != "template0":
            await cluster.copy(template, names[-1])
        else:
            await administrator.execute(f"create database {names[-1]} template {template}")
        for name, value in SESSION.items() if POOLED else ():
            await administrator.execute(f"alter database {names[-1]} set {name} = {value}")
        return pooled(straight(f"/{names[-1]}"))

    yield make
    for name in names if GIVEN else ():  # our own server ends with the run, and takes them along
        await (cluster.drop(name) if cluster else administrator.execute(f"drop database {name} with (force)"))


@pytest.fixture(scope="session")
async def migrated_database(new_database, straight, cluster):
    """The name of a database that is migrated and otherwise untouched, to copy from."""
    url = await new_database()
    await upgrade(straight(url))  # what a pooler keeps open cannot be copied
    if PARTITIONS:
        async with alone(straight(url)) as connection:
            for table in KEYS:
                await (await Partitioning.of(connection, table, PARTITIONS)).run(lambda *_: None)
    name = urlsplit(url).path.removeprefix("/")
    if cluster:
        await cluster.join(name)
        connection = await asyncpg.connect(url)
        await distribute(connection, SHARDS)
        await connection.close()
    return name


@pytest.fixture(scope="session")
async def database_url(new_database, migrated_database):
    """This worker's migrated database. Tests that count on what it holds also ask for `empty_database`."""
    return await new_database(migrated_database)


@pytest.fixture(scope="session")
async def _emptier(database_url):
    connection = await asyncpg.connect(database_url)
    names = await connection.fetch(
        "select format('%I', tablename) from pg_tables"
        " where schemaname = 'public' and tablename not in ('alembic_version', 'erasure_key')"
    )
    # To truncate a table takes milliseconds, whether or not it holds anything, and most tests write to few.
    filled = " union all ".join(f"select '{name}' where exists (select 1 from {name})" for (name,) in names)  # noqa: S608

    async def empty():
        if tables := await connection.fetchval(f"select string_agg(name, ', ') from ({filled}) as filled (name)"):  # noqa: S608
            await connection.execute(f"set local lock_timeout = '5s'; truncate {tables} restart identity")

    yield empty
    await connection.close()


@pytest.fixture
async def empty_database(_emptier, database_url):
    """This worker's database with nothing but what the migrations put there."""
    await _emptier()
    return database_url


@pytest.fixture(scope="session")
async def app(database_url):
    """The service on this worker's database, as it runs in production: whoever has no access token is nobody."""
    async with opened(create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET))) as app:
        yield app


@pytest.fixture
def client(app, empty_database):
    """Nobody, asking a service without a token in its database."""
    return Client(app)


@pytest.fixture
def as_user(app, empty_database):
    """Makes a user: `as_user("u1")`."""
    return lambda user_id: Client(app, mint(AUTH_SECRET, user_id))


@pytest.fixture
def as_service(app, empty_database):
    """Makes a service with scopes: `as_service("gateway-tokens:read")`."""
    return lambda *scopes: Client(app, mint(AUTH_SECRET, "a-service", scopes))


@pytest.fixture
def graph(as_service):
    """What a service may do that may do everything."""
    return Graph(as_service(ADMIN_SCOPE))


@pytest.fixture(scope="session")
async def connection(database_url):
    """A connection of the tests' own, to see what is in the tables."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def url(empty_database, straight):
    """The address of an empty database, even if the service goes through a pooler."""
    return straight(empty_database)


@pytest.fixture
async def pool(url):
    """A pool of connections to it."""
    async with ConnectionPool.open(url) as pool:
        yield pool


@pytest.fixture
def deadlocks(monkeypatch):
    """The deadlocks that PostgreSQL had to resolve; the service tries again, so that nothing else tells of them."""
    found = []
    fetch = Connection.fetch

    async def noted(self, statement, *arguments):
        try:
            return await fetch(self, statement, *arguments)
        except asyncpg.DeadlockDetectedError as error:
            found.append(error)
            raise

    monkeypatch.setattr(Connection, "fetch", noted)
    return found


@pytest.fixture
def statements(monkeypatch):
    """The SQL of every statement that the service runs from now on; what is late does not run again meanwhile."""
    # New connections plan slowly on a busy machine, and more so on Citus.
    monkeypatch.setattr(Patience, "ends", lambda _patience, _looks: False)
    monkeypatch.setattr(Patience, "ends_change", lambda _patience, _looks: False)
    run = []
    fetch = Connection.fetch

    async def noted(self, statement, *arguments):
        run.append(statement.sql)
        return await fetch(self, statement, *arguments)

    monkeypatch.setattr(Connection, "fetch", noted)
    return run


@pytest.fixture
async def service_with(empty_database):
    """Makes a service with other settings than the usual ones, and asks it as one who may do everything."""
    async with AsyncExitStack() as stack:

        async def make(**settings):
            app = create_app(Settings(database_url=empty_database, auth_secret=AUTH_SECRET, **settings))
            running = await stack.enter_async_context(opened(app))
            return Graph(Client(running, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))

        yield make


@pytest.fixture
def coming(tmp_path):
    """A folder to which migrations are added; the database of the run has none of them."""
    folder = shutil.copytree(migrate.VERSIONS, tmp_path / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    return Coming(folder)
