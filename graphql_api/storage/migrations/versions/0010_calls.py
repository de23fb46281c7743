"""A history entry names the call that made it, which finds it there if the answer of the database was lost."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column. Entries from before, and those of transactions, have none."""
    op.execute("alter table customer_gateway_token_events add column call_id bigint")
