"""Turns a table into hash partitions while the service uses it, and tells which form the tables have.

A partitioned copy is filled in the background, some thousand rows in a transaction, in the order of the primary key. A
trigger notes the keys of rows that change meanwhile; those rows are copied again. The other indexes are built once the
copy is filled. When only a few changes are left, it takes the table's place in one short transaction. Nothing is held
between transactions: a run that was killed can be continued or undone.
"""

from asyncio import sleep
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from math import log
from time import monotonic
from typing import Any, NamedTuple

import asyncpg

from graphql_api.domain.errors import BadInputError, UnavailableError
from graphql_api.storage.connector import FAILURES, RawConnection, connect_beside, connect_to_primary
from graphql_api.storage.migrate import LOCK

KEYS = {
    "customer_gateway_tokens": "user_id",
    "gateway_customers": "gateway_customer_id",
    "customer_gateway_token_events": "token_id",
    "gateway_customer_checks": "token_id",
}
"""The tables that grow with the tokens, and the column whose hash decides in which partition a row is."""

_MAX_ROWS_UNDER_LOCK = 100  # changed rows, which are copied again while the table is locked
_SAMPLE = 100_000  # rows that an estimate copies, and rolls back
_END_SECONDS = 1.0
_LOCK_TIMEOUT = "set local lock_timeout = '200ms'"  # so long a lock is waited for, and others wait behind it
# Changes that come while a batch of others is copied must stay fewer than it, so no batch may read the whole copy.
_BY_INDEX = "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"
_PAUSE_SECONDS = 0.5
_ATTEMPTS = 120

_COLUMNS = """
select quote_ident(attname) as name, attname::text as unquoted, format_type(atttypid, atttypmod) as type,
  attidentity <> '' as is_identity, array_position(i.indkey::int2[], attnum) is not null as is_key
from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = $1::text::regclass and attnum > 0 and not attisdropped
order by array_position(i.indkey::int2[], attnum), attnum
"""
_INDEXES = """
select quote_ident(c.relname) as name, quote_ident(c.relname || '_parted') as temporary,
  pg_get_indexdef(i.indexrelid) as definition, indisunique as is_unique, indisprimary as is_primary,
  pg_get_constraintdef(con.oid) as constraint, obj_description(i.indexrelid, 'pg_class') as comment,
  exists (
    select from pg_attribute a where a.attrelid = i.indrelid and attname = $2
      and attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
  ) as has_key
from pg_index i join pg_class c on c.oid = i.indexrelid
left join pg_constraint con on con.conindid = i.indexrelid and con.conrelid = i.indrelid
where i.indrelid = $1::text::regclass and i.indisvalid order by c.oid
"""
_GRANT = """
  select format(
    'grant %s{} on %%s to %s%s', privilege_type,
    case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
    case when is_grantable then ' with grant option' else '' end
  )
"""
_TABLE = f"""
select quote_ident(pg_get_userbyid(relowner)) as owner, pg_get_userbyid(relowner) = current_user as is_ours,
  greatest(reltuples, 0)::bigint as rows, pg_total_relation_size(c.oid) as bytes,
  obj_description(c.oid, 'pg_class') as comment, quote_ident(current_schema()) as schema,
  array_to_string(coalesce(reloptions, '{{}}') || array(
    select 'toast.' || option from pg_class toast, unnest(toast.reloptions) as option where toast.oid = c.reltoastrelid
  ), ', ') as options,
  array(
    {_GRANT.format("")} from aclexplode(relacl) where grantee <> relowner
    union all
    {_GRANT.format(" (' || quote_ident(attname) || ')")} from pg_attribute, aclexplode(attacl) where attrelid = c.oid
  ) as grants,
  array(
    select 'the trigger ' || tgname from pg_trigger
    where tgrelid = c.oid and not tgisinternal and tgname <> relname || '_changed'
    union all
    select 'the policy ' || polname from pg_policy where polrelid = c.oid
    union all
    select 'the foreign key ' || conname from pg_constraint where contype = 'f' and c.oid in (conrelid, confrelid)
    union all
    select 'the view or rule ' || ev_class::regclass from pg_depend join pg_rewrite r on r.oid = objid
    where classid = 'pg_rewrite'::regclass and refobjid = c.oid
    union all
    select case when prrelid is null then '' else 'the table from ' end || 'the publication ' || pubname
    from pg_publication_tables join pg_publication p using (pubname)
    left join pg_publication_rel on prpubid = p.oid and prrelid = c.oid
    where schemaname = current_schema() and tablename = relname
  ) as obstacles
from pg_class c where c.oid = $1::text::regclass
"""
_PARTS = "select count(*)::int from pg_inherits where inhparent = to_regclass($1)"
_IS_THERE = "select to_regclass($1) is not null"


