"""Tokens, the identifiers that belong to users, history, claims and erasures."""

import secrets

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None

TABLES = """
create table customer_gateway_tokens (
  id uuid not null default gen_random_uuid(),
  user_id text not null,
  gateway text not null,
  gateway_customer_id text not null,
  description text,
  metadata jsonb,
  is_active boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1,
  activated_at timestamptz not null default now(),
  deactivated_at timestamptz,
  deactivation_reason text,
  last_verified_at timestamptz,
  constraint customer_gateway_tokens_pkey primary key (id),
  constraint one_token_per_user_and_gateway unique (user_id, gateway),
  constraint one_token_per_gateway_customer unique (gateway_customer_id, gateway),
  constraint user_id_is_well_formed check (char_length(user_id) between 1 and 255),
  constraint gateway_is_well_formed check (gateway ~ '^[A-Z][A-Z0-9_]{0,49}$'),
  constraint gateway_customer_id_is_well_formed check (
    char_length(gateway_customer_id) between 1 and 255 and gateway_customer_id !~ '[[:space:]]'
  ),
  constraint description_is_short check (char_length(description) <= 2000),
  constraint metadata_is_an_object check (jsonb_typeof(metadata) = 'object'),
  constraint version_is_positive check (version >= 1),
  constraint an_active_token_is_not_deactivated check (not is_active or deactivated_at is null)
);
create index customer_gateway_tokens_by_age on customer_gateway_tokens (created_at, id);
create index customer_gateway_tokens_by_gateway on customer_gateway_tokens (gateway, created_at, id);
create index customer_gateway_tokens_by_verification on customer_gateway_tokens (last_verified_at nulls first);

create table gateway_customers (
  gateway_customer_id text not null,
  gateway text not null,
  user_id text not null,
  since timestamptz not null default now(),
  constraint one_user_per_gateway_customer primary key (gateway_customer_id, gateway)
);
create index gateway_customers_by_user on gateway_customers (user_id, gateway);

create table customer_gateway_token_events (
  token_id uuid not null,
  version integer not null,
  user_id text,
  gateway text not null,
  gateway_customer_id text not null,
  is_active boolean not null,
  action text not null,
  reason text,
  actor text not null,
  at timestamptz not null,
  constraint one_event_per_version primary key (token_id, version)
);

create table departed_tokens (
  user_id text not null,
  token_id uuid not null,
  constraint departed_tokens_pkey primary key (user_id, token_id)
);

create table gateway_customer_claims (
  user_id text not null,
  gateway text not null,
  generation bigint not null generated always as identity,
  expires_at timestamptz not null,
  constraint gateway_customer_claims_pkey primary key (user_id, gateway)
);

create table erased_users (
  user_hash bytea not null,
  erased_at timestamptz not null default now(),
  constraint erased_users_pkey primary key (user_hash)
);

create table erasure_key (
  id integer not null,
  key bytea not null,
  constraint erasure_key_pkey primary key (id),
  constraint there_is_one_erasure_key check (id = 1)
);
"""

# Erasure is the one thing that changes history. It has a function of its own, which runs with its owner's rights, so
# that the service's role can do without UPDATE and DELETE on the table. Of a token that the user had last it takes all
# lines, those of an earlier user too, since they hold the same customer.
ERASE_HISTORY = """
do $do$ begin
  execute format($format$
    create function erase_history(tokens uuid[], erased_user text) returns void
    language sql security definer set search_path = %I, pg_temp as $body$
      update customer_gateway_token_events as line set
        user_id = null, gateway_customer_id = '', reason = null,
        actor = case when actor = erased_user then '' else actor end
      where token_id = any(tokens) and erased_user in (user_id, (
        select last.user_id from customer_gateway_token_events as last
        where last.token_id = line.token_id order by last.version desc limit 1
      ))
    $body$
  $format$, current_schema());
  revoke all on function erase_history from public;
end $do$
"""


def upgrade() -> None:
    """Create everything."""
    for statement in TABLES.split(";")[:-1]:
        op.execute(statement)
    op.get_bind().exec_driver_sql(ERASE_HISTORY)
    op.get_bind().execute(text("insert into erasure_key (id, key) values (1, :key)"), {"key": secrets.token_bytes(32)})
