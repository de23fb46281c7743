"""A customer gateway token, what may become of it, and the line of history that every change leaves."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

from graphql_api.domain.json import is_same_json

T = TypeVar("T")


class DeactivationReason(Enum):
    """Why a token is inactive."""

    GATEWAY_DELETED = "GATEWAY_DELETED"
    USER_REQUEST = "USER_REQUEST"
    MERGED = "MERGED"
    FRAUD = "FRAUD"
    OTHER = "OTHER"


class Action(Enum):
    """What a line of history says was done."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    REPLACED = "REPLACED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    VERIFIED = "VERIFIED"
    MERGED = "MERGED"
    DELETED = "DELETED"
    ERASED = "ERASED"
    IMPORTED = "IMPORTED"


class Given(NamedTuple, Generic[T]):
    """A value that was sent; where it was left out there is None in its place. `Given(None)` clears."""

    value: T


class Token(NamedTuple):
    """Who a user is at a gateway. Times are aware and in UTC; `id` is a UUID in its canonical spelling."""

    id: str
    user_id: str
    gateway: str
    gateway_customer_id: str
    created_at: datetime
    updated_at: datetime
    activated_at: datetime
    description: str | None = None
    metadata: dict[str, Any] | None = None
    is_active: bool = True
    version: int = 1
    deactivated_at: datetime | None = None
    deactivation_reason: str | None = None
    last_verified_at: datetime | None = None


class Event(NamedTuple):
    """One line of a token's history: the token as it was after the change, what was done and why.

    It was done `at` the token's last change, unless that was brought along from elsewhere.
    """

    token: Token
    action: Action
    reason: str | None = None
    at: datetime | None = None


class Edit(NamedTuple):
    """What may be asked to change in a token; None leaves a field as it is."""

    gateway_customer_id: str | None = None
    description: Given[str | None] | None = None
    metadata: Given[dict[str, Any] | None] | None = None
    is_active: bool | None = None


@dataclass(slots=True)
class Changes:
    """What one transaction writes: tokens as they become, lines of history in order, and whose identifiers are."""

    created: dict[str, Token] = field(default_factory=dict[str, Token])
    changed: dict[str, Token] = field(default_factory=dict[str, Token])
    deleted: list[Token] = field(default_factory=list[Token])
    events: list[Event] = field(default_factory=list[Event])
    identifiers: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def create(self, event: Event) -> Token:
        """A new token."""
        self.created[event.token.id] = event.token
        self._reserve(event.token)
        return self._record(event)

    def change(self, old: Token, event: Event) -> Token:
        """A token that was read, or that these changes create, becomes another."""
        new = event.token
        (self.created if new.id in self.created else self.changed)[new.id] = new
        if new.gateway_customer_id != old.gateway_customer_id:
            self._reserve(old)
            self._reserve(new)
        return self._record(event)

    def delete(self, event: Event) -> None:
        """A token goes; its identifier stays with its user."""
        self.deleted.append(event.token)
        self._reserve(event.token)
        self._record(event)

    def _record(self, event: Event) -> Token:
        self.events.append(event)
        return event.token

    def _reserve(self, token: Token) -> None:
        self.identifiers[token.gateway, token.gateway_customer_id] = token.user_id


def created(token_id: str, user_id: str, gateway: str, edit: Edit, now: datetime, action: Action) -> Event:
    """A new token of this user. The edit names the gateway's customer.

    Raises:
        TypeError: it does not.
    """
    if edit.gateway_customer_id is None:
        raise TypeError("a new token needs a gateway customer id")
    token = Token(
        id=token_id,
        user_id=user_id,
        gateway=gateway,
        gateway_customer_id=edit.gateway_customer_id,
        description=edit.description.value if edit.description else None,
        metadata=edit.metadata.value if edit.metadata else None,
        created_at=now,
        updated_at=now,
        activated_at=now,
    )
    if edit.is_active is False:
        token = token._replace(**_ended(now, DeactivationReason.OTHER))
    return Event(token, action, token.deactivation_reason)


