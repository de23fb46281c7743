"""Tables become partitions while others use them; nothing is lost, and what stopped can be continued or undone."""

import asyncio
import json
import os
import re
import sys
from itertools import count
from random import Random
from urllib.parse import urlsplit

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.doctor import findings
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import BadInputError
from graphql_api.settings import Settings
from graphql_api.storage import selects, statements
from graphql_api.storage.connection import Statement
from graphql_api.storage.connector import described
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.partitioning import KEYS, Partitioning, alone, parts_of
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.saves import SAVE
from graphql_api.storage.tokens import TokenStore
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, CITUS, PARTITIONS
from tests.graph import Graph
from tests.storage.plans import nodes_of

pytestmark = pytest.mark.skipif(PARTITIONS or bool(CITUS), reason="the tables of this run are in parts already")
TOKENS = "customer_gateway_tokens"
EVENTS = "customer_gateway_token_events"
FILL = """
insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id)
select 'user-' || n % 20, 'GATEWAY_' || n / 20, 'cus_' || n from generate_series(0, 99) as n;
insert into gateway_customers (gateway_customer_id, gateway, user_id)
select gateway_customer_id, gateway, user_id from customer_gateway_tokens;
insert into customer_gateway_token_events
  (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
select id, 1, user_id, gateway, gateway_customer_id, true, 'CREATED', 'a test', now() from customer_gateway_tokens
"""
OBJECTS = """
select relkind::text, relname::text from pg_class where relnamespace = 'public'::regnamespace
union all select 'function', proname::text from pg_proc where pronamespace = 'public'::regnamespace
union all select 'trigger', tgname::text from pg_trigger where not tgisinternal
order by 1, 2
"""
NOTHING_BEGUN = "There is no unfinished run to cancel."


@pytest.fixture
async def url(new_database, migrated_database, straight):
    """A database with some tokens."""
    url = straight(await new_database(migrated_database))
    connection = await asyncpg.connect(url)
    await connection.execute(FILL)
    await connection.close()
    return url


@pytest.fixture
async def connection(url):
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def partition(url, *tables, parts=3, show=lambda *_: None):
    async with alone(url) as connection:
        for table in tables or KEYS:
            await (await Partitioning.of(connection, table, parts, batch=7)).run(show)


async def rows(connection, table):
    return sorted(map(tuple, await connection.fetch(f"select * from {table}")), key=str)


async def test_a_partitioned_table_has_all_that_the_table_had(url, connection):
    await connection.execute(
        f"""
        comment on table {TOKENS} is 'whose customers';
        comment on column {TOKENS}.user_id is 'it''s opaque';
        alter table {TOKENS} set (autovacuum_vacuum_scale_factor = 0.02);
        create role {(role := "role_" + urlsplit(url).path[1:])};
        grant select, update (description) on {TOKENS} to {role} with grant option
        """
    )
    before = {table: await rows(connection, table) for table in KEYS}
    names = "select conname from pg_constraint where conrelid = $1::text::regclass and contype <> 'n' order by 1"
    indexes = "select relname from pg_index join pg_class c on c.oid = indexrelid where indrelid = $1::text::regclass"
    had = {each: await connection.fetch(f"{indexes} order by 1", each) for each in KEYS}
    constraints = {each: {row[0] for row in await connection.fetch(names, each)} for each in KEYS}
    await partition(url)
    assert {table: await rows(connection, table) for table in KEYS} == before
    assert {table: await connection.fetch(f"{indexes} order by 1", table) for table in KEYS} == had
    # The constraint of the customers' own table sees to this.
    constraints[TOKENS].remove("one_token_per_gateway_customer")
    assert {each: {row[0] for row in await connection.fetch(names, each)} for each in KEYS} == constraints
    assert [await parts_of(connection, table) for table in KEYS] == [3, 3, 3, 3]
    options = await connection.fetchval(f"select reloptions from pg_class where oid = '{TOKENS}_p0'::regclass")
    assert options == ["fillfactor=90", "autovacuum_vacuum_scale_factor=0.02"]
    assert await connection.fetchval(f"select obj_description('{TOKENS}'::regclass)") == "whose customers"
    assert await connection.fetchval(f"select col_description('{TOKENS}'::regclass, 2)") == "it's opaque"
    may = "select has_table_privilege($1, $2, 'select with grant option'), has_column_privilege($1, $2, $3, 'update')"
    assert tuple(await connection.fetchrow(may, role, TOKENS, "description")) == (True, True)
    await connection.execute(f"drop owned by {role}; drop role {role}")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(f"insert into {TOKENS} (user_id, gateway, gateway_customer_id) values {ROW}")


