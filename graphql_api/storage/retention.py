"""Deletes old history entries, except those that are still needed."""

from collections.abc import AsyncGenerator
from datetime import timedelta

from graphql_api.storage.connection import Statement
from graphql_api.storage.feed import PRUNED
from graphql_api.storage.pool import ConnectionPool

ROWS = 5000

_EVENTS = "customer_gateway_token_events"


def _statement(rows: int, *, dry_run: bool) -> Statement:
    """Prunes among this many entries after a place.

    The number is part of the statement: PostgreSQL would not know it when it plans for all parameters alike, and read
    the whole table each time.
    """
    # The last entry of each token stays: a repeated deletion is answered from it, and it keeps the id from being
    # reused. Entries that a webhook endpoint has not accepted yet stay too; one that goes back waits, or is waited for.
    # Both bounds are known before: Citus deletes by no time and no table that is not distributed.
    endpoint = "select position from event_endpoints" + ("" if dry_run else " for share")
    page = f"""
    page as materialized (
      select token_id, version from {_EVENTS} where (token_id, version) > ($1::uuid, $2::integer)
      order by token_id, version limit {rows}
    ), bound as materialized (
      select now() - $3::interval as time,
        (select coalesce(min(position), 9223372036854775807) from ({endpoint}) as endpoint) as position
    )"""
    is_old = f"""
    e.token_id = page.token_id and e.version = page.version and e.at < (select time from bound)
    and e.position <= (select position from bound)
    and exists (select from {_EVENTS} newer where newer.token_id = e.token_id and newer.version > e.version)"""
    if dry_run:
        # The deletion of nothing fails if the role may not delete.
        pruned = f"""
    pruned as (select 1 from {_EVENTS} e, page where {is_old}),
    permitted as (delete from {_EVENTS} where false)"""
    else:
        pruned = f"""
    pruned as (delete from {_EVENTS} e using page where {is_old} returning e.position),
    noted as (
      insert into event_timelines as known (timeline, settled)
      select '{PRUNED}', max(position) from pruned having max(position) > 0
      on conflict (timeline) do update set settled = greatest(known.settled, excluded.settled)
    )"""
    return Statement(
        "would_prune_history" if dry_run else "prune_history",
        f"""
    with {page}, {pruned}
    select token_id, version, (select count(*) from pruned) from page order by token_id desc, version desc limit 1
    """,
    )


async def prune(
    pool: ConnectionPool, older_than: timedelta, *, rows_at_once: int = ROWS, dry_run: bool = False
) -> AsyncGenerator[int]:
    """Delete entries that are older than this. Yields how many each transaction deleted.

    Args:
        pool: the database, as a role that may delete history
        older_than: the age up to which entries are kept
        rows_at_once: how many entries each transaction examines
        dry_run: whether to count only
    """
    place = "00000000-0000-0000-0000-000000000000", 0
    statement = _statement(rows_at_once, dry_run=dry_run)
    while rows := await pool.fetch(statement, *place, older_than):
        *place, count = rows[0]
        yield count
