"""Claims: of many checkouts of one user at once, which one creates the customer at the gateway."""

from dataclasses import dataclass
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from graphql_api.domain.errors import InputError
from graphql_api.domain.token import Token
from graphql_api.service.problems import erased_problem
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.changes import ConflictError


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to create a customer at the gateway, for a short time."""

    idempotency_key: str
    expires_at: datetime
    acquired: bool


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The customer that is there already, or the lease on creating it."""

    token: Token | None = None
    lease: Lease | None = None


async def claim(service: Tokens, user_id: str, gateway: str, lease_seconds: int) -> ClaimResult:
    """Who creates this user's first customer at the gateway, with which idempotency key?

    Raises:
        InputError: ERASED.
    """
    service.caller.authorize("Mutation.claimGatewayCustomer")
    return await retry_on_conflict(lambda: _claim(service, user_id, gateway, lease_seconds))


async def _claim(service: Tokens, user_id: str, gateway: str, lease_seconds: int) -> ClaimResult:
    stored = (await service.store.read_at(user_id, gateway)).token
    if stored is not None:
        return ClaimResult(stored)
    claim = await service.store.claim(user_id, gateway, lease_seconds)
    if claim is not None:
        key = idempotency_key(user_id, gateway, claim.generation)
        return ClaimResult(lease=Lease(key, claim.expires_at, claim.acquired))
    if await service.store.erased([user_id]):
        raise InputError([erased_problem("userId")])
    raise ConflictError  # a customer was saved meanwhile


def idempotency_key(user_id: str, gateway: str, generation: int) -> str:
    """The key that every caller hands to the gateway for this user's pending customer."""
    return str(uuid5(NAMESPACE_URL, f"gateway-customer:{generation}:{gateway}:{user_id}"))
