"""Slow work holds up nobody else: everybody else is answered while what is slow still waits for a lock."""

import asyncio
import inspect
import re
import secrets
import time
from contextlib import AsyncExitStack
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from pkgutil import iter_modules
from urllib.parse import urlsplit
from zlib import crc32

import asyncpg
import pytest

from graphql_api import storage
from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain import deadline
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.settings import Settings
from graphql_api.storage.bulkheads import LOOK_SECONDS, ChangeShares, Share, SlowUserError
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Reads, Statement
from graphql_api.storage.connection_set import ConnectionSet
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import _LOCKS, _STRIPES
from graphql_api.storage.transaction_runner import TransactionRunner
from graphql_api.storage.watchdog import Watchdog
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, CITUS
from tests.graph import Graph, wanted
from tests.storage.test_roles import as_role
from tests.until import until

USERS = [f"user-{number}" for number in range(20)]
SLOW = [f"slow-{number}" for number in range(8)]
LOCK = 4711
# Whoever reads a row of a slow user waits for a lock, as for a cold disk.
POLICY = """
create function waits() returns boolean language plpgsql as
  'begin perform pg_advisory_xact_lock_shared({lock}); return true; end';
alter table customer_gateway_tokens enable row level security;
create policy slow on customer_gateway_tokens using (user_id not like 'slow-%' or waits());
alter table customer_gateway_token_events enable row level security;
create policy slow on customer_gateway_token_events using (gateway <> 'SLOW' or waits()) with check (true);
insert into customer_gateway_tokens (id, user_id, gateway, gateway_customer_id)
  select gen_random_uuid(), name, 'STRIPE', 'cus_' || name from unnest($names${names}$names$::text[]) as name;
insert into gateway_customers (gateway_customer_id, gateway, user_id)
  select gateway_customer_id, gateway, user_id from customer_gateway_tokens;
create role {role};
grant all on schema public to {role};
grant all on all tables in schema public to {role};
grant all on all sequences in schema public to {role};
grant all on all functions in schema public to {role};
"""
HOLDS_UP = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


@pytest.fixture
async def connection(new_database, migrated_database, straight):
    """A connection to a database of its own."""
    connection = await asyncpg.connect(straight(await new_database(migrated_database)))
    yield connection
    await connection.close()


@pytest.fixture
async def url(connection, server_url, straight):
    """The way to it for a role that its policies are for."""
    if CITUS:
        pytest.skip("no policy of one worker can wait for a lock on the coordinator")
    role, names = f"test_{secrets.token_hex(6)}", "{" + ",".join([*USERS, *SLOW]) + "}"
    await connection.execute(POLICY.format(lock=LOCK, names=names, role=role))
    yield as_role(straight(f"/{await connection.fetchval('select current_database()')}"), role)
    await connection.execute(f"drop owned by {role}; drop role {role}")


def settings(url, places=300):
    """What is slow holds places of requests as well, of which there are enough here, and waits to the end of a test."""
    times = {"request_timeout": 120, "database_timeout": 60}
    return Settings(database_url=url, auth_secret=AUTH_SECRET, max_concurrent_requests=places, **times)


@pytest.fixture
async def app(url):
    async with opened(create_app(settings(url))) as app:
        yield app


@pytest.fixture
def graph(app):
    return Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))


ENTITY = """query ($user: _Any!) { _entities(representations: [$user]) {
  ... on User { gatewayTokens { gatewayCustomerId %s } } } }"""
SAVE = """mutation ($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) { userErrors { code } } }"""
READS = [
    (ENTITY % "", lambda name: {"user": {"__typename": "User", "id": name}}),  # PostgreSQL writes the JSON
    (ENTITY % "user { id }", lambda name: {"user": {"__typename": "User", "id": name}}),
    (
        'query ($id: String!) { customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: $id) { id } }',
        lambda name: {"id": f"cus_{name}"},
    ),
    (
        "query ($user: ID!) { customerGatewayTokens(filter: {userId: $user}) { totalCount nodes { id } } }",
        lambda name: {"user": name},
    ),
]


def reads(app, graph, names):
    """Every kind of read of these users, by a service and by each of them."""
    for name in names:
        for query, variables in READS:
            yield graph.client(query, **variables(name))
        query, variables = READS[0]
        yield Client(app, mint(AUTH_SECRET, name))(query, **variables(name))


