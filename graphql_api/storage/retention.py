"""Deletes old history entries, except those that are still needed."""

from collections.abc import AsyncGenerator
from datetime import timedelta

from graphql_api.storage.connection import Statement
from graphql_api.storage.feed import PRUNED
from graphql_api.storage.pool import ConnectionPool

ROWS = 5000

_EVENTS = "customer_gateway_token_events"
# The last entry of each token stays: a repeated deletion is answered from it, and it keeps the id from being reused.
# Entries that a webhook endpoint has not accepted yet stay too.
_PAGE = f"""
    page as (
      select token_id, version from {_EVENTS} where (token_id, version) > ($1::uuid, $2::integer)
      order by token_id, version limit $4::bigint
    )"""
_OLD = f"""
    e.token_id = page.token_id and e.version = page.version and e.at < clock_timestamp() - $3::interval
    and e.position <= coalesce((select min(position) from event_endpoints), e.position)
    and exists (select from {_EVENTS} newer where newer.token_id = e.token_id and newer.version > e.version)"""
_COUNT = (
    "select token_id, version, (select count(*) from pruned) from page order by token_id desc, version desc limit 1"
)
_PRUNE = Statement(
    "prune_history",
    f"""
    with {_PAGE}, pruned as (
      delete from {_EVENTS} e using page where {_OLD} returning e.position
    ), noted as (
      insert into event_timelines as known (timeline, settled)
      select '{PRUNED}', max(position) from pruned having max(position) > 0
      on conflict (timeline) do update set settled = greatest(known.settled, excluded.settled)
    )
    {_COUNT}
    """,
)
_WOULD_PRUNE = Statement(
    "would_prune_history",
    # The deletion of nothing fails if the role may not delete.
    f"with {_PAGE}, pruned as (select from {_EVENTS} e, page where {_OLD}),"
    f" permitted as (delete from {_EVENTS} where false) {_COUNT}",
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
    statement = _WOULD_PRUNE if dry_run else _PRUNE
    while rows := await pool.fetch(statement, *place, older_than, rows_at_once):
        *place, count = rows[0]
        yield count