def edited(token: Token, edit: Edit, now: datetime) -> Event | None:
    """The token after this edit, or None where it changes nothing. The most telling part of an edit names it."""
    changes, action = dict[str, Any](), Action.UPDATED
    if edit.description is not None and edit.description.value != token.description:
        changes["description"] = edit.description.value
    if edit.metadata is not None and not is_same_json(edit.metadata.value, token.metadata):
        changes["metadata"] = edit.metadata.value
    if edit.is_active is not None and edit.is_active != token.is_active:
        at = _moment(token, now)
        if edit.is_active:
            changes |= {"is_active": True, "activated_at": at, "deactivated_at": None, "deactivation_reason": None}
            action = Action.ACTIVATED
        else:
            changes |= _ended(at, DeactivationReason.OTHER)
            action = Action.DEACTIVATED
    if edit.gateway_customer_id is not None and edit.gateway_customer_id != token.gateway_customer_id:
        # What was verified was the other customer.
        changes |= {"gateway_customer_id": edit.gateway_customer_id, "last_verified_at": None}
        action = Action.REPLACED
    return _next(token, action, now, **changes) if changes else None


def deactivated(token: Token, reason: DeactivationReason, now: datetime) -> Event | None:
    """The token after its deactivation, or None where it is inactive already."""
    if not token.is_active:
        return None
    return _next(token, Action.DEACTIVATED, now, **_ended(_moment(token, now), reason))


def deactivated_at_gateway(token: Token, reason: DeactivationReason, at: datetime, now: datetime) -> Event | None:
    """The token after the gateway reported a deletion that happened then; None where that is older than its activation.

    An inactive token keeps its version (see `earlier_deactivation`).
    """
    if not token.is_active or at < token.activated_at:
        return None
    return _next(token, Action.DEACTIVATED, now, **_ended(at, reason))


def earlier_deactivation(token: Token, reason: DeactivationReason, at: datetime) -> Token | None:
    """An inactive token with the earliest of its deletions, or None where this report is not the earliest.

    Reports come in any order and have to end in one state. That is bookkeeping and no change: the version stays.
    """
    if token.is_active or token.deactivated_at is None or at < token.activated_at:
        return None
    stored = (token.deactivated_at, token.deactivation_reason or "")
    return token._replace(**_ended(at, reason)) if (at, reason.value) < stored else None


def verified(token: Token, at: datetime, now: datetime) -> Event | None:
    """The token after the gateway confirmed its customer, or None where it was confirmed as late before."""
    if token.last_verified_at is not None and at <= token.last_verified_at:
        return None
    return _next(token, Action.VERIFIED, now, last_verified_at=at)


def merged(token: Token, user_id: str, now: datetime) -> Event:
    """The token after it moved to this user, or stayed with them and took over a former identifier."""
    return _next(token, Action.MERGED, now, user_id=user_id)


def merged_away(token: Token, user_id: str, now: datetime) -> Event:
    """The last line of a token whose place at the gateway another token of this user has."""
    ended = _ended(_moment(token, now), DeactivationReason.MERGED)
    return _next(token, Action.MERGED, now, user_id=user_id, **ended)


def gone(token: Token, action: Action, now: datetime) -> Event:
    """The last line of a token's history."""
    return _next(token, action, now)


def _next(token: Token, action: Action, now: datetime, **changes: Any) -> Event:
    """What this change makes of the token; its reason is the one for which the token ends."""
    new = token._replace(version=token.version + 1, updated_at=_moment(token, now), **changes)
    return Event(new, action, changes.get("deactivation_reason"))


def _moment(token: Token, now: datetime) -> datetime:
    """Now, but later than the token's last change, whatever the clocks say."""
    return max(now, token.updated_at + timedelta(microseconds=1))


def _ended(at: datetime, reason: DeactivationReason) -> dict[str, Any]:
    return {"is_active": False, "deactivated_at": at, "deactivation_reason": reason.value}
