"""The statements that lock, that write, and that read what lies beside the tokens; most take arrays: whole lists."""

from collections.abc import Collection, Container, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy.dialects.postgresql import asyncpg

from graphql_api.domain.token import Event, Token
from graphql_api.storage.connection import Reads, Statement
from graphql_api.storage.selects import ALL, TOKENS

_DIALECT = asyncpg.dialect()
_TYPES = {column.name: column.type.compile(dialect=_DIALECT) for column in TOKENS.c}
_COLUMNS = ", ".join(ALL)
_TOKEN = ", ".join(f"t.{name}" for name in ALL)
_AT_KEYS = "customer_gateway_tokens t on t.user_id = keys.user_id and t.gateway = keys.gateway"
_NEW = "unnest({}, ${}::boolean[]) as new({}, arrives)".format(
    ", ".join(f"${number}::{_TYPES[name]}[]" for number, name in enumerate(ALL, 1)), len(ALL) + 1, _COLUMNS
)


def token_arrays(tokens: Collection[Token], arrived: Container[str]) -> list[list[Any]]:
    """The arguments of `INSERT` and `UPDATE`: one array for each column, and which are in a new place by this."""
    return [*([getattr(token, name) for token in tokens] for name in ALL), [token.id in arrived for token in tokens]]


def event_arrays(events: Sequence[Event]) -> list[list[Any]]:
    """The first arguments of `RECORD`; the last one is the actor."""
    names = ("id", "version", "user_id", "gateway", "gateway_customer_id", "is_active")
    columns: list[list[Any]] = [[getattr(event.token, name) for event in events] for name in names]
    times = [event.at or event.token.updated_at for event in events]
    actions = [event.action and event.action.value for event in events]
    return [*columns, times, actions, [event.reason for event in events]]


# --- a change of one token

# One row, whether the token is there or not, with the database's time.
READ_BY_ID = Statement(
    "read_by_id",
    f"select {_TOKEN}, clock_timestamp() as now from (select) as one left join customer_gateway_tokens t on t.id = $1",
    sql_distributed=f"select {_TOKEN}, clock_timestamp() as now"
    " from (select) as one left join lateral token_with_id($1) t on true",
    reads=Reads.BY_KEY,
)
_READ_BY_USERS_AND_GATEWAYS = f"""
    select {_TOKEN}, clock_timestamp() as now, keys.user_id, keys.gateway
    from unnest(string_to_array($1::text, $2::text), string_to_array($3::text, $2)) as keys(user_id, gateway)
    left join
"""
READ_BY_USERS_AND_GATEWAYS = Statement(
    "read_by_users_and_gateways",
    _READ_BY_USERS_AND_GATEWAYS + _AT_KEYS,
    sql_distributed=f"{_READ_BY_USERS_AND_GATEWAYS} lateral token_at(keys.user_id, keys.gateway) t on true",
    reads=Reads.BY_KEY,
)
# What `CHANGE` writes beside the metadata; the token's user and identifiers stay.
CHANGED = (
    "description",
    "is_active",
    "activated_at",
    "deactivated_at",
    "deactivation_reason",
    "last_verified_at",
    "updated_at",
)
_changed = attrgetter(*CHANGED)
_CHANGE = {
    "id": "uuid",
    "version": "integer",
    "new_version": "integer",
    "old_deactivated_at": "timestamptz",
    "old_verified_at": "timestamptz",
    "old_activated_at": "timestamptz",
    **{name: _TYPES[name] for name in CHANGED},
    "keeps_metadata": "boolean",
    "metadata": "jsonb",
    "action": "text",
    "reason": "text",
    "actor": "text",
    "call_id": "bigint",
}
# Arguments: `change_object`s, as JSON, for which the driver takes half the time of as many arrays, and their users.
# Answers the index of each change that found its token as it was read; reports and decisions change three of its times,
# and not its version. Rows are locked in the order of their ids: the limit leaves none out, but has PostgreSQL expect
# so few that it takes one after the other. A row that is locked is a conflict: others' changes do not wait for it.
CHANGE = Statement(
    "change",
    f"""
    with new as (
      select * from rows from (
        jsonb_to_recordset($1::jsonb) as ({", ".join(f"{name} {type_}" for name, type_ in _CHANGE.items())})
      ) with ordinality as new({", ".join(_CHANGE)}, place)
      order by id limit jsonb_array_length($1)
    ), changed as (
      update customer_gateway_tokens t set {", ".join(f"{name} = new.{name}" for name in CHANGED)},
        version = new.new_version, metadata = case when new.keeps_metadata then t.metadata else new.metadata end
      from new where (select set_config('lock_timeout', '50ms', true)) is not null
        and t.user_id = ($2::text[])[new.place] and t.id = new.id and t.version = new.version
        and t.deactivated_at is not distinct from new.old_deactivated_at
        and t.last_verified_at is not distinct from new.old_verified_at
        and t.activated_at = new.old_activated_at
      returning t.id, t.version, t.user_id, t.gateway, t.gateway_customer_id, t.is_active, t.updated_at,
        new.action, new.reason, new.actor, new.call_id, new.place
    ), recorded as (
      insert into customer_gateway_token_events
        (token_id, version, user_id, gateway, gateway_customer_id, is_active, at, action, reason, actor, call_id)
      select id, version, user_id, gateway, gateway_customer_id, is_active, updated_at, action, reason, actor, call_id
      from changed where action is not null
    )
    select place - 1 as index from changed
    """,
    sql_distributed="select change_tokens($1, $2) as index",
)


