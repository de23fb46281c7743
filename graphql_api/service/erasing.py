"""Erasure of a user, who can return only after an admin lifts it."""

from collections.abc import Sequence
from datetime import datetime

from graphql_api.domain import token as tokens
from graphql_api.domain.token import Action, Changes
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.connection import Row
from graphql_api.storage.reads import Pair


async def erase(service: Tokens, user_id: str) -> list[Pair]:
    """Erase a user.

    Returns each (gateway, gateway customer id) of theirs that is still to be deleted at its gateway.
    """
    service.caller.authorize("Mutation.eraseUserGatewayTokens")

    async def attempt() -> list[Pair]:
        async with service.store.transaction([user_id], exclusive=True) as store:
            now = await store.now()
            changes = Changes()
            for token in await store.lock_of([user_id]):
                changes.delete(token, tokens.gone(token, Action.ERASED, now))
            await store.write(changes, service.actor)
            return await store.erase(user_id)

    return await retry_on_conflict(attempt)


async def lift_erasure(service: Tokens, user_id: str) -> None:
    """Lift a user's erasure: their tokens may be saved again."""
    service.caller.authorize("Mutation.liftUserErasure")

    async def attempt() -> None:
        async with service.store.transaction([user_id], exclusive=True) as store:
            await store.lift_erasure(user_id)

    await retry_on_conflict(attempt)


async def erasures(
    service: Tokens, gateway: str | None, *, size: int, after: tuple[datetime, str, str] | None
) -> list[Row]:
    """Customers of erased users that are still to be deleted at their gateways, oldest first."""
    service.caller.authorize("Query.gatewayErasures")
    return await service.store.erasures(gateway, size=size, after=after)


async def confirm(service: Tokens, customers: Sequence[Pair]) -> int:
    """Record that these customers were deleted at their gateways. Returns how many were still to be deleted."""
    service.caller.authorize("Mutation.confirmGatewayErasures")

    async def attempt() -> int:
        async with service.store.transaction((), customers=customers) as store:
            return await store.confirm_erasures(customers)

    return await retry_on_conflict(attempt)
