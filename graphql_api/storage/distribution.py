"""Distributes the large tables over the workers of a Citus cluster, and tells how they are distributed.

Tokens lie by user, history by token. All else stays on the coordinator, to which everybody connects: there a primary
key ensures that a customer id is one user's. If Citus needs another text, it is `Statement.sql_distributed`.
"""

from typing import NamedTuple

from graphql_api.domain.errors import BadInputError
from graphql_api.storage.connector import RawConnection, adapt, connect_to_primary
from graphql_api.storage.migrate import LOCK
from graphql_api.storage.migrations.distributed import FUNCTIONS
from graphql_api.storage.partitioning import parts_of

KEYS = {"customer_gateway_tokens": "user_id", "customer_gateway_token_events": "token_id"}
"""The tables that are distributed, and the column whose hash decides in which shard a row is."""
SETTINGS = {
    "citus.max_adaptive_executor_pool_size": "1",  # so that a transaction sees what it changed
    "citus.max_intermediate_result_size": "-1",  # exports fetch all tokens
    "citus.override_table_visibility": "off",  # else the driver's questions about types take a second each
}
"""What is set for the database."""

# A shard knows nothing of the others: customer ids are unique by their own table, and positions by their sequence.
_PREPARE = """
set local lock_timeout = '5s';
alter table customer_gateway_tokens drop constraint customer_gateway_tokens_pkey;
alter table customer_gateway_tokens add constraint customer_gateway_tokens_pkey primary key (id, user_id);
alter table customer_gateway_tokens drop constraint one_token_per_gateway_customer;
create index one_token_per_gateway_customer on customer_gateway_tokens (gateway_customer_id, gateway);
drop index customer_gateway_token_events_by_position;
create index customer_gateway_token_events_by_position on customer_gateway_token_events (position)
  where position > 0
"""
_DISTRIBUTE = """
select create_distributed_table($1::text::regclass, $2::text, shard_count := $3::int, colocate_with := 'none')
"""
_RENEWING = LOCK + 1  # no function can be replaced by two processes at once
_VERSION = "select extversion from pg_extension where extname = 'citus'"
_CLUSTER = """
select (select groupid = 0 from pg_dist_local_group) as is_coordinator,
  (select count(*)::int from pg_dist_node where noderole = 'primary' and isactive and shouldhaveshards and groupid > 0)
    as workers,
  array(
    select nodename || ':' || nodeport from run_command_on_workers('select 1') where not success order by 1
  ) as silent
"""
_SHARDS = """
select logicalrelid::regclass::text as name, count(*)::int as shards from pg_dist_shard
where logicalrelid = any(array(select to_regclass(name) from unnest($1::text[]) as name)) group by 1
"""
_SIZE = """
select greatest(reltuples, 0)::bigint, pg_total_relation_size(oid) from pg_class where oid = $1::text::regclass
"""
_SOURCES = "select array_agg(prosrc) from pg_proc where pronamespace = current_schema()::regnamespace"


class Cluster(NamedTuple):
    """A Citus cluster, as one of its nodes tells: `shards` has the number of each table that is distributed."""

    version: str
    is_coordinator: bool
    workers: int
    silent: list[str]
    shards: dict[str, int]

    @property
    def is_distributed(self) -> bool:
        """Whether the tables are distributed; all of them are at once."""
        return bool(self.shards)


async def cluster_of(connection: RawConnection) -> Cluster | None:
    """The cluster of this database; None if it has no Citus."""
    version = await connection.fetchval(_VERSION)
    if version is None:
        return None
    [(is_coordinator, workers, silent)] = await connection.fetch(_CLUSTER)
    shards = await connection.fetch(_SHARDS, [*KEYS])
    return Cluster(version, is_coordinator, workers, silent, {row["name"]: row["shards"] for row in shards})


async def must_be_distributable(connection: RawConnection, shards: int) -> Cluster:
    """The cluster whose coordinator this is, if its tables can have this many shards or have them.

    Raises:
        BadInputError: there is no cluster, this is a worker, there are no workers, or the tables have other shards, or
            partitions.
    """
    cluster = await cluster_of(connection)
    if cluster is None:
        raise BadInputError(
            "This database has no Citus: run `create extension citus` on all nodes and add the workers, or use "
            "`gateway-tokens partition` on one server."
        )
    if not cluster.is_coordinator:
        raise BadInputError("This node is a worker: set DATABASE_URL to the coordinator.")
    if not cluster.workers:
        raise BadInputError("The cluster has no workers: add them with citus_add_node.")
    for table in KEYS:
        if await parts_of(connection, table):
            raise BadInputError(f"{table} is partitioned. Such a table cannot be distributed.")
        if (there := cluster.shards.get(table, shards)) != shards:
            raise BadInputError(f"{table} has {there} shards already: alter_distributed_table changes their number.")
    return cluster


async def distribute(connection: RawConnection, shards: int) -> None:
    """Distribute the tables over this many shards each, in one transaction; what is distributed already stays.

    Raises:
        BadInputError: see `must_be_distributable`.
        Exception: an error of the driver; nothing was changed.
    """
    cluster = await must_be_distributable(connection, shards)
    async with connection.transaction():
        if not cluster.is_distributed:
            await connection.execute(_PREPARE)
            for table, key in KEYS.items():
                await connection.fetch(_DISTRIBUTE, table, key, shards)
        await connection.execute(FUNCTIONS)
        name = await connection.fetchval("select quote_ident(current_database())")
        for setting, value in SETTINGS.items():
            await connection.execute(f"alter database {name} set {setting} = {value}")
    for table in KEYS:
        await connection.fetch("select truncate_local_data_after_distributing_table($1::text::regclass)", table)


async def size_of(connection: RawConnection, table: str) -> tuple[int, int]:
    """About how many rows a table has on this node, and its bytes with its indexes."""
    [row] = await connection.fetch(_SIZE, table)
    return tuple(row)


async def renew_functions(url: str) -> None:
    """Give a distributed database the functions of this release; those of a service of the last one stay usable.

    Raises:
        Exception: an error of the driver.
    """
    connection = await connect_to_primary(url)
    try:
        if await adapt(connection) and await outdated_functions(connection):
            async with connection.transaction():
                await connection.execute(f"select pg_advisory_xact_lock({_RENEWING})")
                await connection.execute(FUNCTIONS)
    finally:
        await connection.close()


async def outdated_functions(connection: RawConnection) -> bool:
    """Whether the functions of the database are not those of this release."""
    there = await connection.fetchval(_SOURCES) or []
    bodies = FUNCTIONS.split("$body$")[1::2]
    return not {*bodies} <= {*there}
