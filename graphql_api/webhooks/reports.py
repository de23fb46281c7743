"""Common parts of the gateways' modules: reports on customers, and the accounts whose events count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import orjson

from graphql_api.domain import values
from graphql_api.domain.errors import InputError

T = TypeVar("T")

_KINDS: dict[type, str] = {str: "a string", bool: "a boolean"}


class SignatureError(Exception):
    """No known key signed this, or it was signed too long ago.

    The message is for the sender, who may be anyone; the `detail` is for the log.
    """

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class UnreadableEventError(Exception):
    """The event is signed, but does not have the documented form. The `detail` is for the log."""

    def __init__(self, detail: str) -> None:
        super().__init__("The event is malformed.")
        self.detail = detail


class IgnoredEventError(Exception):
    """The event is signed, but does not concern customers of this gateway here.

    Attributes:
        reason: the label of the metric
        gateway: the gateway whose secret signed it
    """

    def __init__(self, gateway: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.gateway = gateway
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Report:
    """A gateway's report that a customer existed at a time, or was deleted at a time."""

    gateway: str
    customer: str
    at: datetime
    is_gone: bool

    def __post_init__(self) -> None:
        """Check that the customer's id is well-formed text.

        Raises:
            UnreadableEventError: the customer's id is malformed.
        """
        if not values.is_well_formed(self.customer):
            raise UnreadableEventError("the customer's id has a character that cannot be stored")


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A secret and its gateway, so that the signature determines the gateway of an event.

    Attributes:
        gateway: the gateway
        secret: what signs its events
        accounts: the accounts that count, if the events name one
        is_test: whether the gateway is in test mode
    """

    gateway: str
    secret: str
    accounts: frozenset[str]
    is_test: bool

    def check_account(self, *named: object, setting: str) -> None:
        """Check that an event names no other account than these, which the `setting` lists.

        Raises:
            UnreadableEventError: an account's name is malformed text.
            IgnoredEventError: it belongs to another account.
        """
        for account in named:
            if isinstance(account, str) and not values.is_well_formed(account):
                raise UnreadableEventError("the account has a character that cannot be stored")
            if account is not None and not (isinstance(account, str) and account in self.accounts):
                message = f"The event belongs to account {str(account)[:100]}, which is not in {setting}."
                raise IgnoredEventError(self.gateway, "account", message)

    def check_mode(self, *, is_test: bool) -> None:
        """Check that an event has this gateway's mode.

        Raises:
            IgnoredEventError: it has the other mode.
        """
        if is_test is not self.is_test:
            mode, other = ("test", "live") if is_test else ("live", "test")
            message = f"The event is in {mode} mode, but its gateway is in {other} mode; see TEST_GATEWAYS."
            raise IgnoredEventError(self.gateway, "mode", message)


class WebhookSender(Protocol):
    """A gateway that sends webhooks."""

    path: str
    name: str
    """The actor that the history names."""

    def reports(self, body: bytes, headers: Mapping[str, str]) -> Sequence[Report]:
        """The reports on customers in the body; most events have none.

        Raises:
            SignatureError: the signature is missing, wrong or too old.
            UnreadableEventError: the body is not an event.
            IgnoredEventError: the event does not concern customers of this gateway here.
        """
        ...


def read(body: bytes) -> Any:
    """The JSON of a body.

    Raises:
        UnreadableEventError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableEventError("it is not JSON") from None


def field(event: Any, path: str, kind: type[T]) -> T:
    """The value at a path such as `data.object.id`.

    Raises:
        UnreadableEventError: it is missing, or of another type.
    """
    value = event
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise UnreadableEventError(f"it has no {path}")
        value: Any = value[name]
    if not isinstance(value, kind):
        raise UnreadableEventError(f"its {path} is not {_KINDS[kind]}")
    return value


def time(event: Any, path: str, parse: Callable[[object], datetime]) -> datetime:
    """The time at a path.

    Raises:
        UnreadableEventError: it is missing, or `parse` refuses it.
    """
    try:
        return parse(field(event, path, object))
    except InputError as refused:
        raise UnreadableEventError(f"its {path} is invalid: {refused}") from None
