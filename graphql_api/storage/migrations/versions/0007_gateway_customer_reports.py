"""What gateways said of customer ids that are not, or no longer, those of a token."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create the table; what expires is found by its time."""
    op.execute("""
        create table gateway_customer_reports (
          gateway_customer_id text not null,
          gateway text not null,
          gone_at timestamptz,
          exists_at timestamptz,
          activated_at timestamptz,
          expires_at timestamptz,
          constraint gateway_customer_reports_pkey primary key (gateway_customer_id, gateway)
        )
    """)
    op.execute(
        "create index gateway_customer_reports_by_expiry on gateway_customer_reports (expires_at)"
        " where expires_at is not null"
    )
