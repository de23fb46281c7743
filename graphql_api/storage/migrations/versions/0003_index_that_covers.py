"""An index of users' tokens that holds what is asked of them most, so that reads need not look at the table."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Build it beside the constraint's own, in whose place it comes next."""
    with op.get_context().autocommit_block():
        op.execute("drop index concurrently if exists one_token_per_user_and_gateway_covering")
        op.execute(
            "create unique index concurrently one_token_per_user_and_gateway_covering"
            " on customer_gateway_tokens (user_id, gateway)"
            " include (id, gateway_customer_id, is_active, created_at)"
        )
