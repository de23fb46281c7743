"""Standbys that follow a primary by streaming replication: what is read there, what is not, and what hurts them.

A standby whose replay is paused shows what was there before, so that it can be told where something was read. Whoever
writes `elsewhere` does so by another service, of whose writes the one with replicas knows nothing.
"""

import asyncio
import contextlib
import itertools
import signal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from graphql_api import doctor
from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.settings import Settings
from graphql_api.storage import replicas, transaction
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.transaction import CommitStatus
from tests.asgi import Client, opened
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.service import serving
from tests.graph import Graph, wanted
from tests.until import until

SECRET = "a secret of the tests, which is no secret"

_USER = '{ _entities(representations: [{__typename: "User", id: "u1"}]) { ... on User { %s } } }'
_MANY = ", ".join(f'{{__typename: "User", id: "u{number}"}}' for number in range(1, 21))
_KEYS = ('id: "$id"', 'userId: "u1", gateway: "STRIPE"', 'gateway: "STRIPE", gatewayCustomerId: "cus_1"')
_TOKENS = ", ".join(f'{{__typename: "CustomerGatewayToken", {key}}}' for key in _KEYS)
# Every way to what is known of u1, who is cus_1 at STRIPE; $id is the token's.
READS = {
    "by id": '{ customerGatewayToken(id: "$id") { deactivatedAt description formerGatewayCustomerIds } }',
    "by customer": '{ customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1")'
    " { userId gatewayCustomerId description } }",
    "of a user": _USER % "gatewayTokens { description }",
    "of many users": f"{{ _entities(representations: [{_MANY}]) {{ ... on User {{ gatewayTokens {{ gateway version }}"
    " more: gatewayTokens { description } } } }",
    "by user and gateway": _USER % 'gatewayToken(gateway: "STRIPE") { description }',
    "by several keys": f"{{ _entities(representations: [{_TOKENS}]) {{ ... on CustomerGatewayToken {{ description }}"
    " } }",
    "a user's page": '{ customerGatewayTokens(filter: {userId: "u1"}) { totalCount nodes { description } } }',
    "everybody's page": "{ customerGatewayTokens(first: 500) { totalCount nodes { userId description } } }",
    "history": '{ customerGatewayToken(id: "$id") { description history { nodes { action version } } } }',
}


@pytest.fixture(scope="module")
async def primary(new_server):
    server = new_server()
    server.create()
    await server.start()
    await upgrade(server.url)
    return server


@pytest.fixture(scope="module")
def new_standby(new_server, primary):
    async def make():
        server = new_server()
        await asyncio.to_thread(server.follow, primary)
        await server.start()
        return server

    return make


@pytest.fixture(scope="module")
async def standbys(new_standby):
    return [await new_standby(), await new_standby()]


@pytest.fixture(scope="module")
async def standby(standbys):
    return standbys[0]


@pytest.fixture(autouse=True)
async def same_again(primary, standbys):
    """Each test begins with nothing stored, and standbys that replay."""
    for each in standbys:
        await each.ask("select pg_wal_replay_resume()")
    await primary.ask(
        "truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events, departed_tokens,"
        " gateway_customer_claims, erased_users, gateway_erasures"
    )