ROW = "('user-0', 'GATEWAY_0', 'another')"


async def test_positions_in_the_feed_continue_where_they_were(url, connection):
    sequence = f"select pg_get_serial_sequence('{EVENTS}', 'position')"
    name = await connection.fetchval(sequence)
    newest = await connection.fetchval(f"select max(position) from {EVENTS}")
    await partition(url, EVENTS)
    assert await connection.fetchval(sequence) == name
    position = await connection.fetchval(
        f"insert into {EVENTS} (token_id, version, gateway, gateway_customer_id, is_active, action, actor, at)"
        " values (gen_random_uuid(), 1, 'STRIPE', 'cus', true, 'CREATED', 'a test', now()) returning position"
    )
    assert position == newest + 1


class Writer:
    """Changes tokens at random in one table, and knows what has to be there."""

    def __init__(self, connection, seed):
        self._connection = connection
        self._random = Random(seed)
        self._numbers = count(1000)
        self.expected = {}

    async def start(self):
        for row in await self._connection.fetch(f"select id, user_id, gateway, version from {TOKENS}"):
            self.expected[row["id"]] = (row["user_id"], row["gateway"], row["version"])

    async def step(self):
        """One transaction with a few changes, some of which take the places of others."""
        expected = dict(self.expected)
        async with self._connection.transaction():
            for _ in range(self._random.randrange(1, 4)):
                await self._random.choice([self._create, self._change, self._change, self._move, self._replace])(
                    expected
                )
        self.expected = expected

    async def _create(self, expected, user=None, gateway="OTHER"):
        number = next(self._numbers)
        user = user or f"user-{number}"
        values = f"values ($1, $2, 'cus_{number}') returning id"
        statement = f"insert into {TOKENS} (user_id, gateway, gateway_customer_id) {values}"
        expected[await self._connection.fetchval(statement, user, gateway)] = (user, gateway, 1)

    async def _change(self, expected):
        token, (user, gateway, version) = self._random.choice([*expected.items()])
        await self._connection.execute(f"update {TOKENS} set version = version + 1 where id = $1", token)
        expected[token] = (user, gateway, version + 1)

    async def _move(self, expected):
        token, (_, gateway, version) = self._random.choice([*expected.items()])
        user = f"user-{next(self._numbers)}"
        await self._connection.execute(f"update {TOKENS} set user_id = $2 where id = $1", token, user)
        expected[token] = (user, gateway, version)

    async def _replace(self, expected):
        """Another token takes the place of one that goes."""
        token, (user, gateway, _) = self._random.choice([*expected.items()])
        await self._connection.execute(f"delete from {TOKENS} where id = $1", token)
        del expected[token]
        await self._create(expected, user, gateway)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_written_meanwhile_is_in_the_partitions(url, connection, seed):
    writer = Writer(await asyncpg.connect(url), seed)
    await writer.start()
    done = asyncio.Event()

    async def write():
        while not done.is_set():
            await writer.step()

    writing = asyncio.create_task(write())
    try:
        await partition(url, TOKENS)
    finally:
        done.set()
        await writing
    await writer.step()
    await writer._connection.close()
    found = await connection.fetch(f"select id, user_id, gateway, version from {TOKENS}")
    assert {row[0]: tuple(row)[1:] for row in found} == writer.expected


async def test_a_migration_builds_an_index_on_a_partitioned_table_while_others_write(url, connection, coming):
    await partition(url, TOKENS)
    coming.add(f"alter table {TOKENS} add column note text")
    coming.add(index=["by_note", TOKENS, "(note)"])
    await connection.execute(f"create index by_note_p1 on {TOKENS}_p1 (user_id)")  # what a killed process left behind
    await upgrade(url, versions=coming.folder)
    assert await connection.fetchval("select indisvalid from pg_index where indexrelid = 'by_note'::regclass")
    definitions = "select pg_get_indexdef(inhrelid) from pg_inherits where inhparent = 'by_note'::regclass"
    assert [row[0].partition("(")[2] for row in await connection.fetch(definitions)] == ["note)"] * 3


