"""TokenStore: the tokens of the primary, as they are read and changed."""

import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from zlib import crc32

import asyncpg

from graphql_api.domain import deadline
from graphql_api.domain.claims import idempotency_key
from graphql_api.domain.token import Event, Token
from graphql_api.storage import statements as sql
from graphql_api.storage.bulkheads import Share, SharesByKey
from graphql_api.storage.changes import ConflictError, Lookups, TokenTransaction
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Row
from graphql_api.storage.feed import Feed
from graphql_api.storage.pool import ACQUIRE_TIMEOUT_SECONDS, ConnectionPool
from graphql_api.storage.reads import Pair, TokenReader, token_of, unzip
from graphql_api.storage.selects import joined_pairs

_LOCKS = 0x746F6B65  # the first key of our advisory locks: "toke" in ASCII
# So many locks share all users and customers: a batch of a thousand must not exhaust PostgreSQL's lock table.
_STRIPES = 1024
# Transactions of one user: more than two at a time would only wait for each other's locks, with a connection each.
_TURNS = partial(Share, 2, waiting=10, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=1.0)
_MAX_USERS_IN_TURN = 2
_MICROSECOND = timedelta(microseconds=1)
_MAX_LATE = timedelta(seconds=1)
_RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)


class TokenSnapshot(NamedTuple):
    """A token, if it is there, and the database's time."""

    token: Token | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A pending customer, and the deleted one that it replaces."""

    idempotency_key: str
    expires_at: datetime
    acquired: bool
    replaces: str | None


@dataclass(slots=True, eq=False)
class _Change:
    """A change of one token that waits to be written."""

    old: Token
    event: Event
    actor: str


@dataclass(slots=True, eq=False)
class ClaimRequest:
    """A request for the lease on creating a user's customer at a gateway."""

    user_id: str
    gateway: str
    lease_seconds: int


def _unnoted(_users: Sequence[str]) -> None:
    """Nobody wants to know."""


