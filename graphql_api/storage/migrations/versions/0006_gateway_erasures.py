"""Customers of erased users are listed until somebody confirms that they are deleted at their gateways.

What the gateways said of them stays with them.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the list."""
    op.execute(
        """
        create table gateway_erasures (
          gateway_customer_id text not null,
          gateway text not null,
          user_hash bytea not null,
          erased_at timestamptz not null default now(),
          gone_at timestamptz,
          exists_at timestamptz,
          activated_at timestamptz,
          constraint gateway_erasures_pkey primary key (gateway_customer_id, gateway)
        )
        """
    )
    op.execute("create index gateway_erasures_by_user on gateway_erasures (user_hash)")
    op.execute("create index gateway_erasures_by_age on gateway_erasures (erased_at, gateway, gateway_customer_id)")
