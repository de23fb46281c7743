"""Many new tokens at once: COPY into a temporary table, and whole statements that store what is new of it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from zlib import crc32

from graphql_api.domain.facts import NO_FACTS, Facts
from graphql_api.storage.changes import Lookups, TokenTransaction
from graphql_api.storage.connection import Statement
from graphql_api.storage.reads import Pair
from graphql_api.storage.selects import ALL
from graphql_api.storage.statements import FACTS


class StagedToken(NamedTuple):
    """A token to store where its user has none at its gateway, from this line of a file.

    What it does not have by its `has_…` was made up for it, and says nothing of a token that is there already. Where it
    `deferred` it is not to be stored together with the others. `former_ids` are None rather than empty, which takes the
    driver longer than all else.
    """

    line: int
    deferred: bool
    has_id: bool
    has_description: bool
    has_metadata: bool
    has_is_active: bool
    has_deactivated_at: bool
    former_ids: Sequence[str] | None
    id: str
    user_id: str
    gateway: str
    gateway_customer_id: str
    description: str | None
    metadata: str | None
    is_active: bool
    created_at: datetime
    updated_at: datetime
    version: int
    activated_at: datetime
    deactivated_at: datetime | None
    deactivation_reason: str | None
    last_verified_at: datetime | None


class StoreResult(NamedTuple):
    """How many rows were new, how many are there as the file has them, and the lines of those that are neither."""

    created: int
    unchanged: int
    others: list[int]


ACTOR = "import"
_COLUMNS = ", ".join(ALL)
# The driver copies in binary, for which our connections know no uuid and no jsonb.
_STAGED = ", ".join({"id": "id::text", "metadata": "metadata::text"}.get(name, name) for name in ALL)
_VALUES = ", ".join({"id": "id::uuid", "metadata": "metadata::jsonb"}.get(name, name) for name in ALL)

_LAYOUT = f"""
  0::bigint as line, false as has_id, false as has_description, false as has_metadata, false as has_is_active,
  false as has_deactivated_at, false as deferred, false as conflicting, '{{}}'::text[] as former_ids,
  '{{}}'::text[] as reserved, {_STAGED}
"""
_TABLE = f"staged_{crc32(_LAYOUT.encode()):08x}"  # of this release, if a pooler kept that of another one
# It stays with its connection. Made for each chunk, it would take time and bloat the catalogs of the database.
_STAGE = f"""
  create temporary table if not exists {_TABLE} on commit delete rows as select {_LAYOUT}
  from customer_gateway_tokens with no data
"""
_IDENTIFIERS = f"""
  select line, gateway, gateway_customer_id, user_id, now() as since from {_TABLE} as staged where not deferred
  union all
  select line, gateway, former.id, user_id, now() - interval '1 microsecond' * (1 + cardinality(former_ids) - place)
  from {_TABLE} as staged cross join unnest(former_ids) with ordinality as former(id, place) where not deferred
"""
_RESERVE = f"""
  insert into gateway_customers (gateway, gateway_customer_id, user_id, since)
  select gateway, gateway_customer_id, user_id, since from ({_IDENTIFIERS}) as wanted
  order by gateway, gateway_customer_id
"""
_CREATE = f"""
  insert into customer_gateway_tokens ({_COLUMNS}) select {_VALUES} from {_TABLE} as staged
  where not deferred order by user_id, gateway
"""
_RECORD = f"""
  insert into customer_gateway_token_events
    (token_id, version, user_id, gateway, gateway_customer_id, is_active, at, action, reason, actor)
  select id::uuid, version, user_id, gateway, gateway_customer_id, is_active, now(), 'IMPORTED', deactivation_reason,
    '{ACTOR}'
  from {_TABLE} as staged where not deferred
"""
# Ends the claims on these customers. The facts about them move into their tokens, or no longer expire.
_END_CLAIMS = f"""
  delete from gateway_customer_claims claim using {_TABLE} as staged
  where not deferred and claim.user_id = staged.user_id and claim.gateway = staged.gateway;
  delete from gateway_customer_reports report using {_TABLE} as staged
  where not deferred and (is_active or deactivation_reason = 'GATEWAY_DELETED')
    and report.gateway_customer_id = staged.gateway_customer_id and report.gateway = staged.gateway;
  update gateway_customer_reports report set expires_at = null from ({_IDENTIFIERS}) as wanted
  where report.expires_at > now() and report.gateway = wanted.gateway
    and report.gateway_customer_id = wanted.gateway_customer_id
