"""What gateways' APIs have in common: what is asked of one, and what its answers mean."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol


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


class Reply(NamedTuple):
    """An HTTP response; its body is None if that is no JSON."""

    status: int
    body: Any


class Deletion(NamedTuple):
    """A customer that the gateway lists as deleted, and when that was."""

    customer: str
    at: datetime


class DeletionPage(NamedTuple):
    """A page of the gateway's list of deletions, and where the next one begins; None at the end."""

    deletions: list[Deletion]
    after: str | None


class Request(NamedTuple):
    """The path and the query of a request."""

    path: str
    query: Mapping[str, str] = {}


class GatewayAPI(Protocol):
    """The API of a gateway. It opens no connection: it says what to ask and reads the answers.

    `read…` see what is particular to the gateway; what HTTP's status says anyway was seen before: 401, 403, 429, 5xx.
    """

    name: str
    """What the gateway is called in messages."""
    base_url: str
    rate: float
    """How many requests a second it can be asked without being told to."""
    keeps_deletions: timedelta
    """How far its list of deletions goes back; zero if it has none."""
    permissions: str
    """What the key must be allowed to do, for messages."""

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers of each request, with the key."""
        ...

    def probes(self) -> list[Request]:
        """Requests that show whether the key has all permissions to read."""
        ...

    def customer(self, customer: str) -> Request:
        """Asks for a customer by GET, and deletes it by DELETE."""
        ...

    def read_customer(self, reply: Reply, customer: str) -> Answer:
        """What GET answered."""
        ...

    def read_deleted(self, reply: Reply, customer: str) -> Answer:
        """What DELETE answered."""
        ...

    def deletions(self, since: datetime, after: str | None) -> Request:
        """Asks for a page of the list of deletions since this time."""
        ...

    def read_deletions(self, reply: Reply) -> DeletionPage | Answer:
        """The page, or what the answer means otherwise."""
        ...
