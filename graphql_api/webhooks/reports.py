"""What the gateways' modules have in common: reports on customers, and who signed for which gateway."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from graphql_api.domain import values


class SignatureError(Exception):
    """Nobody whom we know signed this, or it was signed too long ago."""


class UnreadableEventError(Exception):
    """It is signed, and not what the gateway's documentation says."""

    def __init__(self) -> None:
        super().__init__("The event is malformed.")


@dataclass(frozen=True, slots=True)
class Report:
    """What a gateway says of one of its customers: they were there then, or they were gone then."""

    gateway: str
    customer: str
    at: datetime
    is_gone: bool


class Sender(Protocol):
    """A gateway that sends webhooks."""

    path: str
    name: str
    """Who the history says did it."""

    def reports(self, body: bytes, headers: Mapping[str, str]) -> Sequence[Report]:
        """What the body says of customers; most of what gateways send says nothing of them.

        Raises:
            SignatureError: the signature is missing or wrong.
            UnreadableEventError: the body is no event.
        """
        ...


def accounts(gateway: str, secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Whose signature stands for which gateway: `whsec_…` for this one, `STRIPE_EU:whsec_…` for the one it names.

    So the signature says which account an event comes from, and nothing that is not signed can.

    Raises:
        InputError: what stands before a secret is no gateway's name.
    """
    parts = (secret.partition(":") for secret in secrets)
    return [(values.gateway(first), rest) if colon else (gateway, first) for first, colon, rest in parts]


def read(body: bytes) -> Any:
    """The JSON of a body.

    Raises:
        UnreadableEventError: it is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableEventError from None
