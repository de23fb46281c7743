"""`gateway-tokens demo`: tokens to look at, the same every time."""

import asyncio

from graphql_api.demo import fill
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore


async def test_demo_tokens_are_the_same_every_time(command, table, empty):
    async def rows():
        return (
            await table("select * from customer_gateway_tokens order by id"),
            await table("select gateway_customer_id, gateway, user_id from gateway_customers order by 1, 2"),
            await table("select * from customer_gateway_token_events order by token_id, version"),
        )

    assert (await command("demo", "--users", "20")).status == 0
    before = await rows()
    await empty()
    await command("demo", "--users", "20")
    assert await rows() == before
    assert {row[1] for row in before[0]} == {f"user-{number}" for number in range(1, 21)}


async def test_demo_users_have_one_to_three_gateways_some_former_ids_and_some_inactive_tokens(command, table):
    await command("demo")
    sizes = await table("select distinct count(*) from customer_gateway_tokens group by user_id order by 1")
    assert sizes == [(1,), (2,), (3,)]
    [(active, inactive)] = await table(
        "select count(*) filter (where is_active), count(*) filter (where not is_active) from customer_gateway_tokens"
    )
    [(identifiers,)] = await table("select count(*) from gateway_customers")
    assert 0 < inactive < active < active + inactive < identifiers


async def test_the_history_of_a_demo_token_ends_with_the_token(command, table):
    await command("demo")
    assert (
        await table(
            "with token as materialized (select id, version, updated_at, is_active from customer_gateway_tokens),"
            " entry as materialized (select distinct on (token_id) token_id, version, at, is_active"
            "  from customer_gateway_token_events order by token_id, version desc)"
            " select id from token left join entry on token_id = id where"
            " (token.version, updated_at, token.is_active) is distinct from (entry.version, at, entry.is_active)"
        )
        == []
    )


async def test_demo_tokens_go_only_into_an_empty_database(command, graph, table, empty):
    await command("demo", "--users", "5")
    again = await command("demo", "--users", "50")
    assert (again.status, again.out) == (0, "The demo tokens exist already.\n")
    await empty()
    await graph.save("user-1", "STRIPE", "cus_1")
    refused = await command("demo")
    assert (refused.status, refused.err) == (
        1,
        "gateway-tokens: The database contains other tokens. Demo tokens need an empty database.\n",
    )
    assert await table("select count(*) from customer_gateway_tokens") == [(1,)]


async def test_two_that_fill_at_once_fill_once(database_url, empty_database, table):
    async with ConnectionPool.open(database_url) as one, ConnectionPool.open(database_url) as two:
        filled = await asyncio.gather(fill(TokenStore(one), users=50), fill(TokenStore(two), users=50))
    assert sorted(filled) == [False, True]
    assert await table("select count(distinct user_id) from customer_gateway_tokens") == [(50,)]
