"""Careless clients: those who go away, those who are slow, and a thousand at once. Others are served all the same."""

import asyncio
import itertools
import json
import random
import sys
from contextlib import asynccontextmanager, suppress
from statistics import median

import asyncpg
import psutil
import pytest

from tests.faults.conftest import LONG, is_idle
from tests.faults.crowd import QUERY
from tests.faults.http import Http, close, request
from tests.faults.load import Load
from tests.faults.locked_users import MUTATIONS, SAVE, asking_for, asking_to_save, locking, stripe
from tests.faults.service import serving
from tests.until import until

pytestmark = pytest.mark.slow
COUNT = '{ customerGatewayTokens(filter: {userId: "slow-0"}) { totalCount } }'
CONNECTIONS = 1000


@pytest.fixture(scope="module")
async def service(tmp_path_factory, postgres):
    async with serving(tmp_path_factory.mktemp("service"), DATABASE_URL=postgres.url) as service:
        yield service


@pytest.fixture
async def connection(service, postgres):
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


@asynccontextmanager
async def slow_users(connection):
    """Reading a token of twenty users takes 0.3 s, as counting millions does, or a cold disk."""
    table = "customer_gateway_tokens"
    async with connection.transaction():
        await connection.execute(f"alter table {table} rename to stored_tokens")
        await connection.execute(
            "create function takes_time() returns boolean language plpgsql cost 1000000"  # so looked at last
            " as 'begin perform pg_sleep(0.3); return true; end'"
        )
        await connection.execute(
            f"create view {table} as select * from stored_tokens"  # noqa: S608
            " where user_id not like 'slow-%' or takes_time()"
        )
        await connection.execute(
            "insert into stored_tokens (user_id, gateway, gateway_customer_id)"
            " select 'slow-' || n, 'STRIPE', 'slow-' || n from generate_series(0, 19) as n"
        )
    try:
        yield
    finally:
        async with connection.transaction():
            await connection.execute(f"drop view {table}")
            await connection.execute("drop function takes_time")
            await connection.execute("delete from stored_tokens where user_id like 'slow-%'")
            await connection.execute(f"alter table stored_tokens rename to {table}")


def asking(query, **variables):
    return request("POST", "/graphql", json.dumps({"query": query, "variables": variables}).encode())


async def asks_and_leaves(service, asked, seconds):
    _, writer = await asyncio.open_connection(*service.address)
    writer.write(asked)
    await asyncio.sleep(seconds)
    writer.transport.abort()
    await close(writer)


def percentile(answers, share=0.99):
    return sorted(each.seconds for each in answers)[int(len(answers) * share)]


READ = asking(QUERY, user={"__typename": "User", "id": "u1"})
PAGE = asking('{ customerGatewayTokens(first: 5, filter: {userId: "u1"}) { nodes { id } } }')


@pytest.mark.parametrize("asked", [READ, PAGE])
async def test_what_nobody_waits_for_any_more_is_cancelled_on_the_server(service, connection, postgres, asked):
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    async with connection.transaction():
        await connection.execute("lock table customer_gateway_tokens")
        writers = [(await asyncio.open_connection(*service.address))[1] for _ in range(30)]
        for writer in writers:
            writer.write(asked)
        await until(lambda: postgres.ask(waiting), "statements wait for the lock")
        for writer in writers:
            writer.transport.abort()
            await close(writer)
        await until(lambda: postgres.ask(f"select ({waiting}) = 0"), "no statement waits for the lock any more")
    await until(lambda: is_idle(service), "all connections to the database have come back")


SLOW_READS = {
    "counts": [asking(COUNT)],
    "reads by key": [asking(QUERY, user={"__typename": "User", "id": f"slow-{number}"}) for number in range(20)],
}


@pytest.mark.parametrize("kind", SLOW_READS)
async def test_abandoned_reads_leave_others_alone(service, connection, measured, kind):
    load = Load([service.graphql], reads=100, saves=0)
    async with load.running(), slow_users(connection):
        await asyncio.sleep(1)  # connections whose plans the view has made useless are replaced
        load.answers.clear()
        for batch in range(60 if LONG else 6):
            slow = itertools.islice(itertools.cycle(SLOW_READS[kind]), batch, batch + (10 if LONG else 100))
            await asyncio.gather(*(asks_and_leaves(service, asked, 0.1) for asked in slow))
            await asyncio.sleep(0.03 if LONG else 0.1)
        await asyncio.sleep(0.5)
    assert not load.lost()
    await until(lambda: is_idle(service), "all connections to the database have come back")
    measured(f"600 abandoned slow {kind}: others' p99, under 0.5 s", f"{percentile(load.answers):.3f} s")
    measured("others' failures", f"{len(load.failed())} of {len(load.answers)}")


