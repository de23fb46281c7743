"""What gateways say of their customers: that one is gone, or that one exists."""

from datetime import datetime, timedelta

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import DeactivationReason, Token
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.changes import ConflictError


async def deactivate_customer(
    service: Tokens,
    gateway: str,
    customer: str,
    reason: DeactivationReason,
    occurred_at: datetime | None,
    precision: timedelta = timedelta(0),
) -> Token | None:
    """The gateway says that this customer is gone. None where it is unknown, which is no error.

    Args:
        service: for whom
        gateway: where the customer is
        customer: its identifier there
        reason: why the token becomes inactive
        occurred_at: when it happened; now where that is not known
        precision: how much later it may have happened, by a clock that tells no more
    """
    service.caller.authorize("Mutation.deactivateGatewayCustomer")

    async def attempt() -> Token | None:
        token, now = await _customer(service, gateway, customer)
        if token is None or token.gateway_customer_id != customer:
            return token
        at = occurred_at or now
        if at < token.activated_at < at + precision:
            at = token.activated_at
        event = tokens.deactivated_at_gateway(token, reason, at, now)
        if event is not None:
            return await service.store.change(token, event, service.actor)
        moved = tokens.earlier_deactivation(token, reason, at)
        if moved is not None:
            await service.store.move_deactivation(token, moved)
        return moved or token

    return await retry_on_conflict(attempt)


async def verify_customer(service: Tokens, gateway: str, customer: str, at: datetime | None) -> Token:
    """The gateway says that this customer exists.

    Raises:
        InputError: NOT_FOUND.
    """
    service.caller.authorize("Mutation.verifyGatewayCustomer")

    async def attempt() -> Token:
        token, now = await _customer(service, gateway, customer)
        if token is None:
            message = f"No token has the customer {customer} at {gateway}. Save it first."
            raise InputError([Problem(Code.NOT_FOUND, message, ("gatewayCustomerId",))])
        event = None if token.gateway_customer_id != customer else tokens.verified(token, at or now, now)
        return token if event is None else await service.store.change(token, event, service.actor)

    return await retry_on_conflict(attempt)


async def _customer(service: Tokens, gateway: str, customer: str) -> tuple[Token | None, datetime]:
    token_id = await service.store.token_id(gateway, customer)
    if token_id is None:
        return None, await service.store.now()
    reading = await service.store.read(token_id)
    if reading.token is None:
        raise ConflictError
    return reading.token, reading.now
