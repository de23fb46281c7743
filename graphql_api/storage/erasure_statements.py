"""The statements that erase a user, and the list of what is still to be erased at gateways."""

from graphql_api.storage.connection import Reads, Statement
from graphql_api.storage.statements import JOINED_FACTS

ERASURE_KEY = Statement("erasure_key", "select key from erasure_key", reads=Reads.OWN)
ERASED = Statement(
    "erased", "select user_hash from erased_users where user_hash = any($1::bytea[])", reads=Reads.BY_KEY
)
REMEMBER_ERASURE = Statement(
    "remember_erasure", "insert into erased_users (user_hash) values ($1) on conflict do nothing"
)
LIFT_ERASURE = Statement("lift_erasure", "delete from erased_users where user_hash = $1")
ERASE_HISTORY = Statement("erase_history", "select erase_history($1::uuid[], $2::text)")
FORGET_DEPARTED = Statement("forget_departed", "delete from departed_tokens where user_id = $1 returning token_id")
# If no user of a token is left, its history must name none.
FORGET_NAMELESS = Statement(
    "forget_nameless",
    """
    delete from departed_tokens where token_id = any(array(
      select unnest($1::uuid[])
      except
      select token_id from customer_gateway_token_events where token_id = any($1) and user_id is not null
    ))
    """,
)
FORGET_IDENTIFIERS = Statement("forget_identifiers", "delete from gateway_customers where user_id = $1")
FORGET_CLAIMS = Statement("forget_claims", "delete from gateway_customer_claims where user_id = $1")

# A customer that was saved again has an owner, so it is no longer to be deleted at its gateway.
_IS_TO_ERASE = """not exists (
  select from gateway_customers c
  where c.gateway_customer_id = e.gateway_customer_id and c.gateway = e.gateway
)"""
# What is known of them stays with them, so that one that is gone is not taken for alive if it is saved again.
ADD_ERASURES = Statement(
    "add_erasures",
    f"""
    insert into gateway_erasures as known
      (gateway, gateway_customer_id, user_hash, gone_at, exists_at, activated_at)
    select gateway, gateway_customer_id, $3, gone_at, exists_at, activated_at
    from unnest($1::text[], $2::text[]) as keys(gateway, gateway_customer_id)
    left join gateway_customer_reports using (gateway_customer_id, gateway) order by 2, 1
    on conflict (gateway_customer_id, gateway) do update set user_hash = excluded.user_hash, erased_at = now(),
      {JOINED_FACTS}
    """,
)
ERASURES_OF = Statement(
    "erasures_of",
    f"""
    select gateway, gateway_customer_id from gateway_erasures e
    where user_hash = $1 and {_IS_TO_ERASE} order by 1, 2
    """,
)
# Arguments: a gateway or null, the three columns of a cursor or nulls, and how many rows.
ERASURES = Statement(
    "erasures",
    f"""
    select gateway, gateway_customer_id, erased_at from gateway_erasures e
    where {_IS_TO_ERASE} and ($1::text is null or gateway = $1)
      and ($2::timestamptz is null or (erased_at, gateway, gateway_customer_id) > ($2, $3::text, $4::text))
    order by erased_at, gateway, gateway_customer_id limit $5
    """,
    reads=Reads.LIST,
)
# Whether the row of a cursor is there, or one before it. Arguments: a gateway or null, the three columns of the cursor.
ERASURES_PRECEDE = Statement(
    "erasures_precede",
    f"""
    select exists (
      select from gateway_erasures e where {_IS_TO_ERASE} and ($1::text is null or gateway = $1)
        and (erased_at, gateway, gateway_customer_id) <= ($2::timestamptz, $3::text, $4::text)
    )
    """,
    reads=Reads.LIST,
)
COUNT_ERASURES = Statement(
    "count_erasures", f"select count(*) from gateway_erasures e where {_IS_TO_ERASE} and gateway = $1", reads=Reads.LIST
)
# Arguments: a gateway, customer ids, and the same in lower case.
ERASURES_LIKE = Statement(
    "erasures_like",
    f"""
    select gateway_customer_id from gateway_erasures e where {_IS_TO_ERASE} and gateway = $1
      and (gateway_customer_id = any($2::text[]) or lower(gateway_customer_id) = any($3::text[]))
    """,
    reads=Reads.LIST,
)
IS_TO_ERASE = Statement(
    "is_to_erase",
    f"""
    select from gateway_erasures e where gateway_customer_id = $2 and gateway = $1 and {_IS_TO_ERASE} and not exists (
      select 1 from customer_gateway_tokens t
      where t.gateway_customer_id = $2 and t.gateway = $1
    )
    """,
    reads=Reads.BY_KEY,
)
# What was said of these customers goes with them.
CONFIRM_ERASURES = Statement(
    "confirm_erasures",
    f"""
    with confirmed as (
      delete from gateway_erasures e using unnest($1::text[], $2::text[]) as keys(gateway, gateway_customer_id)
      where e.gateway_customer_id = keys.gateway_customer_id and e.gateway = keys.gateway and {_IS_TO_ERASE}
      returning e.gateway, e.gateway_customer_id
    ), forgotten as (
      delete from gateway_customer_reports r using confirmed
      where r.gateway_customer_id = confirmed.gateway_customer_id and r.gateway = confirmed.gateway
        and r.expires_at is not null
    )
    select from confirmed
    """,
)