async def are_answered(asked):
    answers = await asyncio.gather(*asked)
    assert [answer for answer in answers if "errors" in answer] == []
    return answers


async def ended(tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_waits_for_slow_reads(app, graph, connection):
    await are_answered(reads(app, graph, USERS))
    await connection.fetchval(f"select pg_advisory_lock({LOCK})")
    slow = [asyncio.create_task(read) for read in reads(app, graph, SLOW)]
    await until(lambda: connection.fetchval(HOLDS_UP), "slow reads wait for the lock")
    for _ in range(3):
        await are_answered(reads(app, graph, USERS))
    assert await connection.fetchval(HOLDS_UP)
    await connection.fetchval(f"select pg_advisory_unlock({LOCK})")
    await ended(slow)
    for name in SLOW:
        await are_answered(reads(app, graph, [name]))


async def test_nobody_waits_for_connections_that_hang(by_tcp, url):
    proxy, way = by_tcp
    through = f"{way(url)}?{urlsplit(url).query.rpartition('&')[2]}"
    async with opened(create_app(settings(through))) as app:
        graph, pool = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE]))), app.state["store"].pool
        for _ in range(2):
            await are_answered(reads(app, graph, USERS))
            assert len(pool.connections.open) > 2
            proxy.forget()
            await are_answered(reads(app, graph, USERS))
        assert pool.connections.timeouts == 0


async def test_nobody_waits_for_a_user_whose_rows_are_locked(app, graph, connection):
    changing = app.state["store"].pool.changes
    async with connection.transaction():
        await connection.execute("select from customer_gateway_tokens where user_id = 'user-0' for update")
        token = (await graph.customer("STRIPE", "cus_user-0"))["id"]
        changes = [
            *(
                graph.client(f'mutation {{ deleteCustomerGatewayToken(id: "{token}") {{ deletedId }} }}')
                for _ in range(20)
            ),
            *(
                graph.client(SAVE, input=wanted("user-0", "STRIPE", "cus_user-0", description=f"{n}"))
                for n in range(20)
            ),
        ]
        locked = [asyncio.create_task(change) for change in changes]
        await until(lambda: changing.are_slow(["user-0"]), "changes of the user are late")
        await until(lambda: connection.fetchval(HOLDS_UP), "changes wait for the lock")
        for text in ("one", "two"):
            changing.note(USERS[1:], is_slow=True)  # a busy machine makes every change late
            saves = (wanted(name, "STRIPE", f"cus_{name}", description=text) for name in USERS[1:])
            new = (wanted(name, "PAYPAL", f"{text}_{name}", replaces=f"one_{name}") for name in USERS[1:])
            await are_answered([graph.client(SAVE, input=save) for save in (*saves, *new)])
            await are_answered(reads(app, graph, USERS))
        assert await connection.fetchval(HOLDS_UP)
    await ended(locked)


async def test_many_changes_of_one_user_get_their_turn_though_the_database_is_slow(by_tcp, url):
    """Two of them run at a time: the last ones wait for longer than any would if none ended meanwhile."""
    proxy, way = by_tcp
    through = f"{way(url)}?{urlsplit(url).query.rpartition('&')[2]}"
    async with opened(create_app(Settings(database_url=through, auth_secret=AUTH_SECRET, request_timeout=60))) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        await are_answered(reads(app, graph, USERS))  # opens connections
        proxy.delay = 0.05
        answers = await are_answered(graph.client(SAVE, input=wanted("new", "STRIPE", "cus_new")) for _ in range(10))
        assert {str(answer["data"]["saveCustomerGatewayToken"]["userErrors"]) for answer in answers} == {"[]"}


async def test_what_waits_for_its_turn_is_not_given_up_by_a_process_that_had_no_time():
    share = Share(1, waiting=1, seconds=4 * LOOK_SECONDS, moving_seconds=0)

    async def work():
        async with share:
            for _ in range(3):
                time.sleep(2 * LOOK_SECONDS)  # noqa: ASYNC251 - the process has no time
                await asyncio.sleep(0)

    await asyncio.gather(work(), work())


async def test_what_waits_for_stuck_work_is_refused():
    share = Share(1, waiting=1, seconds=4 * LOOK_SECONDS, moving_seconds=0)
    async with share:
        for _ in range(2):
            with pytest.raises(UnavailableError):
                async with share:
                    pytest.fail("There was a place.")