def change_object(old: Token, event: Event, actor: str, call_id: int) -> dict[str, Any]:
    """What `CHANGE` takes for a change of this token."""
    new = event.token
    keeps_metadata = new.metadata is old.metadata
    return {
        "id": old.id,
        "version": old.version,
        "new_version": new.version,
        "old_deactivated_at": old.deactivated_at,
        "old_verified_at": old.last_verified_at,
        "old_activated_at": old.activated_at,
        **dict(zip(CHANGED, _changed(new), strict=True)),
        "keeps_metadata": keeps_metadata,
        "metadata": None if keeps_metadata else new.metadata,
        "action": event.action,  # an enum is its value in JSON
        "reason": event.reason,
        "actor": actor,
        "call_id": call_id,
    }


# --- changes of many tokens, in a transaction

# Rows are locked in the order of their ids here as well.
LOCK_BY_USERS_AND_GATEWAYS = Statement(
    "lock_by_users_and_gateways",
    f"""
    select {_TOKEN} from unnest($1::text[], $2::text[]) as keys(user_id, gateway) join {_AT_KEYS}
    order by t.id
    for update of t
    """,
    sql_distributed=f"""
    select {_TOKEN} from (
      select distinct user_id, gateway from unnest($1::text[], $2::text[]) as keys(user_id, gateway) order by 1, 2
    ) as keys cross join lateral lock_tokens(user_id, gateway) t
    """,
)
LOCK_OF_USERS = Statement(
    "lock_of_users",
    f"select {_TOKEN} from customer_gateway_tokens t where user_id = any($1::text[]) order by id for update",
    sql_distributed=f"""
    select {_TOKEN} from (select distinct user_id from unnest($1::text[]) as keys(user_id) order by 1) as keys
    cross join lateral lock_tokens(user_id, null) t order by t.id
    """,
)
NOW = Statement("now", "select clock_timestamp()")
# If a token takes a user's place at a gateway, or gets a customer id, the claim on this customer ends, and the facts
# about it move into the token if that can hold them.
_ARRIVALS = f"""
    with new as (select * from {_NEW}), claimed as (
      delete from gateway_customer_claims claim using new
      where claim.user_id = new.user_id and claim.gateway = new.gateway and new.arrives
    ), carried as (
      delete from gateway_customer_reports r using new
      where r.gateway_customer_id = new.gateway_customer_id and r.gateway = new.gateway and new.arrives
        and (new.is_active or new.deactivation_reason = 'GATEWAY_DELETED')
    )
"""
# In one order for all, so that batches wait in no circle.
_INSERT = f"insert into customer_gateway_tokens ({_COLUMNS}) select {_COLUMNS} from new order by user_id, gateway"
# Citus copies the rows to the workers. It prepares no transaction on a worker whose shards were only read before it
# copied to them, as `LOCK_BY_USERS_AND_GATEWAYS` does: if that worker dies, the rows are lost and all else is kept. An
# update makes it prepare them, even one that finds no row.
INSERT = Statement(
    "insert",
    f"{_ARRIVALS} {_INSERT}",
    sql_distributed=f"""{_ARRIVALS}, prepared as (
      update customer_gateway_tokens set version = version
      where user_id = any(${ALL.index("user_id") + 1}::text[]) and gateway = ''
    ) {_INSERT}""",
)
# A token that comes to another user is deleted and inserted: no row leaves its partition.
_KEPT = {"id", "user_id", "gateway", "created_at"}
UPDATE = Statement(
    "update",
    "{} update customer_gateway_tokens t set {} from new where t.user_id = new.user_id and t.id = new.id".format(
        _ARRIVALS, ", ".join(f"{name} = new.{name}" for name in ALL if name not in _KEPT)
    ),
)
DELETE = Statement("delete", "delete from customer_gateway_tokens where id = any($1::uuid[])")
DEPART = Statement(
    "depart",
    "insert into departed_tokens (user_id, token_id)"
    " select * from unnest($1::text[], $2::uuid[]) on conflict do nothing",
)
_RECORD = """
    insert into customer_gateway_token_events
      (token_id, version, user_id, gateway, gateway_customer_id, is_active, at, action, reason, actor)
    select line.*, $10 from unnest(
      $1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[], $8::text[],
      $9::text[]
    ) as line
"""
# With `returning`, Citus copies nothing to the shards: see `INSERT`.
RECORD = Statement("record", _RECORD, sql_distributed=f"{_RECORD} returning version")
# Answers a row for each identifier that is this user's now; it stays another's if it was. What is known of it does not
# expire any longer.
RESERVE = Statement(
    "reserve",
    """
    with new as (
      select * from unnest($1::text[], $2::text[], $3::text[]) as new(gateway, gateway_customer_id, user_id)
    ), kept as (
      update gateway_customer_reports r set expires_at = null from new
      where r.gateway_customer_id = new.gateway_customer_id and r.gateway = new.gateway and r.expires_at > now()
    )
    insert into gateway_customers (gateway, gateway_customer_id, user_id) select * from new order by 1, 2
    on conflict (gateway_customer_id, gateway) do update set user_id = excluded.user_id
      where gateway_customers.user_id = excluded.user_id
    returning user_id
    """,
)
# An erasure of the other user has to find the tokens whose history names these identifiers, also those that a third
# user has by now. The tokens of the two users are found without that.
REASSIGN_IDENTIFIERS = Statement(
    "reassign_identifiers",
    """
    with departed as (
      insert into departed_tokens (user_id, token_id)
      select $2, token_id from departed_tokens where user_id = $1 and token_id <> all(array(
        select id from customer_gateway_tokens
        where id = any(array(select token_id from departed_tokens where user_id = $1)) and user_id in ($1, $2)
      ))
      on conflict do nothing
    )
    update gateway_customers set user_id = $2 where user_id = $1
    """,
)

