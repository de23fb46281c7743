"""Staying true to a gateway: what its list of customers says is missing is deactivated, what it has is verified."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import Changes, DeactivationReason, Event, Token
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.storage.connection import Row
from graphql_api.storage.customer_lists import CustomerList, ListCounts
from graphql_api.storage.tokens import TokenStore

ACTOR = "reconcile"
MAX_CHUNK_TOKENS: Final = 1000
_BEGIN = (datetime.min.replace(tzinfo=UTC), str(UUID(int=0)))


@dataclass(slots=True)
class ApplyReport:
    """How many tokens were changed."""

    deactivated: int = 0
    verified: int = 0


def check(counts: ListCounts, unreadable: int) -> None:
    """Go on only with a list that looks whole.

    Raises:
        InputError: it looks as if a part of it were not there.
    """
    if counts.listed == 0:
        message = "The file lists no customers."
    elif unreadable:
        message = f"{unreadable:,} of the file's lines cannot be read, and their customers would count as missing."
    elif counts.missing * 2 > counts.active:
        message = f"{counts.missing:,} of {counts.active:,} active tokens would be deactivated."
    else:
        return
    raise InputError([Problem(Code.INVALID, f"{message} Nothing was changed. Use --force to apply it anyway.")])


async def apply(
    store: TokenStore, customer_list: CustomerList, *, max_tokens: int = MAX_CHUNK_TOKENS
) -> AsyncGenerator[ApplyReport]:
    """Deactivate what is missing and verify what is listed, at most `max_tokens` in a transaction."""
    after = _BEGIN
    while rows := await customer_list.changes(after, max_tokens):
        after = (rows[-1]["created_at"], rows[-1]["id"])
        yield await retry_on_conflict(partial(_write, store, customer_list, rows))


async def _write(store: TokenStore, customer_list: CustomerList, rows: Sequence[Row]) -> ApplyReport:
    applied = ApplyReport()
    changes = Changes()
    async with store.transaction({row["user_id"] for row in rows}) as transaction:
        stored = await transaction.lock_at((row["user_id"], customer_list.gateway) for row in rows)
        now = await transaction.now()
        for row in rows:
            token = stored.get((row["user_id"], customer_list.gateway))
            if token is None or token.gateway_customer_id != row["gateway_customer_id"]:
                continue  # it was changed since
            event = _event(token, customer_list.at, now, is_listed=row["is_listed"])
            if event is not None:
                changes.change(token, event)
                applied.verified += row["is_listed"]
                applied.deactivated += not row["is_listed"]
        await transaction.write(changes, ACTOR)
    return applied


def _event(token: Token, at: datetime, now: datetime, *, is_listed: bool) -> Event | None:
    if is_listed:
        return tokens.verified(token, at, now)
    return tokens.deactivated_at_gateway(token, DeactivationReason.GATEWAY_DELETED, at, now)
