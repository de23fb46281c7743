"""Reassigning: customers that were saved for the wrong user are given to the right one."""

from collections.abc import Sequence
from typing import NamedTuple

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code
from graphql_api.domain.token import Action, Changes, DeactivationReason, Token
from graphql_api.domain.values import Problems
from graphql_api.service.problems import erased_problem
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.changes import ConflictError, TokenTransaction
from graphql_api.storage.reads import Pair


class Reassignment(NamedTuple):
    """A customer of a gateway, current or former, and whose it is."""

    gateway: str
    customer: str
    user_id: str

    @property
    def key(self) -> Pair:
        """The customer."""
        return self.gateway, self.customer


async def reassign(service: Tokens, wanted: Sequence[Reassignment], reason: str | None = None) -> list[Token | None]:
    """Give each customer to its user, all or none. Users' customers may be swapped: only the result counts.

    A token that a user already has at the gateway gives way if the gateway deleted its customer.

    Args:
        service: for whom
        wanted: of which customer it is whose, each customer once
        reason: for the history

    Returns:
        The token of each customer, in their order; None for a former one.

    Raises:
        InputError: NOT_FOUND, ALREADY_EXISTS, ERASED or INVALID, at the index of the customer.
    """
    service.caller.authorize("Mutation.reassignGatewayCustomers")
    _check_once(wanted)
    return await retry_on_conflict(lambda: _attempt(service, wanted, reason))


def _check_once(wanted: Sequence[Reassignment]) -> None:
    problems, seen = Problems(), set[Pair]()
    for index, each in enumerate(wanted):
        if each.key in seen:
            problems.add(Code.INVALID, "This customer is in the list twice.", *_place(index), "gatewayCustomerId")
        seen.add(each.key)
    problems.check()


async def _attempt(service: Tokens, wanted: Sequence[Reassignment], reason: str | None) -> list[Token | None]:
    keys = [each.key for each in wanted]
    owners = (await service.store.customers(keys)).owners
    users = {*owners.values(), *(each.user_id for each in wanted)}
    async with service.store.transaction(users, exclusive=True) as store:
        if (await store.customers(keys)).owners != owners:
            raise ConflictError
        return await _reassign(store, service.actor, wanted, owners, reason)


async def _reassign(
    store: TokenTransaction,
    actor: str,
    wanted: Sequence[Reassignment],
    owners: dict[Pair, str],
    reason: str | None,
) -> list[Token | None]:
    erased = await store.erased({each.user_id for each in wanted})
    places = {(user, each.gateway) for each in wanted for user in (each.user_id, owners.get(each.key)) if user}
    stored = await store.lock_at(places)
    current = {(token.gateway, token.gateway_customer_id): token for token in stored.values()}
    moving = {each.key: token for each in wanted if (token := current.get(each.key)) and token.user_id != each.user_id}
    _check(wanted, owners, erased, stored, moving)
    now = await store.now()
    changes = Changes()
    await store.reassign({each.key: each.user_id for each in wanted})
    for each in wanted:
        there = stored.get((each.user_id, each.gateway))
        if each.key in moving and there is not None and there not in moving.values():
            changes.delete(there, tokens.gone(there, Action.REASSIGNED, now, reason))
    # Deleted and created anew, since two rows that swap their users would break the constraint one after the other.
    await store.remove(list(moving.values()))
    for each in wanted:
        if (token := moving.get(each.key)) is not None:
            current[each.key] = changes.create(tokens.reassigned(token, each.user_id, now, reason))
    await store.write(changes, actor)
    return [current.get(key) for key in (each.key for each in wanted)]


def _check(
    wanted: Sequence[Reassignment],
    owners: dict[Pair, str],
    erased: set[str],
    stored: dict[Pair, Token],
    moving: dict[Pair, Token],
) -> None:
    problems = Problems()
    taken: set[Pair] = set()
    for index, each in enumerate(wanted):
        place = (each.user_id, each.gateway)
        if each.key not in owners:
            message = f"No user has, or had, this customer at {each.gateway}."
            problems.add(Code.NOT_FOUND, message, *_place(index), "gatewayCustomerId")
        if each.user_id in erased:
            problem = erased_problem("toUserId")
            problems.add(problem.code, problem.message, *_place(index), *problem.field)
        if each.key in moving:
            there = stored.get(place)
            stays = there is not None and there not in moving.values() and not _gives_way(there)
            if stays or place in taken:
                message = f"This user has, or would have, another customer at {each.gateway}. Reassign that one too."
                problems.add(Code.ALREADY_EXISTS, message, *_place(index), "toUserId")
            taken.add(place)
    problems.check()


def _place(index: int) -> tuple[str, str]:
    return "customers", str(index)


def _gives_way(token: Token) -> bool:
    return token.deactivation_reason == DeactivationReason.GATEWAY_DELETED.value
