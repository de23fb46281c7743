"""The tables: columns, indexes and named constraints. Every column that can has an SQL default.

`granted` is what the service's role may do with a table; without it, select, insert, update and delete.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import BigInteger, Boolean, Field, Integer, SQLModel

_GATEWAY = "gateway ~ '^[A-Z][A-Z0-9_]{0,49}$'"
_USER_ID = "char_length(user_id) between 1 and 255"
_CUSTOMER_ID = "char_length(gateway_customer_id) between 1 and 255 and gateway_customer_id !~ '[[:space:]]'"
_NOW = text("now()")
_COVERED = ("id", "gateway_customer_id", "is_active", "created_at")


class CustomerGatewayTokenRow(SQLModel, table=True):
    """A token: which customer a user is at a gateway."""

    __tablename__ = "customer_gateway_tokens"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("id", name="customer_gateway_tokens_pkey"),
        # The index includes the most selected columns, so that reads of only these do not touch the table.
        UniqueConstraint("user_id", "gateway", name="one_token_per_user_and_gateway", postgresql_include=_COVERED),
        # The id first, because it is the selective column: the index also serves lookups by id alone.
        UniqueConstraint("gateway_customer_id", "gateway", name="one_token_per_gateway_customer"),
        CheckConstraint(_USER_ID, name="user_id_is_well_formed"),
        CheckConstraint(_GATEWAY, name="gateway_is_well_formed"),
        CheckConstraint(_CUSTOMER_ID, name="gateway_customer_id_is_well_formed"),
        CheckConstraint("char_length(description) <= 2000", name="description_is_short"),
        CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata_is_an_object"),
        CheckConstraint("version >= 1", name="version_is_positive"),
        CheckConstraint("not is_active or deactivated_at is null", name="an_active_token_is_not_deactivated"),
        Index("customer_gateway_tokens_by_age", "created_at", "id"),
        Index("customer_gateway_tokens_by_gateway", "gateway", "created_at", "id"),
        Index("customer_gateway_tokens_by_verification", text("last_verified_at nulls first")),
        # Leaves room in each page for updated rows, so that updates need not touch the indexes (HOT).
        {"postgresql_with": {"fillfactor": 90}},
    )

    id: str = Field(sa_column=Column(Uuid(as_uuid=False), server_default=text("gen_random_uuid()"), nullable=False))
    user_id: str = Field(sa_column=Column(Text, nullable=False))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    gateway_customer_id: str = Field(sa_column=Column(Text, nullable=False))
    description: str | None = Field(sa_column=Column(Text))
    metadata_: dict[str, Any] | None = Field(sa_column=Column("metadata", JSONB(none_as_null=True)))
    is_active: bool = Field(sa_column=Column(Boolean, server_default=text("true"), nullable=False))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))
    updated_at: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))
    version: int = Field(sa_column=Column(Integer, server_default=text("1"), nullable=False))
    activated_at: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))
    deactivated_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    deactivation_reason: str | None = Field(sa_column=Column(Text))
    last_verified_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))


class GatewayCustomerRow(SQLModel, table=True):
    """A customer id that a user has or had at a gateway. It stays reserved for them, even without a token."""

    __tablename__ = "gateway_customers"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("gateway_customer_id", "gateway", name="one_user_per_gateway_customer"),
        Index("gateway_customers_by_user", "user_id", "gateway"),
    )

    gateway_customer_id: str = Field(sa_column=Column(Text, nullable=False))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    user_id: str = Field(sa_column=Column(Text, nullable=False))
    since: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))


class GatewayCustomerReportRow(SQLModel, table=True):
    """The facts about a customer id without a token, or that its token cannot hold: see `domain.facts`.

    They expire if no user has the id. If it is saved before that, they count.
    """

    __tablename__ = "gateway_customer_reports"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("gateway_customer_id", "gateway", name="gateway_customer_reports_pkey"),
        Index("gateway_customer_reports_by_expiry", "expires_at", postgresql_where=text("expires_at is not null")),
    )

    gateway_customer_id: str = Field(sa_column=Column(Text, nullable=False))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    gone_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    exists_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    activated_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    expires_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))


class EventRow(SQLModel, table=True):
    """An entry of a token's history. Entries are only added; only erasures change them."""

    __tablename__ = "customer_gateway_token_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("token_id", "version", name="one_event_per_version"),
        Index(
            "customer_gateway_token_events_by_position",
            "position",
            unique=True,
            postgresql_where=text("position > 0"),
        ),
        {"info": {"granted": "select, insert"}},
    )

    token_id: str = Field(sa_column=Column(Uuid(as_uuid=False), nullable=False))
    version: int = Field(sa_column=Column(Integer, nullable=False))
    user_id: str | None = Field(sa_column=Column(Text))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    gateway_customer_id: str = Field(sa_column=Column(Text, nullable=False))
    is_active: bool = Field(sa_column=Column(Boolean, nullable=False))
    action: str = Field(sa_column=Column(Text, nullable=False))
    reason: str | None = Field(sa_column=Column(Text))
    actor: str = Field(sa_column=Column(Text, nullable=False))
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    position: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    call_id: int | None = Field(sa_column=Column(BigInteger))


