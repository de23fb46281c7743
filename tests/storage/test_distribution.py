"""What a distributed database runs gives the same answers; a cluster itself is tested if TEST_CITUS_URL names one."""

import asyncio
import json
import os
import re
import sys
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.bulk.exporting import export
from graphql_api.bulk.importing import import_tokens
from graphql_api.doctor import findings
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.inputs import Gateways
from graphql_api.settings import Settings
from graphql_api.storage.checks import FIRST
from graphql_api.storage.customer_lists import CustomerList, ListedCustomer
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.migrations.distributed import FUNCTIONS
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, CITUS, SHARDS
from tests.graph import Graph, wanted
from tests.until import until

needs_citus = pytest.mark.skipif(not CITUS, reason="TEST_CITUS_URL names no coordinator of a Citus cluster")
needs_none = pytest.mark.skipif(bool(CITUS), reason="the databases of this run are distributed")
TOKENS = "customer_gateway_tokens"
# No worker has a prepared transaction.
NO_WORKERS = """
create function run_command_on_workers(text, out success boolean, out result text) returns record language sql
as 'select true, null::text'
"""
CHANGING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|\d{4}-\d\d-\d\dT[^\",]+|\"(?:idempotencyKey|\w*[cC]ursor)\": \"[^\"]+\""
)
BATCH = [wanted("u3", "GATEWAY_0", "cus_9"), wanted("u4", "GATEWAY_0", "cus_10")]


@pytest.fixture
async def url(new_database, migrated_database, straight):
    return straight(await new_database(migrated_database))


async def whole(graph, length):
    """The feed, if nothing that runs in another database of the server holds it back any more."""
    page = await graph.feed(first=100)
    return page if len(page["nodes"]) == length else None


