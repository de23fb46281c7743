"""PgBouncer in transaction mode between services and PostgreSQL: nothing may count on a connection's session."""

import asyncio
import contextlib
import sys

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import UnavailableError
from graphql_api.settings import Settings
from graphql_api.storage.migrate import _revision, newest_revision, upgrade
from graphql_api.storage.partitioning import alone
from tests.asgi import Client, opened
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.service import serving
from tests.graph import Graph, wanted
from tests.pooler import pgbouncer
from tests.until import until

SECRET = "a secret of the tests, which is no secret"
ENVIRONMENT = {"DATABASE_PREPARED_STATEMENTS": "false", "DRAIN_SECONDS": "0"}
OF_USER = '{ _entities(representations: [{__typename: "User", id: "u1"}]) { ... on User { gatewayTokens { id } } } }'


@pytest.fixture(scope="module")
def pooler(postgres, tmp_path_factory):
    """Few connections, so that services have to share each of them."""
    with pgbouncer(tmp_path_factory.mktemp("pgbouncer"), postgres.url, default_pool_size=4) as pooler:
        yield pooler


@pytest.fixture
async def database(postgres, request):
    """A database of the test's own on the server: its name."""
    name = f"pooled_{abs(hash(request.node.name))}"
    await postgres.ask(f"create database {name}")
    return name


@pytest.fixture
def url(pooler, database):
    return pooler.to(f"/{database}")


@pytest.fixture
def straight(postgres, database):
    """The way around the pooler."""
    return postgres.url.removesuffix("/postgres") + f"/{database}"


async def left_behind(url):
    """Statements that are prepared on any of the pooler's connections, each of which is held by a transaction."""
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for _ in range(4):
            connection = await asyncpg.connect(url, statement_cache_size=0)
            stack.push_async_callback(connection.close)
            await connection.execute("begin")
            rows = await connection.fetch(
                "select pg_backend_pid() as pid, (select array_agg(name) from pg_prepared_statements) as names"
            )
            found[rows[0]["pid"]] = rows[0]["names"]
        assert len(found) == 4
        return [names for names in found.values() if names]


async def test_two_services_share_connections_and_leave_no_statement_behind(url, straight, tmp_path, measured):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        starting = [stack.enter_async_context(serving(each, DATABASE_URL=url, **ENVIRONMENT)) for each in folders]
        services = [await each for each in starting]  # the first one migrates
        load = Load([service.graphql for service in services], reads=60, saves=20)
        async with load.running():
            await asyncio.sleep(3)
        measured("failed", f"{len(load.failed())} of {len(load.answers)}")
        assert not load.failed()
        assert await load.differences(straight) == []
        assert await left_behind(url) == []


async def test_eight_that_migrate_at_once_all_succeed_and_leave_nothing_behind(url):
    await asyncio.gather(*(upgrade(url) for _ in range(8)))
    assert await _revision(url) == newest_revision()
    assert await left_behind(url) == []


async def test_a_pooler_with_one_connection_is_named_by_what_takes_two(postgres, straight, tmp_path):
    async def partition(url):
        async with alone(url):
            pytest.fail("There were two connections.")

    with pgbouncer(tmp_path, postgres.url, default_pool_size=1) as one:
        asked = asyncio.gather(upgrade(one.to(straight)), partition(one.to("/postgres")), return_exceptions=True)
        async with asyncio.timeout(30):
            said = await asked
    assert [isinstance(each, UnavailableError) and "default_pool_size" in str(each) for each in said] == [True, True]


