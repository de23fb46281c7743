"""One token per user and gateway is seen to by the index that covers."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Put it in the place of the constraint's index; it takes the constraint's name."""
    op.execute(
        "alter table customer_gateway_tokens"
        " drop constraint one_token_per_user_and_gateway,"
        " add constraint one_token_per_user_and_gateway"
        " unique using index one_token_per_user_and_gateway_covering"
    )
