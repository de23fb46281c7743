"""Whoever follows the change feed gets every entry once, whatever the writers do; other cursors lose some."""

import asyncio
import random
import secrets
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import asyncpg
import pytest

from graphql_api.domain.errors import BadInputError
from graphql_api.domain.filter import FeedFilter, FeedPosition
from graphql_api.storage import feed as feeds
from graphql_api.storage.feed import Feed
from graphql_api.storage.pool import ConnectionPool
from tests.conftest import CITUS
from tests.until import until

EVENTS = "customer_gateway_token_events"
RECORD = f"""
  insert into {EVENTS} (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
  values ($1, $2, 'u', $3, 'c', true, 'UPDATED', 'test', clock_timestamp()) returning position
"""  # noqa: S608
STORED = f"select position, token_id::text, version from {EVENTS} order by position"  # noqa: S608
COUNT = feeds.Statement("count", f"select count(*) from {EVENTS}")  # noqa: S608
A, B, C = (str(UUID(int=number)) for number in (1, 2, 3))


class Writer:
    """A transaction that records what it is told; as the service's do, it has its id before anything else."""

    def __init__(self, connection):
        self._connection = connection
        self._transaction = connection.transaction()

    async def begin(self):
        await self._transaction.start()
        await self._connection.fetch("select pg_current_xact_id()")

    async def record(self, token, version, gateway="STRIPE"):
        return await self._connection.fetchval(RECORD, token, version, gateway)

    async def commit(self):
        await self._transaction.commit()

    async def rollback(self):
        await self._transaction.rollback()


@pytest.fixture
async def writer(url):
    connections = []

    async def begin():
        connections.append(await asyncpg.connect(url))
        writer = Writer(connections[-1])
        await writer.begin()
        return writer

    yield begin
    for connection in connections:
        await connection.close()


@pytest.fixture
def written(writer):
    """Records an entry in a transaction of its own."""

    async def write(*entry):
        one = await writer()
        position = await one.record(*entry)
        await one.commit()
        return position

    return write


class Follower:
    """Follows the feed by its cursor."""

    def __init__(self, feed, size=3):
        self.feed, self.size = feed, size
        self.place, self.seen = None, []

    async def read(self):
        """Read one page. What is not there when this ends was not read."""
        page = await self.feed.page(self.place, self.size)
        self.seen += [(line["position"], str(line["token_id"]), line["version"]) for line in page.lines]
        self.place = page.end


class AsItComes:
    """A losing cursor: the position of the last entry that was there."""

    def __init__(self, pool):
        self._pool, self._after, self.seen = pool, 0, []

    async def read(self):
        sql = f"select position, token_id::text, version from {EVENTS} where position > $1 order by position"  # noqa: S608
        rows = await self._pool.fetch(feeds.Statement("test", sql), self._after)
        self.seen += map(tuple, rows)
        self._after = max([self._after, *(row[0] for row in rows)])


class ByTransaction:
    """A losing cursor: the transaction's id and the position, below the oldest transaction that runs."""

    def __init__(self, pool):
        self._pool, self._after, self.seen = pool, (0, 0), []

    async def read(self):
        sql = f"""
          select position, token_id::text, version, xmin::text::bigint from {EVENTS}
          where (xmin::text::bigint, position) > ($1, $2)
            and xmin::text::bigint < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
          order by xmin::text::bigint, position
        """  # noqa: S608
        for *entry, xid in await self._pool.fetch(feeds.Statement("test", sql), *self._after):
            self.seen.append(tuple(entry))
            self._after = xid, entry[0]


class BySnapshot(Follower):
    """A losing cursor: settled are positions once all transactions have ended that the snapshot knew of."""

    def __init__(self, pool):
        super().__init__(Feed(pool))
        look = self.feed._sql.look
        sql = look.sql.replace("pg_current_xact_id()", "pg_snapshot_xmax(pg_current_snapshot())")
        self.feed._sql = feeds._Statements(feeds.FEED_TIMELINE)
        self.feed._sql.look = feeds.Statement("test", sql)


def ours(pool):
    return Follower(Feed(pool))