@pytest.mark.parametrize("command", [["demo", "--users", "50"], ["export", "-", "--format", "csv"]])
async def test_commands_leave_nothing_behind(url, command):
    await upgrade(url)
    environment = {**ENVIRONMENT, "DATABASE_URL": url, "PATH": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graphql_api", *command, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    assert await left_behind(url) == []


@pytest.fixture
async def graph(url):
    """A service that waits long for a statement, unless the server does not."""
    await upgrade(url)
    settings = Settings(database_url=url, database_prepared_statements=False, database_timeout=0.5, auth_secret=SECRET)
    async with opened(create_app(settings)) as app:
        yield Graph(Client(app, mint(SECRET, "a-service", [ADMIN_SCOPE])))


async def test_a_statement_that_takes_too_long_is_cancelled_on_the_server(graph, straight):
    connection = await asyncpg.connect(straight)
    try:
        async with connection.transaction():
            await connection.execute("lock table customer_gateway_tokens")
            answers = await asyncio.gather(*(graph.client(OF_USER) for _ in range(3)))
            assert {answer["errors"][0]["extensions"]["code"] for answer in answers} == {"UNAVAILABLE"}
            free = "select count(*) = 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = $1"
            name = straight.rpartition("/")[2]
            await until(lambda: connection.fetchval(free, name), "no statement waits for the lock any more")
    finally:
        await connection.close()
    assert await graph.ask(OF_USER) == {"_entities": [{"gatewayTokens": []}]}


async def test_a_time_limit_of_the_role_holds_too(url, straight):
    connection = await asyncpg.connect(straight)
    try:
        await upgrade(straight)
        await connection.execute(f"alter database {straight.rpartition('/')[2]} set statement_timeout = '300ms'")
        settings = Settings(
            database_url=url, database_prepared_statements=False, database_timeout=60, auth_secret=SECRET
        )
        async with opened(create_app(settings)) as app, connection.transaction():
            await connection.execute("lock table customer_gateway_tokens")
            answer = await Client(app, mint(SECRET, "a-service", [ADMIN_SCOPE]))(OF_USER)
            assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    finally:
        await connection.close()


@pytest.fixture
async def by_proxy(pooler, straight):
    async with served_by(pooler, straight) as served:
        yield served


@contextlib.asynccontextmanager
async def served_by(pooler, straight):
    """A service that waits very long for a statement, and the proxy before its pooler."""
    await upgrade(straight)
    async with Proxy.to("127.0.0.1", pooler.port) as proxy:
        url = pooler.to(straight).replace(f":{pooler.port}", f":{proxy.port}")
        times = {"database_timeout": 60, "request_timeout": 120}
        settings = Settings(database_url=url, database_prepared_statements=False, auth_secret=SECRET, **times)
        async with opened(create_app(settings)) as app:
            yield Graph(Client(app, mint(SECRET, "a-service", [ADMIN_SCOPE]))), proxy


def lose_once(proxy, lost, what):
    """Lose one connection without a word, with the next request to the pooler in which this is."""
    cuts = iter([lost])
    proxy.silences = lambda chunk: next(cuts, None) if what in chunk else None


def is_unavailable(answer):
    """Whether it is an error, which has to be this one."""
    codes = [error["extensions"]["code"] for error in answer.get("errors", ())]
    assert codes in ([], ["UNAVAILABLE"])
    return bool(codes)


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("what", [b"begin", b"pg_current_xact_id", b"insert into departed_tokens", b"commit"])
async def test_a_transaction_whose_connection_to_the_pooler_is_lost_without_a_word_waits_for_no_timeout(
    by_proxy, straight, what, lost
):
    graph, proxy = by_proxy
    await graph.saved("u1", "STRIPE", "cus_1")
    lose_once(proxy, lost, what)
    async with asyncio.timeout(30):
        answer = await graph.answer("erase", userId="u1")
    assert proxy.lost == 1
    if not is_unavailable(answer):
        erased = [{"gateway": "STRIPE", "gatewayCustomerId": "cus_1"}]
        assert answer["data"]["eraseUserGatewayTokens"]["erased"] == erased
    connection = await asyncpg.connect(straight)
    try:
        left = "select count(*) = 0 from pg_stat_activity where state like 'idle in%' and datname = $1"
        name = straight.rpartition("/")[2]
        await until(lambda: connection.fetchval(left, name), "no backend is left in a transaction")
    finally:
        await connection.close()


SYNC = b"S\0\0\0\4"  # ends a request after which PostgreSQL waits for the next one, outside a statement


@pytest.mark.parametrize(
    ("ends", "settings"),
    [
        (SYNC, {"default_pool_size": 2}),
        (b"", {"default_pool_size": 2, "reserve_pool_size": 2, "reserve_pool_timeout": 1}),
    ],
    ids=["between statements", "in a statement, with a reserve"],
)
async def test_lost_transactions_that_hold_all_connections_of_a_pooler_are_ended(
    postgres, straight, tmp_path, ends, settings
):
    with pgbouncer(tmp_path, postgres.url, **settings) as pooler:
        async with served_by(pooler, straight) as (graph, proxy):
            cuts = iter(["answer"] * 2)
            proxy.silences = lambda chunk: (
                next(cuts, None) if b"pg_current_xact_id" in chunk and chunk.endswith(ends) else None
            )
            async with asyncio.timeout(30):
                answers = await asyncio.gather(*(graph.answer("erase", userId=f"u{number}") for number in range(2)))
            assert proxy.lost == 2
            assert all(is_unavailable(answer) or "data" in answer for answer in answers)

            async def saves():
                return not is_unavailable(await graph.answer("save", input=wanted("u9", "STRIPE", "cus_9")))

            await until(saves, "the pooler has a connection again")


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_read_whose_connection_to_the_pooler_is_lost_without_a_word_waits_for_no_timeout(by_proxy, lost):
    graph, proxy = by_proxy
    token = await graph.saved("u1", "STRIPE", "cus_1")
    lose_once(proxy, lost, b"customer_gateway_tokens")
    async with asyncio.timeout(30):
        answer = await graph.client(OF_USER)
    assert proxy.lost == 1
    if not is_unavailable(answer):
        assert answer["data"]["_entities"] == [{"gatewayTokens": [{"id": token["id"]}]}]


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_change_of_one_token_whose_connection_to_the_pooler_is_lost_waits_for_no_timeout(by_proxy, lost):
    graph, proxy = by_proxy
    token = await graph.saved("u1", "STRIPE", "cus_1")
    lose_once(proxy, lost, b"update customer_gateway_tokens")
    change = {"id": token["id"], "description": "new", "expectedVersion": 1}
    async with asyncio.timeout(30):
        answer = await graph.answer("update", input=change)
    assert proxy.lost == 1
    if not is_unavailable(answer):
        payload = answer["data"]["updateCustomerGatewayToken"]
        assert (payload["userErrors"], payload["gatewayToken"]["version"]) == ([], 2)
