"""Merging: two users become one.

A dry run performs the merge in a transaction that is rolled back, once for each statement of its answer. One open
transaction until the answer is complete would hold both users' locks and a connection for that long.
"""

from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from graphql_api.domain import token as tokens
from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import Changes, Token
from graphql_api.service.problems import erased_problem
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.service.tokens import Tokens
from graphql_api.storage.changes import TokenTransaction
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Row, Statement
from graphql_api.storage.reads import TokenReader

KEEP_TARGET, KEEP_SOURCE = "KEEP_TARGET", "KEEP_SOURCE"


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge of one user's tokens into another's. `on_conflict` decides at gateways where both have a customer."""

    from_user: str
    into_user: str
    on_conflict: str

    @property
    def users(self) -> tuple[str, str]:
        """Both of them."""
        return self.from_user, self.into_user


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge.

    Attributes:
        moved: the tokens that moved, in their current state
        conflicts: the tokens that lost their place, in their former state
        winners: the tokens that took or kept it, in their current state
        lost: for the id of each losing token, all customer ids that its user had at the gateway
        problems: why nothing changed
    """

    moved: list[Token] = field(default_factory=list[Token])
    conflicts: list[Token] = field(default_factory=list[Token])
    winners: list[Token] = field(default_factory=list[Token])
    lost: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    problems: tuple[Problem, ...] = ()


async def merge(service: Tokens, asked: Merge) -> Merged:
    """Move the tokens, all or nothing.

    Raises:
        InputError: INVALID if both users are the same, ERASED if the second one was erased.
    """
    _check(service, asked)

    async def attempt() -> Merged:
        async with service.store.transaction(asked.users, exclusive=True) as store:
            return await _merge(store, service.actor, asked, await store.now())

    merged = await retry_on_conflict(attempt)
    service.lost |= merged.lost
    return merged


async def dry_run_merge(service: Tokens, asked: Merge) -> tuple[Merged, Tokens]:
    """What `merge` would return, and a view of the tokens after it. Nothing changes.

    Raises:
        InputError: as `merge` does.
    """
    _check(service, asked)
    dry_run = DryRun(service, asked, await service.store.now())
    merged, _ = await dry_run.run([])
    shown = Tokens(service.store, service.caller, service.gateways, TokenReader(service.store.pool, dry_run))
    shown.lost |= merged.lost
    return merged, shown


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """A statement and its arguments."""

    statement: Statement
    arguments: tuple[Any, ...]


class DryRun:
    """Runs statements as if a merge had happened: in a transaction that performs it and is rolled back.

    Concurrent statements share a transaction, because the fields of one level are read concurrently.
    """

    def __init__(self, service: Tokens, asked: Merge, now: datetime) -> None:
        self._service = service
        self._asked = asked
        self._now = now
        self._coalescer = RequestCoalescer(service.store.pool, self._answers)

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run the statement and return its rows."""
        query = _Query(statement, arguments)
        return (await self._coalescer.load([query]))[query]

    async def _answers(self, queries: list[_Query]) -> dict[_Query, list[Row]]:
        _, answers = await self.run(queries)
        return answers

    async def run(self, queries: list[_Query]) -> tuple[Merged, dict[_Query, list[Row]]]:
        """The merge's result, and the rows of each statement after it."""

        async def attempt() -> tuple[Merged, dict[_Query, list[Row]]]:
            async with self._service.store.transaction(self._asked.users, exclusive=True, dry_run=True) as store:
                merged = await _merge(store, self._service.actor, self._asked, self._now)
                return merged, {each: await store.fetch(each.statement, *each.arguments) for each in queries}

        return await retry_on_conflict(attempt)


def _check(service: Tokens, asked: Merge) -> None:
    service.caller.authorize("Mutation.mergeUserGatewayTokens")
    if asked.from_user == asked.into_user:
        message = "A user cannot be merged into themselves. Name two different users."
        raise InputError([Problem(Code.INVALID, message, ("intoUserId",))])


async def _merge(store: TokenTransaction, actor: str, asked: Merge, now: datetime) -> Merged:
    from_user, into_user = asked.users
    if await store.erased([into_user]):
        raise InputError([erased_problem("intoUserId")])
    locked = sorted(await store.lock_of([from_user, into_user]), key=attrgetter("gateway"))
    moving = [token for token in locked if token.user_id == from_user]
    there = {token.gateway: token for token in locked if token.user_id == into_user}
    conflicts = [
        token
        for token in moving
        if token.gateway in there and not tokens.is_gone(token) and not tokens.is_gone(there[token.gateway])
    ]
    if conflicts and asked.on_conflict not in {KEEP_TARGET, KEEP_SOURCE}:
        winners = [there[token.gateway] for token in conflicts]
        return Merged(conflicts=conflicts, winners=winners, problems=tuple(map(_both_have_one, conflicts)))
    changes = Changes()
    result = Merged()
    both = [(user, token.gateway) for token in conflicts for user in asked.users]
    known = await store.identifiers(both) if both else {}
    for token in moving:
        target = there.get(token.gateway)
        if target is None:
            result.moved.append(changes.change(token, tokens.merged(token, into_user, now)))
            continue
        moves = not tokens.is_gone(token) and (tokens.is_gone(target) or asked.on_conflict == KEEP_SOURCE)
        winner, loser = (token, target) if moves else (target, token)
        changes.delete(loser, tokens.merged_away(loser, into_user, now))
        kept = changes.change(winner, tokens.merged(winner, into_user, now))
        if moves:
            result.moved.append(kept)
        if token in conflicts:
            result.conflicts.append(loser)
            result.lost[loser.id] = known.get((loser.user_id, loser.gateway), [])
            result.winners.append(kept)
    await store.lock_identifiers_of(from_user)
    # Reserve each customer id for its old user first: other programs may have inserted rows without a reservation.
    await store.reserve({(token.gateway, token.gateway_customer_id): token.user_id for token in moving})
    await store.depart(moving)
    await store.reassign_identifiers(from_user, into_user)
    await store.write(changes, actor)
    return result


def _both_have_one(token: Token) -> Problem:
    message = (
        f"Both users have a customer at {token.gateway}. Set `onConflict` to KEEP_TARGET or KEEP_SOURCE, or delete"
        " one of the tokens first."
    )
    return Problem(Code.ALREADY_EXISTS, message, ("fromUserId",))
