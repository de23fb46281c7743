"""What a pool does with connections that rest, hang, or cannot be opened; a database that goes away is in `faults`."""

import asyncio
import io
import secrets
from functools import partial

import asyncpg
import orjson
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain import deadline
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability import logs
from graphql_api.settings import Settings
from graphql_api.storage import connection_set
from graphql_api.storage import pool as pools
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import ConnectionLostError, Reads, Statement
from graphql_api.storage.connection_set import READ_ONLY, PoolOptions
from graphql_api.storage.connector import Connector
from graphql_api.storage.pool import ConnectionPool
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, CITUS
from tests.graph import Graph, wanted
from tests.storage.test_roles import as_role
from tests.until import until

TYPES = b"typeinfo_tree"
"""Part of the statement by which the driver learns about types, such as uuid[]; it does not name the connection."""
BACKEND = Statement("backend", "select pg_backend_pid()")
SETTINGS = Statement(
    "settings",
    "select current_setting('statement_timeout') as statement,"
    " current_setting('idle_in_transaction_session_timeout') as idle",
)


@pytest.fixture
async def own_database(new_database, migrated_database):
    return await new_database(migrated_database)


@pytest.fixture
async def connection_to(own_database, straight):
    connection = await asyncpg.connect(straight(own_database))
    yield connection
    await connection.close()


async def backend(pool):
    return (await pool.fetch(BACKEND))[0][0]


async def has_rested(pool):
    await until(lambda: pool.connections._rested, "a connection rests")


async def test_a_connection_that_rested_is_used_again(database_url):
    async with ConnectionPool.open(database_url, options=PoolOptions(rest_seconds=0)) as pool:
        first = await backend(pool)
        await has_rested(pool)
        assert pool.connections.idle == 1
        assert await backend(pool) == first


async def test_connections_that_were_dropped_without_a_word_while_they_rested_are_replaced(by_tcp, database_url):
    proxy, way = by_tcp
    options = PoolOptions(rest_seconds=0, ping_seconds=0.05)
    async with ConnectionPool.open(way(database_url), watches=False, options=options) as pool:
        first = await asyncio.gather(*(backend(pool) for _ in range(3)))
        await until(
            lambda: pool.connections._rested and len(pool.connections._rested) == len(pool.connections.open),
            "all connections rest",
        )
        proxy.forget()
        assert await asyncio.wait_for(backend(pool), 5) not in first
        assert pool.connections.timeouts == 0


async def test_that_the_database_is_away_is_not_logged_as_if_it_concerned_one_request(by_tcp, database_url):
    proxy, way = by_tcp
    logs.configure("info", "json", lines := io.BytesIO())
    logs.request_id.set("of a request")
    async with ConnectionPool.open(way(database_url)) as pool:
        proxy.slams = True
        with pytest.raises(UnavailableError):
            await backend(pool)
        proxy.slams = False
        await until(lambda: pool.connections.is_open, "there is a connection")
    events = [orjson.loads(line) for line in lines.getvalue().splitlines()]
    assert [(each["event"], "request_id" in each) for each in events] == [
        ("database is unavailable", False),
        ("database is available again", False),
    ]


async def test_an_idle_connection_is_closed_after_a_while(database_url):
    async with ConnectionPool.open(database_url, options=PoolOptions(rest_seconds=0, max_idle_seconds=0)) as pool:
        await backend(pool)
        await until(lambda: not pool.connections.is_open, "the connection is closed")
        assert await backend(pool)


async def test_idle_connections_of_one_age_are_not_closed_at_once(database_url):
    async with ConnectionPool.open(database_url) as pool:
        async with pool.transaction(), pool.transaction(), pool.transaction():
            ages = {connection.patience for connection in pool.connections.open}
        assert len(ages) == len(pool.connections.open) == 3
        assert 0.8 <= min(ages) < max(ages) <= 1.2


async def test_the_server_ends_what_was_left_behind(database_url, straight):
    for prepares, url in ((True, straight(database_url)), (False, database_url)):
        async with ConnectionPool.open(url, timeout=5, prepares=prepares) as pool:
            async with pool.transaction() as transaction:
                [row] = await transaction.fetch(SETTINGS)
            assert tuple(row) == ("10s", "2s")


