"""Changes of a token by its id: update, activate, deactivate, delete."""

from datetime import datetime

from graphql_api.domain import token as tokens
from graphql_api.domain import values
from graphql_api.domain.facts import NO_FACTS
from graphql_api.domain.inputs import Update
from graphql_api.domain.token import Action, Changes, DeactivationReason, Edit, Token
from graphql_api.domain.values import Problems
from graphql_api.service import gateway_reports
from graphql_api.service.problems import expect_version, not_found, taken
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.bulkheads import ConflictError


async def update(service: Tokens, wanted: Update) -> Token:
    """Change a token.

    Raises:
        InputError: NOT_FOUND, STALE or CUSTOMER_TAKEN.
    """
    service.caller.authorize("Mutation.updateCustomerGatewayToken")
    return await retry_on_conflict(lambda: _update(service, wanted))


async def _update(service: Tokens, update: Update, *, confirms: bool = False) -> Token:
    token, now = await _read(service, update.id)
    update.check_customer_id(service.gateways, token.gateway, token.gateway_customer_id)
    expect_version(token, update.expected_version)
    event = tokens.edited(token, update.edit, now)
    if event is None and confirms:
        event = tokens.confirmed(token, now)
    if event is None:
        return token
    if not tokens.decides_by_facts(token, event):
        return await service.store.change(token, event, service.actor)
    key = (token.gateway, event.token.gateway_customer_id)
    async with service.store.transaction([token.user_id], customers=[key]) as store:
        locked = (await store.lock_at([(token.user_id, token.gateway)])).get((token.user_id, token.gateway))
        if locked != token:
            raise ConflictError
        customers = await store.customers([key])
        if customers.owners.get(key, token.user_id) != token.user_id:
            raise taken("gatewayCustomerId")
        event = tokens.edited(token, update.edit, now, customers.facts.get(key, NO_FACTS)) or event
        changes = Changes()
        changes.change(token, event)
        await store.write(changes, service.actor)
    return event.token


async def activate(service: Tokens, token_id: str, expected_version: int | None) -> Token:
    """Activate a token. This overrides the gateway's earlier reports, even if the token is already active.

    Raises:
        InputError: INVALID, NOT_FOUND or STALE.
    """
    service.caller.authorize("Mutation.activateCustomerGatewayToken")
    wanted = Update(id=_known(token_id), edit=Edit(is_active=True), expected_version=expected_version)
    return await retry_on_conflict(lambda: _update(service, wanted, confirms=True))


async def deactivate(service: Tokens, token_id: str, reason: DeactivationReason, expected_version: int | None) -> Token:
    """Deactivate a token for this reason. GATEWAY_DELETED counts as the gateway's report on its customer.

    Raises:
        InputError: INVALID, NOT_FOUND or STALE.
    """
    service.caller.authorize("Mutation.deactivateCustomerGatewayToken")

    known_id = _known(token_id)

    async def attempt() -> Token:
        token, now = await _read(service, known_id)
        expect_version(token, expected_version)
        if reason is DeactivationReason.GATEWAY_DELETED:
            return await gateway_reports.deactivate_as_gone(service, token, now)
        event = tokens.deactivated(token, reason, now)
        return token if event is None else await service.store.change(token, event, service.actor)

    return await retry_on_conflict(attempt)


async def delete(service: Tokens, token_id: str, expected_version: int | None) -> str | None:
    """Delete a token, again if it is already deleted. Returns its user, unless they were erased.

    Raises:
        InputError: INVALID, STALE, or NOT_FOUND if it never existed.
    """
    service.caller.authorize("Mutation.deleteCustomerGatewayToken")
    known_id = _known(token_id)
    return await retry_on_conflict(lambda: _delete(service, known_id, expected_version))


def _known(token_id: str) -> str | None:
    problems = Problems()
    known_id = problems.parse("id", values.token_id, token_id)
    problems.check()
    return known_id


async def _delete(service: Tokens, token_id: str | None, expected_version: int | None) -> str | None:
    token = (await service.store.read(token_id)).token if token_id else None
    if token is None:
        was_there, user_id = await service.store.deleted(token_id) if token_id else (False, None)
        if not was_there:
            raise not_found()
        return user_id
    expect_version(token, expected_version)
    async with service.store.transaction([token.user_id]) as store:
        if (await store.lock_at([(token.user_id, token.gateway)])).get((token.user_id, token.gateway)) != token:
            raise ConflictError
        changes = Changes()
        changes.delete(token, tokens.gone(token, Action.DELETED, await store.now()))
        await store.write(changes, service.actor)
    return token.user_id


async def _read(service: Tokens, token_id: str | None) -> tuple[Token, datetime]:
    if token_id is None:
        raise not_found()
    reading = await service.store.read(token_id)
    if reading.token is None:
        raise not_found()
    return reading.token, reading.now