# These identifiers are these users' from now on, whosever they were. An erasure of theirs has to find the tokens of the
# users before whose history names them.
REASSIGN = Statement(
    "reassign",
    """
    with new as (
      select * from unnest($1::text[], $2::text[], $3::text[]) as new(gateway, gateway_customer_id, user_id)
    ), taken as materialized (
      select new.*, c.user_id as from_user from new join gateway_customers c
      on c.gateway_customer_id = new.gateway_customer_id and c.gateway = new.gateway and c.user_id <> new.user_id
    ), theirs as materialized (
      select taken.*, token_id from taken join departed_tokens d on d.user_id = from_user
      union all
      select taken.*, t.id from taken join customer_gateway_tokens t
      on t.user_id = from_user and t.gateway = taken.gateway
    ), departed as (
      insert into departed_tokens (user_id, token_id)
      select distinct theirs.user_id, token_id from theirs join customer_gateway_token_events e
      using (token_id, gateway, gateway_customer_id)
      on conflict do nothing
    )
    insert into gateway_customers (gateway, gateway_customer_id, user_id) select * from new order by 1, 2
    on conflict (gateway_customer_id, gateway) do update set user_id = excluded.user_id
    """,
)

# --- identifiers and history

IDENTIFIERS = Statement(
    "identifiers",
    """
    select user_id, gateway, gateway_customer_id from unnest($1::text[], $2::text[]) as keys(user_id, gateway)
    join gateway_customers using (user_id, gateway) order by since, gateway_customer_id
    """,
    reads=Reads.BY_KEY,
)
IDENTIFIERS_OF = Statement(
    "identifiers_of",
    """
    select gateway, gateway_customer_id from gateway_customers where user_id = $1
    union
    select gateway, gateway_customer_id from customer_gateway_tokens where user_id = $1
    order by gateway, gateway_customer_id
    """,
)
# What is known of the customers in `keys` that no token says, also after their user was erased.
FACTS = """
    select gateway, gateway_customer_id, gone_at, exists_at, activated_at from keys
    join gateway_customer_reports using (gateway_customer_id, gateway) where expires_at is null or expires_at > now()
    union all
    select gateway, gateway_customer_id, gone_at, exists_at, activated_at from keys
    join gateway_erasures using (gateway_customer_id, gateway)
"""
# Whose these identifiers are, and in rows without a user what is known of them.
_OWNED = """
    with keys as (select * from unnest($1::text[], $2::text[]) as keys(gateway, gateway_customer_id))
    select gateway, gateway_customer_id, user_id, null::timestamptz, null::timestamptz, null::timestamptz
    from keys join gateway_customers using (gateway_customer_id, gateway)
"""
# Something other than the service may have inserted a token, and its customer id nowhere else.
_OWNED_BY_TOKENS = """
    select gateway, gateway_customer_id, user_id, null, null, null from keys
    join customer_gateway_tokens using (gateway_customer_id, gateway)
"""
CUSTOMERS = Statement(
    "customers",
    f"{_OWNED} union all {_OWNED_BY_TOKENS} union all {FACTS.replace('gone_at', 'null, gone_at')}",
    reads=Reads.BY_KEY,
)
# A report on one of a user's customers comes before their erasure, or after it: it is never lost between the two.
SHARE_IDENTIFIERS = Statement(
    "share_identifiers",
    """
    select from gateway_customers
    where (gateway, gateway_customer_id) in (select * from unnest($1::text[], $2::text[]))
    order by gateway, gateway_customer_id for share
    """,
)
LOCK_IDENTIFIERS_OF = Statement(
    "lock_identifiers_of",
    "select from gateway_customers where user_id = $1 order by gateway, gateway_customer_id for update",
)
CURRENT = Statement(
    "current",
    """
    select gateway, gateway_customer_id from customer_gateway_tokens
    where (gateway, gateway_customer_id) in (select * from unnest($1::text[], $2::text[]))
    """,
)


