"""Gateways' reports on customers: that one was deleted, or that one exists. `domain.facts` states the rule."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.facts import Facts
from graphql_api.domain.token import Changes, DeactivationReason, Token
from graphql_api.domain.values import MAX_AHEAD, Problems, check_not_ahead
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.reads import Pair


async def deactivate_customer(
    service: Tokens,
    gateway: str,
    customer: str,
    reason: DeactivationReason,
    occurred_at: datetime | None,
    *,
    caps: bool = False,
) -> Token | None:
    """Deactivate the token of this customer, for the gateway or a system that knows only the customer id.

    The reason GATEWAY_DELETED is the gateway's report, which is kept for the user who will have the customer. Any other
    reason is a decision of the platform, and deactivates an active token.

    Args:
        service: the caller's service
        gateway: the gateway
        customer: the customer's id there
        reason: why the token becomes inactive
        occurred_at: when it happened; None for now
        caps: take the current time if it lies too far ahead, because a gateway does not correct its events

    Returns:
        The token that has the customer, or the unchanged token that had it; None if the customer is unknown.

    Raises:
        InputError: INVALID for a time too far in the future; INVALID or CARD_NUMBER for an unknown id that no customer
            can have.
    """
    service.caller.authorize("Mutation.deactivateGatewayCustomer")

    def gone(token: Token | None, now: datetime) -> Facts:
        at = _dated(occurred_at, now, "occurredAt", caps=caps)
        return tokens.gone_now(token, now) if occurred_at is None and token is not None else Facts(gone_at=at)

    async def attempt() -> Token | None:
        if reason is DeactivationReason.GATEWAY_DELETED:
            return await _report(service, gateway, customer, gone)
        token, now = await _customer(service, gateway, customer)
        at = _dated(occurred_at, now, "occurredAt", caps=caps)
        if token is None or token.gateway_customer_id != customer:
            return token
        event = tokens.deactivated(token, reason, now, occurred_at and at)
        return token if event is None else await service.store.change(token, event, service.actor)

    return await retry_on_conflict(attempt)


async def deactivate_customers(
    service: Tokens, gateway: str, gone: Mapping[str, datetime], known: Mapping[str, Token]
) -> list[Token]:
    """`deactivate_customer` for many customers at once that the gateway reports as deleted. Every time is capped.

    Args:
        service: the caller's service
        gateway: the gateway
        gone: when the gateway deleted each customer, by its id; an id that no token can have is left out
        known: the tokens that have some of these customers, as they were just read

    Returns:
        The tokens that became inactive.
    """
    service.caller.authorize("Mutation.deactivateGatewayCustomer")

    keys = [(gateway, customer) for customer in gone.keys() - known.keys() if _can_have(service, gateway, customer)]

    async def remember() -> set[str]:
        async with service.store.transaction((), customers=keys, exclusive=True) as transaction:
            now = await transaction.now()
            free = set(keys) - await transaction.lock_customers(keys)
            if free:
                await transaction.remember_facts({key: _gone(gone[key[1]], now) for key in free})
                await transaction.delete_expired_facts(len(free))
        return {customer for _, customer in free}

    async def change() -> tuple[Changes, set[str]]:
        changes, reported = Changes(), set[str]()
        async with service.store.transaction({token.user_id for token in known.values()}) as transaction:
            stored = await transaction.lock_at((token.user_id, gateway) for token in known.values())
            now = await transaction.now()
            for token in stored.values():
                customer = token.gateway_customer_id
                if customer in gone and not tokens.cannot_carry(token, facts := _gone(gone[customer], now)):
                    reported.add(customer)
                    if event := tokens.reported(token, facts, now):
                        changes.change(token, event)
            await transaction.write(changes, service.actor)
        return changes, reported

    done = await retry_on_conflict(remember) if keys else set[str]()
    changes, reported = await retry_on_conflict(change) if known else (Changes(), set[str]())
    deactivated = [event.token for event in changes.events]
    for customer in gone.keys() - done - reported:
        with suppress(InputError):  # no token can have this id
            reason, before = DeactivationReason.GATEWAY_DELETED, known.get(customer)
            token = await deactivate_customer(service, gateway, customer, reason, gone[customer], caps=True)
            if token is not None and not token.is_active and (before is None or before.is_active):
                deactivated.append(token)
    return deactivated


async def deactivate_as_gone(service: Tokens, token: Token, now: datetime) -> Token:
    """Record a report, by the token's id, that the gateway deleted its current customer.

    Raises:
        ConflictError: the token changed after it was read.
    """
    return await _apply(service, token, tokens.gone_now(token, now), now)


async def verify_customer(
    service: Tokens, gateway: str, customer: str, at: datetime | None, *, caps: bool = False
) -> Token:
    """Record that the gateway says that this customer exists, also for the user who will have it.

    Args:
        service: the caller's service
        gateway: the gateway
        customer: the customer's id there
        at: when the gateway confirmed it; None for now
        caps: as in `deactivate_customer`

    Raises:
        InputError: NOT_FOUND; INVALID for a time too far in the future; INVALID or CARD_NUMBER for an unknown id that
            no customer can have.
    """
    service.caller.authorize("Mutation.verifyGatewayCustomer")

    def exists(_token: Token | None, now: datetime) -> Facts:
        return Facts(exists_at=_dated(at, now, "at", caps=caps))

    token = await retry_on_conflict(lambda: _report(service, gateway, customer, exists))
    if token is None:
        message = (
            f"No token has the customer {customer} at {gateway}. The report is kept for 90 days and takes effect"
            " when you save the customer."
        )
        raise InputError([Problem(Code.NOT_FOUND, message, ("gatewayCustomerId",))])
    return token


async def verify_customers(service: Tokens, gateway: str, confirmed: Mapping[Pair, datetime]) -> int:
    """`verify_customer` for many customers at once, and for those without a token. Verifications write no history.

    Args:
        service: the caller's service
        gateway: the gateway
        confirmed: when the gateway confirmed each, by (user id, customer id)

    Returns:
        How many tokens became active again.
    """
    service.caller.authorize("Mutation.verifyGatewayCustomer")

    async def attempt() -> tuple[int, list[tuple[str, datetime]]]:
        changes, others = Changes(), list[tuple[str, datetime]]()
        async with service.store.transaction({user_id for user_id, _ in confirmed}) as transaction:
            stored = await transaction.lock_at((user_id, gateway) for user_id, _ in confirmed)
            now = await transaction.now()
            for (user_id, customer), at in confirmed.items():
                token = stored.get((user_id, gateway))
                if token is None or token.gateway_customer_id != customer:
                    others.append((customer, at))
                elif event := tokens.reported(token, Facts(exists_at=at), now):
                    changes.change(token, event)
            await transaction.write(changes, service.actor)
        return len(changes.events), others

    activated, others = await retry_on_conflict(attempt)
    for customer, at in others:
        with suppress(InputError):  # its token is gone
            await verify_customer(service, gateway, customer, at)
    return activated


async def _report(
    service: Tokens, gateway: str, customer: str, said: Callable[[Token | None, datetime], Facts]
) -> Token | None:
    token, now = await _customer(service, gateway, customer)
    if token is None or token.gateway_customer_id != customer:
        await _remember(service, gateway, customer, said(None, now))
        return token
    return await _apply(service, token, said(token, now), now)


async def _apply(service: Tokens, token: Token, facts: Facts, now: datetime) -> Token:
    """The token after a report on its current customer."""
    event = tokens.reported(token, facts, now)
    if event is not None:
        token = await service.store.change(token, event, service.actor)
    if tokens.cannot_carry(token, facts):
        await _remember(service, token.gateway, token.gateway_customer_id, facts, token)
    return token


def _dated(at: datetime | None, now: datetime, field: str, *, caps: bool) -> datetime:
    if at is None or (caps and at > now + MAX_AHEAD):
        return now
    problems = Problems()
    problems.parse(field, partial(check_not_ahead, now=now), at)
    problems.check()
    return at


def _gone(at: datetime, now: datetime) -> Facts:
    return Facts(gone_at=_dated(at, now, "occurredAt", caps=True))


def _can_have(service: Tokens, gateway: str, customer: str) -> bool:
    """Whether a token may get this customer id."""
    try:
        service.gateways.customer_id(gateway, customer)
    except InputError:
        return False
    return True


async def _remember(service: Tokens, gateway: str, customer: str, facts: Facts, beside: Token | None = None) -> None:
    """Store a report on a customer without a token, or one that its token cannot hold (`beside`).

    Raises:
        ConflictError: another token has the customer now.
    """
    key = (gateway, customer)
    async with service.store.transaction((), customers=[key], exclusive=True) as transaction:
        if beside is None:
            is_as_read = not await transaction.lock_customers([key])
        else:
            place = (beside.user_id, gateway)
            is_as_read = (await transaction.lock_at([place])).get(place) == beside
        if not is_as_read:
            raise ConflictError
        await transaction.remember_facts({key: facts})
        if beside is None:
            await transaction.delete_expired_facts(1)


async def _customer(service: Tokens, gateway: str, customer: str) -> tuple[Token | None, datetime]:
    token_id = await service.store.token_id(gateway, customer)
    if token_id is None:
        # Reports on a stored id count whatever its form; any other id must be one that could still be saved.
        problems = Problems()
        problems.parse("gatewayCustomerId", partial(service.gateways.customer_id, gateway), customer)
        problems.check()
        return None, await service.store.now()
    reading = await service.store.read(token_id)
    if reading.token is None:
        raise ConflictError
    return reading.token, reading.now
