"""Claims: decide which of several concurrent checkouts of a user creates the customer at the gateway."""

from typing import NamedTuple

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import InputError
from graphql_api.domain.token import Token
from graphql_api.service.problems import erased_problem
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.tokens import Claim


class ClaimResult(NamedTuple):
    """The existing customer, or the lease on creating it."""

    token: Token | None = None
    claim: Claim | None = None


async def claim(service: Tokens, user_id: str, gateway: str, lease_seconds: int) -> ClaimResult:
    """Claim the creation of this user's customer at the gateway, or of a replacement for a deleted one.

    Raises:
        InputError: ERASED.
    """
    service.caller.authorize("Mutation.claimGatewayCustomer")
    return await retry_on_conflict(lambda: _claim(service, user_id, gateway, lease_seconds))


async def _claim(service: Tokens, user_id: str, gateway: str, lease_seconds: int) -> ClaimResult:
    stored = (await service.store.read_at(user_id, gateway)).token
    if stored is not None and not tokens.is_gone(stored):
        return ClaimResult(stored)
    claimed = await service.store.claim(user_id, gateway, lease_seconds)
    if claimed is not None:
        return ClaimResult(claim=claimed)
    if await service.store.erased([user_id]):
        raise InputError([erased_problem("userId")])
    raise ConflictError  # a customer was saved meanwhile


async def release(service: Tokens, user_id: str, gateway: str, key: str) -> bool:
    """Release the claim with this idempotency key, so that the next claim gets another key.

    Returns:
        False if the claim has another key, or there is none.
    """
    service.caller.authorize("Mutation.releaseGatewayCustomerClaim")
    return await retry_on_conflict(lambda: service.store.release_claim(user_id, gateway, key))