@pytest.mark.parametrize("users", [1, 20])
@pytest.mark.parametrize("kind", MUTATIONS)
async def test_mutations_of_locked_users_leave_others_alone(service, connection, measured, kind, users):
    load = Load([service.graphql], reads=100, saves=10)
    others = [load.user(number) for number in range(2 * len(load.users))]  # those who will be new, too
    taken = {stripe(name) for user in others for name in (user.name, f"STRIPE:{user.customer}")}
    locked = list(itertools.islice((name for name in map(str, itertools.count()) if stripe(name) not in taken), users))
    async with Http().open() as http:
        for user in locked:
            await http.post(service.graphql, asking_to_save(user))
        async with load.running():
            async with locking(connection, locked):
                asked = [asking_for(kind, user) for user in locked]
                changing = [
                    asyncio.create_task(http.post(service.graphql, each))
                    for each in itertools.islice(itertools.cycle(asked), 300)
                ]
                await asyncio.sleep(10 if LONG else 4)
            answers = await asyncio.gather(*changing)
    assert {status for status, _ in answers} <= {200, 503}
    assert all("data" in answer or "UNAVAILABLE" in str(answer) for _, answer in answers)
    assert load.failed("read") == []
    if users == 1:
        assert load.failed("save") == []
    reads = [answer for answer in load.answers if answer.kind == "read"]
    saves = [answer for answer in load.answers if answer.kind == "save"]
    measured(f"300 {kind} of {users} locked users: others' reads' p99, under 0.5 s", f"{percentile(reads):.3f} s")
    measured("others' saves: failed, p99", f"{len(load.failed('save'))} of {len(saves)}, {percentile(saves):.3f} s")


async def test_an_abandoned_mutation_is_done_or_not_done(service, connection):
    await asyncio.gather(
        *(
            asks_and_leaves(
                service, asking(SAVE, user=f"left-{number}", customer=f"left-{number}"), random.random() / 20
            )
            for number in range(200)
        )
    )
    await until(lambda: is_idle(service), "all connections to the database have come back")
    rows = await connection.fetch(
        "select t.user_id is not null, g.user_id is not null, e.token_id is not null"
        " from generate_series(0, 199) as n"
        " left join customer_gateway_tokens t on t.user_id = 'left-' || n"
        " left join gateway_customers g on g.gateway_customer_id = 'left-' || n and g.user_id = 'left-' || n"
        " left join customer_gateway_token_events e on e.user_id = 'left-' || n"
    )
    assert {tuple(row) for row in rows} <= {(True, True, True), (False, False, False)}


async def test_slow_clients_are_left_and_others_are_served(service, measured):
    loop = asyncio.get_running_loop()

    async def dribble(head, piece):
        reader, writer = await asyncio.open_connection(*service.address)
        began = loop.time()
        writer.write(head)
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(piece)
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1024), 1)
        await close(writer)
        return loop.time() - began

    head = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    kinds = {
        "idle sockets": (500, b"", b""),
        "slow heads": (50, head, b"X-A: a\r\n"),
        "slow bodies": (50, head + b"Content-Length: 1000\r\n\r\n", b" "),
        "slow bodies that nobody wants": (
            50,
            b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
            b" ",
        ),
    }
    load = Load([service.graphql], reads=50, saves=5)
    async with load.running():
        slow = {
            name: asyncio.gather(*(dribble(head, piece) for _ in range(count)))
            for name, (count, head, piece) in kinds.items()
        }
        for name, left in slow.items():
            measured(f"{name}: cut after, within 15 s", f"{max(await asyncio.wait_for(left, 60)):.1f} s")
    measured("others' p99 meanwhile", f"{percentile(load.answers):.3f} s")
    assert not load.lost()


async def crowd(service, connections, seconds):
    """What so many connections are told, and how long `/healthz` takes meanwhile."""
    command = [sys.executable, "-m", "tests.faults.crowd", str(service.address[1]), str(connections), str(seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output = asyncio.create_task(process.communicate())
    loop, probes = asyncio.get_running_loop(), []
    async with Http().open() as http:
        while not output.done():
            began = loop.time()
            assert (await http.get(f"{service.url}/healthz"))[0] == 200
            probes.append(loop.time() - began)
            await asyncio.sleep(0.02)
    return json.loads((await output)[0]), sorted(probes)[int(len(probes) * 0.99)]


async def test_a_thousand_connections_are_served_nearly_as_fast_as_few(service, measured):
    shares = []
    for _ in range(5 if LONG else 1):
        few, _ = await crowd(service, 32, 3)
        many, health = await crowd(service, CONNECTIONS, 4)
        shares.append(many["rate"] / few["rate"])
    memory = psutil.Process(service.process.pid).memory_info().rss / 1024**2
    share = median(shares)
    measured("1,000 connections: share of the peak, at least 75 %", f"{share:.0%} of {few['rate']:.0f}/s")
    measured("1,000 connections: refused, with Retry-After", many["refused"])
    measured("1,000 connections: p99", f"{many['p99']:.2f} s")
    measured("1,000 connections: p99 of /healthz, under 0.5 s", f"{health:.3f} s")
    measured("1,000 connections: memory, under 150 MB", f"{memory:.0f} MB")
    assert many["rate"] > 0
    assert many["other"] == 0
    assert memory < 150
    if LONG:
        assert share >= 0.75
        assert health < 0.5


async def test_memory_stays_what_it_is(service, measured):
    process = psutil.Process(service.process.pid)
    warming, seconds = (60, 600) if LONG else (5, 10)
    await crowd(service, 32, warming)
    before = process.memory_info().rss
    await crowd(service, 32, seconds)
    grown = (process.memory_info().rss - before) / 1024**2
    measured(f"{seconds} s of load: memory grows by at most 5 MB", f"{grown:.1f} MB")
    assert grown < 20
