"""Moves customers that were saved for the wrong user to the right one."""

from collections.abc import Container, Sequence
from itertools import chain
from typing import NamedTuple

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code
from graphql_api.domain.token import Changes, Token
from graphql_api.domain.values import Problems
from graphql_api.service.problems import erased_problem
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.changes import TokenTransaction
from graphql_api.storage.reads import Pair


class Reassignment(NamedTuple):
    """A current or former customer id, and the user it belongs to."""

    gateway: str
    customer: str
    user_id: str

    @property
    def key(self) -> Pair:
        """The customer."""
        return self.gateway, self.customer


async def reassign(service: Tokens, wanted: Sequence[Reassignment], reason: str | None = None) -> list[Token | None]:
    """Move each customer to its user, all or none. Only the result must be consistent, so users can swap customers.

    If a user would have two tokens at a gateway, the one whose customer the gateway deleted gives way, and its customer
    id becomes a former id. If both were deleted, the user's own token gives way. Each token that moves, or whose former
    ids change, gets a history entry.

    Args:
        service: the caller's service
        wanted: the customers, each once, with their users
        reason: the reason for the history

    Returns:
        The token of each customer, in input order; None if the id is then a former id.

    Raises:
        InputError: NOT_FOUND, ALREADY_EXISTS, ERASED or INVALID, at the index of the customer.
    """
    service.caller.authorize("Mutation.reassignGatewayCustomers")
    _check_once(wanted)
    users = {each.user_id for each in wanted}
    return await retry_on_conflict(lambda: _attempt(service, wanted, users, reason))


def _check_once(wanted: Sequence[Reassignment]) -> None:
    problems, seen = Problems(), set[Pair]()
    for index, each in enumerate(wanted):
        if each.key in seen:
            message = "This customer is in the list more than once. List each customer once."
            problems.add(Code.INVALID, message, *_path(index), "gatewayCustomerId")
        seen.add(each.key)
    problems.check()


async def _attempt(
    service: Tokens, wanted: Sequence[Reassignment], users: set[str], reason: str | None
) -> list[Token | None]:
    """Lock these users and the customers' owners; former owners are locked as well, since customers may go back."""
    keys = [each.key for each in wanted]
    users.update((await service.store.customers(keys)).owners.values())
    async with service.store.transaction(users, exclusive=True) as store:
        owners = (await store.customers(keys)).owners
        if not users.issuperset(owners.values()):
            users.update(owners.values())
            raise ConflictError
        return await _reassign(store, service.actor, wanted, owners, reason)


async def _reassign(
    store: TokenTransaction,
    actor: str,
    wanted: Sequence[Reassignment],
    owners: dict[Pair, str],
    reason: str | None,
) -> list[Token | None]:
    places = {(user, each.gateway) for each in wanted for user in (each.user_id, owners.get(each.key)) if user}
    stored = await store.lock_at(places)
    goals = {each.key: each.user_id for each in wanted}
    moving = {key: token for token in stored.values() if goals.get(key := _key(token), token.user_id) != token.user_id}
    rivals: dict[Pair, list[Token]] = {place: [] for place in places}
    for place, token in stored.items():
        if _key(token) not in moving:
            rivals[place].append(token)
    for each in wanted:
        if each.key in moving:
            rivals[each.user_id, each.gateway].append(moving[each.key])
    kept = {_key(keeper) for there in rivals.values() if (keeper := _keeper(there, moving))}
    erased = await store.erased({each.user_id for each in wanted})
    superfluous = {key for key, token in moving.items() if key not in kept and not tokens.is_gone(token)}
    _check(wanted, owners, erased, superfluous)
    now = await store.now()
    changes = Changes()
    await store.reassign(goals)
    # Deleted and inserted again, because two rows that swap users would violate the constraint one at a time.
    await store.remove(list(moving.values()))
    current = {key: token for token in stored.values() if (key := _key(token)) in kept}
    for user_id, gateway in sorted(_changing(wanted, owners)):
        for token in rivals[user_id, gateway]:
            key, event = _key(token), tokens.reassigned(token, user_id, now, reason)
            if key not in kept:
                changes.delete(token, event)
            else:
                current[key] = changes.create(event) if key in moving else changes.change(token, event)
    await store.write(changes, actor)
    return [current.get(each.key) for each in wanted]


def _key(token: Token) -> Pair:
    return token.gateway, token.gateway_customer_id


def _keeper(rivals: Sequence[Token], moving: Container[Pair]) -> Token | None:
    """Of the rivals for one place, with the token that has it first, the one that gets it.

    A token of a deleted customer gives way to any other, and the token that has the place to one that arrives.
    """
    alive = (token for token in rivals if not tokens.is_gone(token))
    coming = (token for token in rivals if _key(token) in moving)
    return next(chain(alive, coming, rivals), None)


def _changing(wanted: Sequence[Reassignment], owners: dict[Pair, str]) -> set[Pair]:
    """The (user, gateway) pairs that lose or get a customer."""
    moved = [each for each in wanted if owners[each.key] != each.user_id]
    return {(user_id, each.gateway) for each in moved for user_id in (owners[each.key], each.user_id)}


def _check(wanted: Sequence[Reassignment], owners: dict[Pair, str], erased: set[str], superfluous: set[Pair]) -> None:
    problems = Problems()
    for index, each in enumerate(wanted):
        if each.key not in owners:
            message = f"No user has or had this customer at {each.gateway}. Check the gateway and the customer id."
            problems.add(Code.NOT_FOUND, message, *_path(index), "gatewayCustomerId")
        if each.user_id in erased:
            problem = erased_problem("toUserId")
            problems.add(problem.code, problem.message, *_path(index), *problem.field)
        if each.key in superfluous:
            message = f"This user would have two customers at {each.gateway}. Reassign the other one too."
            problems.add(Code.ALREADY_EXISTS, message, *_path(index), "toUserId")
    problems.check()


def _path(index: int) -> tuple[str, str]:
    return "customers", str(index)