CLAIM = """mutation ($user: ID!) { claimGatewayCustomer(userId: $user, gateway: "ADYEN") {
  claim { acquired idempotencyKey } userErrors { code } } }"""


async def test_a_mutation_that_opens_the_first_connection_keeps_its_time(url):
    async with ConnectionPool.open(url) as pool:
        with deadline.until(asyncio.get_running_loop().time() + 60):
            await pool.fetch(Statement("first", "select 1"))
            assert deadline.seconds_left() > 30


async def test_users_are_slow_once_their_transaction_waited_for_a_lock(url, connection):
    async with ConnectionPool.open(url) as pool, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with pool.transaction(keys=["someone"], repeats=True) as transaction:
                await transaction.execute(f"select pg_advisory_xact_lock({LOCK})")
        assert pool.changes.are_slow(["someone"])


@pytest.mark.parametrize("changes", [True, False])
async def test_users_stay_slow_until_a_change_of_theirs_is_quick_which_one_without_effect_is_anyway(url, changes):
    async with ConnectionPool.open(url) as pool:
        pool.changes.note(["someone"], is_slow=True)
        await pool.fetch(Statement("change", f"select 1 where {changes}"), users=["someone"])
        assert pool.changes.are_slow(["someone"]) is not changes


async def test_a_change_that_finds_no_place_says_that_nothing_was_changed(url):
    async with ConnectionPool.open(url, size=4) as pool, AsyncExitStack() as places:
        pool.changes = ChangeShares(4, seconds=0.1, moving_seconds=0.1)
        for _ in range(2):
            await places.enter_async_context(pool.changes.place([], records=True))
        with pytest.raises(UnchangedError):
            await pool.fetch(Statement("change", "select 1"), users=["someone"])


SAVE_MANY = """mutation ($inputs: [SaveCustomerGatewayTokenInput!]!) {
  saveCustomerGatewayTokens(inputs: $inputs) { userErrors { code } } }"""


async def test_whoever_waits_for_slow_batches_of_others_gets_a_turn(app, graph, connection):
    """Their transactions are rolled back when they are late, and then hold no more than a part."""
    await connection.fetchval(f"select pg_advisory_lock({LOCK})")
    inputs = ([wanted(name, "STRIPE", f"cus_{name}", description="x")] for name in SLOW)
    slow = [asyncio.create_task(graph.client(SAVE_MANY, inputs=each)) for each in inputs]
    await until(lambda: connection.fetchval(HOLDS_UP), "batches wait for the lock")
    changes = app.state["store"].pool.changes
    await until(lambda: all(changes.are_slow([name]) for name in SLOW), "all of them are known to be slow")
    for number in range(2):
        new = (wanted(name, f"NEW{number}", f"new_{name}") for name in USERS[:10])
        await are_answered([graph.client(SAVE, input=save) for save in new])
        await are_answered([graph.client(CLAIM, user=f"claimant-{number}-{each}") for each in range(5)])
    await connection.fetchval(f"select pg_advisory_unlock({LOCK})")
    await ended(slow)


async def test_a_shared_change_does_not_wait_for_a_user_who_is_known_to_be_slow(url):
    """Its callers ask again, apart from other users; there, the same change may wait."""
    change = Statement("change", "select 1")
    async with ConnectionPool.open(url) as pool:
        pool.changes.note(["user-0"], is_slow=True)

        async def load(keys):
            pool.changes.note(["user-0"], is_slow=True)  # since it was asked for
            await pool.fetch(change, users=["user-0"])
            return dict.fromkeys(keys)

        quick = RequestCoalescer(pool, load, owner=str, avoids=lambda _: False)
        apart = RequestCoalescer(pool, load, owner=str)
        assert await apart.load(["user-0"]) == {"user-0": None}
        with pytest.raises(SlowUserError):
            await quick.load(["user-0"])


async def test_a_late_transaction_of_many_users_leaves_each_of_them_alone(app, graph, connection):
    """Only one of them is locked, and the service cannot tell which."""
    changes = app.state["store"].pool.changes
    inputs = [wanted(name, "PAYPAL", f"new_{name}") for name in USERS]
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1, $2)", _LOCKS, crc32(b"user-0") % _STRIPES)
        batch = asyncio.create_task(graph.client(SAVE_MANY, inputs=inputs))
        await until(lambda: len(changes._slow_users.since) == 1, "the batch is known to be slow")
        assert not changes.are_slow(USERS)
        await until(lambda: connection.fetchval(HOLDS_UP), "it waits on")
        assert not changes.are_slow(USERS)
    await are_answered([batch])
    assert not changes._slow_users.since


