"""A migration runs while the release before it serves: it obeys the rules of `docs/upgrades.md`."""

import re
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from graphql_api.storage.migrate import VERSIONS, upgrade
from tests.conftest import CITUS, PARTITIONS

pytestmark = pytest.mark.skipif(
    PARTITIONS or bool(CITUS), reason="what a migration locks is the same with partitions and shards, but many times"
)
# What the last release neither reads nor writes any more, as `table` or `table.column`: it may go.
UNUSED = frozenset()

TABLE = "customer_gateway_tokens"
_COLUMNS = """
  select relname, attname, format_type(atttypid, atttypmod) as kind,
    attnotnull and not atthasdef and attidentity = '' as is_needed
  from pg_attribute join pg_class on pg_class.oid = attrelid
  where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped
"""
_TABLES = """
  select c.relname, pg_relation_filenode(c.oid) as file, coalesce(s.seq_scan, 0) as scans, array(
    select mode from pg_locks where pid = pg_backend_pid() and relation = c.oid
      and mode in ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')) as locks
  from pg_class c left join pg_stat_xact_user_tables s on s.relid = c.oid
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
"""
_MAY_STAND_ALONE = re.compile(
    r"\bconcurrently\b|\bvalidate constraint\b|^\s*(set|select|insert|update|delete)\b", re.IGNORECASE
)


class Rules:
    """Looks at each transaction of a migration when it begins and before it is committed."""

    def __init__(self):
        self.broken = []

    @contextmanager
    def watching(self):
        listeners = {"begin": self._begin, "commit": self._commit, "before_cursor_execute": self._run}
        for name, listener in listeners.items():
            event.listen(Engine, name, listener)
        yield
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)

    def _begin(self, connection):
        self._before = _Tables(connection)

    def _run(self, connection, _cursor, statement, *_):
        if _is_autocommit(connection) and not _MAY_STAND_ALONE.search(statement):
            self.broken.append(f"runs outside of a transaction, where no time limit holds: {statement}")

    def _commit(self, connection):
        if not _is_autocommit(connection):
            after = _Tables(connection)
            self.broken += [*_held(self._before, after), *_incompatible(self._before, after)]
            if connection.exec_driver_sql("show lock_timeout").scalar() != "200ms":
                self.broken.append("waits longer for a lock than others may wait behind it")


class _Tables:
    """The tables and columns as a transaction sees them, with what it has done to them so far."""

    def __init__(self, connection):
        self.tables = {row.relname: row for row in connection.exec_driver_sql(_TABLES)}
        self.columns = {(row.relname, row.attname): row for row in connection.exec_driver_sql(_COLUMNS)}


def _held(before, after):
    """What was done under locks that keep others from reading or writing, of tables that they know."""
    locked = [(before.tables[name], now) for name, now in after.tables.items() if name in before.tables and now.locks]
    for table, now in locked:
        if now.file != table.file:
            yield f"rewrites {now.relname} under {now.locks}"
        elif now.scans != table.scans:
            yield f"reads all of {now.relname} under {now.locks}"
    if len(locked) > 1:
        yield f"locks several tables: {[now.relname for _, now in locked]}"


def _incompatible(before, after):
    """What the last release does not bear."""
    for (table, column), was in before.columns.items():
        now = after.columns.get((table, column))
        if now is None and not UNUSED & {table, f"{table}.{column}"}:
            yield f"takes away {table}.{column}, which the last release may use"
        if now is not None and now.kind != was.kind:
            yield f"changes the type of {table}.{column}"
    for (table, column), now in after.columns.items():
        if now.is_needed and table in before.tables and (table, column) not in before.columns:
            yield f"asks for {table}.{column}, which the last release does not write"


def _is_autocommit(connection):
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


async def broken(url, versions=VERSIONS):
    """The rules that migrations break on their way from what the database has to the newest."""
    rules = Rules()
    with rules.watching():
        await upgrade(url, versions=versions)
    return rules.broken


@pytest.fixture
async def url(new_database, migrated_database):
    """A database that has all migrations but those to come."""
    return await new_database(migrated_database)


async def test_every_migration_obeys_the_rules(new_database):
    assert await broken(await new_database()) == []


@pytest.mark.parametrize(
    ("statement", "breaks"),
    [
        (f"alter table {TABLE} alter column version type bigint", "rewrites"),
        (f"alter table {TABLE} add column at timestamptz not null default clock_timestamp()", "rewrites"),
        (f"alter table {TABLE} alter column description set not null", "reads all of"),
        (f"alter table {TABLE} add constraint small check (version < 1000000)", "reads all of"),
        (f"alter table {TABLE} add constraint one unique (updated_at)", "reads all of"),
        (f"alter table {TABLE} add foreign key (version) references erasure_key not valid", "locks several tables"),
        (f"create index by_activity on {TABLE} (is_active)", "reads all of"),
        (f"set local lock_timeout = 0; alter table {TABLE} add column note text", "waits longer"),
        (f"alter table {TABLE} drop column description", "takes away"),
        (f"alter table {TABLE} rename column description to note", "takes away"),
        ("drop table departed_tokens", "takes away"),
        (f"alter table {TABLE} alter column description type varchar(3000)", "changes the type"),
        (f"alter table {TABLE} add column note text not null", "asks for"),
    ],
)
async def test_a_migration_that_breaks_a_rule_is_found(url, coming, statement, breaks):
    coming.add(*statement.split("; "))
    assert breaks in " ".join(await broken(url, coming.folder))


async def test_a_statement_that_nothing_limits_is_found(url, coming):
    coming.add(concurrently=[f"create index by_activity on {TABLE} (is_active)"])
    assert "outside of a transaction" in " ".join(await broken(url, coming.folder))


async def test_what_the_rules_allow_is_not_found(url, coming):
    coming.add(f"alter table {TABLE} add column note text, add column rank integer not null default 0")
    coming.add(f"alter table {TABLE} add constraint note_is_short check (char_length(note) < 100) not valid")
    coming.add(f"alter table {TABLE} validate constraint note_is_short")
    coming.add(index=["by_rank", TABLE, "(rank)"])
    coming.add("create table notes (id integer primary key)", "create index notes_by_id on notes (id)")
    assert await broken(url, coming.folder) == []
