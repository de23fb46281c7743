"""Old history goes, but for what something counts on."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest

from graphql_api.deliveries import delivering
from graphql_api.domain.errors import ExpiredCursorError
from graphql_api.storage import retention
from graphql_api.storage.feed import Feed
from graphql_api.storage.pool import ConnectionPool
from tests.conftest import WAITING_ON_WORKERS
from tests.graph import token_of
from tests.until import until

EVENTS = "customer_gateway_token_events"
ENTRIES = f"select gateway_customer_id, version from {EVENTS} order by 1, 2"  # noqa: S608


@pytest.fixture
def prune(empty_database):
    async def prune(days):
        async with ConnectionPool.open(empty_database) as pool:
            return sum([count async for count in retention.prune(pool, timedelta(days=days), rows_at_once=3)])

    return prune


@pytest.fixture
async def aged(graph, connection):
    """Tokens whose versions are 40, 30, 20 … days old; one is deleted."""
    for name in ("cus_1", "cus_2"):
        token = await graph.saved(f"user of {name}", "STRIPE", name)
        for number in range(3):
            token = token_of(await graph.update(token, description=str(number)))
    await graph.delete(token)
    for version in range(1, 6):
        at = datetime.now(UTC) + timedelta(days=10 * version - 40)
        await connection.execute(f"update {EVENTS} set at = $1 where version = $2", at, version)  # noqa: S608
    return token


async def entries(connection):
    return [tuple(row) for row in await connection.fetch(ENTRIES)]


async def test_what_is_older_goes_and_the_last_entry_of_a_token_stays(graph, aged, connection, prune):
    assert await prune(15) == 4
    assert await entries(connection) == [("cus_1", 3), ("cus_1", 4), ("cus_2", 3), ("cus_2", 4), ("cus_2", 5)]
    assert await prune(0) == 3
    assert await prune(0) == 0
    assert await entries(connection) == [("cus_1", 4), ("cus_2", 5)]
    assert (await graph.delete(aged))["deletedId"] == aged["id"]
    assert [entry["version"] for entry in await graph.history(await graph.customer("STRIPE", "cus_1"))] == [4]
    await graph.erase("user of cus_2")
    assert [row[0] for row in await connection.fetch(f"select user_id from {EVENTS} order by 1")] == [  # noqa: S608
        "user of cus_1",
        None,
    ]


async def test_a_follower_is_told_of_what_a_later_run_deleted_behind_its_cursor(graph, prune):
    """The last entry of a token stays until there is a newer one, although later entries of others were deleted."""

    async def page(after=None):
        return await graph.client(
            "query ($after: String) { customerGatewayTokenEvents(after: $after, first: 1) {"
            " edges { cursor node { gatewayCustomerId } } } }",
            after=after,
        )

    async def edges():
        return (await page())["data"]["customerGatewayTokenEvents"]["edges"]

    for name in ("cus_1", "cus_2", "cus_3"):
        token = await graph.saved(f"user of {name}", "STRIPE", name)
    await graph.update(token, description="newer")
    assert await prune(0) == 1
    [edge] = await until(edges, "the first entry is settled")
    assert edge["node"]["gatewayCustomerId"] == "cus_1"
    assert "errors" not in await page(after=edge["cursor"])
    await graph.update(await graph.customer("STRIPE", "cus_2"), description="newer")
    assert await prune(0) == 1
    [error] = (await page(after=edge["cursor"]))["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"


async def test_what_an_endpoint_has_not_taken_stays(aged, connection, prune):
    second = f"select position from {EVENTS} where gateway_customer_id = 'cus_2' and version = 2"  # noqa: S608
    position = await connection.fetchval(second)
    await connection.execute(
        "insert into event_endpoints (name, position, disabled_at) values ('slow', $1, now()), ('fast', 1000, null)",
        position - 1,
    )
    assert await prune(0) == 4  # all but the last of one token, and one of the other
    assert await entries(connection) == [("cus_1", 4), *(("cus_2", version) for version in range(2, 6))]


@pytest.fixture
async def endpoint(connection, empty_database):
    """An endpoint ahead of all entries, a pool for `deliver`, and the place before all entries."""
    await connection.execute("insert into event_endpoints (name, position) values ('hook', 1000)")
    async with ConnectionPool.open(empty_database) as pool:
        yield pool, (await Feed(pool).page(None, 1)).start


def waiting(connection, count):
    """Returns once this many statements, or more, wait for locks that others hold."""
    sql = f"select count(*) + {WAITING_ON_WORKERS} >= $1 from pg_stat_activity"  # noqa: S608
    sql += " where datname = current_database() and wait_event_type = 'Lock'"
    return until(lambda: connection.fetchval(sql, count), f"{count} wait for a lock")


async def test_no_endpoint_goes_back_to_what_is_being_deleted(graph, aged, connection, prune, endpoint, empty_database):
    pool, start = endpoint
    other = await asyncpg.connect(empty_database)
    async with other.transaction():
        first = f"select from {EVENTS} where token_id = $1 and version = 1 for update"
        await other.execute(first, (await graph.customer("STRIPE", "cus_1"))["id"])
        pruning = asyncio.create_task(prune(15))
        await waiting(connection, 1)
        resuming = asyncio.create_task(delivering.resume(pool, "hook", start=start))
        await waiting(connection, 2)
    await other.close()
    with pytest.raises(ExpiredCursorError, match="Entries after this cursor were deleted"):
        await resuming
    assert await pruning == 4
    assert await connection.fetchval("select position from event_endpoints") == 1000


async def test_nothing_is_deleted_that_an_endpoint_goes_back_to(aged, connection, prune, endpoint, empty_database):
    before, other = await entries(connection), await asyncpg.connect(empty_database)
    async with other.transaction():
        await other.execute("update event_endpoints set position = 0")  # as `deliver --resume hook --from` does
        pruning = asyncio.create_task(prune(15))
        await waiting(connection, 1)
    await other.close()
    assert await pruning == 0
    assert await entries(connection) == before


@pytest.fixture
def command(empty_database, straight):
    """Runs `prune`; answers its question on a terminal if there is an answer."""

    async def run(*options, answer=None):
        leader, follower = os.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "graphql_api", "prune", "--history-older-than", "15d", *options),
            env={**os.environ, "DATABASE_URL": straight(empty_database)},
            stdin=asyncio.subprocess.DEVNULL if answer is None else follower,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        os.write(leader, (answer or "").encode())
        printed, said = await process.communicate()
        os.close(leader)
        os.close(follower)
        lines = said.decode().splitlines(keepends=True)
        return process.returncode, printed.decode(), "".join(each for each in lines if not each.startswith("Database"))

    return run


async def test_the_command_says_how_many(aged, command, connection):
    before = await entries(connection)
    assert await command("--dry-run") == (0, "4 history entries would be deleted.\n", "")
    assert await entries(connection) == before
    assert await command("--yes") == (0, "Deleted 4 history entries.\n", "")
    assert len(await entries(connection)) == len(before) - 4


async def test_without_a_terminal_the_command_deletes_nothing_unless_told_to(aged, command, connection):
    before = await entries(connection)
    status, printed, errors = await command()
    assert (status, printed) == (2, "")
    assert "prune permanently deletes history. Pass --yes to confirm, or --dry-run to count the entries." in errors
    assert await entries(connection) == before


@pytest.mark.parametrize(
    ("options", "answer", "deleted"), [([], "y\n", 4), ([], "\n", 0), (["--yes"], "n\n", 4), (["--dry-run"], "y\n", 0)]
)
async def test_on_a_terminal_the_command_asks_first(
    aged, command, connection, empty_database, options, answer, deleted
):
    before = len(await entries(connection))
    _, printed, _ = await command(*options, answer=answer)
    database = urlsplit(empty_database).path.removeprefix("/")
    question = f"Delete 4 history entries older than 15d from the database {database} on "
    assert (question in printed and "? This cannot be undone." in printed) is not bool(options)
    assert len(await entries(connection)) == before - deleted


@pytest.mark.parametrize("first", [1, 2])
async def test_a_follower_is_told_of_deleted_entries_that_it_has_not_seen(graph, aged, connection, prune, first):
    async def page(**arguments):
        answer = await graph.client(
            "query ($after: String, $first: Int) { customerGatewayTokenEvents(after: $after, first: $first) {"
            " edges { cursor } nodes { version } pageInfo { endCursor hasNextPage } } }",
            **arguments,
        )
        return answer["data"]["customerGatewayTokenEvents"] if "errors" not in answer else answer["errors"][0]

    async def all_are_settled():  # transactions in other databases hold them up
        return len((await page(first=500))["nodes"]) == len(await entries(connection))

    await until(all_are_settled, "the feed has all entries")
    behind, ahead = (await page(first=first)), await page(first=500)
    await prune(15)
    error = await page(after=behind["pageInfo"]["endCursor"])
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    assert (await page(after=ahead["pageInfo"]["endCursor"]))["nodes"] == []
    some = await page(first=first)  # a new follower sees all that is left, and may continue from any entry
    found = list(some["nodes"])
    while some["pageInfo"]["hasNextPage"]:
        for edge in some["edges"]:
            assert "nodes" in await page(after=edge["cursor"], first=1)
        some = await page(after=some["pageInfo"]["endCursor"], first=first)
        found += some["nodes"]
    assert len(found) == 5