class EventTimelineRow(SQLModel, table=True):
    """How far the change feed was settled on a timeline of the database: see `graphql_api.storage.feed`."""

    __tablename__ = "event_timelines"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (PrimaryKeyConstraint("timeline", name="event_timelines_pkey"),)

    timeline: str = Field(sa_column=Column(Text, nullable=False))
    settled: int = Field(sa_column=Column(BigInteger, nullable=False))


class EventEndpointRow(SQLModel, table=True):
    """A webhook endpoint: its position in the change feed, and the process that sends to it."""

    __tablename__ = "event_endpoints"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (PrimaryKeyConstraint("name", name="event_endpoints_pkey"),)

    name: str = Field(sa_column=Column(Text, nullable=False))
    position: int = Field(sa_column=Column(BigInteger, nullable=False))
    attempts: int = Field(sa_column=Column(Integer, server_default=text("0"), nullable=False))
    next_attempt_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    retry_after: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    failing_since: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    last_error: str | None = Field(sa_column=Column(Text))
    disabled_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    leased_by: str | None = Field(sa_column=Column(Text))
    leased_until: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))


class DepartedTokenRow(SQLModel, table=True):
    """A token that a user, or a user merged into them, no longer has. Erasure must find its history."""

    __tablename__ = "departed_tokens"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "token_id", name="departed_tokens_pkey"),
        Index("departed_tokens_by_token", "token_id"),
        {"info": {"granted": "select, insert, delete"}},
    )

    user_id: str = Field(sa_column=Column(Text, nullable=False))
    token_id: str = Field(sa_column=Column(Uuid(as_uuid=False), nullable=False))


class ClaimRow(SQLModel, table=True):
    """A claim: the right to create a user's customer at a gateway. Deleted when the customer is saved."""

    __tablename__ = "gateway_customer_claims"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (PrimaryKeyConstraint("user_id", "gateway", name="gateway_customer_claims_pkey"),)

    user_id: str = Field(sa_column=Column(Text, nullable=False))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    generation: int = Field(sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class ErasedUserRow(SQLModel, table=True):
    """A keyed hash of an erased user's id."""

    __tablename__ = "erased_users"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("user_hash", name="erased_users_pkey"),
        {"info": {"granted": "select, insert, delete"}},
    )

    user_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    erased_at: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))


class GatewayErasureRow(SQLModel, table=True):
    """A customer of an erased user that is to be deleted at its gateway, with what is known of it.

    It is gone once that is confirmed.
    """

    __tablename__ = "gateway_erasures"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("gateway_customer_id", "gateway", name="gateway_erasures_pkey"),
        Index("gateway_erasures_by_user", "user_hash"),
        Index("gateway_erasures_by_age", "erased_at", "gateway", "gateway_customer_id"),
    )

    gateway_customer_id: str = Field(sa_column=Column(Text, nullable=False))
    gateway: str = Field(sa_column=Column(Text, nullable=False))
    user_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    erased_at: datetime = Field(sa_column=Column(DateTime(timezone=True), server_default=_NOW, nullable=False))
    gone_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    exists_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    activated_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))


class GatewayCheckRow(SQLModel, table=True):
    """The sums over all checks of a gateway, and the time up to which its list of deletions was read."""

    __tablename__ = "gateway_checks"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (PrimaryKeyConstraint("gateway", name="gateway_checks_pkey"),)

    gateway: str = Field(sa_column=Column(Text, nullable=False))
    deletions_read_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    finished_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    oldest_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    verified: int = Field(sa_column=Column(BigInteger, server_default=text("0"), nullable=False))
    gone: int = Field(sa_column=Column(BigInteger, server_default=text("0"), nullable=False))
    unknown: int = Field(sa_column=Column(BigInteger, server_default=text("0"), nullable=False))
    unanswered: int = Field(sa_column=Column(BigInteger, server_default=text("0"), nullable=False))
    throttled: int = Field(sa_column=Column(BigInteger, server_default=text("0"), nullable=False))


class GatewayCustomerCheckRow(SQLModel, table=True):
    """When a check last asked a gateway for a token's customer, and a check's lease on asking next."""

    __tablename__ = "gateway_customer_checks"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("token_id", name="gateway_customer_checks_pkey"),
        {"postgresql_with": {"fillfactor": 70}},  # each check changes each row twice
    )

    token_id: str = Field(sa_column=Column(Uuid(as_uuid=False), nullable=False))
    asked_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    leased_until: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))


class ErasureKeyRow(SQLModel, table=True):
    """The key of the hashes in `erased_users`: one row, which the migration creates."""

    __tablename__ = "erasure_key"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        PrimaryKeyConstraint("id", name="erasure_key_pkey"),
        CheckConstraint("id = 1", name="there_is_one_erasure_key"),
        {"info": {"granted": "select"}},
    )

    id: int = Field(sa_column=Column(Integer, autoincrement=False, nullable=False))
    key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