"""
_GIVEN_IDS = f"array(select id::uuid from {_TABLE} where has_id and not deferred)"
# An id that a token had once breaks no constraint.
_REFUSE_USED_IDS = f"""
  do $$ begin
    perform from customer_gateway_token_events where token_id = any({_GIVEN_IDS}) limit 1;
    if found then raise unique_violation; end if;
  end $$
"""
# All are new, or it fails: that takes half of the time.
# On Citus, a shard that was read is not copied to: see `statements.INSERT`.
_RECORD_DISTRIBUTED = f"{_RECORD} returning version"
_STORE_ALL = (
    f"{_REFUSE_USED_IDS};{_RESERVE};{_CREATE};{_RECORD};{_END_CLAIMS}",
    f"{_REFUSE_USED_IDS};{_RESERVE};{_CREATE};{_RECORD_DISTRIBUTED};{_END_CLAIMS}",
)

# A row whose identifiers are not all free is lost: it is not new.
_RESERVE_FREE = f"""
  with wanted as ({_IDENTIFIERS}), reserved as (
    {_RESERVE.replace(f"({_IDENTIFIERS}) as wanted", "wanted")}
    on conflict do nothing returning gateway, gateway_customer_id
  )
  update {_TABLE} as staged set deferred = true, conflicting = true, reserved = taken.reserved from (
    select line, array_agg(reserved.gateway_customer_id) as reserved
    from wanted left join reserved using (gateway, gateway_customer_id)
    group by line having bool_or(reserved.gateway is null)
  ) as taken where taken.line = staged.line
"""
# ... and so is one whose user has a token at the gateway, or whose id has another one, or had.
_CREATE_NEW = f"""
  with created as (
    insert into customer_gateway_tokens ({_COLUMNS}) select {_VALUES} from {_TABLE} as staged
    where not deferred and id::uuid <> all(array(
      select token_id from customer_gateway_token_events where token_id = any({_GIVEN_IDS})
    ))
    order by user_id, gateway on conflict do nothing returning id
  )
  update {_TABLE} as staged set deferred = true, conflicting = true, reserved = former_ids || gateway_customer_id
  where not deferred and not exists (select from created where created.id = staged.id::uuid)
"""
# What this transaction reserved for rows that are lost.
_RELEASE = f"""
  delete from gateway_customers
  using (select gateway, unnest(reserved) as id from {_TABLE} as staged where conflicting) as lost
  where gateway_customers.gateway = lost.gateway and gateway_customer_id = lost.id
"""
# User by user: before the first ANALYZE, PostgreSQL would compare each token of the table with all these users.
_DROP_UNCHANGED = f"""
  with t as materialized (
    select token.* from unnest(array(select distinct user_id from {_TABLE} as staged where conflicting)) as keys (id)
    cross join lateral (select * from customer_gateway_tokens where user_id = keys.id) as token
  )
  delete from {_TABLE} as staged using t
  where conflicting and t.user_id = staged.user_id and t.gateway = staged.gateway
    and t.gateway_customer_id = staged.gateway_customer_id
    and (not has_description or t.description is not distinct from staged.description)
    and (not has_metadata or t.metadata is not distinct from staged.metadata::jsonb)
    and (not has_is_active or t.is_active = staged.is_active)
    and (staged.last_verified_at is null or t.last_verified_at >= staged.last_verified_at)
    and (staged.activated_at = staged.created_at
      or (t.activated_at <> t.created_at and t.activated_at >= staged.activated_at))
    and (staged.deactivation_reason is distinct from 'GATEWAY_DELETED'
      or (t.deactivation_reason = 'GATEWAY_DELETED'
        and (not has_deactivated_at or t.deactivated_at >= staged.deactivated_at)))