async def test_a_transaction_that_pauses_too_long_is_ended_by_the_server_and_may_run_again(database_url, connection):
    async with ConnectionPool.open(database_url, options=PoolOptions(max_pause_seconds=0.01)) as pool:

        async def pause():
            async with pool.transaction("select pg_advisory_xact_lock(99)") as transaction:
                await until(lambda: connection.fetchval("select pg_try_advisory_lock(99)"), "the server ended it")
                await transaction.fetch(BACKEND)

        with pytest.raises(ConnectionLostError):
            await pause()
        await connection.execute("select pg_advisory_unlock(99)")
        assert await backend(pool)


async def test_what_runs_when_the_pool_is_closed_fails_and_is_not_run_again(database_url, connection):
    waits, holds = "select pg_advisory_xact_lock(97)", "select count(*) from pg_locks where not granted and objid = 97"

    async def change():
        async with pool.transaction(waits):
            pytest.fail("There was no lock to wait for.")

    await connection.execute("select pg_advisory_lock(97)")
    async with ConnectionPool.open(database_url) as pool:
        under_way = [pool.fetch(Statement("waits", waits, reads=kind)) for kind in (None, Reads.OWN)]
        running = [asyncio.create_task(each) for each in (*under_way, change())]
        await until(lambda: connection.fetchval(f"{holds} having count(*) = {len(running)}"), "all of them run")
    await connection.execute("select pg_advisory_unlock(97)")
    failed = await asyncio.gather(*running, return_exceptions=True)
    assert [each for each in failed if not isinstance(each, UnavailableError)] == []
    assert not pool.connections.open


async def test_a_partition_in_the_middle_of_a_transaction_leaves_no_lock(by_tcp, database_url, connection):
    proxy, way = by_tcp
    options = PoolOptions(server_grace_seconds=0)
    async with ConnectionPool.open(way(database_url), timeout=0.5, options=options) as pool:

        async def be_cut_off():
            async with pool.transaction("select pg_advisory_xact_lock(99)") as transaction:
                proxy.forget()
                await transaction.fetch(BACKEND)

        with pytest.raises(UnavailableError):
            await be_cut_off()
        await until(lambda: connection.fetchval("select pg_try_advisory_lock(99)"), "the server gives up the lock")
        await connection.execute("select pg_advisory_unlock(99)")
        assert await backend(pool)


async def test_a_change_whose_time_is_over_waits_for_no_connection_that_hangs(by_tcp, database_url):
    proxy, way = by_tcp
    options = PoolOptions(cleanup_seconds=60, stall_seconds=60)
    async with ConnectionPool.open(way(database_url), timeout=60, options=options) as pool:

        async def change():
            with deadline.until(asyncio.get_running_loop().time() + 0.2):
                async with pool.transaction() as transaction:
                    proxy.forget()
                    await transaction.fetch(BACKEND)

        async with asyncio.timeout(30):
            with pytest.raises(UnavailableError, match="nothing was changed"):
                await change()