async def test_a_mutation_in_a_batch_that_ran_out_of_time_changes_nothing(url, connection):
    operation = "mutation { saveCustomerGatewayToken(input: "
    operation += '{userId: "%s", gateway: "ADYEN", gatewayCustomerId: "new"}) { userErrors { code } } }'
    async with opened(create_app(settings(url).model_copy(update={"request_timeout": 2}))) as app:
        client = Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE]))
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1, $2)", _LOCKS, crc32(b"user-0") % _STRIPES)
            batch = [{"query": operation % name} for name in ("user-0", "user-1")]
            answers = (await client.http.post("/graphql", json=batch)).json()
    late, never_begun = (each["errors"][0] for each in answers)
    assert late["extensions"]["code"] == never_begun["extensions"]["code"] == "UNAVAILABLE"
    assert "took too long, and nothing was changed" in late["message"]
    assert "No time was left for this mutation, and nothing was changed" in never_begun["message"]
    assert await connection.fetchval("select count(*) from customer_gateway_tokens where user_id = 'user-1'") == 1


OF_LOCKED_USERS = {
    "saves": """mutation ($user: ID!, $customer: String!) { saveCustomerGatewayToken(input: {
        userId: $user, gateway: "STRIPE", gatewayCustomerId: $customer, description: "x"
      }) { userErrors { code } } }""",
    "claims": CLAIM,
    "erasures": "mutation ($user: ID!) { eraseUserGatewayTokens(userId: $user) { userErrors { code } } }",
    "releases": """mutation ($user: ID!, $key: String!) { releaseGatewayCustomerClaim(
        userId: $user, gateway: "ADYEN", idempotencyKey: $key) { userErrors { code } } }""",
    "confirmations": """mutation ($customer: String!) { confirmGatewayErasures(customers: [
        {gateway: "STRIPE", gatewayCustomerId: $customer}]) { userErrors { code } } }""",
}
FLOOD = 100


async def are_prepared(graph, kind, users):
    """The variables of this kind of mutation, for each of these users."""
    found = [{"user": name, "customer": f"cus_{name}"} for name in users]
    if kind == "confirmations":
        await are_answered([graph.client(OF_LOCKED_USERS["erasures"], user=name) for name in users])
    if kind == "releases":
        claims = await are_answered([graph.client(CLAIM, user=name) for name in users])
        keys = (answer["data"]["claimGatewayCustomer"]["claim"]["idempotencyKey"] for answer in claims)
        found = [each | {"key": key} for each, key in zip(found, keys, strict=True)]
    return found


LOCKED_TOO = "select from gateway_erasures for update; select from gateway_customer_claims for update"


@pytest.mark.parametrize("pause", [0, 0.003])
@pytest.mark.parametrize("users", [1, 4])
@pytest.mark.parametrize("kind", OF_LOCKED_USERS)
async def test_few_mutations_wait_for_users_whom_another_transaction_locks(graph, connection, kind, users, pause):
    """The others are refused, so that a flood of them does not hold the places of other users' mutations."""
    locked = USERS[:users]
    variables = await are_prepared(graph, kind, locked)
    async with connection.transaction():
        await connection.execute("select from customer_gateway_tokens where user_id = any($1) for update", locked)
        await connection.execute(LOCKED_TOO)
        for stripe in sorted({crc32(name.encode()) % _STRIPES for name in locked}):
            await connection.execute("select pg_advisory_xact_lock($1, $2)", _LOCKS, stripe)
        flood = islice(cycle(variables), FLOOD)
        asked = []
        for each in flood:  # with a pause, later ones arrive while earlier ones run, as on a busy machine
            asked.append(asyncio.create_task(graph.client(OF_LOCKED_USERS[kind], **each)))
            await asyncio.sleep(pause)
        most = FLOOD - 32 - users  # per user, one may have started to wait before the user counted as slow
        await until(lambda: sum(each.done() for each in asked) >= most, "most are refused")
        refused = [each.result() for each in asked if each.done()]
        await are_answered([graph.client(SAVE, input=wanted("another", "STRIPE", "cus_another"))])
    assert {code(answer) for answer in refused} == {"UNAVAILABLE"}
    assert any("nothing was changed" in str(answer) for answer in refused)
    assert all("data" in answer for answer in await asyncio.gather(*asked))
    await are_answered([graph.client(OF_LOCKED_USERS[kind], **each) for each in variables])