async def one_commits_later_than_the_next(follower, writer):
    first, second = await writer(), await writer()
    await first.record(A, 1)
    await second.record(B, 1)
    await second.commit()
    await follower.read()
    await first.commit()


async def one_that_began_first_changes_a_token_last(follower, writer):
    early, late = await writer(), await writer()
    await early.record(A, 1)
    await late.record(B, 1)
    await late.commit()
    await follower.read()
    await early.record(B, 2)
    await early.commit()


async def one_runs_that_the_snapshot_does_not_know_yet(follower, writer):
    first, second = await writer(), await writer()
    await second.record(A, 1)
    await first.record(B, 1)
    await first.commit()
    for _ in range(3):
        await follower.read()
    await second.commit()


SCENARIOS = [
    one_commits_later_than_the_next,
    one_that_began_first_changes_a_token_last,
    one_runs_that_the_snapshot_does_not_know_yet,
]


async def faults(follower, scenario, writer, connection, seconds=30):
    """What a follower misses within this time, or gets out of order."""
    await scenario(follower, writer)
    stored = [tuple(row) for row in await connection.fetch(STORED)]

    async def has_read():
        await follower.read()
        return len(set(follower.seen)) >= len(stored)

    try:
        await until(has_read, "all is read", seconds=seconds)
    except AssertionError:
        return "misses"
    return "disorders" if disordered(follower.seen) else "" if follower.seen == stored else "repeats"


def disordered(seen):
    versions = {}
    for _, token, version in seen:
        versions.setdefault(token, []).append(version)
    return any(each != sorted(each) for each in versions.values())


@pytest.fixture
async def observer(url):
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_feed_gives_every_entry_once_and_in_order(pool, writer, observer, scenario):
    assert await faults(ours(pool), scenario, writer, observer) == ""


async def test_the_position_of_the_last_entry_misses_entries(pool, writer, observer):
    follower = AsItComes(pool)
    assert await faults(follower, one_commits_later_than_the_next, writer, observer, seconds=1) == "misses"


async def test_the_order_of_transactions_disorders_entries(pool, writer, observer):
    follower = ByTransaction(pool)
    assert await faults(follower, one_that_began_first_changes_a_token_last, writer, observer) == "disorders"


async def test_the_transactions_of_a_snapshot_miss_entries(pool, writer, observer):
    async def misses():
        await observer.execute(f"delete from {EVENTS}")  # noqa: S608
        follower = BySnapshot(pool)
        await one_runs_that_the_snapshot_does_not_know_yet(follower, writer)
        await follower.read()
        [[stored]] = await pool.fetch(COUNT)
        return len(follower.seen) < stored

    # A snapshot knows of the transaction if a later one ends just then, such as autovacuum's.
    await until(misses, "an entry is missed")


TOKENS = 30


class Load:
    """Writers that change some tokens in each transaction, with pauses; some are rolled back."""

    def __init__(self, url, seed):
        self._url = url
        self._random = random.Random(seed)

    async def fill(self):
        async with self._connected() as connection:
            await connection.execute(
                "insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id)"
                " select 'u' || n, 'STRIPE', 'c' || n from generate_series(1, $1) n".replace("$1", str(TOKENS))
            )
            self._ids = [row[0] for row in await connection.fetch("select id::text from customer_gateway_tokens")]

    @asynccontextmanager
    async def _connected(self):
        connection = await asyncpg.connect(self._url)
        try:
            yield connection
        finally:
            await connection.close()

    async def write(self, transactions, slow):
        async with self._connected() as connection:
            for _ in range(transactions):
                writer = Writer(connection)
                await writer.begin()
                for token in sorted(self._random.sample(self._ids, self._random.randint(1, 4))):
                    version = await connection.fetchval(
                        "update customer_gateway_tokens set version = version + 1 where id = $1 returning version",
                        token,
                    )
                    await writer.record(token, version)
                    await asyncio.sleep(self._random.random() * (0.02 if slow else 0.001))
                await (writer.rollback() if self._random.random() < 0.2 else writer.commit())


