"""What checks against gateways remember: how far they came, what they found, and who asks for which token."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create both tables."""
    op.execute("""
        create table gateway_checks (
          gateway text not null,
          deletions_read_at timestamptz,
          finished_at timestamptz,
          oldest_at timestamptz,
          verified bigint not null default 0,
          gone bigint not null default 0,
          unknown bigint not null default 0,
          unanswered bigint not null default 0,
          throttled bigint not null default 0,
          constraint gateway_checks_pkey primary key (gateway)
        )
    """)
    op.execute("""
        create table gateway_customer_checks (
          token_id uuid not null,
          asked_at timestamptz,
          leased_until timestamptz,
          constraint gateway_customer_checks_pkey primary key (token_id)
        ) with (fillfactor = 70)
    """)
