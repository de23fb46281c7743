"""Which tokens a list shows, and which entries the change feed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Conditions that all have to be true of a token; None is not a condition. Times are aware, comparisons strict."""

    user_id: str | None = None
    gateway: str | None = None
    gateway_customer_id: str | None = None
    is_active: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    not_verified_since: datetime | None = None

    def conditions(self) -> dict[str, Any]:
        """The conditions that are set, by name, always in the same order."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


class FeedFilter(NamedTuple):
    """Which entries of the change feed are wanted; None is not a condition."""

    gateways: Sequence[str] | None = None
    actions: Sequence[str] | None = None


NO_FILTER = FeedFilter()


class FeedPosition(NamedTuple):
    """A position in the change feed: after the entry with this number, on this timeline of the database.

    `pruning` names the last deletion of old entries before the position was given; 0 if there was none.
    """

    timeline: str
    position: int
    pruning: int = 0
