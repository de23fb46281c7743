"""The reads, locks and writes of a transaction that changes tokens, customer ids, history and erasures."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from random import random
from typing import Any, NamedTuple

from graphql_api.domain.facts import NO_FACTS, Facts
from graphql_api.domain.token import Changes, Token
from graphql_api.storage import erasure_statements as erasure_sql
from graphql_api.storage import statements as sql
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.connection import Row, Runner, Statement
from graphql_api.storage.connector import RawConnection
from graphql_api.storage.reads import Pair, identifiers, token_of, unzip
from graphql_api.storage.transaction import Transaction

_COUNT_EVERY = 1000  # of the facts that may be kept about customers without a user


class Customers(NamedTuple):
    """By (gateway, gateway customer id): its user, and the facts about it that no token holds."""

    owners: dict[Pair, str]
    facts: dict[Pair, Facts]


class Lookups:
    """What a change reads besides tokens, in a transaction or outside one."""

    def __init__(self, runner: Runner, hash_user: Callable[[str], bytes]) -> None:
        self._run = runner
        self._hash = hash_user

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run a statement."""
        return await self._run.fetch(statement, *arguments)

    async def now(self) -> datetime:
        """The database's time."""
        return (await self._run.fetch(sql.NOW))[0][0]

    async def customers(self, pairs: Iterable[Pair]) -> Customers:
        """The user of each of these customer ids, and its facts."""
        owners: dict[Pair, str] = {}
        facts: dict[Pair, Facts] = {}
        for gateway, customer, user_id, *times in await self._run.fetch(sql.CUSTOMERS, *unzip(list(pairs))):
            if user_id is None:
                facts[gateway, customer] = Facts(*times).joined(facts.get((gateway, customer), NO_FACTS))
            else:
                owners[gateway, customer] = user_id
        return Customers(owners, facts)

    async def remember_facts(self, facts: Mapping[Pair, Facts]) -> None:
        """Store the facts about these customers, by (gateway, gateway customer id)."""
        times = [list(column) for column in zip(*facts.values(), strict=True)]
        await self._run.fetch(sql.REMEMBER_FACTS, *unzip(list(facts)), *times)

    async def deleted(self, token_id: str) -> tuple[bool, str | None]:
        """Whether a deleted token has a history, and its user unless they were erased."""
        rows = await self._run.fetch(sql.LAST_LINE, token_id)
        return (True, rows[0]["user_id"]) if rows else (False, None)

    async def erased(self, user_ids: Iterable[str]) -> set[str]:
        """Which of these users were erased."""
        hashes = {self._hash(user_id): user_id for user_id in user_ids}
        return {hashes[row[0]] for row in await self._run.fetch(erasure_sql.ERASED, list(hashes))}

    async def erasures(self, gateway: str | None, *, size: int, after: tuple[datetime, str, str] | None) -> list[Row]:
        """Customers that are still to be deleted at their gateways, oldest first, after this cursor."""
        return await self._run.fetch(erasure_sql.ERASURES, gateway, *(after or (None, None, None)), size)

    async def erasures_precede(self, gateway: str | None, cursor: tuple[datetime, str, str]) -> bool:
        """Whether there is a page before the one after this cursor."""
        return (await self._run.fetch(erasure_sql.ERASURES_PRECEDE, gateway, *cursor))[0][0]

    async def count_erasures(self, gateway: str) -> int:
        """How many customers are still to be deleted at this gateway."""
        return (await self._run.fetch(erasure_sql.COUNT_ERASURES, gateway))[0][0]

    async def erasures_like(self, gateway: str, customers: Collection[str]) -> set[str]:
        """Which customers are still to be deleted at this gateway that have these ids, in upper or lower case."""
        ids = list(customers)
        rows = await self._run.fetch(erasure_sql.ERASURES_LIKE, gateway, ids, [customer.lower() for customer in ids])
        return {row[0] for row in rows}

    async def is_to_erase(self, gateway: str, customer: str) -> bool:
        """Whether this customer is still to be deleted at its gateway, and was not saved since."""
        return bool(await self._run.fetch(erasure_sql.IS_TO_ERASE, gateway, customer))


