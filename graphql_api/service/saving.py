"""Saving tokens: one in a single statement if it can be, or many one after another in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from uuid_utils import uuid7

from graphql_api.domain import token as tokens
from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.facts import NO_FACTS, Facts
from graphql_api.domain.inputs import Save
from graphql_api.domain.token import Action, Changes, Token
from graphql_api.service.problems import erased_problem, expect_version, stale_problem, taken
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.changes import Customers
from graphql_api.storage.reads import Pair


class SaveResult(NamedTuple):
    """A token as it is now, and whether this save created it."""

    token: Token
    created: bool


async def save(service: Tokens, wanted: Save) -> SaveResult:
    """Create or update the token of this user at this gateway.

    Raises:
        InputError: ALREADY_EXISTS, CUSTOMER_TAKEN, STALE or ERASED.
    """
    service.caller.authorize("Mutation.saveCustomerGatewayToken")
    return await retry_on_conflict(partial(_save, service, wanted))


async def _save(service: Tokens, save: Save) -> SaveResult:
    reading = await service.store.save(save, service.actor)
    if reading.token is not None and not save.refused_as_new:
        if reading.is_saved:
            return SaveResult(reading.token, created=False)
        event = _saved(reading.token, save, reading.now)
        if event is None:
            return SaveResult(reading.token, created=False)
        if not tokens.decides_by_facts(reading.token, event):
            return SaveResult(await service.store.change(reading.token, event, service.actor), created=False)
    [result] = await _save_all(service, [save])
    if not isinstance(result, InputError):
        return result
    try:
        raise result
    finally:
        del result  # or it and this frame, to which its traceback leads, would be a cycle


async def save_many(service: Tokens, saves: Sequence[Save], *, abort: bool) -> list[SaveResult | InputError]:
    """Save one after another in one transaction; with `abort`, one that is refused refuses all."""
    service.caller.authorize("Mutation.saveCustomerGatewayTokens")
    return await retry_on_conflict(lambda: _save_all(service, saves, abort=abort)) if saves else []


async def _save_all(service: Tokens, saves: Sequence[Save], *, abort: bool = False) -> list[SaveResult | InputError]:
    users, customers = {save.user_id for save in saves}, {(save.gateway, save.customer) for save in saves}
    async with service.store.transaction(users, customers=customers) as store:
        batch = BatchSaver(
            now=await store.now(),
            stored=await store.lock_at({(save.user_id, save.gateway) for save in saves}),
            customers=await store.customers(customers),
            erased=await store.erased(users),
        )
        results = [batch.save(save) for save in saves]
        if not (abort and any(isinstance(result, InputError) for result in results)):
            await store.write(batch.changes, service.actor)
    return results


class BatchSaver:
    """Saves one after another, on what was read at the beginning of the transaction and what the saves before did.

    Args:
        now: the time of the changes
        stored: the tokens that are there, by user and gateway
        customers: whose the identifiers of gateways are, and what is known of them
        erased: the users who were erased
        action: the action of every history entry; by default, it follows from what changes
    """

    def __init__(
        self,
        *,
        now: datetime,
        stored: dict[Pair, Token],
        customers: Customers,
        erased: set[str],
        action: Action | None = None,
    ) -> None:
        self.changes = Changes()
        self.stored = stored
        self.owners = customers.owners
        self._facts = customers.facts
        self._now = now
        self._erased = erased
        self._changed: set[Pair] = set()  # by the saves before
        self._action = action

    def save(self, save: Save, born: tokens.Event | None = None, said: Facts | None = None) -> SaveResult | InputError:
        """What becomes of this save; what it changes is added to the changes.

        Args:
            save: the token as it shall be
            born: what is created if nothing is stored; by default, a token that begins now
            said: what the gateway said of the customer besides, if this comes with the save
        """
        try:
            return self._save(save, born, said)
        except InputError as refused:
            return refused.with_traceback(None)  # which leads to the list that it comes into

    def _save(self, save: Save, born: tokens.Event | None, said: Facts | None) -> SaveResult:
        place, customer = (save.user_id, save.gateway), (save.gateway, save.customer)
        token = self.stored.get(place)
        facts = self._known(customer)
        if save.refused_as_new and (token is None or token.gateway_customer_id != save.customer):
            raise save.refused_as_new
        if token is None:
            event = _new_token(born, facts) if born else _created(save, self._now, facts)
        else:
            event = _saved(token, save, self._now, facts, said, is_of_batch=place in self._changed)
        if token is None and save.user_id in self._erased:
            raise InputError([erased_problem("userId")])
        if token is not None and said is not None and tokens.cannot_carry(event.token if event else token, said):
            self.changes.facts[customer] = self.changes.facts.get(customer, NO_FACTS).joined(said)
        if event is None:
            return SaveResult(self.stored[place], created=False)
        if self.owners.setdefault(customer, save.user_id) != save.user_id:
            raise taken("gatewayCustomerId")
        if self._action is not None and event.action is not None:
            event = event._replace(action=self._action)
        new = self.changes.create(event) if token is None else self.changes.change(token, event)
        self.stored[place] = new
        self._changed.add(place)
        return SaveResult(new, created=token is None)

    def _known(self, customer: Pair) -> Facts:
        """What was known of a customer at the beginning, and what tokens that had it until now knew."""
        return self._facts.get(customer, NO_FACTS).joined(self.changes.facts.get(customer, NO_FACTS))


def _new_token(born: tokens.Event, facts: Facts) -> tokens.Event:
    token = tokens.with_facts(born.token, facts)
    return born._replace(token=token, reason=token.deactivation_reason)


def _created(save: Save, now: datetime, facts: Facts) -> tokens.Event:
    if save.expected_version is not None:
        raise InputError(
            [stale_problem(f"This user has no token at {save.gateway}. Omit expectedVersion to create it.")]
        )
    return tokens.created(str(uuid7()), save.user_id, save.gateway, save.edit, now, Action.CREATED, facts)


def _saved(
    token: Token,
    save: Save,
    now: datetime,
    facts: Facts = NO_FACTS,
    said: Facts | None = None,
    *,
    is_of_batch: bool = False,
) -> tokens.Event | None:
    """What this save makes of the stored token; None if it changes nothing."""
    expect_version(token, save.expected_version)
    if token.gateway_customer_id not in {save.customer, save.replaces}:
        stored, gateway = token.gateway_customer_id, token.gateway
        if is_of_batch:
            message = (
                f"An earlier item in this batch saves the customer {stored} for this user at {gateway}. Remove one"
                f" of the items, or set `replaces` to {stored} in this one."
            )
        else:
            given = "" if save.replaces is None else f", but `replaces` is {quoted(save.replaces)}"
            message = (
                f"This user already has the customer {stored} at {gateway}{given}. If its `isActive` is true, use"
                " it. If its `deactivationReason` is GATEWAY_DELETED, call claimGatewayCustomer again. Otherwise, do"
                f" not charge it. To replace it, set `replaces` to {stored}."
            )
        raise InputError([Problem(Code.ALREADY_EXISTS, message, ("gatewayCustomerId",))], token)
    if said is not None:
        return tokens.imported(token, save.edit, said, now, facts)
    return tokens.edited(token, save.edit, now, facts) if save.allow_update else None
