"""A customer gateway token, its changes, and the history entry of every change."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

from graphql_api.domain.facts import NO_FACTS, Facts
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
    """The action of a history entry."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    REPLACED = "REPLACED"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"
    VERIFIED = "VERIFIED"
    MERGED = "MERGED"
    REASSIGNED = "REASSIGNED"
    DELETED = "DELETED"
    ERASED = "ERASED"
    IMPORTED = "IMPORTED"

    @property
    def ends_token(self) -> bool:
        """Whether the token no longer exists afterwards; the entry shows its last state."""
        return self in {Action.DELETED, Action.ERASED}


class Given(NamedTuple, Generic[T]):
    """A value that the caller sent. None in its place means omitted; `Given(None)` clears the field."""

    value: T


class Token(NamedTuple):
    """Which customer a user is at a gateway. Times are aware and in UTC; `id` is a UUID in canonical form."""

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
    """A changed token, and its history entry: the action and the reason.

    `at` is the time of the token's last change, unless an import brings another one. Without an action, the token is
    written with its old version and without a history entry.
    """

    token: Token
    action: Action | None
    reason: str | None = None
    at: datetime | None = None


class Edit(NamedTuple):
    """The requested changes of a token; None leaves a field unchanged.

    If `is_active` is False, an active token becomes inactive for this reason, at this time or now.
    """

    gateway_customer_id: str | None = None
    description: Given[str | None] | None = None
    metadata: Given[dict[str, Any] | None] | None = None
    is_active: bool | None = None
    deactivation_reason: DeactivationReason = DeactivationReason.OTHER
    deactivated_at: datetime | None = None


@dataclass(slots=True)
class Changes:
    """What one transaction writes: changed tokens, history entries in order, and the users of customer ids.

    `facts` are those of customer ids that left their tokens. `arrived` has the ids of tokens that got their customer id
    or their user by these changes. `moved` has the previous user of each token that moved.
    """

    created: dict[str, Token] = field(default_factory=dict[str, Token])
    changed: dict[str, Token] = field(default_factory=dict[str, Token])
    deleted: list[Token] = field(default_factory=list[Token])
    events: list[Event] = field(default_factory=list[Event])
    identifiers: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    facts: dict[tuple[str, str], Facts] = field(default_factory=dict[tuple[str, str], Facts])
    arrived: set[str] = field(default_factory=set[str])
    moved: dict[str, str] = field(default_factory=dict[str, str])

    def create(self, event: Event) -> Token:
        """A new token."""
        self.created[event.token.id] = event.token
        self.arrived.add(event.token.id)
        self._reserve(event.token)
        return self._record(event)

    def change(self, old: Token, event: Event) -> Token:
        """Change a token that was read, or that these changes create."""
        new = event.token
        (self.created if new.id in self.created else self.changed)[new.id] = new
        if new.user_id != old.user_id:
            self.arrived.add(new.id)
            self._move(old)
        if new.gateway_customer_id != old.gateway_customer_id:
            self.arrived.add(new.id)
            self._leave(old)
            self._reserve(old)
            self._reserve(new)
        return self._record(event)

    def delete(self, old: Token, event: Event) -> None:
        """Delete a token; its customer id stays reserved for its user."""
        self.deleted.append(event.token)
        if event.token.user_id != old.user_id:
            self._move(old)
        self._leave(old)
        self._reserve(event.token)
        self._record(event)

    def uncarried_facts(self) -> dict[tuple[str, str], Facts]:
        """The facts, without those of ids that a token got back, which holds them itself."""
        tokens = (*self.created.values(), *self.changed.values())
        carried = {(token.gateway, token.gateway_customer_id) for token in tokens if not has_own_reason(token)}
        return {key: facts for key, facts in self.facts.items() if key not in carried}

    def _move(self, old: Token) -> None:
        if old.id not in self.created:
            self.moved.setdefault(old.id, old.user_id)

    def _record(self, event: Event) -> Token:
        if event.action is not None:
            self.events.append(event)
        return event.token

    def _leave(self, token: Token) -> None:
        if (facts := facts_of(token)) != NO_FACTS:
            key = (token.gateway, token.gateway_customer_id)
            self.facts[key] = self.facts.get(key, NO_FACTS).joined(facts)

    def _reserve(self, token: Token) -> None:
        self.identifiers[token.gateway, token.gateway_customer_id] = token.user_id