class TokenTransaction(Lookups):
    """Changes that take effect together or not at all."""

    def __init__(self, transaction: Transaction, hash_user: Callable[[str], bytes], max_facts: int) -> None:
        super().__init__(transaction, hash_user)
        self._transaction = transaction
        self._max_facts = max_facts

    @property
    def raw(self) -> RawConnection:
        """The driver's connection, for COPY."""
        return self._transaction.raw

    async def execute(self, sql: str, distributed: str = "") -> None:
        """Run SQL that has no arguments, or `distributed` in its place if the tables are distributed."""
        await self._transaction.execute(sql, distributed)

    async def now(self) -> datetime:
        """The database's time; in a transaction that will commit, the time of its start."""
        return self._transaction.began or await super().now()

    async def lock_customers(self, customers: Sequence[Pair]) -> set[Pair]:
        """Which (gateway, gateway customer id) a token has now. Their users cannot be erased meanwhile."""
        await self._run.fetch(sql.SHARE_IDENTIFIERS, *unzip(customers))
        return {tuple(row) for row in await self._run.fetch(sql.CURRENT, *unzip(customers))}

    async def lock_at(self, pairs: Iterable[Pair]) -> dict[Pair, Token]:
        """Lock and return tokens by (user id, gateway)."""
        rows = await self._run.fetch(sql.LOCK_BY_USERS_AND_GATEWAYS, *unzip(list(pairs)))
        return {(row["user_id"], row["gateway"]): token_of(row) for row in rows}

    async def identifiers(self, pairs: Sequence[Pair]) -> dict[Pair, list[str]]:
        """By (user id, gateway): the user's current and former customer ids there, oldest first."""
        return await identifiers(self._run, pairs)

    async def lock_of(self, user_ids: Sequence[str]) -> list[Token]:
        """Lock and return all tokens of these users."""
        return [token_of(row) for row in await self._run.fetch(sql.LOCK_OF_USERS, user_ids)]

    async def write(self, changes: Changes, actor: str) -> None:
        """Write these changes.

        Raises:
            ConflictError: an identifier, or the place of a token, was taken meanwhile.
        """
        changed = [token for token in changes.changed.values() if token.id not in changes.moved]
        moved = [token for token in changes.changed.values() if token.id in changes.moved]
        created = [*changes.created.values(), *moved]
        facts = changes.uncarried_facts()
        if changes.identifiers:
            await self.reserve(changes.identifiers)
        if gone := [*changes.deleted, *moved]:  # first, because others may take their places
            await self._run.fetch(sql.DELETE, [token.id for token in gone])
        if changes.deleted:
            await self.depart(changes.deleted)
        if changed:
            await self._run.fetch(sql.UPDATE, *sql.token_arrays(changed, changes.arrived))
        if created:
            await self._run.fetch(sql.INSERT, *sql.token_arrays(created, changes.arrived))
        if facts:
            await self.remember_facts(facts)
        if changes.events:
            await self._run.fetch(sql.RECORD, *sql.event_arrays(changes.events), actor)

    async def reserve(self, identifiers: Mapping[Pair, str]) -> None:
        """Reserve each (gateway, gateway customer id) for its user, in sorted order so that batches do not deadlock.

        Raises:
            ConflictError: one of them is another user's.
        """
        rows = await self._run.fetch(sql.RESERVE, *unzip(list(identifiers)), list(identifiers.values()))
        if len(rows) != len(identifiers):
            raise ConflictError

    async def depart(self, tokens: Sequence[Token]) -> None:
        """Record that these users had these tokens, so that an erasure finds their history."""
        await self._run.fetch(sql.DEPART, [token.user_id for token in tokens], [token.id for token in tokens])

    async def lock_identifiers_of(self, user_id: str) -> None:
        """Lock all current and former customer ids of this user, in the order in which others lock them."""
        await self._run.fetch(sql.LOCK_IDENTIFIERS_OF, user_id)

    async def reassign_identifiers(self, from_user: str, into_user: str) -> None:
        """Give all current and former customer ids of one user, and their departed tokens, to the other."""
        await self._run.fetch(sql.REASSIGN_IDENTIFIERS, from_user, into_user)

    async def delete_expired_facts(self, added: int) -> None:
        """Delete some of the expired or surplus facts about customers without a user, after this number was added.

        How many there are is counted once in a while, so that there may be a thousandth more.
        """
        await self._run.fetch(sql.FORGET_EXPIRED_FACTS, 10 * added)
        if random() * self._max_facts < _COUNT_EVERY * added:  # noqa: S311 - not to be counted each time
            await self._run.fetch(sql.FORGET_SURPLUS_FACTS, self._max_facts)

    async def remove(self, tokens: Sequence[Token]) -> None:
        """Delete these tokens, and record that their users had them."""
        await self._run.fetch(sql.DELETE, [token.id for token in tokens])
        await self.depart(tokens)

    async def reassign(self, identifiers: Mapping[Pair, str]) -> None:
        """Move each (gateway, gateway customer id) to this user, whichever user has it."""
        await self._run.fetch(sql.REASSIGN, *unzip(list(identifiers)), list(identifiers.values()))

    async def erase(self, user_id: str) -> list[Pair]:
        """Remove a user from every table but the tokens, which were deleted before. Keep a keyed hash of their id.

        Answers every (gateway, gateway customer id) of theirs that is still to be deleted at its gateway.
        """
        user_hash = self._hash(user_id)
        await self.lock_identifiers_of(user_id)
        identifiers = await self._run.fetch(sql.IDENTIFIERS_OF, user_id)
        rows = await self._run.fetch(erasure_sql.FORGET_DEPARTED, user_id)
        token_ids = [row["token_id"] for row in rows]
        await self._run.fetch(erasure_sql.ERASE_HISTORY, token_ids, user_id)
        await self._run.fetch(erasure_sql.FORGET_NAMELESS, token_ids)
        await self._run.fetch(erasure_sql.ADD_ERASURES, *unzip([tuple(row) for row in identifiers]), user_hash)
        await self._run.fetch(sql.FORGET_FACTS, user_id)
        await self._run.fetch(erasure_sql.FORGET_IDENTIFIERS, user_id)
        await self._run.fetch(erasure_sql.FORGET_CLAIMS, user_id)
        await self._run.fetch(erasure_sql.REMEMBER_ERASURE, user_hash)
        return [tuple(row) for row in await self._run.fetch(erasure_sql.ERASURES_OF, user_hash)]

    async def confirm_erasures(self, customers: Sequence[Pair]) -> int:
        """Remove customers from the list of those to delete at their gateways. Returns how many were on it."""
        return len(await self._run.fetch(erasure_sql.CONFIRM_ERASURES, *unzip(customers)))

    async def lift_erasure(self, user_id: str) -> None:
        """Allow tokens of this user to be saved again."""
        await self._run.fetch(erasure_sql.LIFT_ERASURE, self._hash(user_id))
