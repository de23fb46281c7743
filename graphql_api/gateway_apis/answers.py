"""What gateways' APIs have in common: what is asked of one, and what its answers mean."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, ClassVar, NamedTuple

from graphql_api.domain import values
from graphql_api.domain.errors import InputError


class Verdict(Enum):
    """What an answer means."""

    EXISTS = auto()  # the customer is there
    GONE = auto()  # the customer was deleted
    UNKNOWN = auto()  # no such customer, or one of another account: the two look the same
    OUTAGE = auto()  # nothing is known: an error of the gateway's or of the network
    THROTTLED = auto()  # too many requests
    REFUSED = auto()  # the key is invalid or lacks a permission
    WRONG_MODE = auto()  # the key is for test mode and the customer is live, or the other way round
    LATE = auto()  # not asked: the time for it was over


class Answer(NamedTuple):
    """What a gateway answered; the detail is in our words, since a gateway's own may quote a part of the key."""

    verdict: Verdict
    detail: str = ""
    retry_after: float | None = None  # seconds
    sent: float = 0.0  # when the request was sent, by the clock of the client
    has_response: bool = True  # False if the network failed before a whole response had come


class Reply(NamedTuple):
    """An HTTP response; its body is None if that is not JSON."""

    status: int
    body: Any


class Deletion(NamedTuple):
    """A customer that the gateway lists as deleted, and when that was."""

    customer: str
    at: datetime


def deletion(customer: object, seconds: object) -> Deletion | None:
    """The deletion of this customer at this time, in seconds since 1970; None if a gateway cannot have meant that."""
    if not isinstance(customer, str) or not values.is_well_formed(customer):
        return None
    try:
        return Deletion(customer, values.second(seconds))
    except InputError:
        return None


class DeletionPage(NamedTuple):
    """A page of the gateway's list of deletions, and where the next one begins; None at the end."""

    deletions: list[Deletion]
    after: str | None


class APIRequest(NamedTuple):
    """The path and the query of a request."""

    path: str
    query: Mapping[str, str] = {}


def unexpected(reply: Reply) -> Answer:
    """Nothing is known of the customer by this response."""
    return Answer(Verdict.OUTAGE, f"an unexpected answer with status {reply.status}")


class GatewayAPI(ABC):
    """The API of a gateway. It opens no connection: it says what to ask and reads the answers.

    `read…` see what is particular to the gateway; what HTTP's status says anyway was seen before: 401, 403, 429, 5xx.

    Args:
        is_test: whether the gateway is in test mode
        account: the account that the customers belong to, if not the key's own
    """

    name: ClassVar[str]
    """What the gateway is called in messages."""
    base_url: ClassVar[str]
    rate: ClassVar[float]
    """How many requests a second it can be asked without being told to."""
    keeps_deletions: ClassVar = timedelta(0)
    """How far its list of deletions goes back; zero if it has none."""
    permissions: ClassVar[str]
    """What the key must be allowed to do, for messages."""

    def __init__(self, *, is_test: bool, account: str | None = None) -> None:
        self.is_test = is_test
        self.account = account

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers of each request, with the key."""
        return {"Authorization": f"Bearer {key}"}

    @abstractmethod
    def probes(self) -> list[APIRequest]:
        """Requests that show whether the key has all permissions to read."""

    @abstractmethod
    def customer(self, customer: str) -> APIRequest:
        """Asks for a customer by GET, and deletes it by DELETE."""

    @abstractmethod
    def read_customer(self, reply: Reply, customer: str) -> Answer:
        """What GET answered."""

    @abstractmethod
    def read_deleted(self, reply: Reply, customer: str) -> Answer:
        """What DELETE answered."""

    def deletions(self, since: datetime, after: str | None) -> APIRequest:
        """Asks for a page of the list of deletions since this time; `after` comes from the page before."""
        raise NotImplementedError

    def read_deletions(self, reply: Reply) -> DeletionPage | Answer:
        """The page, or what the answer means otherwise."""
        raise NotImplementedError