@pytest.mark.parametrize("seed", range(3))
async def test_followers_that_are_restarted_at_any_moment_get_what_is_stored(url, pool, observer, seed):
    load, chance = Load(url, seed), random.Random(seed)
    await load.fill()
    followers = [Follower(Feed(pool), size=chance.randint(1, 40)) for _ in range(3)]
    writing = asyncio.gather(*(load.write(10, slow=number < 6) for number in range(20)))

    async def follow(follower):
        while True:
            reading = asyncio.ensure_future(follower.read())
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.01)
                reading.cancel()
                follower.feed = Feed(pool)
            await asyncio.wait([reading])
            if writing.done() and not reading.cancelled():
                [[stored]] = await pool.fetch(COUNT)
                if len(follower.seen) >= stored and not (await follower.feed.page(follower.place, 1)).lines:
                    return

    await asyncio.wait_for(asyncio.gather(*map(follow, followers)), 60)
    await writing
    stored = [tuple(row) for row in await observer.fetch(STORED)]
    assert len(stored) > 100
    for follower in followers:
        assert follower.seen == stored
        assert not disordered(follower.seen)


async def test_a_long_transaction_delays_the_feed_and_shows_as_lag(pool, writer, written):
    long = await writer()
    await long.record(A, 1)
    await written(B, 1)
    feed = Feed(pool)
    page = await feed.page(None, 10)
    assert (page.lines, page.has_more) == ([], False)
    assert (await feed.measure())[1] > 0.2
    await long.rollback()
    await until(lambda: _is_settled(feed), "the feed is settled")
    page = await feed.page(None, 10)
    assert [str(line["token_id"]) for line in page.lines] == [B]


async def _is_settled(feed):
    return (await feed.measure())[1] == 0


async def test_a_place_after_all_that_is_there_misses_nothing_that_comes(pool, writer, written):
    await written(A, 1)
    under_way = await writer()
    await under_way.record(B, 1)
    feed = Feed(pool)
    place = await feed.now()
    await under_way.commit()
    position = await written(C, 1)

    async def tokens():
        page = await feed.page(place, 10)
        return page.end.position == position and [str(line["token_id"]) for line in page.lines]

    assert set(await until(tokens, "all is settled")) >= {B, C}


async def test_pages_pass_over_what_the_filter_leaves_out(pool, written):
    feed = Feed(pool, statements=feeds._Statements(feeds.FEED_TIMELINE, max_scanned=4))
    for version in range(1, 11):
        position = await written(A, version, "PAYPAL" if version == 10 else "STRIPE")
    await until(lambda: _settled(feed, position), "all is settled")
    place, ends, wanted = None, [], FeedFilter(["PAYPAL"], None)
    while True:
        page = await feed.page(place, 2, wanted)
        place = page.end
        ends.append((len(page.lines), page.has_more))
        if not page.has_more:
            break
    assert ends == [(0, True), (0, True), (1, False)]
    assert not (await feed.page(None, 2, FeedFilter(None, ["DELETED"]))).lines


async def test_a_place_of_an_earlier_timeline_continues_where_that_was_settled(pool, written, observer):
    feed = Feed(pool)
    positions = [await written(A, version) for version in range(1, 6)]
    here = await until(lambda: _settled(feed, positions[4]), "all is settled")
    assert await observer.fetch("select * from event_timelines") == [here[:2]]
    await observer.execute("insert into event_timelines values ('F0', $1)", positions[2])
    lines = (await feed.page(FeedPosition("F0", positions[4]), 10)).lines
    assert [line["version"] for line in lines] == [4, 5]
    assert len((await feed.page(FeedPosition("F0", positions[3]), 10)).lines) == 2
    assert len((await feed.page(FeedPosition("F0", positions[1]), 10)).lines) == 3
    assert len((await feed.page(FeedPosition("F1", positions[4]), 10)).lines) == 5
    with pytest.raises(BadInputError, match="does not belong to this database"):
        await feed.page(here._replace(position=here.position + 1), 10)


class FailsOver:
    """A pool whose database is another one once a place was looked up: the entries after the third one are lost."""

    def __init__(self, pool):
        self._pool = pool

    async def fetch(self, statement, *arguments):
        if statement.name == "feed_page":
            await self._pool.fetch(
                feeds.Statement("lose", "update event_timelines set settled = 3 where timeline = 'A'")
            )
            await self._pool.fetch(feeds.Statement("fail_over", "update here set timeline = 'B'"))
        return await self._pool.fetch(statement, *arguments)