@pytest.fixture
async def service_on(primary):
    """Makes a service on the primary that reads from these standbys once they are well."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*standbys, **settings):
            addresses = ",".join(standby.url for standby in standbys)
            given = {"database_url": primary.url, "database_replica_url": addresses, "replica_max_lag": 3600}
            app = create_app(Settings(auth_secret=SECRET, **{**given, **settings}))
            running = await stack.enter_async_context(opened(app))
            graph = Graph(Client(running, mint(SECRET, "a-service", [ADMIN_SCOPE])))
            graph.as_user = lambda user: Client(running, mint(SECRET, user))
            for standby in standbys:
                await is_read_from(graph.client.http, standby)
            return graph

        yield make


@pytest.fixture
async def elsewhere(service_on):
    return await service_on()


async def pause(standby, primary):
    """Keep a standby as the primary is now."""
    end = await primary.ask("select pg_current_wal_flush_lsn()::text")
    await until(lambda: standby.ask(f"select pg_last_wal_replay_lsn() >= '{end}'"), "the standby has caught up")
    await standby.ask("select pg_wal_replay_pause()")
    await until(lambda: standby.ask("select pg_get_wal_replay_pause_state() = 'paused'"), "the standby's replay pauses")


async def figures(http):
    """By name and port of the replica."""
    text = (await http.get("/metrics")).text
    return {
        (sample.name.removeprefix("gateway_tokens_replica_"), int(sample.labels["replica"].rpartition(":")[2])): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "replica" in sample.labels
    }


async def is_read_from(http, *standbys, processes=1):
    """Seconds until so many processes read from these."""
    now = asyncio.get_running_loop().time
    began = now()

    async def are_read_from():
        found = await figures(http)
        return {found.get(("read_from", each.port)) for each in standbys} == {processes}

    await until(are_read_from, f"{processes} processes read from {[each.port for each in standbys]}")
    return now() - began


async def answers(graph, token):
    return {way: await graph.ask(query.replace("$id", token["id"])) for way, query in READS.items()}


# --- what is read where


async def test_every_read_is_answered_by_a_standby(service_on, elsewhere, primary, standby):
    graph = await service_on(standby)
    token = (await elsewhere.save("u1", "STRIPE", "cus_1", description="old"))["gatewayToken"]
    await pause(standby, primary)
    before = await answers(elsewhere, token)
    await elsewhere.save("u1", "STRIPE", "cus_1", description="new")
    assert await answers(graph, token) == before
    assert "'new'" not in str(before)


async def test_what_this_service_wrote_is_read_whatever_the_standby_shows(service_on, elsewhere, primary, standby):
    graph = await service_on(standby)
    token = (await elsewhere.save("u1", "STRIPE", "cus_1", description="old"))["gatewayToken"]
    await elsewhere.save("guest", "PAYPAL", "payer_1")
    await pause(standby, primary)
    for change in (
        lambda: graph.save("u1", "STRIPE", "cus_1", description="new"),
        lambda: graph.save("u1", "STRIPE", "cus_2", replaces="cus_1"),
        lambda: graph.deactivate_customer("STRIPE", "cus_2"),
        lambda: graph.activate(token),
        lambda: graph.save_many([{"userId": "u1", "gateway": "ADYEN", "gatewayCustomerId": "shopper_1"}]),
        lambda: graph.merge("guest", "u1"),
        lambda: graph.delete(token),
        lambda: graph.save("u1", "STRIPE", "cus_1", description="anew"),
        lambda: graph.erase("u1"),
    ):
        before = await answers(elsewhere, token)
        await change()
        after = await answers(elsewhere, token)
        assert after != before
        assert await answers(graph, token) == after


async def test_what_may_have_been_written_is_read_though_the_answer_to_its_commit_was_lost(
    service_on, primary, standby, monkeypatch
):
    async def nobody_knows(_runner, _transaction):
        return CommitStatus.UNKNOWN

    monkeypatch.setattr(transaction, "ask", nobody_knows)
    async with Proxy.to("127.0.0.1", primary.port) as proxy:
        graph = await service_on(standby, database_url=primary.url_by(proxy.port))
        await pause(standby, primary)
        proxy.loses_answer_to = b"commit"
        answer = await graph.answer("save", input=wanted("u1", "STRIPE", "cus_1"))
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"]
        assert [token["gatewayCustomerId"] for token in await graph.tokens("u1")] == ["cus_1"]


async def test_other_users_are_read_from_the_standby_meanwhile(service_on, elsewhere, primary, standby):
    graph = await service_on(standby)
    await elsewhere.save("u1", "STRIPE", "cus_1", description="old")
    await pause(standby, primary)
    await elsewhere.save("u1", "STRIPE", "cus_1", description="new")
    await graph.save("u2", "STRIPE", "cus_2")
    assert "'old'" in str(await graph.ask(READS["of a user"]))
    assert "'old'" in str(await graph.ask(READS["by customer"]))


@pytest.mark.parametrize("is_there_already", [False, True])
async def test_what_follows_a_write_in_a_request_sees_it(service_on, elsewhere, primary, standby, is_there_already):
    graph = await service_on(standby)
    await pause(standby, primary)
    if is_there_already:  # so that nothing is written here
        await elsewhere.save("u1", "STRIPE", "cus_1")
    query = """mutation { saveCustomerGatewayToken(
      input: {userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1"}
    ) { user { gatewayTokens { gatewayCustomerId history { nodes { action } } } } } }"""
    assert await graph.ask(query) == {
        "saveCustomerGatewayToken": {
            "user": {"gatewayTokens": [{"gatewayCustomerId": "cus_1", "history": {"nodes": [{"action": "CREATED"}]}}]}
        }
    }


async def test_reads_go_to_the_standby_again_once_it_shows_the_write(service_on, elsewhere, primary, standby):
    graph = await service_on(standby)
    await graph.save("u1", "STRIPE", "cus_1", description="old")
    for count in itertools.count():
        await pause(standby, primary)
        await elsewhere.save("u1", "STRIPE", "cus_1", description=str(count))
        if f"'{count}'" not in str(await graph.ask(READS["of a user"])):
            break
        await standby.ask("select pg_wal_replay_resume()")


async def test_a_token_that_is_looked_up_is_found_as_soon_as_it_is_there(service_on, elsewhere, primary, standby):
    graph = await service_on(standby)
    await pause(standby, primary)
    token = (await elsewhere.save("u1", "STRIPE", "cus_1", description="made elsewhere"))["gatewayToken"]
    found = {way: "'made elsewhere'" in str(answer) for way, answer in (await answers(graph, token)).items()}
    missing = {way for way, is_found in found.items() if not is_found}
    assert missing == {"of a user", "of many users", "a user's page", "everybody's page"}


@pytest.mark.parametrize("way", ["by id", "by customer", "by user and gateway"])
async def test_that_others_find_theirs_meanwhile_does_not_hide_that_a_token_is_missing(
    service_on, elsewhere, primary, standby, way
):
    graph = await service_on(standby)
    shown = (await elsewhere.save("u2", "STRIPE", "cus_2"))["gatewayToken"]
    await pause(standby, primary)
    new = (await elsewhere.save("u1", "STRIPE", "cus_1", description="made elsewhere"))["gatewayToken"]
    of_new = READS[way].replace("$id", new["id"])
    of_shown = READS[way].replace("$id", shown["id"]).replace('"u1"', '"u2"').replace("cus_1", "cus_2")
    for _ in range(3):
        found, *_ = await asyncio.gather(graph.ask(of_new), *(graph.ask(of_shown) for _ in range(3)))
        assert "made elsewhere" in str(found)


@pytest.mark.parametrize("way", ["by id", "by customer", "by user and gateway"])
async def test_a_token_of_somebody_else_takes_as_many_statements_as_none(
    service_on, elsewhere, primary, standby, statements, way
):
    graph = await service_on(standby)
    query = READS[way].replace("description", "isActive").replace(" formerGatewayCustomerIds", "")

    async def run(token_id):
        del statements[:]
        answer = await graph.as_user("u2")(query.replace("$id", token_id))
        assert "isActive" not in str(answer)
        return [sql for sql in statements if "wal" not in sql]

    absent = await run("01980000-0000-7000-8000-000000000000")
    token = (await elsewhere.save("u1", "STRIPE", "cus_1"))["gatewayToken"]
    await pause(standby, primary)
    assert await run(token["id"]) == absent


async def test_workers_know_of_each_others_writes(tmp_path, primary, standby, elsewhere):
    environment = {"DATABASE_URL": primary.url, "DATABASE_REPLICA_URL": standby.url, "REPLICA_MAX_LAG": "3600"}
    await elsewhere.save("u1", "STRIPE", "cus_1", description="0")
    async with serving(tmp_path, "--workers", "2", DRAIN_SECONDS="0", **environment) as service:
        each_on_a_new_connection = httpx.Limits(max_keepalive_connections=0)  # which the kernel hands to either worker
        async with httpx.AsyncClient(base_url=service.url, limits=each_on_a_new_connection) as http:
            await is_read_from(http, standby, processes=2)
            await pause(standby, primary)
            graph = Graph(Client(None))
            graph.client.http = http
            for count in range(1, 11):
                await graph.save("u1", "STRIPE", "cus_1", description=str(count))
                for _ in range(4):
                    assert f"'{count}'" in str(await graph.ask(READS["of a user"]))


async def test_where_the_primary_waits_for_the_standbys_every_service_sees_every_write(
    service_on, elsewhere, primary, standbys
):
    graph = await service_on(*standbys)
    settings = ("synchronous_standby_names", "'2 (*)'"), ("synchronous_commit", "remote_apply")
    try:
        for name, value in settings:
            await primary.ask(f"alter system set {name} = {value}")
        await primary.ask("select pg_reload_conf()")
        both = "select count(*) = 2 from pg_stat_replication where sync_state = 'sync'"
        await until(lambda: primary.ask(both), "both standbys are synchronous")
        waits = "select current_setting('synchronous_commit') = 'remote_apply'"
        await until(lambda: primary.ask(waits), "the primary waits for standbys")
        for count in range(50):
            await elsewhere.save("u1", "STRIPE", "cus_1", description=str(count))
            assert f"'{count}'" in str(await graph.ask(READS["of a user"]))
    finally:
        for name, _ in settings:
            await primary.ask(f"alter system reset {name}")
        await primary.ask("select pg_reload_conf()")


async def test_what_waits_for_a_synchronous_standby_is_not_acknowledged(service_on, primary):
    """Not even if it is repeated: a failover would lose it."""
    graph = await service_on(database_timeout=0.5)
    token = await graph.saved("u1", "STRIPE", "cus_1")
    waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
    try:
        await primary.ask("alter system set synchronous_standby_names = 'gone'")
        await primary.ask("select pg_reload_conf()")
        await until(lambda: primary.ask("select current_setting('synchronous_standby_names') = 'gone'"), "it is set")
        for _ in range(2):
            answer = await graph.answer("deactivate", id=token["id"], reason="FRAUD")
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"]
            assert await primary.ask("select deactivated_at is null from customer_gateway_tokens")
            assert await primary.ask(waiting)
    finally:
        await primary.ask("alter system reset synchronous_standby_names")
        await primary.ask("select pg_reload_conf()")
    await until(lambda: primary.ask(waiting.replace("count(*)", "count(*) = 0")), "all commits have ended")
    assert not (await graph.token(token["id"]))["isActive"]


# --- when a standby is read from


async def test_an_idle_primary_is_no_lag(service_on, elsewhere, standby, measured):
    graph = await service_on(standby, replica_max_lag=1)
    await elsewhere.save("u1", "STRIPE", "cus_1")
    await asyncio.sleep(2.5)
    await is_read_from(graph.client.http, standby)
    assert await standby.ask("select clock_timestamp() - pg_last_xact_replay_timestamp() > interval '2 s'")
    measured("lag", f"{(await figures(graph.client.http))['lag_seconds', standby.port]:.2f} s")


async def test_a_server_that_is_no_standby_is_not_read_from(service_on, elsewhere, primary, new_standby):
    promoted = await new_standby()
    graph = await service_on(promoted)
    await promoted.ask("select pg_promote()")
    await is_read_from(graph.client.http, promoted, processes=0)
    await elsewhere.save("u1", "STRIPE", "cus_1", description="new")
    assert "'new'" in str(await graph.ask(READS["of a user"]))
    [line] = await replica_lines(primary, promoted)
    assert (line.is_well, "not a standby" in line.says) == (False, True)


async def test_doctor_says_how_far_replicas_are_behind(primary, standbys, elsewhere):
    first, second = standbys
    assert [line.is_well for line in await replica_lines(primary, first, second)] == [True, True]
    await pause(second, primary)
    await elsewhere.save("u1", "STRIPE", "cus_1")
    one, other = await replica_lines(primary, first, second)
    assert one.is_well
    assert not other.is_well
    assert f":{second.port} " in other.says


async def replica_lines(primary, *standbys):
    addresses = ",".join(standby.url for standby in standbys)
    settings = Settings(database_url=primary.url, database_replica_url=addresses, replica_max_lag=0.5)
    return [line async for line in doctor.findings(settings) if line.check == "replica"]


# --- what hurts a standby while callers go on


@pytest.fixture(scope="module")
async def proxies(standbys):
    """The ways to the standbys."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Proxy.to("127.0.0.1", standby.port)) for standby in standbys]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
async def running(folder, primary, standbys, proxies):
    """A service in a process of its own that knows only the proxies."""
    url = standbys[0].url_by(f"{proxies[0].port},127.0.0.1:{proxies[1].port}")
    environment = {"DATABASE_URL": primary.url, "DATABASE_REPLICA_URL": url, "REPLICA_MAX_LAG": "1"}
    async with serving(folder, DRAIN_SECONDS="0", **environment) as service:
        yield service


@pytest.fixture
async def http(running):
    async with httpx.AsyncClient(base_url=running.url) as http:
        yield http


@pytest.fixture
def callers(running, primary, proxies, http, measured):
    """Callers who go on while this is open, and are answered as if nothing had happened."""

    @contextlib.asynccontextmanager
    async def go_on():
        await is_read_from(http, *proxies)
        load = Load([running.graphql], reads=60, saves=10)
        async with load.running():
            await asyncio.sleep(1)
            yield load
            await asyncio.sleep(0.5)
        measured("failed", f"{len(load.failed())} of {len(load.answers)}")
        measured("slowest answer", f"{load.slowest():.2f} s")
        assert load.unexcused() == []
        assert await load.differences(primary.url) == []

    return go_on


@pytest.fixture
def left(folder, proxies, http, measured):
    """Waits until the first replica is left for this reason, and all are answered who had asked it."""

    async def wait(load, fault, reason):
        log, began = folder / "service.log", asyncio.get_running_loop().time()
        lines_before = len(log.read_text().splitlines())
        hurting = asyncio.create_task(fault)
        await until(
            lambda: any(reason in line for line in log.read_text().splitlines()[lines_before:]),
            f"the log says that the replica {reason}",
        )
        measured("left after", f"{asyncio.get_running_loop().time() - began:.2f} s")
        await asyncio.gather(hurting, *load._asking)
        await is_read_from(http, proxies[0], processes=0)
        await is_read_from(http, proxies[1])
        await asyncio.sleep(0.5)

    return wait


@pytest.fixture
def back(proxies, http, measured):
    """Waits until the first replica healthy again."""

    async def wait():
        measured("read from again after", f"{await is_read_from(http, proxies[0]):.2f} s")

    return wait


async def test_most_reads_leave_the_primary(callers, standbys, measured):
    async def transactions():
        await asyncio.sleep(1.1)  # a backend says at most once a second what it did
        sql = "select xact_commit from pg_stat_database where datname = 'postgres'"
        return sum([await each.ask(sql) for each in standbys])

    def reads():
        return len([answer for answer in load.answers if answer.kind == "read"])

    now = asyncio.get_running_loop().time
    async with callers() as load:
        transactions_before, reads_before, began = await transactions(), reads(), now()
        await asyncio.sleep(3)
        run, asked, seconds = await transactions() - transactions_before, reads() - reads_before, now() - began
    share = (run - len(standbys) * seconds / replicas._INTERVAL_SECONDS) / asked
    measured("reads that a standby was asked for", f"{share:.0%}")
    assert share > 0.5


async def test_nothing_fails_when_a_standby_is_killed(callers, standby, left, back):
    async with callers() as load:
        await left(load, standby.kill(), "does not answer")
        await standby.start()
        await back()


async def test_nothing_fails_when_a_standby_is_stopped(callers, standby, left, back):
    async with callers() as load:
        await left(load, asyncio.to_thread(standby.signal_all, signal.SIGSTOP), "does not answer")
        standby.signal_all(signal.SIGCONT)
        await back()


async def test_nothing_fails_when_the_link_to_a_standby_is_stalled(callers, proxies, left, back):
    async with callers() as load:
        await left(load, stalled(proxies[0]), "does not answer")
        proxies[0].resume()
        await back()


async def stalled(proxy):
    proxy.stall()


async def test_nothing_fails_when_a_standby_refuses_connections(callers, proxies, left, back):
    async with callers() as load:
        await left(load, proxies[0].refuse(), "does not answer")
        await proxies[0].accept()
        await back()


async def test_nothing_fails_when_a_standby_lags(callers, standby, left, back):
    async with callers() as load:
        pausing = standby.ask("select pg_wal_replay_pause()")
        await left(load, pausing, "lags behind")  # after the second for which it may be
        await standby.ask("select pg_wal_replay_resume()")
        await back()


async def test_nothing_fails_when_statements_are_cancelled_at_a_standby(callers, standby):
    """As the replay of the primary's changes may do, which then need not wait for readers."""
    async with callers():
        for _ in range(20):
            await standby.ask(
                "select count(pg_cancel_backend(pid)) from pg_stat_activity where backend_type = 'client backend'"
                " and pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.05)
            await standby.terminate_backends()


async def test_reads_go_on_while_the_primary_is_away(running, primary, standbys, proxies, http, measured):
    load = Load([running.graphql], reads=60, saves=0.1)
    async with load.running():
        await is_read_from(http, *proxies)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        primary.signal_all(signal.SIGSTOP)
        await asyncio.sleep(3)
        primary.signal_all(signal.SIGCONT)
    failed = load.failed("read", after=began)
    measured("reads that failed", f"{len(failed)} of {len([each for each in load.answers if each.began > began])}")
    assert load.unexcused("read", after=began) == []