def _by_the_microsecond(gone_at: str) -> str:
    activated_at = "greatest(known.activated_at, excluded.activated_at)"
    return (
        f"case when {gone_at} < {activated_at} and {activated_at} < {gone_at} + interval '1 second'"
        f" and {gone_at} = date_trunc('second', {gone_at}) then {activated_at} else {gone_at} end"
    )


# Keeps the latest of each kind, as `Facts.joined` does.
JOINED_FACTS = f"""
      gone_at = greatest({_by_the_microsecond("known.gone_at")}, {_by_the_microsecond("excluded.gone_at")}),
      exists_at = greatest(known.exists_at, excluded.exists_at),
      activated_at = greatest(known.activated_at, excluded.activated_at)
"""
# Facts about an id without a user expire, unless the id is still to be deleted at its gateway: then they stay with it.
REMEMBER_FACTS = Statement(
    "remember_facts",
    f"""
    with new as (
      select new.*, exists (
        select from gateway_customers c
        where c.gateway_customer_id = new.gateway_customer_id and c.gateway = new.gateway
      ) as is_somebodys
      from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[])
        as new(gateway, gateway_customer_id, gone_at, exists_at, activated_at)
    ), erased as (
      update gateway_erasures as known set {JOINED_FACTS} from new as excluded
      where known.gateway_customer_id = excluded.gateway_customer_id and known.gateway = excluded.gateway
        and not excluded.is_somebodys
      returning known.gateway, known.gateway_customer_id
    )
    insert into gateway_customer_reports as known
      (gateway, gateway_customer_id, gone_at, exists_at, activated_at, expires_at)
    select gateway, gateway_customer_id, gone_at, exists_at, activated_at,
      case when not is_somebodys then now() + interval '90 days' end
    from new where not exists (
      select from erased e where e.gateway_customer_id = new.gateway_customer_id and e.gateway = new.gateway
    )
    order by 2, 1
    on conflict (gateway_customer_id, gateway) do update set
      {JOINED_FACTS},
      expires_at = excluded.expires_at
    """,
)
# A few at a time, with each report on an id without a user.
FORGET_EXPIRED_FACTS = Statement(
    "forget_expired_facts",
    """
    delete from gateway_customer_reports where (gateway_customer_id, gateway) in (
      select gateway_customer_id, gateway from gateway_customer_reports
      where expires_at < now() order by expires_at limit $1 for update skip locked
    )
    """,
)
# All but a number of ids without a user: first those with confirmations only, then those that expire first. The count
# reads an index; the order is computed only if there are too many.
FORGET_SURPLUS_FACTS = Statement(
    "forget_surplus_facts",
    """
    delete from gateway_customer_reports where (gateway_customer_id, gateway) in (
      select gateway_customer_id, gateway from gateway_customer_reports
      where expires_at is not null order by gone_at is not null, expires_at
      limit (select greatest(count(*) - $1, 0) from gateway_customer_reports where expires_at is not null)
      for update skip locked
    )
    """,
)
FORGET_FACTS = Statement(
    "forget_facts",
    """
    delete from gateway_customer_reports r using gateway_customers c
    where c.user_id = $1 and r.gateway_customer_id = c.gateway_customer_id and r.gateway = c.gateway
    """,
)
HISTORY = Statement(
    "history",
    """
    select line.* from unnest($1::uuid[]) as keys(token_id) cross join lateral (
      select * from customer_gateway_token_events e
      where e.token_id = keys.token_id and ($2::integer is null or e.version < $2)
      order by e.version desc limit $3
    ) as line
    """,
    sql_distributed="""
    select line.* from unnest($1::uuid[]) as keys(token_id)
    cross join lateral history_of_token(token_id, $2, $3) as line
    """,
    reads=Reads.BY_KEY,
)
# Whether this call changed a token that a user has, or had.
RECORDED = Statement(
    "recorded",
    """
    select from (
      select id as token_id from customer_gateway_tokens where user_id = $1
      union all select token_id from departed_tokens where user_id = $1
    ) as theirs join customer_gateway_token_events using (token_id) where call_id = $2 limit 1
    """,
    sql_distributed="""
    select 1 from customer_gateway_token_events where call_id = $2 and token_id = any(array(
      select id from customer_gateway_tokens where user_id = $1
      union all select token_id from departed_tokens where user_id = $1
    )) limit 1
    """,
    reads=Reads.BY_KEY,
)
LAST_LINE = Statement(
    "last_line",
    "select user_id from customer_gateway_token_events where token_id = $1 order by version desc limit 1",
    reads=Reads.BY_KEY,
)