@pytest.mark.parametrize("kind", OF_LOCKED_USERS)
async def test_mutations_that_wait_for_a_lock_give_up_their_places(url, connection, kind):
    async with opened(create_app(settings(url, places=2))) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        [user] = await are_prepared(graph, kind, USERS[:1])
        async with connection.transaction():
            await connection.execute("select from customer_gateway_tokens where user_id = $1 for update", USERS[0])
            await connection.execute(LOCKED_TOO)
            await connection.execute(
                "select pg_advisory_xact_lock($1, $2)", _LOCKS, crc32(USERS[0].encode()) % _STRIPES
            )
            waiting = [asyncio.create_task(graph.client(OF_LOCKED_USERS[kind], **user)) for _ in range(10)]
            for number in range(3):
                await are_answered([graph.client(SAVE, input=wanted("another", f"G{number}", f"cus_{number}"))])
            assert not any(each.done() for each in waiting)
        await are_answered(waiting)


def code(answer):
    return answer["errors"][0]["extensions"]["code"] if "errors" in answer else "OK"


KINDS = {
    kind.name: Statement("held", "select pg_advisory_xact_lock_shared($1::text::bigint)", reads=kind) for kind in Reads
}
KINDS["CHANGE"] = Statement("held", "select pg_advisory_xact_lock_shared($1::text::bigint)")
ASKS = Statement("asks", "select $1::text", reads=Reads.BY_KEY)
# How many connections each kind may hold, of ten. Reads by key may hold any, until they are late.
HOLDS = {"BY_KEY": 10, "LIST": 2, "FEED": 2, "CHANGE": 4}


async def test_a_request_that_ends_when_its_read_is_late_ends(app, connection):
    pool = app.state["store"].pool
    pool.patience.note_round_trip(60)  # nothing is late by itself
    await connection.fetchval(f"select pg_advisory_lock({LOCK})")
    read = asyncio.create_task(pool.fetch(KINDS["LIST"], str(LOCK)))
    await until(lambda: connection.fetchval(HOLDS_UP), "the read waits for the lock")
    [reading] = [each for each in pool.connections.open if each.reader is not None]
    read.cancel()
    reading.give_up()
    await until(read.cancelled, "the read has ended")


def test_connections_are_taken_only_where_a_share_is():
    takers = {
        name
        for owner in (ConnectionPool, ConnectionSet, TransactionRunner, Watchdog)
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and re.search(r"(self|connections)\.acquire\(", inspect.getsource(method))
    }
    assert takers == {"_fetch", "transaction", "wait_connected"}


def test_the_page_names_what_the_process_asks_for_itself():
    modules = [import_module(f"graphql_api.storage.{each.name}") for each in iter_modules(storage.__path__)]
    values = [value for module in modules for value in vars(module).values()]
    own = {each.name for each in values if isinstance(each, Statement) and each.reads is Reads.OWN}
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    [named] = [line for line in page.splitlines() if line.startswith("| the process itself |")]
    assert own == set(re.findall(r"`(\w+)`", named))


@pytest.mark.parametrize("kind", sorted(HOLDS))
async def test_no_kind_of_statement_holds_more_than_its_connections(app, graph, connection, kind):
    pool = app.state["store"].pool
    if kind != "BY_KEY":
        pool.patience.note_round_trip(60)  # then nothing is late, and set apart for that
    await connection.fetchval(f"select pg_advisory_lock({LOCK})")
    slow = [asyncio.create_task(pool.fetch(KINDS[kind], str(LOCK))) for _ in range(3 * pool.connections.size)]
    held = set()

    async def are_slow():
        held.add(pool.connections.in_use)
        return await connection.fetchval(HOLDS_UP) >= min(HOLDS[kind], 2)

    await until(are_slow, "statements wait for the lock")
    for number in range(5):
        [[said]] = await pool.fetch(ASKS, str(number))
        assert said == str(number)
        await are_answered([graph.client(CLAIM, user=f"claimant-{number}")])
        await until(
            lambda: held.add(pool.connections.in_use) or pool.connections.in_use < pool.connections.size,
            "a connection is left",
        )
    assert max(held) <= HOLDS[kind]
    await connection.fetchval(f"select pg_advisory_unlock({LOCK})")
    await ended(slow)