LAST = "ffffffff-ffff-4fff-bfff-ffffffffffff"


class StopError(Exception):
    """The run stops here."""


@pytest.mark.parametrize("copied", [0, 35, 100])
async def test_a_run_that_stopped_is_continued_or_leaves_nothing(url, connection, copied):
    before, tokens = await connection.fetch(OBJECTS), await rows(connection, TOKENS)

    def stop(done, _):
        if done >= copied:
            raise StopError

    for ends_well in (False, True):
        with pytest.raises(StopError):
            await partition(url, TOKENS, show=stop)
        [said] = [each.says async for each in findings(Settings(database_url=url)) if each.check == "partitions"]
        assert "--parts 3` continues" in said
        with pytest.raises(BadInputError, match="--parts 3"):
            await partition(url, TOKENS, parts=4)
        moved = await connection.execute(f"update {TOKENS} set user_id = 'moved-' || user_id where random() < 0.5")
        assert moved != "UPDATE 0"
        tokens = await rows(connection, TOKENS)
        if ends_well:
            await partition(url, TOKENS)
        else:
            async with alone(url) as connected:
                await (await Partitioning.of(connected, TOKENS, 3)).cancel()
            assert await connection.fetch(OBJECTS) == before
        assert await rows(connection, TOKENS) == tokens
    left = {tuple(row) for row in await connection.fetch(OBJECTS)} - {tuple(row) for row in before}
    assert {name for kind, name in left if kind in {"r", "p", "function", "trigger", "S"}} == {
        TOKENS,
        *(f"{TOKENS}_p{number}" for number in range(3)),
    }


async def test_a_place_that_another_token_took_is_not_taken_twice_when_indexes_are_built(url, connection):
    """More changes wait than are copied again with the remaining rows, so both tokens are in the copy by then."""

    def stop(done, _):
        if done >= 35:
            raise StopError

    with pytest.raises(StopError):
        await partition(url, TOKENS, show=stop)
    await connection.execute(f"update {TOKENS} set version = version + 1")
    gone = await connection.fetchrow(
        f"delete from {TOKENS} where id = (select id from {TOKENS} order by id limit 1) returning user_id, gateway"
    )
    await connection.execute(
        f"insert into {TOKENS} (id, user_id, gateway, gateway_customer_id) values ('{LAST}', $1, $2, 'cus_new')", *gone
    )
    tokens = await rows(connection, TOKENS)
    await partition(url, TOKENS)
    assert await rows(connection, TOKENS) == tokens


@pytest.mark.parametrize(
    ("unnoted", "says"),
    [
        (f"update {TOKENS} set description = 'changed' where gateway_customer_id = 'cus_7'", "100 rows instead of 100"),
        (f"delete from {TOKENS} where gateway_customer_id = 'cus_7'", "100 rows instead of 99"),
        (f"truncate {TOKENS}", "100 rows instead of 0"),
    ],
)
async def test_a_copy_that_differs_does_not_take_the_place_of_its_table(url, connection, unnoted, says):
    before = await connection.fetch(OBJECTS)

    def stop(done, _):
        if done >= 100:
            raise StopError

    with pytest.raises(StopError):
        await partition(url, TOKENS, show=stop)
    await connection.execute(f"set session_replication_role = replica; {unnoted}; reset session_replication_role")
    tokens = await rows(connection, TOKENS)
    with pytest.raises(BadInputError, match=says):
        await partition(url, TOKENS)
    assert await rows(connection, TOKENS) == tokens
    async with alone(url) as connected:
        await (await Partitioning.of(connected, TOKENS, 3)).cancel()
    assert await connection.fetch(OBJECTS) == before
    await partition(url, TOKENS)
    assert await rows(connection, TOKENS) == tokens


