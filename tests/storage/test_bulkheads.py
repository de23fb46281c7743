"""Slow work holds up nobody else: everybody else is answered while what is slow still waits for a lock."""

import asyncio
import secrets
from urllib.parse import urlsplit

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.settings import Settings
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET
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
HOLDS_UP = "select count(*) from pg_locks where not granted"


@pytest.fixture
async def connection(new_database, migrated_database, straight):
    """A connection to a database of its own."""
    connection = await asyncpg.connect(straight(await new_database(migrated_database)))
    yield connection
    await connection.close()


@pytest.fixture
async def url(connection, server_url, straight):
    """The way to it for a role that its policies are for."""
    role, names = f"test_{secrets.token_hex(6)}", "{" + ",".join([*USERS, *SLOW]) + "}"
    await connection.execute(POLICY.format(lock=LOCK, names=names, role=role))
    yield as_role(straight(f"/{await connection.fetchval('select current_database()')}"), role)
    await connection.execute(f"drop owned by {role}; drop role {role}")


def settings(url):
    """What is slow holds places of requests as well, of which there are enough here."""
    return Settings(database_url=url, auth_secret=AUTH_SECRET, max_concurrent_requests=300)


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
            await are_answered(reads(app, graph, USERS[:1]))
            assert len(pool._open) > 2
            proxy.forget()
            await are_answered(reads(app, graph, USERS))
        assert pool.timeouts == 0


async def test_nobody_waits_for_a_user_whose_rows_are_locked(app, graph, connection):
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
        await until(lambda: connection.fetchval(HOLDS_UP), "changes wait for the lock")
        for text in ("one", "two"):
            saves = (wanted(name, "STRIPE", f"cus_{name}", description=text) for name in USERS[1:])
            new = (wanted(name, "PAYPAL", f"{text}_{name}", replaces=f"one_{name}") for name in USERS[1:])
            await are_answered([graph.client(SAVE, input=save) for save in (*saves, *new)])
            await are_answered(reads(app, graph, USERS))
        assert await connection.fetchval(HOLDS_UP)
    await ended(locked)