# --- claims

# Arguments: users, gateways, seconds and hashes of the users. Returns a row if a customer may be created.
_CLAIM = """
    with wanted as (
      select keys.*, t.gateway_customer_id as replaces
      from unnest($1::text[], $2::text[], $3::integer[], $4::bytea[]) as keys(user_id, gateway, seconds, user_hash)
      left join %s
      where not exists (select from erased_users e where e.user_hash = keys.user_hash)
        and (t.id is null or t.deactivation_reason = 'GATEWAY_DELETED')
    ), acquired as (
      insert into gateway_customer_claims as claim (user_id, gateway, expires_at)
      select user_id, gateway, clock_timestamp() + make_interval(secs => seconds) from wanted
      on conflict (user_id, gateway) do update set expires_at = excluded.expires_at
        where claim.expires_at <= clock_timestamp()
      returning *
    )
    select user_id, gateway, generation, expires_at, true as acquired, replaces
    from acquired join wanted using (user_id, gateway)
    union all
    select user_id, gateway, claim.generation, claim.expires_at, false, replaces
    from wanted join gateway_customer_claims claim using (user_id, gateway)
    where not exists (select from acquired where (acquired.user_id, acquired.gateway) = (claim.user_id, claim.gateway))
"""
CLAIM = Statement(
    "claim",
    _CLAIM % _AT_KEYS,
    sql_distributed=_CLAIM % "lateral token_at(keys.user_id, keys.gateway) t on true",
)
CLAIMED = Statement(
    "claimed", "select generation from gateway_customer_claims where user_id = $1 and gateway = $2", reads=Reads.BY_KEY
)
RELEASE_CLAIM = Statement(
    "release_claim",
    "delete from gateway_customer_claims where user_id = $1 and gateway = $2 and generation = $3 returning generation",
)