"""
_NEW = f"{_RESERVE_FREE};{_CREATE_NEW};{_RELEASE};{_DROP_UNCHANGED}"
# Citus prepares no transaction on a worker that changes nothing else than one shard, although the coordinator's tables
# change, too. It prepares one that updates all shards, even if it finds no row.
_PREPARE = """
  update customer_gateway_tokens set version = version where id = '00000000-0000-0000-0000-000000000000'
"""
_STORE_NEW = f"{_NEW};{_RECORD};{_END_CLAIMS}", f"{_PREPARE};{_NEW};{_RECORD_DISTRIBUTED};{_END_CLAIMS}"

_OUTCOME = Statement(
    "outcome_of_import",
    f"""
    select count(*) filter (where not deferred), count(*),
      coalesce(array_agg(line order by line) filter (where deferred), '{{}}')
    from {_TABLE} as staged
    """,
)
# Facts, and a row of nulls if anybody was erased.
_KNOWN = Statement(
    "known_of_staged",
    f"""
    with keys as (select gateway, gateway_customer_id from {_TABLE} as staged) {FACTS}
    union all select null, null, null, null, null where exists (select from erased_users)
    """,
)
_USED_IDS = Statement(
    "used_ids",
    """
    select token_id from customer_gateway_token_events where token_id = any($1::uuid[])
    union
    select id from customer_gateway_tokens where id = any($1)
    """,
)
# Another transaction may have committed on the worker of the history, and not yet on the token's: a function waits.
_ARRIVED = Statement(
    "arrived",
    """
    select 1 from unnest($1::uuid[], $2::text[], $3::text[]) as keys(id, user_id, gateway)
    join customer_gateway_tokens using (id, user_id, gateway) limit 1
    """,
    sql_distributed="""
    select 1 from unnest($1::uuid[], $2::text[], $3::text[]) as keys(token_id, user_id, gateway)
    cross join lateral token_with_id(token_id) t where t.user_id = keys.user_id and t.gateway = keys.gateway limit 1
    """,
)


async def stage(store: TokenTransaction, rows: Collection[StagedToken], *, again: bool = False) -> None:
    """Have these rows at hand in the transaction of this store, `again` instead of others: nothing is locked yet."""
    await store.execute(f"delete from {_TABLE}" if again else _STAGE)
    await store.raw.copy_records_to_table(_TABLE, columns=StagedToken._fields, records=rows)


async def known(store: Lookups) -> tuple[dict[Pair, Facts], bool]:
    """The facts about the staged customers that no token holds, and whether anybody was erased.

    Who was is asked only then: it takes a hash of each user.
    """
    facts: dict[Pair, Facts] = {}
    is_anybody_erased = False
    for gateway, customer, *times in await store.fetch(_KNOWN):
        if gateway is None:
            is_anybody_erased = True
        else:
            facts[gateway, customer] = Facts(*times).joined(facts.get((gateway, customer), NO_FACTS))
    return facts, is_anybody_erased


async def store_new(store: TokenTransaction, rows: Collection[StagedToken], *, all_are: bool) -> StoreResult:
    """Store what is new of the staged rows, with its line of history, in the transaction of this store.

    Rows that are not apart have no user at a gateway, no identifier and no id in common.

    Args:
        store: in a transaction
        rows: what was staged
        all_are: that probably all are new but those apart, which is quickly done

    Raises:
        UniqueViolationError: not all are.
    """
    if all_are:
        await store.execute(*_STORE_ALL)
        others = [row.line for row in rows if row.deferred]
        return StoreResult(len(rows) - len(others), 0, others)
    await store.execute(*_STORE_NEW)
    [(created, left, others)] = await store.fetch(_OUTCOME)
    return StoreResult(created, len(rows) - left, others)


async def used_ids(store: Lookups, ids: Sequence[str]) -> set[str]:
    """Which of these ids a token has, or had."""
    return {row[0] for row in await store.fetch(_USED_IDS, ids)}


async def have_arrived(store: Lookups, rows: Sequence[StagedToken]) -> bool:
    """Whether a token of these rows is there by now, with the id that its row has."""
    keys = zip(*((row.id, row.user_id, row.gateway) for row in rows), strict=True)
    return bool(rows and await store.fetch(_ARRIVED, *map(list, keys)))
