"""What the gateways' modules have in common: reports on customers, and whose events count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from graphql_api.domain import values


class SignatureError(Exception):
    """No known key signed this, or it was signed too long ago.

    The message is for the sender, who may be anyone; the `detail` is for the log.
    """

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class UnreadableEventError(Exception):
    """It is signed, and not what the gateway's documentation says."""

    def __init__(self) -> None:
        super().__init__("The event is malformed.")


class IgnoredEventError(Exception):
    """It is signed, and it is not about customers of this gateway here.

    Attributes:
        reason: a word for the metric
        gateway: whose secret signed it
    """

    def __init__(self, gateway: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.gateway = gateway
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Report:
    """What a gateway says of one of its customers: they were there then, or they were gone then."""

    gateway: str
    customer: str
    at: datetime
    is_gone: bool

    def __post_init__(self) -> None:
        """Go on only with well-formed text.

        Raises:
            UnreadableEventError: the customer's id is malformed.
        """
        if not values.is_well_formed(self.customer):
            raise UnreadableEventError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whose events a secret stands for. So the signature says which gateway an event comes from.

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

    def check_account(self, *named: object) -> None:
        """Go on only with an event that names none but these accounts.

        Raises:
            UnreadableEventError: an account's name is malformed text.
            IgnoredEventError: it is another account's.
        """
        for account in named:
            if isinstance(account, str) and not values.is_well_formed(account):
                raise UnreadableEventError
            if account is not None and not (isinstance(account, str) and account in self.accounts):
                message = f"The event is another account's, {str(account)[:100]}."
                raise IgnoredEventError(self.gateway, "account", message)

    def check_mode(self, *, is_test: bool) -> None:
        """Go on only with an event of this gateway's mode.

        Raises:
            IgnoredEventError: it is of the other mode.
        """
        if is_test is not self.is_test:
            mode, other = ("test", "live") if is_test else ("live", "test")
            message = f"The event is of {mode} mode and the gateway of {other} mode; see TEST_GATEWAYS."
            raise IgnoredEventError(self.gateway, "mode", message)


class Sender(Protocol):
    """A gateway that sends webhooks."""

    path: str
    name: str
    """The actor that the history names."""

    def reports(self, body: bytes, headers: Mapping[str, str]) -> Sequence[Report]:
        """What the body says of customers; most of what gateways send says nothing of them.

        Raises:
            SignatureError: the signature is missing, wrong or too old.
            UnreadableEventError: the body is no event.
            IgnoredEventError: the event is not about customers of this gateway here.
        """
        ...


def read(body: bytes) -> Any:
    """The JSON of a body.

    Raises:
        UnreadableEventError: it is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableEventError from None