class TokenStore(TokenReader, Lookups):
    """Reads as everybody has them, changes of one token, claims, and transactions for the rest.

    `note` is told of whose tokens something was written, once it is there for everybody. Of at most about `max_facts`
    customers that nobody has, it is kept what gateways said.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        note: Callable[[Sequence[str]], None] = _unnoted,
        *,
        max_facts: int = 1_000_000,
    ) -> None:
        TokenReader.__init__(self, pool)
        Lookups.__init__(self, pool, self._hash_user)
        self.feed = Feed(pool)
        self._note = note
        self._max_facts = max_facts
        self._erasure_key = b""
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._turns = SharesByKey(_TURNS)
        self._snapshots = RequestCoalescer(pool, self._read_at)
        self._changes = RequestCoalescer(pool, self._change)
        self._claims = RequestCoalescer(pool, self._claim)

    async def read(self, token_id: str) -> TokenSnapshot:
        """A token as a change of it has to know it."""
        return self._alone(_snapshot((await self._run.fetch(sql.READ_BY_ID, token_id))[0]))

    async def read_at(self, user_id: str, gateway: str) -> TokenSnapshot:
        """A user's token at a gateway as a change of it has to know it."""
        pair = (user_id, gateway)
        found = await self._snapshots.load([pair])
        return self._alone(found[pair])

    def _alone(self, snapshot: TokenSnapshot) -> TokenSnapshot:
        """The same at a time that no other change by this process has, so that its line of history is its own."""
        late = self._latest - snapshot.now
        if timedelta(0) <= late < _MAX_LATE:
            snapshot = snapshot._replace(now=self._latest + _MICROSECOND)
        self._latest = snapshot.now
        return snapshot

    async def _read_at(self, pairs: list[Pair]) -> dict[Pair, TokenSnapshot]:
        rows = await self._run.fetch(sql.READ_BY_USERS_AND_GATEWAYS, *joined_pairs(pairs))
        return {(row[-2], row[-1]): _snapshot(row) for row in rows}

    async def token_id(self, gateway: str, customer: str) -> str | None:
        """The id of the token that has this customer now, or had it."""
        pair = (gateway, customer)
        found: Any = (await self.by_customers([pair], frozenset({"id"}))).get(pair)
        return None if found is None else found.id

    async def change(self, old: Token, event: Event, actor: str) -> Token:
        """Write a change that keeps the token's user and identifier, and its line of history, in one statement.

        Changes of other tokens that are written at the same time go with it. Outside of transactions.

        Raises:
            ConflictError: the token is no longer as it was read.
        """
        change, losses = _Change(old, event, actor), self.pool.losses
        try:
            is_made = change in await self._changes.load([change])
            # The statement's id would be in the lost answer; to ask for it before would cost every change a round trip.
            if not is_made and losses != self.pool.losses:
                is_made = await self._is_recorded(change)
        except asyncpg.LockNotAvailableError:
            is_made = False
        finally:
            self._note([old.user_id])
        if not is_made:
            raise ConflictError
        return event.token

    async def _is_recorded(self, change: _Change) -> bool:
        """Whether the history has this change, whose time no other change of the token has."""
        new, event = change.event.token, change.event
        if event.action is None:
            return False  # nothing is recorded of it, and to do it again does no harm
        rows = await self._run.fetch(sql.HISTORY, [new.id], new.version + 1, 1)
        written = (new.version, new.updated_at, event.action.value, event.reason, change.actor)
        return [(row["version"], row["at"], row["action"], row["reason"], row["actor"]) for row in rows] == [written]

    async def _change(self, changes: list[_Change]) -> dict[_Change, None]:
        objects = [sql.change_object(change.old, change.event, change.actor) for change in changes]
        rows = await self._run.fetch(sql.CHANGE, objects, [change.old.user_id for change in changes])
        return {changes[row["index"]]: None for row in rows}

    async def claim(self, user_id: str, gateway: str, lease_seconds: int) -> Claim | None:
        """Take the lease on this user's customer, if nobody holds it; None if there is nothing to create.

        Who asks at the same time is answered in one transaction, and one of them has the lease.

        Raises:
            ConflictError: a race was lost.
        """
        request = ClaimRequest(user_id, gateway, lease_seconds)
        return (await self._claims.load([request])).get(request)

    async def _claim(self, requestes: list[ClaimRequest]) -> dict[ClaimRequest, Claim]:
        first = {(request.user_id, request.gateway): request for request in reversed(requestes)}
        async with self.transaction((user_id for user_id, _ in first), exclusive=True) as store:
            seconds = [request.lease_seconds for request in first.values()]
            hashes = [self._hash(user_id) for user_id, _ in first]
            rows = await store.fetch(sql.CLAIM, *unzip(list(first)), seconds, hashes)
        found = {(row["user_id"], row["gateway"]): row for row in rows}
        return {
            request: Claim(
                self._idempotency_key(*pair, row["generation"]),
                row["expires_at"],
                row["acquired"] and request is first[pair],
                row["replaces"],
            )
            for request in requestes
            if (row := found.get(pair := (request.user_id, request.gateway))) is not None
        }

    async def release_claim(self, user_id: str, gateway: str, key: str) -> bool:
        """Give the claim with this key up, so that the next one has another key; False if it is no longer the key."""
        await self._load_erasure_key()
        rows = await self._run.fetch(sql.CLAIMED, user_id, gateway)
        if not rows or self._idempotency_key(user_id, gateway, rows[0][0]) != key:
            return False
        async with self.pool.transaction() as transaction:  # which is asked for if its answer is lost
            return bool(await transaction.fetch(sql.RELEASE_CLAIM, user_id, gateway, rows[0][0]))

    def _idempotency_key(self, user_id: str, gateway: str, generation: int) -> str:
        secret = hmac.digest(self._erasure_key, b"idempotency keys", hashlib.sha256)
        return idempotency_key(secret, user_id, gateway, generation)

    @asynccontextmanager
    async def transaction(
        self,
        users: Iterable[str],
        *,
        customers: Iterable[Pair] = (),
        exclusive: bool = False,
        dry_run: bool = False,
    ) -> AsyncGenerator[TokenTransaction]:
        """A transaction that begins with a lock on these users, and on these customers of gateways.

        Whoever creates or deletes shares the lock on users; who claims, merges or erases has it alone. Who gives a
        token a customer shares the lock on that; who keeps a report on one that no token has, has it alone: so no
        report is lost between the two. What the transaction writes is there for everybody at its end; after an
        exception, or in a dry run, it never was.

        Raises:
            ConflictError: a race was lost; nothing was written.
        """
        await self._load_erasure_key()  # before the transaction holds a connection
        users = list(users)
        lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        locked = {*users, *(f"{gateway}:{customer}" for gateway, customer in customers)}
        stripes = ",".join(map(str, sorted({crc32(name.encode()) % _STRIPES for name in locked})))
        first = f"select {lock}({_LOCKS}, stripe) from unnest('{{{stripes}}}'::int[]) as stripe"  # noqa: S608 - numbers
        try:
            async with AsyncExitStack() as stack:
                if len(users) <= _MAX_USERS_IN_TURN:
                    async with deadline.kept():
                        await stack.enter_async_context(self._turns.places(users))
                transaction = await stack.enter_async_context(self.pool.transaction(first, commits=not dry_run))
                yield TokenTransaction(transaction, self._hash_user, self._max_facts)
        except _RACES as error:
            raise ConflictError from error
        finally:
            if not dry_run:  # even after an error, since the transaction may have taken effect
                self._note(users)

    async def _load_erasure_key(self) -> None:
        if not self._erasure_key:
            self._erasure_key = bytes((await self._run.fetch(sql.ERASURE_KEY))[0][0])

    def _hash_user(self, user_id: str) -> bytes:
        return hmac.digest(self._erasure_key, user_id.encode(), hashlib.sha256)


def _snapshot(row: Row) -> TokenSnapshot:
    return TokenSnapshot(token_of(row) if row["id"] is not None else None, row["now"])