async def test_nobody_waits_long_for_a_swap_that_waits_for_an_open_transaction(url, connection):
    reader, loop = await asyncpg.connect(url), asyncio.get_running_loop()
    transaction, waits = reader.transaction(), []
    copied = asyncio.Event()
    await transaction.start()
    await reader.fetch(f"select from {TOKENS}")
    partitioning_ = asyncio.create_task(partition(url, TOKENS, show=lambda done, _: done < 100 or copied.set()))
    await copied.wait()
    for _ in range(40):
        began = loop.time()
        await connection.execute(f"update {TOKENS} set version = version + 1 where user_id = 'user-7'")
        waits.append(loop.time() - began)
        await asyncio.sleep(0.03)
    assert not partitioning_.done()
    await transaction.rollback()
    await partitioning_
    await reader.close()
    assert max(waits) > 0.1  # it was tried
    assert max(waits) < 2  # and not for as long as the transaction is open
    assert await connection.fetchval(f"select version from {TOKENS} where user_id = 'user-7' limit 1") == 41


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (f"create view shown as select * from {TOKENS}", "the view or rule shown"),
        (f"create publication published for table {TOKENS}", "drop the table from the publication published,"),
        ("create publication published for all tables", "drop the publication published,"),
        (f"create table notes (id uuid references {TOKENS})", "the foreign key notes_id_fkey"),
        (f"alter table {TOKENS} enable row level security; create policy p on {TOKENS}", "the policy p"),
    ],
)
async def test_what_would_be_lost_is_named_before_anything_begins(url, connection, statement, says):
    await connection.execute(statement)
    before = await connection.fetch(OBJECTS)
    with pytest.raises(BadInputError, match=says):
        await partition(url, TOKENS)
    assert await connection.fetch(OBJECTS) == before


@pytest.fixture
def ran(url):
    async def ran(*arguments):
        command = (sys.executable, "-m", "graphql_api", "partition", "--parts", "2", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, "DATABASE_URL": url}, stdout=-1, stderr=-1
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return ran


async def test_a_dry_run_says_what_an_interrupted_run_left(url, connection, ran):
    def stop(done, _):
        raise StopError

    with pytest.raises(StopError):
        await partition(url, TOKENS, show=stop)
    before = await connection.fetch(OBJECTS)
    status, out, _ = await ran("--dry-run", "--table", TOKENS, "--table", EVENTS)
    first, second = out.splitlines()
    assert (status, first) == (
        0,
        f"{TOKENS}: a run that made 3 partitions stopped: continue with --parts 3, or undo it with --cancel.",
    )
    assert second.startswith(f"{EVENTS}: 100 rows; ")
    assert await connection.fetch(OBJECTS) == before


async def test_the_command_says_what_it_takes_and_partitions(url, connection, ran):
    before = await connection.fetch(OBJECTS)
    status, out, err = await ran("--dry-run")
    assert (status, err) == (0, f"Database: {described(url)}\n")
    assert (
        out.splitlines()[0]
        == f"{TOKENS}: 100 rows; less than 0.1 min at the present load, and less than 0.1 GB of disk until it is done."
    )
    assert await connection.fetch(OBJECTS) == before
    assert (await ran("--table", TOKENS))[1] == f"{TOKENS} has 2 partitions now.\n"
    status, _, err = await ran("--dry-run", "--cancel")
    assert (status, "--dry-run and --cancel cannot be used together." in err) == (2, True)
    status, out, err = await ran("--parts", "3")
    assert (status, out) == (2, "")
    assert f"{TOKENS} has 2 partitions already. Their number cannot be changed." in err
    status, out, _ = await ran("--table", TOKENS, "--table", EVENTS, "--cancel")
    assert (status, out) == (
        0,
        f"{TOKENS} has 2 partitions, and --cancel undoes only what is unfinished.\n{NOTHING_BEGUN}\n",
    )
    said = [each.says async for each in findings(Settings(database_url=url)) if each.check == "partitions"]
    assert said == [f"2 of {TOKENS}, none of gateway_customers, none of {EVENTS}, none of gateway_customer_checks"]