class PartitioningEstimate(NamedTuple):
    """What it takes to partition a table: rows, bytes of disk until it is done, and seconds at the present load."""

    rows: int
    bytes: int
    seconds: float


class Partitioning:
    """A table on its way into partitions."""

    def __init__(
        self, connection: RawConnection, table: str, parts: int, batch: int, row: Any, columns: Sequence[Any]
    ) -> None:
        self._connection = connection
        self._batch = batch
        self.table = table
        self._copy = f"{table}_parted"
        self._parts = [f"{table}_p{number}" for number in range(parts)]
        self._row = row
        keys = [column for column in columns if column["is_key"]]
        self._keys = [column["name"] for column in keys]
        self._types = [column["type"] for column in keys]
        self._columns = ", ".join(column["name"] for column in columns)
        self._identities = [column["unquoted"] for column in columns if column["is_identity"]]

    @classmethod
    async def of(cls, connection: RawConnection, table: str, parts: int, *, batch: int = 10_000) -> "Partitioning":
        """How this table is to be partitioned.

        Args:
            connection: that of `alone`
            table: one of `KEYS`
            parts: the number of partitions
            batch: how many rows are copied in a transaction

        Raises:
            BadInputError: something depends on the table that would be lost.
        """
        row: Any = await connection.fetchrow(_TABLE, table)
        if row["obstacles"]:
            raise BadInputError(
                f"{table} cannot be partitioned: drop {row['obstacles'][0]}, and bring it back afterwards."
            )
        return cls(connection, table, parts, batch, row, await connection.fetch(_COLUMNS, table))

    async def estimate(self) -> PartitioningEstimate:
        """Copy some rows to see how long all take; nothing of it stays.

        Empty indexes are built, too, since the time for these does not grow with the rows.
        """
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            await self._create_copy()
            indexes = await self._missing_indexes()
            savepoint = self._connection.transaction()
            await savepoint.start()
            empty = await _seconds(self._create_indexes(indexes))
            await savepoint.rollback()
            began = monotonic()
            copied = await self._copy_rows(_SAMPLE)
            seconds = monotonic() - began
            rows = max(self.rows, copied)
            sorting = log(rows + 2) / log(copied + 2)  # a sort of n rows takes n log n
            seconds += max(await _seconds(self._create_indexes(indexes)) - empty, 0) * sorting
            seconds += 2 * await _seconds(self._connection.fetch(self._sum_of(self._copy)))
        finally:
            await transaction.rollback()
        return PartitioningEstimate(rows, self._row["bytes"], empty + seconds * rows / max(copied, 1))

    @property
    def rows(self) -> int:
        """About how many rows the table has."""
        return self._row["rows"]

    async def run(self, show: Callable[[int, str], object]) -> None:
        """Partition the table, or continue where a run stopped.

        `show` takes how many rows it copied, and what it does.

        Raises:
            BadInputError: the run that stopped made another number of partitions.
                Or the copy differs from the table, since the trigger did not note all changes.
            UnavailableError: others kept the table locked for minutes.
        """
        begun = await parts_of(self._connection, self._copy)
        if begun not in {0, len(self._parts)}:
            raise BadInputError(
                f"A run that made {begun} partitions of {self.table} stopped: continue with --parts {begun}, "
                "or undo it with --cancel."
            )
        if not begun:
            await self._retrying(self._begin)
        done, copied = 0, 1
        while copied:
            async with self._connection.transaction():
                copied = await self._copy_rows(self._batch)
            await self._catch_up()
            done += copied
            show(done, f"{done:,} rows")
        if indexes := await self._missing_indexes():
            async with self._connection.transaction(isolation="repeatable_read"):
                await self._connection.execute(_BY_INDEX)
                await self._copy_all_changed()
            await self._create_indexes(indexes, lambda name: show(done, f"building {name}"))
            await self._catch_up()
        await self._connection.execute(f"vacuum (analyze) {self._copy}")
        show(done, "comparing the copy with the table")
        await self._compare()
        show(done, "swapping")
        await self._retrying(self._swap, before=self._catch_up)

    async def cancel(self) -> None:
        """Undo what was begun."""
        await self._retrying(self._drop)

    async def _begin(self) -> None:
        await self._create_copy()
        table, keys, old, new = self.table, self._listed(), self._listed("old.{}"), self._listed("new.{}")
        await self._connection.execute(
            f"""
            create table {table}_changed (place bigint generated always as identity primary key, {self._typed()});
            create function {table}_changed() returns trigger
            language plpgsql security definer set search_path = {self._row["schema"]}, pg_temp as $body$ begin
              if tg_op = 'DELETE' or (tg_op = 'UPDATE' and ({old}) <> ({new})) then
                insert into {table}_changed ({keys}) values ({old});
              end if;
              if tg_op <> 'DELETE' then
                insert into {table}_changed ({keys}) values ({new});
              end if;
              return null;
            end $body$;
            revoke all on function {table}_changed from public;
            create trigger {table}_changed after insert or update or delete on {table}
            for each row execute function {table}_changed()
            """
        )

    async def _create_copy(self) -> None:
        """The empty copy, and the place up to which it is filled."""
        table, copy, key, run = self.table, self._copy, KEYS[self.table], self._connection.execute
        options = f" with ({self._row['options']})" if self._row["options"] else ""
        await run(
            f"create table {copy} (like {table} including defaults including constraints including comments"
            f" including identity including storage) partition by hash ({key});"
            f"create table {table}_copied ({self._typed('')}); insert into {table}_copied default values"
        )
        for number, part in enumerate(self._parts):
            values = f"with (modulus {len(self._parts)}, remainder {number})"
            await run(f"create table {part} partition of {copy} for values {values}{options}")
        await self._create_indexes([each for each in await self._missing_indexes() if each["is_primary"]])
        for name in () if self._row["is_ours"] else (copy, *self._parts):
            await run(f"alter table {name} owner to {self._row['owner']}")
        for grant in self._row["grants"]:
            await run(grant % copy)
        if self._row["comment"]:
            await run(f"comment on table {copy} is {_quoted(self._row['comment'])}")

    async def _missing_indexes(self) -> list[Any]:
        """The table's indexes that its copy does not have. Rows in no order would fill them much more slowly."""
        indexes = await self._connection.fetch(_INDEXES, self.table, KEYS[self.table])
        return [each for each in indexes if not await self._connection.fetchval(_IS_THERE, each["temporary"])]

    async def _create_indexes(self, indexes: Sequence[Any], show: Callable[[str], object] = lambda _: None) -> None:
        for index in indexes:
            show(index["name"])
            name, comment = index["temporary"], index["comment"]
            comments = f";comment on index {name} is {_quoted(comment)}" if comment else ""
            await self._connection.execute(_index(index, self._copy, KEYS[self.table]) + comments)

    async def _copy_rows(self, rows: int) -> int:
        """Copy the next rows; answers how many there were."""
        [last] = await self._connection.fetch(f"select {self._listed()} from {self.table}_copied")
        after = () if None in tuple(last) else tuple(last)
        given = ", ".join(f"${number}::{type_}" for number, type_ in enumerate(self._types, 1))
        [(count,)] = await self._connection.fetch(
            f"""
            with page as materialized (
              select {self._columns} from {self.table} {f"where ({self._listed()}) > ({given})" if after else ""}
              order by {self._listed()} limit {rows}
            ), copied as (
              insert into {self._copy} ({self._columns}) overriding system value select {self._columns} from page
              on conflict do nothing
            ), moved as (
              update {self.table}_copied set ({self._listed()}) = row({self._listed("last.{}")})
              from (select {self._listed()} from page order by {self._listed("{} desc")} limit 1) as last
            )
            select count(*) from page
            """,
            *after,
        )
        return count

    async def _copy_changed(self) -> int:
        """Copy again what changed, the oldest changes first; answers how many there were.

        What conflicts is in the place of a row that changed again: its own change comes later.
        """
        noted = f"{self.table}_changed"
        changed = await self._connection.fetch(
            f"delete from {noted} where place in (select place from {noted} order by place limit {self._batch})"
            f" returning {self._listed()}"
        )
        keys = [list(column) for column in zip(*set(map(tuple, changed)), strict=True)]
        if keys:
            arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(self._types, 1))
            is_changed = f"({self._listed()}) in (select * from unnest({arrays}))"
            await self._connection.execute(f"delete from {self._copy} where {is_changed}", *keys)
            await self._connection.execute(
                f"insert into {self._copy} ({self._columns}) overriding system value"
                f" select {self._columns} from {self.table} where {is_changed} on conflict do nothing",
                *keys,
            )
        return len(changed)

    async def _catch_up(self) -> None:
        """Copy what changed until only a few changes are left."""
        left = self._batch
        while left > _MAX_ROWS_UNDER_LOCK:
            async with self._connection.transaction():
                await self._connection.execute(_BY_INDEX)
                left = await self._copy_changed()

    async def _copy_all_changed(self) -> None:
        """Copy all changes that this transaction sees. In one snapshot, the copy is then the table at that moment.

        So its rows are as unique as those of the table.
        """
        while await self._copy_changed() == self._batch:
            pass

    async def _compare(self) -> None:
        """Check that the copy has the rows of the table, apart from those that are noted to be copied again.

        One statement sees both at the same moment. A trigger that is disabled, and `truncate`, note nothing.
        """
        counts = [
            f"""
            {self._sum_of(name)} where not exists (
              select from {self.table}_changed noted
              where ({self._listed("noted.{}")}) = ({self._listed("each.{}")})
            )
            """
            for name in (self.table, self._copy)
        ]
        [row] = await self._connection.fetch(
            f"select * from ({counts[0]}) as a(rows, sum), ({counts[1]}) as b(copied, hash)"
        )
        rows, sum_, copied, sum_of_copy = row
        if (rows, sum_) != (copied, sum_of_copy):
            raise BadInputError(
                f"The copy of {self.table} differs from it: {copied:,} rows instead of {rows:,}, or others. It stays "
                "as it is. Was the trigger disabled, or the table truncated? Undo it with --cancel, and run it again."
            )

    def _sum_of(self, name: str) -> str:
        return f"select count(*), sum(hashtextextended(row({self._columns})::text, 0)) from {name} as each"

    async def _swap(self) -> None:
        """Put the copy into the table's place, under its names.

        It takes few round trips while the table is locked. Files are deleted only after the lock is released.
        """
        table, copy, fetch = self.table, self._copy, self._connection.fetch
        indexes = await fetch(_INDEXES, table, KEYS[table])
        sequences = [(await self._sequence(copy, name), await self._sequence(table, name)) for name in self._identities]
        statements = [
            *(f"select setval('{new}', last_value, is_called) from {old}" for new, old in sequences),
            f"drop table {table}, {table}_changed, {table}_copied",
            f"drop function {table}_changed",
            f"alter table {copy} rename to {table}",
            *(f"alter sequence {new} rename to {old.rpartition('.')[2]}" for new, old in sequences),
            *(f"alter index {index['temporary']} rename to {index['name']}" for index in indexes),
        ]
        await self._connection.execute(_BY_INDEX)
        await self._connection.execute(f"lock table {table} in access exclusive mode")
        await self._copy_all_changed()
        await self._connection.execute(";".join(statements))

    async def _sequence(self, table: str, column: str) -> str:
        [(name,)] = await self._connection.fetch("select pg_get_serial_sequence($1, $2)", table, column)
        return name

    async def _drop(self) -> None:
        table = self.table
        await self._connection.execute(
            f"drop trigger if exists {table}_changed on {table}; drop function if exists {table}_changed;"
            f"drop table if exists {table}_changed, {table}_copied, {self._copy}"
        )

    async def _retrying(
        self, work: Callable[[], Awaitable[object]], *, before: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Do this in a transaction that waits for locks only briefly."""
        for attempt in range(1, _ATTEMPTS + 1):
            if before:
                await before()
            try:
                async with self._connection.transaction():
                    await self._connection.execute(_LOCK_TIMEOUT)
                    await work()
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                if attempt == _ATTEMPTS:
                    raise UnavailableError(
                        f"A long transaction uses {self.table}: end it, and run this again."
                    ) from error
                await sleep(_PAUSE_SECONDS)
            else:
                return

    def _listed(self, form: str = "{}") -> str:
        return ", ".join(form.format(key) for key in self._keys)

    def _typed(self, null: str = " not null") -> str:
        return ", ".join(f"{name} {type_}{null}" for name, type_ in zip(self._keys, self._types, strict=True))


def _index(index: Any, copy: str, key: str) -> str:
    """The same index of the copy. Without the key it cannot be unique there: a primary key gets it as its last column.

    The constraint of `gateway_customers` sees to the identifiers of tokens, and the sequence to the feed's positions.
    """
    constraint = index["constraint"]
    if index["is_primary"] and not index["has_key"]:
        constraint = constraint.removesuffix(")") + f", {key})"
    if constraint and (index["is_primary"] or index["has_key"]):
        return f"alter table {copy} add constraint {index['temporary']} {constraint}"
    unique = "unique " if index["is_unique"] and index["has_key"] else ""
    return f"create {unique}index {index['temporary']} on {copy} using {index['definition'].partition(' USING ')[2]}"


async def _seconds(work: Awaitable[object]) -> float:
    began = monotonic()
    await work
    return monotonic() - began


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def parts_of(connection: RawConnection, table: str) -> int:
    """How many partitions a table has; 0 if it is not partitioned, or not there."""
    [(count,)] = await connection.fetch(_PARTS, table)
    return count


async def unfinished(connection: RawConnection) -> list[str]:
    """The tables of which a run was begun that neither ended nor was undone."""
    return [table for table in KEYS if await connection.fetchval(_IS_THERE, f"{table}_copied")]


@asynccontextmanager
async def alone(url: str) -> AsyncGenerator[RawConnection]:
    """A connection to the primary with the lock of partitioning and migrating.

    Raises:
        UnavailableError: another process has the lock, or a pooler has only one connection.
    """
    guard = await connect_to_primary(url)
    try:
        await guard.execute("begin; set local idle_in_transaction_session_timeout = 0")
        if not await guard.fetchval("select pg_try_advisory_xact_lock($1)", LOCK):
            raise UnavailableError("Another process migrates or partitions this database.")
        connection = await connect_beside(url)
        try:
            yield connection
        finally:
            connection.terminate()
    finally:
        with suppress(TimeoutError, *FAILURES):
            await guard.execute("rollback", timeout=_END_SECONDS)  # releases the lock, if the database answers
        guard.terminate()