async def answers(url):
    """What a service says to a bit of everything, without what differs from run to run."""
    said = []
    async with opened(create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        saved = [await graph.saved(f"u{number % 3}", f"GATEWAY_{number // 3}", f"cus_{number}") for number in range(9)]
        said += [*saved, await graph.save_many(BATCH)]
        said += [await graph.save("u0", "GATEWAY_0", "cus_1"), await graph.save("u5", "GATEWAY_0", "cus_11")]
        said += await asyncio.gather(*(graph.update(token, description="changed") for token in saved))
        said += [await graph.save("u0", "GATEWAY_0", "cus_new", replaces="cus_0")]
        said += [await graph.customer("GATEWAY_0", name) for name in ("cus_1", "cus_new", "cus_0", "cus_none")]
        said += [await graph.token(saved[1]["id"]), await graph.history(saved[0])]
        for customer in ("cus_3", "cus_99"):
            said += [await graph.deactivate_customer("GATEWAY_1", customer, reason="GATEWAY_DELETED")]
        said += [await graph.claim(user, "GATEWAY_1", leaseSeconds=60) for user in ("u0", "u9")]
        said += [await graph.merge("u0", "u1", onConflict="KEEP_SOURCE")]
        said += [await graph.tokens(user) for user in ("u0", "u1")]
        said += [await graph.reassign(("GATEWAY_0", "cus_2", "u6")), await graph.delete(saved[5])]
        said += [await graph.erase("u1"), await graph.erasures()]
        connection = await asyncpg.connect(url)
        recorded = await connection.fetchval("select count(*) from customer_gateway_token_events")
        feed = await until(lambda: whole(graph, recorded), "the feed has every change")
        said += sorted((each["action"], str(each["userId"]), each["gatewayCustomerId"]) for each in feed["nodes"])
    async with connection.transaction():
        await export(connection, "csv", lambda part: said.extend(part.decode().splitlines()))
        listed = CustomerList(connection, "GATEWAY_0", datetime.now(UTC))
        await listed.load([ListedCustomer("cus_1", is_deleted=True), ListedCustomer("cus_none", is_deleted=False)])
        said += [await listed.counts(), len(await listed.changes(FIRST, 9))]
        await listed.report(lambda part: said.extend(part.decode().splitlines()))
    await connection.close()
    return [CHANGING.sub("…", json.dumps(each)) for each in said]


@needs_none
async def test_the_texts_for_a_distributed_database_answer_as_the_others_do(
    url, new_database, migrated_database, straight
):
    other = straight(await new_database(migrated_database))
    connection = await asyncpg.connect(other)
    await connection.execute(NO_WORKERS + ";" + FUNCTIONS)
    await connection.close()
    for expected, said in zip(await answers(url), await answers(other), strict=True):
        assert said == expected


async def ran(url, *arguments):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", *arguments),
        env={**os.environ, "DATABASE_URL": url},
        stdout=-1,
        stderr=-1,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@needs_none
async def test_plain_postgresql_cannot_be_distributed(url):
    status, out, err = await ran(url, "distribute")
    assert (status, out) == (2, "")
    assert "This database has no Citus" in err
    assert not [each async for each in findings(Settings(database_url=url)) if each.check == "citus"]


@needs_citus
async def test_a_distributed_database_is_distributed_once(url):
    status, out, _ = await ran(url, "distribute", "--shards", str(SHARDS))
    assert (status, out.splitlines()[0]) == (0, f"{TOKENS} has {SHARDS} shards on 2 workers.")
    status, out, _ = await ran(url, "distribute", "--dry-run")
    assert (status, f"{SHARDS} shards already" in out) == (0, True)
    status, _, err = await ran(url, "distribute", "--shards", "5")
    assert (status, f"has {SHARDS} shards already" in err) == (2, True)


@needs_citus
async def test_doctor_says_what_holds_in_a_cluster(url):
    async def lines():
        found = findings(Settings(database_url=url))
        return [(each.is_well, each.says) async for each in found if each.check == "citus"]

    [(is_well, says), (_, note)] = await lines()
    assert is_well
    assert f"{SHARDS} shards of {TOKENS}" in says
    assert "readers may see a merge half-done" in note
    connection = await asyncpg.connect(url)
    await connection.execute(
        "create or replace function feed_newest() returns bigint language sql as 'select 0::bigint'"
    )
    await connection.close()
    assert (False, "the functions are of another release: run `gateway-tokens migrate`") in await lines()
    assert (await ran(url, "migrate"))[0] == 0
    assert len(await lines()) == 2


@needs_citus
async def test_a_migration_changes_every_shard(url, coming):
    coming.add(f"alter table {TOKENS} add column note text", index=("by_note", TOKENS, "(note)"))
    await upgrade(url, versions=coming.folder)
    connection = await asyncpg.connect(url)
    shards = await connection.fetch(
        "select result from run_command_on_shards($1, $$ select string_agg(indexrelid::regclass::text, ' ')"
        " from pg_index where indrelid = '%s'::regclass and indisvalid $$)",
        TOKENS,
    )
    await connection.close()
    assert [result.count("by_note_") for (result,) in shards] == [1] * SHARDS


@needs_citus
async def test_answers_of_a_cluster_are_those_of_one_database(url, new_database, straight):
    alone = straight(await new_database())
    await upgrade(alone)
    for expected, said in zip(await answers(alone), await answers(url), strict=True):
        assert said == expected


@needs_citus
async def test_a_transaction_is_prepared_on_every_worker_that_it_changes(url):
    """If a worker dies before its last commit, Citus commits what is prepared there, and nothing else."""
    connection = await asyncpg.connect(url)

    async def prepared():
        return {(row[0], row[1]) for row in await connection.fetch("select gid, groupid from pg_dist_transaction")}

    async def check(user, change):
        before = await prepared()
        token = await change
        shards = await connection.fetch(
            "select groupid from pg_dist_placement where shardid = get_shard_id_for_distribution_column($1, $2::text)"
            " union select groupid from pg_dist_placement"
            " where shardid = get_shard_id_for_distribution_column($3, $4::text::uuid)",
            *(TOKENS, user, "customer_gateway_token_events", token["id"]),
        )
        assert {group for (group,) in shards} <= {group for _, group in await prepared() - before}
        return token

    async with opened(create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))

        async def reassigned(customer, user):
            [token] = (await graph.reassign(("STRIPE", customer, user)))["gatewayTokens"]
            return token

        async def deleted(token):
            return {"id": (await graph.delete(token))["deletedId"]}

        for number in range(6):
            user, customer = f"u{number}", f"cus_{number}"
            await check(user, graph.saved(user, "STRIPE", customer))
            await check(user, graph.saved(user, "STRIPE", f"new_{customer}", replaces=customer))
            token = await check("v", reassigned(f"new_{customer}", "v"))
            await check("v", deleted(token))
    await connection.close()


@needs_citus
async def test_a_token_that_its_worker_has_yet_to_commit_is_not_rejected(url):
    """Another import has committed its history and its customer id, and its token is prepared."""
    given = {"id": str(uuid4()), "userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}
    connection = await asyncpg.connect(url)
    shard, host, port = await connection.fetchrow(
        "select shard_name, nodename, nodeport from citus_shards"
        " where shardid = get_shard_id_for_distribution_column($1, 'u1'::text)",
        TOKENS,
    )
    await connection.close()
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    worker = await asyncpg.connect(parts._replace(netloc=f"{user}@{host}:{port}").geturl())
    async with ConnectionPool.open(url) as pool:
        store = TokenStore(pool)

        async def imported():
            [tally] = [tally async for tally in import_tokens(store, Gateways(), iter([(1, given)]))]
            return tally.created, tally.unchanged, tally.rejected

        assert await imported() == (1, 0, [])
        await worker.execute(f"create table late as select * from {shard}; delete from {shard}")  # noqa: S608
        await worker.execute(f"begin; insert into {shard} select * from late; prepare transaction 'late'")  # noqa: S608
        importing = asyncio.create_task(imported())
        await asyncio.sleep(0.3)
        await worker.execute("commit prepared 'late'")
        assert await importing == (0, 1, [])
    await worker.close()
