"""Erasure: a user is forgotten, and can come back only when an admin lifts that."""

from graphql_api.domain import token as tokens
from graphql_api.domain.token import Action, Changes
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.reads import Pair


async def erase(service: Tokens, user_id: str) -> list[Pair]:
    """Forget a user. Answers every (gateway, gateway customer id) that is now to be erased at the gateways."""
    service.caller.authorize("Mutation.eraseUserGatewayTokens")

    async def attempt() -> list[Pair]:
        async with service.store.transaction([user_id], exclusive=True) as store:
            identifiers = await store.identifiers_of(user_id)
            now = await store.now()
            changes = Changes()
            for token in await store.lock_of([user_id]):
                changes.delete(tokens.gone(token, Action.ERASED, now))
            await store.write(changes, service.actor)
            await store.erase(user_id)
        return identifiers

    return await retry_on_conflict(attempt)


async def lift_erasure(service: Tokens, user_id: str) -> None:
    """The person is back: their tokens may be saved again."""
    service.caller.authorize("Mutation.liftUserErasure")

    async def attempt() -> None:
        async with service.store.transaction([user_id], exclusive=True) as store:
            await store.lift_erasure(user_id)

    await retry_on_conflict(attempt)