def created(
    token_id: str,
    user_id: str,
    gateway: str,
    edit: Edit,
    now: datetime,
    action: Action,
    facts: Facts = NO_FACTS,
) -> Event:
    """A new token of this user. The edit names the gateway customer; these are its known facts.

    Raises:
        TypeError: the edit names no customer.
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
    token = with_facts(token, facts)
    return Event(token, action, token.deactivation_reason)


def edited(token: Token, edit: Edit, now: datetime, facts: Facts = NO_FACTS) -> Event | None:
    """The token after this edit; None if it changes nothing. The most important part of the edit determines the action.

    Args:
        token: the current token
        edit: the requested changes
        now: the time of the change
        facts: the facts about its resulting customer id that the token does not hold itself
    """
    new, action = token, Action.UPDATED
    if edit.description is not None and edit.description.value != token.description:
        new = new._replace(description=edit.description.value)
    if edit.metadata is not None and not is_same_json(edit.metadata.value, token.metadata):
        new = new._replace(metadata=edit.metadata.value)
    if edit.gateway_customer_id is not None and edit.gateway_customer_id != token.gateway_customer_id:
        new, action = _with_customer(new, edit.gateway_customer_id, facts), Action.REPLACED
    at = _moment(token, now)
    if edit.is_active is True and not token.is_active:
        activated_at = facts_of(new).joined(facts).activation(at)
        new = new._replace(is_active=True, activated_at=activated_at, deactivated_at=None, deactivation_reason=None)
        action = Action.REPLACED if action is Action.REPLACED else Action.ACTIVATED
    elif edit.is_active is False and (token.is_active or (action is Action.REPLACED and not has_own_reason(new))):
        new = new._replace(**_ended(edit.deactivated_at or at, edit.deactivation_reason))
        action = Action.REPLACED if action is Action.REPLACED else Action.DEACTIVATED
    if new is token:
        return None
    return _next(token, new, action, now, new.deactivation_reason if new.is_active != token.is_active else None)


def decides_by_facts(token: Token, event: Event) -> bool:
    """Whether this edit depends on facts about the customer that the token does not hold."""
    is_replaced = event.token.gateway_customer_id != token.gateway_customer_id
    return is_replaced or (has_own_reason(token) and event.token.is_active)


def confirmed(token: Token, now: datetime) -> Event:
    """An active token after it was activated again, which overrides earlier deletions that arrive later."""
    activated_at = max(now, facts_of(token).activated_at or now)
    return Event(token._replace(activated_at=activated_at), None)


def imported(token: Token, edit: Edit, said: Facts, now: datetime, facts: Facts = NO_FACTS) -> Event | None:
    """The token after an edit from a file, which also has the gateway's reports; None if it changes nothing."""
    told = with_facts(token, said)
    event = edited(told, edit, now, facts)
    if event is None:
        return reported(token, said, now)
    is_switched = event.token.is_active != token.is_active
    return event._replace(reason=event.token.deactivation_reason if is_switched else None)


def deactivated(token: Token, reason: DeactivationReason, now: datetime, at: datetime | None = None) -> Event | None:
    """The token after its deactivation at this time, or now; None if it is inactive or was activated later."""
    if not token.is_active or (at is not None and at < (facts_of(token).activated_at or at)):
        return None
    new = token._replace(**_ended(at or _moment(token, now), reason))
    return _next(token, new, Action.DEACTIVATED, now, reason.value)


def merged(token: Token, user_id: str, now: datetime) -> Event:
    """The token after it moved to this user, or stayed with them and took over a former customer id."""
    return _next(token, token._replace(user_id=user_id), Action.MERGED, now)


def merged_away(token: Token, user_id: str, now: datetime) -> Event:
    """The last entry of a token that lost its place at the gateway to another token of this user."""
    new = token._replace(user_id=user_id, **_ended(_moment(token, now), DeactivationReason.MERGED))
    return _next(token, new, Action.MERGED, now, new.deactivation_reason)