async def test_a_mutation_waits_for_a_connection_no_longer_than_its_time(by_tcp, database_url, monkeypatch):
    """By any way on which it may wait, also for what it reads together with others."""
    monkeypatch.setattr(connection_set, "ACQUIRE_TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(pools, "ACQUIRE_TIMEOUT_SECONDS", 60)
    proxy, way = by_tcp
    await proxy.refuse()
    async with ConnectionPool.open(way(database_url)) as pool, asyncio.timeout(30):

        async def transact():
            async with pool.transaction():
                pass

        async def load(keys):
            return {key: await backend(pool) for key in keys}

        for waiting in (partial(backend, pool), transact, partial(RequestCoalescer(pool, load).load, ["a"])):
            with pytest.raises(UnavailableError), deadline.until(asyncio.get_running_loop().time() + 0.2):
                await waiting()


@pytest.mark.parametrize("kind", [None, Reads.OWN, Reads.BY_KEY])
async def test_a_mutation_keeps_its_time_while_a_statement_of_its_own_runs(database_url, connection, kind):
    """A change, or a read, on a connection that is whole, while another is lost."""
    waits = Statement("waits", "select pg_advisory_xact_lock_shared(96), $1::text", reads=kind)
    loop = asyncio.get_running_loop()

    async def mutate():
        with deadline.until(loop.time() + 60):
            await pool.fetch(waits, "a")
            return deadline.seconds_left()

    await connection.execute("select pg_advisory_lock(96)")
    async with ConnectionPool.open(database_url) as pool:
        running = asyncio.create_task(mutate())
        waiting = "select 1 from pg_locks where locktype = 'advisory' and objid = 96 and not granted"
        await until(lambda: connection.fetchval(waiting), "the statement waits for the lock")
        deadline.note_loss()
        await connection.execute("select pg_advisory_unlock(96)")
        assert await running > 30


async def cut(pool, proxy, lost, what):
    """Lose the connection of a transaction without a word."""
    cuts = iter([lost])
    proxy.silences = lambda chunk: next(cuts, None) if what in chunk else None
    async with pool.transaction("select pg_advisory_xact_lock(99)") as transaction:
        await transaction.fetch(Statement("last", "select 'the last one', null::uuid[]"))


async def test_a_mutation_that_lost_its_connection_has_little_time_left(database_url, connection, straight):
    async with ConnectionPool.open(straight(database_url)) as pool:
        with deadline.until(asyncio.get_running_loop().time() + 60):
            await connection.fetch("select pg_terminate_backend($1::int)", await backend(pool))
            await backend(pool)
            assert deadline.seconds_left() < 2.5


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("what", [b"begin", b"pg_current_xact_id", TYPES, b"the last one"])
async def test_a_connection_that_was_lost_without_a_word_is_noticed_soon_and_its_locks_are_free(
    by_tcp, database_url, connection, lost, what
):
    if CITUS and lost == "answer" and what in {b"pg_current_xact_id", b"the last one"}:
        pytest.skip("a statement that was prepared looks like one that waits for a worker: it takes DATABASE_TIMEOUT")
    proxy, way = by_tcp
    async with ConnectionPool.open(way(database_url), size=2, timeout=60) as pool:
        lost_one = await backend(pool)
        with pytest.raises(UnavailableError):
            await cut(pool, proxy, lost, what)
        await until(lambda: connection.fetchval("select pg_try_advisory_lock(99)"), "the lock is free")
        await connection.execute("select pg_advisory_unlock(99)")
        ended = "select not exists (select from pg_stat_activity where pid = $1)"
        await until(lambda: connection.fetchval(ended, lost_one), "its backend has ended")
        assert pool.connections.timeouts == 0


@pytest.fixture
async def role(connection):
    """A role that sees nothing of what other roles do."""
    name = f"test_{secrets.token_hex(6)}"
    await connection.execute(f"create role {name}")
    yield name
    await connection.execute(f"drop role {name}")


@pytest.mark.parametrize("takes_role", [False, True])
async def test_what_waits_for_a_lock_is_not_taken_for_lost(
    by_tcp, database_url, connection, monkeypatch, role, takes_role
):
    asked, ask = [], Connector.lost
    monkeypatch.setattr(Connector, "lost", lambda *arguments: asked.append(arguments) or ask(*arguments))
    _, way = by_tcp
    url = as_role(way(database_url), role) if takes_role else way(database_url)
    async with ConnectionPool.open(url, size=1) as pool:
        await connection.execute("select pg_advisory_lock(98)")

        waiting = asyncio.create_task(pool.fetch(Statement("wait", "select pg_advisory_xact_lock(98)")))
        await until(lambda: len(asked) > 1, "the database was asked about it")
        await connection.execute("select pg_advisory_unlock(98)")
        assert await waiting
        assert pool.connections.losses == 0


async def test_a_transaction_waits_for_a_lock_no_longer_than_it_may_take_to_notice_a_lost_connection(
    database_url, connection
):
    async with ConnectionPool.open(database_url, timeout=30) as pool:
        await connection.execute("select pg_advisory_lock(98)")
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with pool.transaction(repeats=True) as transaction:
                await transaction.execute("select pg_advisory_xact_lock(98)")
        await connection.execute("select pg_advisory_unlock(98)")
        assert pool.connections.losses == 0


async def test_any_error_at_connecting_gives_its_slot_back(database_url, monkeypatch):
    connect, failures = Connector.connect, [Exception("SCRAM"), asyncpg.InternalClientError("SCRAM")]

    async def fail(self):
        if failures:
            raise failures.pop()
        return await connect(self)

    monkeypatch.setattr(Connector, "connect", fail)
    async with ConnectionPool.open(database_url, size=1) as pool:
        assert await backend(pool)
        assert pool.connections._opening == 0


async def test_the_statement_used_last_stays_prepared_longest(database_url, straight):
    statements = [Statement(f"{number}", f"select {number}") for number in range(3)]
    options = PoolOptions(max_prepared=2)
    async with ConnectionPool.open(straight(database_url), size=1, prepares=True, options=options) as pool:
        for statement in (statements[0], statements[1], statements[0], statements[2]):
            await pool.fetch(statement)
        [connection] = pool.connections.open
        assert list(connection._prepared) == [statements[0], statements[2]]


async def test_prepared_statements_are_bounded_by_their_text(database_url, straight):
    options = PoolOptions(max_prepared_bytes=100)
    async with ConnectionPool.open(straight(database_url), size=1, prepares=True, options=options) as pool:
        for number in range(10):
            await pool.fetch(Statement(f"{number}", f"select {number} -- {'x' * 60}"))
        [connection] = pool.connections.open
        assert len(connection._prepared) <= 2


async def test_nobody_waits_for_ever_for_a_database_that_is_not_there():
    async with ConnectionPool.open("postgresql://localhost:1/none") as pool:
        with pytest.raises(UnavailableError):
            await pool.fetch(BACKEND)


async def test_no_connection_to_a_server_that_became_read_only_is_kept(database_url, straight):
    """Another server may be the primary now, so what they read may be old."""
    async with ConnectionPool.open(straight(database_url)) as pool:
        async with pool.transaction(), pool.transaction():
            pass
        there = {*pool.connections.open}
        assert len(there) == 2
        await pool.connections._idle[-1].raw.execute("set default_transaction_read_only = on")
        await pool.fetch(Statement("changes", "delete from customer_gateway_tokens where false"))
        assert pool.connections.open.isdisjoint(there)


@pytest.mark.parametrize(
    "target", ["application_name=a-test", "target_session_attrs=read-write", "target_session_attrs=primary"]
)
async def test_a_primary_that_is_read_only_is_read_from_until_it_takes_changes_again(
    own_database, connection_to, target
):
    name = await connection_to.fetchval("select current_database()")
    url = f"{own_database}{'&' if '?' in own_database else '?'}{target}"
    async with opened(create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        changes = [
            lambda token: graph.answer("save", input=wanted("u2", "STRIPE", "cus_2")),
            lambda token: graph.answer("update", input={"id": token["id"], "description": "x"}),
            lambda token: graph.answer("claim", userId="u3", gateway="STRIPE"),
        ]
        connections = app.state["store"].pool.connections
        token = (await graph.save("u1", "STRIPE", "cus_1", description="old"))["gatewayToken"]
        await connection_to.execute(f"alter database {name} set default_transaction_read_only = on")
        await connection_to.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )
        assert await graph.customer("STRIPE", "cus_1") == token
        there = {*connections.open}
        for change in changes:
            [error] = (await change(token))["errors"]
            assert error["extensions"]["code"] == "UNAVAILABLE"
            assert await graph.customer("STRIPE", "cus_1") == token
        if connection_to.get_server_version() >= (14,):  # older ones do not say that they are read-only
            assert connections.open >= there  # a refused change costs no connection
        assert (await graph.save("u1", "STRIPE", "cus_1", description="old"))["gatewayToken"] == token
        ready = await graph.client.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "reason": READ_ONLY})
        await connection_to.execute("set default_transaction_read_only = off")
        await connection_to.execute(f"alter database {name} reset default_transaction_read_only")
        await until(lambda: not connections.is_read_only, "the database takes changes again")
        assert connections.open.isdisjoint(there)  # they may lead to what was the primary
        for change in changes:
            assert "errors" not in await change(token)
