"""Erasure of a user finds the history of everybody who was merged into them, too."""

from alembic import op

revision = "0002"
down_revision = "0001"

# Whose history a line is, its identifier says: merges move identifiers, and no line.
ERASE_HISTORY = """
do $do$ begin
  execute format($format$
    create or replace function erase_history(tokens uuid[], erased_user text) returns void
    language sql security definer set search_path = %I, pg_temp as $body$
      update customer_gateway_token_events as line set
        user_id = null, gateway_customer_id = '', reason = null,
        actor = case when actor in (erased_user, user_id) then '' else actor end
      where token_id = any(tokens) and (user_id = erased_user or exists (
        select from gateway_customers c
        where c.gateway_customer_id = line.gateway_customer_id and c.gateway = line.gateway and c.user_id = erased_user
      ))
    $body$
  $format$, current_schema());
end $do$
"""


def upgrade() -> None:
    """Replace the function, and let tokens that are gone be found by their ids."""
    op.get_bind().exec_driver_sql(ERASE_HISTORY)
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists departed_tokens_by_token")
        op.execute("create index concurrently departed_tokens_by_token on departed_tokens (token_id)")
