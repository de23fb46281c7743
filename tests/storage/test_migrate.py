"""Migrating while others use the database, at once, and after a process that was killed at it."""

import asyncio
import re
import sys

import asyncpg
import pytest

from graphql_api.doctor import findings
from graphql_api.domain.errors import UnavailableError
from graphql_api.settings import Settings
from graphql_api.storage import migrate
from graphql_api.storage.migrate import current_revision, must_be_migrated, must_be_ready, upgrade
from graphql_api.storage.pool import ConnectionPool
from tests.until import until

TABLE = "customer_gateway_tokens"
ADD = f"alter table {TABLE} add column note text"
READ = f"select * from {TABLE}"  # noqa: S608
READ_NOTE = f"select note from {TABLE}"  # noqa: S608
OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
MIGRATE = """
import asyncio, pathlib, sys
from graphql_api.storage import migrate
asyncio.run(migrate.upgrade(sys.argv[1], versions=pathlib.Path(sys.argv[2])))
"""


@pytest.fixture
async def url(new_database, migrated_database):
    """A database that has all migrations but those to come."""
    return await new_database(migrated_database)


@pytest.fixture
async def connect(url):
    made = []

    async def make():
        made.append(await asyncpg.connect(url))
        return made[-1]

    yield make
    for connection in made:
        await connection.close()


async def test_nobody_waits_long_behind_a_migration_that_waits_for_an_open_transaction(url, connect, coming, caplog):
    caplog.set_level("WARNING")
    coming.add(ADD)
    reader, other = await connect(), await connect()
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch(READ)
    migrating = asyncio.create_task(upgrade(url, versions=coming.folder))
    await until(lambda: "will be retried" in caplog.text, "the migration is tried again")
    for _ in range(20):
        await other.fetch(READ)
        await asyncio.sleep(0.02)
    assert not migrating.done()
    await transaction.rollback()
    await migrating
    await other.fetch(READ_NOTE)


async def test_a_transaction_that_does_not_end_is_not_waited_for_for_ever(url, connect, coming):
    coming.add(ADD)
    reader = await connect()
    async with reader.transaction():
        await reader.fetch(READ)
        with pytest.raises(Exception, match="lock timeout"):
            await upgrade(url, timeout_seconds=0, versions=coming.folder)


async def test_what_a_killed_process_had_begun_is_taken_back_and_done_by_the_next(url, connect, coming):
    coming.add(ADD, sleeps=600)
    watching = await connect()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATE, url, str(coming.folder))
    await until(lambda: watching.fetchval(f"select count(*) {OTHERS} and query = $1", ADD), "the migration runs")
    process.kill()
    await process.wait()
    coming.take_back()
    coming.add(ADD)
    await upgrade(url, versions=coming.folder)
    await watching.fetch(READ_NOTE)


async def test_a_migration_that_fails_leaves_those_before_it(url, connect, coming):
    coming.add(ADD)
    coming.add(f"alter table {TABLE} add column other text", "select 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await upgrade(url, versions=coming.folder)
    connection = await connect()
    assert await current_revision(connection) == "9001"
    assert "other" not in dict.fromkeys(await columns(connection))
    coming.take_back()
    coming.add(f"alter table {TABLE} add column other text")
    await upgrade(url, versions=coming.folder)
    assert {"note", "other"} <= set(await columns(connection))


@pytest.mark.parametrize("revision", ["abc123", "0003", "9999"])
async def test_the_database_of_another_application_is_refused_and_left_as_it_is(new_database, revision):
    """Alembic's table has the same name in each application, and revisions may look like ours."""
    url = await new_database()
    connection = await asyncpg.connect(url)
    await connection.execute("create table alembic_version (version_num varchar(32) primary key)")
    await connection.execute("insert into alembic_version values ($1)", revision)
    says = f"Another application migrates this database with Alembic \\(revision {revision}\\): create a database for"
    for refuses in (upgrade(url), must_be_migrated(url), must_be_migrated(url, creates=True)):
        with pytest.raises(UnavailableError, match=says):
            await refuses
    assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 1
    await connection.close()
    async with ConnectionPool.open(url, watches=False) as pool:
        with pytest.raises(UnavailableError, match=says):
            await must_be_ready(pool)
    [line] = [each async for each in findings(Settings(database_url=url)) if each.check == "migrations"]
    assert not line.is_well
    assert re.match(says, line.says)


async def test_tables_whose_revision_is_another_applications_are_refused(url, connect):
    connection = await connect()
    await connection.execute("insert into alembic_version values ('abc123')")
    with pytest.raises(UnavailableError, match="Another application"):
        await upgrade(url)


async def columns(connection):
    rows = await connection.fetch(f"select attname from pg_attribute where attrelid = '{TABLE}'::regclass")  # noqa: S608
    return [row[0] for row in rows]


async def test_of_many_at_once_one_migrates_also_what_needs_to_be_alone_with_the_table(url, connect, coming):
    coming.add(ADD)
    coming.add(index=["by_activity", TABLE, "(is_active)"])
    await asyncio.gather(*(upgrade(url, versions=coming.folder) for _ in range(8)))
    connection = await connect()
    assert await current_revision(connection) == "9002"
    assert await connection.fetchval("select indisvalid from pg_index where indexrelid = 'by_activity'::regclass")


async def test_a_database_that_was_restarted_meanwhile_is_migrated_all_the_same(url, connect, coming):
    coming.add("select pg_sleep(600)")
    watching = await connect()
    migrating = asyncio.create_task(upgrade(url, versions=coming.folder))
    await until(
        lambda: watching.fetchval(f"select count(*) {OTHERS} and wait_event = 'PgSleep'"), "the migration sleeps"
    )
    coming.take_back()
    coming.add(ADD)
    await watching.fetch(f"select pg_terminate_backend(pid) {OTHERS}")
    await migrating
    await watching.fetch(READ_NOTE)


async def test_whatever_the_driver_says_of_a_database_that_goes_away_it_is_tried_again(
    url, connect, coming, monkeypatch
):
    """It also does so of its own state, where the connection ends between two of its steps."""
    coming.add(ADD)
    ways_to_end = [asyncpg.InternalClientError("cannot switch to state 12"), ConnectionResetError()]
    migrates = migrate._upgrade_alone

    async def end_first(*arguments):
        if ways_to_end:
            raise ways_to_end.pop()
        await migrates(*arguments)

    monkeypatch.setattr(migrate, "_upgrade_alone", end_first)
    await upgrade(url, versions=coming.folder)
    await (await connect()).fetch(READ_NOTE)


async def test_a_database_that_is_not_there_is_not_waited_for(url, straight):
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await upgrade(straight("/nowhere"))
    with pytest.raises(OSError, match="Connect call failed"):
        await upgrade("postgresql://127.0.0.1:1/x")
