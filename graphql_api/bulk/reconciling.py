"""Staying true to a gateway: what its list of customers says is missing is deactivated, what it has is verified."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

from graphql_api.bulk.identifiers import identifier
from graphql_api.bulk.records import Line, Record, Rejection, Unreadable, values_of
from graphql_api.domain import token as tokens
from graphql_api.domain.errors import BadInputError, Code, InputError, Problem
from graphql_api.domain.facts import Facts
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.token import Action, Changes
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.storage.connection import Row
from graphql_api.storage.customer_lists import (
    GATEWAYS,
    HAS_TOKENS,
    CustomerList,
    ListCounts,
    ListedCustomer,
)
from graphql_api.storage.reads import Pair
from graphql_api.storage.tokens import MAX_BULK_LOCKS, TokenStore

ACTOR = "reconcile"
MAX_CHUNK_TOKENS: Final = MAX_BULK_LOCKS  # each has a user
_MAX_CHUNK_CUSTOMERS = 50  # without a token: each is locked exclusively
_BEGIN = (datetime.min.replace(tzinfo=UTC), str(UUID(int=0)))


@dataclass(frozen=True, slots=True)
class Guards:
    """How much may differ for the differences to be applied.

    Args:
        max_missing_percent: of the active tokens, how many may be missing there
        allow_unreadable: how many lines of the list may have no customer
    """

    max_missing_percent: float = 10
    allow_unreadable: int = 0


@dataclass(slots=True)
class ApplyTally:
    """How many tokens were deactivated, activated again, and verified."""

    deactivated: int = 0
    activated: int = 0
    verified: int = 0

    def add(self, other: "ApplyTally") -> None:
        """Count the other's tokens too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def done(self) -> int:
        """How many tokens were written."""
        return self.deactivated + self.activated + self.verified

    def __str__(self) -> str:
        return f"{self.deactivated:,} deactivated, {self.activated:,} activated, {self.verified:,} verified"


async def expect_tokens(store: TokenStore, gateway: str) -> None:
    """Go on only if there are tokens at the gateway, whose name may be a slip.

    Raises:
        BadInputError: there are none; the message lists the gateways that have tokens.
    """
    if not (await store.fetch(HAS_TOKENS, gateway))[0][0]:
        names = ", ".join(row[0] for row in await store.fetch(GATEWAYS)) or "no gateway"
        raise BadInputError(f"There are no tokens at {gateway}, only at {names}.")


def payment_methods(counts: Iterable[tuple[str, int]]) -> str | None:
    """A sentence that counts, by gateway, the ids that belong to other objects; None if there are none."""
    found = ", ".join(f"{count:,} at {gateway}" for gateway, count in counts)
    return found and (
        f"customer ids look like payment methods or tokens (pm_…, tok_…, card_…, src_…): {found}. Save the customer's "
        "id instead. CUSTOMER_IDS, such as STRIPE:cus_*, refuses others"
    )


def listed_customers(
    lines: Iterator[Line], gateways: Gateways, gateway: str
) -> Iterator[tuple[int, ListedCustomer | Rejection]]:
    """The customer on each line, by the rules of identifiers."""
    for number, record in lines:
        try:
            yield number, _listed_customer(record, gateways, gateway)
        except InputError as error:
            yield number, Rejection(number, error.problems, values_of(record))


def _listed_customer(record: Record | Unreadable, gateways: Gateways, gateway: str) -> ListedCustomer:
    if isinstance(record, Unreadable):
        raise InputError([record.problem])
    try:
        customer = gateways.listed_customer_id(gateway, identifier(record.get("id"), "customer id"))
    except InputError as error:
        raise InputError([Problem(each.code, each.message, ("id",)) for each in error.problems]) from None
    return ListedCustomer(customer, bool(record.get("deleted")))


def check(counts: ListCounts, unreadable: int, guards: Guards) -> None:
    """Go on only with a list that looks whole.

    Raises:
        InputError: more is missing, or cannot be read, than is allowed.
    """
    if unreadable > guards.allow_unreadable:
        message = (
            f"{unreadable:,} of the file's lines cannot be read, and their customers would count as missing. Correct "
            f"them, or add --allow-unreadable {unreadable}."
        )
    elif counts.missing_there * 100 > counts.active * guards.max_missing_percent:
        percent = counts.missing_there * 100 / counts.active
        message = (
            f"{counts.missing_there:,} of {counts.active:,} active tokens ({percent:.1f} %) are missing there: "
            f"{counts.not_listed:,} not listed, {counts.missing_there - counts.not_listed:,} listed as deleted. The "
            f"list looks incomplete or wrong: --max-missing {guards.max_missing_percent:g} allows no more."
        )
    else:
        return
    raise InputError([Problem(Code.INVALID, f"{message} Nothing was changed.")])


async def apply(
    store: TokenStore, customer_list: CustomerList, *, max_tokens: int = MAX_CHUNK_TOKENS
) -> AsyncGenerator[ApplyTally]:
    """Deactivate what is missing and verify what is listed, at most `max_tokens` in a transaction.

    What the list says of inactive tokens and of customers without one is kept, too: it counts against other reports.
    """
    is_behind = True
    while is_behind:
        is_behind = False
        after = _BEGIN
        while rows := await customer_list.changes(after, max_tokens):
            after = (rows[-1]["created_at"], rows[-1]["id"])
            yield await retry_on_conflict(partial(_write, store, customer_list, rows), max_seconds=60)
        last = ""
        while rows := await customer_list.unsaved(last, _MAX_CHUNK_CUSTOMERS):
            last = rows[-1]["gateway_customer_id"]
            is_behind |= await retry_on_conflict(partial(_remember, store, customer_list, rows), max_seconds=60)
        if is_behind:
            await customer_list.refresh()


async def _write(store: TokenStore, customer_list: CustomerList, rows: Sequence[Row]) -> ApplyTally:
    applied, changes, beside = ApplyTally(), Changes(), dict[Pair, Facts]()
    async with store.transaction({row["user_id"] for row in rows}) as transaction:
        stored = await transaction.lock_at((row["user_id"], customer_list.gateway) for row in rows)
        now = await transaction.now()
        for row in rows:
            token = stored.get((row["user_id"], customer_list.gateway))
            if token is None or token.gateway_customer_id != row["gateway_customer_id"]:
                continue  # it was changed since
            facts = Facts(exists_at=customer_list.at) if row["is_listed"] else Facts(gone_at=customer_list.at)
            event = tokens.reported(token, facts, now)
            if event is not None:
                changes.change(token, event)
                applied.deactivated += event.action is Action.DEACTIVATED
                applied.activated += event.action is Action.ACTIVATED
                applied.verified += row["is_listed"] and event.action is not Action.ACTIVATED
            if tokens.cannot_carry(token, facts):
                beside[customer_list.gateway, token.gateway_customer_id] = facts
        await transaction.write(changes, ACTOR)
        if beside:
            await transaction.remember_facts(beside)
    return applied


async def _remember(store: TokenStore, customer_list: CustomerList, rows: Sequence[Row]) -> bool:
    """Store what the list says of customers without a token. Returns whether one was saved meanwhile."""
    gateway, at = customer_list.gateway, customer_list.at
    said = {
        (gateway, row["gateway_customer_id"]): Facts(gone_at=at) if row["is_deleted"] else Facts(exists_at=at)
        for row in rows
    }
    async with store.transaction((), customers=said, exclusive=True) as transaction:
        free = said.keys() - await transaction.lock_customers(list(said))
        if free:
            await transaction.remember_facts({key: said[key] for key in free})
            await transaction.delete_expired_facts(len(free))
    return len(free) < len(said)