async def test_the_service_serves_while_its_tables_become_partitions_and_afterwards(url):
    app = create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))
    async with opened(app) as running:
        graph = Graph(Client(running, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        partitioning_ = asyncio.create_task(partition(url))
        number = 0
        while not partitioning_.done() or number < 5:
            token = await graph.saved(f"new-{number}", "STRIPE", f"cus_new_{number}")
            assert (await graph.customer("STRIPE", f"cus_new_{number}"))["id"] == token["id"]
            await graph.update(token, description="changed")
            number += 1
        await partitioning_
        assert (await graph.merge("new-0", "new-1", onConflict="KEEP_SOURCE"))["userErrors"] == []
        assert [each["gatewayCustomerId"] for each in await graph.tokens("new-1")] == ["cus_new_0"]
        assert await graph.tokens("new-0") == []
        assert [each["userId"] for each in await graph.tokens("new-2")] == ["new-2"]
        assert (await graph.save("new-3", "STRIPE", "cus_new_4", replaces="cus_new_3"))["userErrors"][0]["code"]
        await graph.erase("new-2")
        assert await graph.tokens("new-2") == []


WANTED = {
    "user_id": "user-7",
    "gateway": "GATEWAY_0",
    "customer": "cus_7",
    "actor": "test",
    "gives_description": True,
    "description": "a",
    "at": "2999-01-01T00:00Z",
}
CHANGE = """'[{"id": "00000000-0000-7000-8000-000000000001", "version": 1}]', '{user-7}'"""
MANY = """
insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id)
select 'many-' || n, 'STRIPE', 'cus_many_' || n from generate_series(1, 20000) as n;
insert into gateway_customers (gateway_customer_id, gateway, user_id)
select gateway_customer_id, gateway, user_id from customer_gateway_tokens where user_id like 'many-%'
"""
BACKEND = Statement("backend", "select pg_backend_pid()")
LOOKUPS = [
    (selects.of_users(None), "'user-7', ','"),
    (selects.of_users_as_json((("id", "id", None),)), "'user-7', ','"),
    (selects.by_users_and_gateways(None), "'{user-7}', '{GATEWAY_0}'"),
    (statements.READ_BY_USERS_AND_GATEWAYS, "'user-7', ',', 'GATEWAY_0'"),
    (statements.LOCK_BY_USERS_AND_GATEWAYS, "'{user-7}', '{GATEWAY_0}'"),
    (statements.CUSTOMERS, "'{GATEWAY_0}', '{cus_7}'"),
    (statements.CLAIM, "'{user-7}', '{GATEWAY_0}', '{30}', '{hash}'"),
    (statements.CHANGE, CHANGE),
    (SAVE, f"'[{json.dumps(WANTED)}]', 'UPDATED'"),
]


async def test_a_prepared_lookup_by_key_reads_one_partition(url, connection):
    await connection.execute(MANY)
    async with alone(url) as alone_:
        for table in (TOKENS, "gateway_customers"):
            await (await Partitioning.of(alone_, table, 4)).run(lambda *_: None)
    async with ConnectionPool.open(url) as pool, pool.transaction() as transaction:
        for statement, arguments in LOOKUPS:
            await transaction.raw.execute(f"prepare {statement.name} as {statement.sql}")
            explain = f"explain (analyze, format json) execute {statement.name} ({arguments})"
            [[plan]] = await transaction.raw.fetch(explain)
            read = [
                node["Relation Name"]
                for node in nodes_of(json.loads(plan)[0]["Plan"])
                if re.search(r"(tokens|customers)_p\d+$", node.get("Relation Name", "")) and node["Actual Loops"]
            ]
            is_change = statement in {statements.CHANGE, SAVE}
            looks_everywhere = is_change and connection.get_server_version() < (14,)
            expected = 1 + 4 if statement is statements.CUSTOMERS else 4 if looks_everywhere else 1
            assert len({*read}) == expected, (statement.name, read)


SCANS = """
select relname, seq_scan from pg_stat_xact_user_tables where relname = $1 or relname like $1 || '_p%' order by relname
"""


async def test_a_large_batch_of_changes_does_not_read_the_whole_copy(url, connection):
    """That would take longer the larger the table is, and more changes than a batch would come meanwhile."""

    def stop(done, _):
        if done >= 20_100:
            raise StopError

    await connection.execute(f"{MANY}; analyze")
    async with alone(url) as alone_:
        work = await Partitioning.of(alone_, TOKENS, 4)
        with pytest.raises(StopError):
            await work.run(stop)
        await connection.execute(f"update {TOKENS} set version = version + 1")
        async with alone_.transaction():
            before = await alone_.fetch(SCANS, TOKENS)
            await work._catch_up()
            assert await alone_.fetch(SCANS, TOKENS) == before


async def test_open_connections_need_no_restart(url, connection):
    """Plans of the table as it was would read every partition for each user, or fail."""
    async with ConnectionPool.open(url, size=1) as pool:
        store, who = TokenStore(pool), "user-7"
        fields = (("id", "id", None),)
        before = await store.of_users_as_json([who], fields)
        [[backend]] = await pool.fetch(BACKEND)
        await partition(url, TOKENS)
        assert await store.of_users_as_json([who], fields) == before != {}
        assert await pool.fetch(BACKEND) == [(backend,)]