@pytest.fixture
async def timeline(observer):
    """A timeline, in SQL, that a table has."""
    await observer.execute("create table here (timeline text); insert into here values ('A')")
    yield "(select timeline from here)"
    await observer.execute("drop table here")


async def test_a_failover_while_a_page_is_read_loses_no_entry(pool, written, timeline):
    statements = feeds._Statements(timeline)
    for version in range(1, 6):
        await written(A, version)
    place = await until(lambda: _settled(Feed(pool, statements=statements), 5), "all is settled")
    page = await Feed(FailsOver(pool), statements=statements).page(place, 10)
    assert ([line["version"] for line in page.lines], page.end.timeline) == ([4, 5], "B")


class Crashes:
    """A pool whose database crashes after it gave a transaction id: no log has that, and it is given again."""

    def __init__(self, pool):
        self._pool, self._has_crashed = pool, False

    async def fetch(self, statement, *arguments):
        rows = await self._pool.fetch(statement, *arguments)
        if statement.name != "feed_look" or rows[0][-1] is None or self._has_crashed:
            return rows
        self._has_crashed = True
        return [(*each[:-1], each[-1] + 1000) for each in rows]


async def test_the_feed_continues_after_a_crash_although_nothing_else_is_written(pool, written):
    await written(A, 1)
    feed = Feed(Crashes(pool))
    assert await until(lambda: _settled(feed, 1), "all is settled")


async def _settled(feed, position):
    place = await feed.now()
    return place if place.position == position else None


@pytest.mark.parametrize("name", ["STATEMENTS", "_WITHOUT_TIMELINES"])
async def test_a_copy_of_the_database_is_another_timeline(new_database, migrated_database, straight, name):
    """What was recorded in the original after the copy has the positions of what was recorded in the copy then."""

    async def record(url, versions):
        connection = await asyncpg.connect(url)
        last = [await connection.fetchval(RECORD, A, version, "STRIPE") for version in versions][-1]
        await connection.close()
        async with ConnectionPool.open(url) as pool:
            feed = Feed(pool, statements=getattr(feeds, name))
            return await until(lambda: _settled(feed, last), "all is settled")

    original = straight(await new_database(migrated_database))
    at_the_copy = await record(original, [1, 2])
    copy = straight(await new_database(urlsplit(original).path.removeprefix("/")))
    later = await record(original, [3, 4])
    await record(copy, [5, 6, 7])
    async with ConnectionPool.open(copy) as pool:
        feed = Feed(pool, statements=getattr(feeds, name))
        await until(lambda: _settled(feed, 5), "all is settled")
        for place in (at_the_copy, later):
            assert [line["version"] for line in (await feed.page(place, 10)).lines] == [5, 6, 7]


@pytest.mark.skipif(bool(CITUS), reason="the role that this makes is not on the workers")
async def test_where_the_log_may_not_be_looked_at_there_are_no_timelines(new_database, migrated_database, straight):
    url = straight(await new_database(migrated_database))
    observer = await asyncpg.connect(url)
    await observer.fetch(RECORD, A, 1, "STRIPE")
    role = f"test_{secrets.token_hex(6)}"
    await observer.execute(
        f"revoke execute on function pg_walfile_name from public; create role {role};"
        f" grant select on {EVENTS}, event_timelines to {role}; grant insert, update on event_timelines to {role}"
    )
    try:
        parts = urlsplit(url)
        as_role = parts._replace(query=urlencode([*parse_qsl(parts.query), ("role", role)])).geturl()
        async with ConnectionPool.open(as_role) as pool:
            feed = Feed(pool)

            async def entries():
                page = await feed.page(None, 10)
                return page if page.lines else None

            page = await until(entries, "the entry is in the feed")
            assert (len(page.lines), page.end.timeline[:2]) == (1, "0-")
    finally:
        await observer.execute(f"drop owned by {role}; drop role {role}")
        await observer.close()