def reassigned(token: Token, user_id: str, now: datetime, reason: str | None) -> Event:
    """The token after it was reassigned to its right user."""
    return _next(token, token._replace(user_id=user_id), Action.REASSIGNED, now, reason)


def gone(token: Token, action: Action, now: datetime) -> Event:
    """The last entry of a token's history."""
    return _next(token, token, action, now, None)


# --- facts about its customer: see `graphql_api.domain.facts`


def facts_of(token: Token) -> Facts:
    """The facts about its customer id that a token stores.

    They do not include a deletion that was reported while the token was inactive for the platform's own reason; it is
    stored separately. If `activated_at` equals `created_at`, the token was never activated.
    """
    return Facts(
        gone_at=token.deactivated_at if token.deactivation_reason == _GONE else None,
        exists_at=token.last_verified_at,
        activated_at=token.activated_at if token.activated_at != token.created_at else None,
    )


def gone_now(token: Token, now: datetime) -> Facts:
    """A deletion of its customer that is reported now, dated later than the known facts, which may be dated ahead."""
    return Facts(gone_at=max(now, token.activated_at, token.last_verified_at or now))


def has_own_reason(token: Token) -> bool:
    """Whether the token is inactive for the platform's own reason, which no report overrides."""
    return not token.is_active and token.deactivation_reason != _GONE


def is_gone(token: Token) -> bool:
    """Whether the gateway deleted the customer: another customer then takes its place without a conflict."""
    return token.deactivation_reason == _GONE


def with_facts(token: Token, facts: Facts) -> Token:
    """The token's state by these facts together with its own."""
    known = facts_of(token).joined(facts)
    token = token._replace(last_verified_at=known.exists_at, activated_at=known.activated_at or token.activated_at)
    if has_own_reason(token):
        return token
    if known.is_gone:
        return token._replace(is_active=False, deactivated_at=known.gone_at, deactivation_reason=_GONE)
    return token._replace(is_active=True, deactivated_at=None, deactivation_reason=None)


def reported(token: Token, facts: Facts, now: datetime) -> Event | None:
    """The token after a gateway's report; None if it adds nothing. It is a change only if `is_active` changes."""
    new = with_facts(token, facts)
    if new == token:
        return None
    if new.is_active == token.is_active:
        return Event(new, None)
    if new.is_active:
        return _next(token, new, Action.ACTIVATED, now, "VERIFIED")
    return _next(token, new, Action.DEACTIVATED, now, _GONE)


def cannot_carry(token: Token, facts: Facts) -> bool:
    """Whether a token does not show these facts because it is inactive for the platform's own reason."""
    return has_own_reason(token) and facts.gone_at is not None and facts_of(token).joined(facts).is_gone


def _with_customer(token: Token, customer: str, facts: Facts) -> Token:
    """The token with another customer id. The facts about the previous id leave with it."""
    token = token._replace(gateway_customer_id=customer, last_verified_at=None, activated_at=token.created_at)
    if not has_own_reason(token):
        token = token._replace(is_active=True, deactivated_at=None, deactivation_reason=None)
    return with_facts(token, facts)


# The fields that reports can change, besides version and time.
REPORTED = ("is_active", "activated_at", "deactivated_at", "deactivation_reason", "last_verified_at")

_GONE = DeactivationReason.GATEWAY_DELETED.value
_TICK = timedelta(microseconds=1)


def _next(token: Token, new: Token, action: Action, now: datetime, reason: str | None = None) -> Event:
    """A change with a new version of the token."""
    return Event(new._replace(version=token.version + 1, updated_at=_moment(token, now)), action, reason)


def _moment(token: Token, now: datetime) -> datetime:
    """Now, but always later than the token's last change."""
    return max(now, token.updated_at + _TICK)


def _ended(at: datetime, reason: DeactivationReason) -> dict[str, Any]:
    return {"is_active": False, "deactivated_at": at, "deactivation_reason": reason.value}
