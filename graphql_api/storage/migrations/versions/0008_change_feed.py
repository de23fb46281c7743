"""Each history entry gets a position in the change feed; webhook endpoints remember how far they are."""

from alembic import op

revision = "0008"
down_revision = "0007"

EVENTS = "customer_gateway_token_events"

# Entries from before have the position 0: they are not in the feed. A process that was killed while it built the index
# left the rest behind.
ADD_POSITION = f"""
do $do$ begin
  if not exists (
    select from pg_attribute where attrelid = '{EVENTS}'::regclass and attname = 'position' and not attisdropped
  ) then
    alter table {EVENTS} add column position bigint not null default 0;
    alter table {EVENTS} alter column position drop default;
    alter table {EVENTS} alter column position add generated always as identity;
  end if;
end $do$
"""
TABLES = """
create table if not exists event_timelines (
  timeline text not null,
  settled bigint not null,
  constraint event_timelines_pkey primary key (timeline)
);
create table if not exists event_endpoints (
  name text not null,
  position bigint not null,
  attempts integer not null default 0,
  next_attempt_at timestamptz,
  retry_after timestamptz,
  failing_since timestamptz,
  last_error text,
  disabled_at timestamptz,
  leased_by text,
  leased_until timestamptz,
  constraint event_endpoints_pkey primary key (name)
);
"""


def upgrade() -> None:
    """Add the position and the tables, then build the index while others write."""
    op.get_bind().exec_driver_sql(ADD_POSITION)
    for statement in TABLES.split(";")[:-1]:
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute(f"drop index concurrently if exists {EVENTS}_by_position")
        op.execute(f"create unique index concurrently {EVENTS}_by_position on {EVENTS} (position) where position > 0")
