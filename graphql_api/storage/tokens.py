"""TokenStore: reads and changes tokens on the primary."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter
from secrets import randbits
from time import monotonic, time
from typing import Any, Final, NamedTuple, TypeVar
from zlib import crc32

import asyncpg

from graphql_api.domain import deadline, place
from graphql_api.domain.claims import idempotency_key
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.domain.inputs import Save
from graphql_api.domain.token import Action, Event, Token
from graphql_api.storage import erasure_statements as erasure_sql
from graphql_api.storage import statements as sql
from graphql_api.storage.bulkheads import (
    ChangeIsLateError,
    ConflictError,
    Share,
    SharesByKey,
    SlowUserError,
    enter_to_change,
)
from graphql_api.storage.changes import Lookups, TokenTransaction
from graphql_api.storage.clock import DatabaseClock
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Row, Statement
from graphql_api.storage.connection_set import ACQUIRE_TIMEOUT_SECONDS
from graphql_api.storage.feed import Feed
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS, ConnectionPool
from graphql_api.storage.reads import Pair, TokenReader, token_of, unzip
from graphql_api.storage.saves import SAVE, SaveRequest, save_object
from graphql_api.storage.selects import joined_pairs

C = TypeVar("C")
V = TypeVar("V")

_LOCKS = 0x746F6B65  # the first key of the service's advisory locks: "toke" in ASCII
# All users and customers share this many locks: a batch of a thousand must not exhaust PostgreSQL's lock table.
_STRIPES = 1024
MAX_BULK_LOCKS: Final = 500
"""How many users and customers a transaction of a bulk command locks: less than half of the stripes."""
# Concurrent transactions of one user: more would only wait for each other's locks, with a connection each.
_TURNS = partial(Share, 2, waiting=10, seconds=ACQUIRE_TIMEOUT_SECONDS, moving_seconds=0.5)
# Concurrent calls that wait for locks of other transactions: they have given up their places, so only this limits
# them. While none of these ends, one call of each other user that was slow may run.
_SLOW_CALLS = partial(Share, 32, waiting=0, seconds=0.25, moving_seconds=0.25)
_SLOW_TURNS = partial(Share, 1, waiting=0, seconds=0.1, moving_seconds=0.1)
_MAX_USERS_IN_TURN = 2
_LOCK_PAUSE_SECONDS = 0.05
_RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    ChangeIsLateError,
)


class TokenSnapshot(NamedTuple):
    """A token, if it exists, the database's time, and whether a save of it is made."""

    token: Token | None
    now: datetime
    is_saved: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a customer, and the deleted customer that the new one replaces."""

    idempotency_key: str
    expires_at: datetime
    acquired: bool
    replaces: str | None


@dataclass(slots=True, eq=False)
class _Change:
    """A change of one token, to be written."""

    old: Token
    event: Event
    actor: str
    call_id: int


@dataclass(slots=True, eq=False)
class ClaimRequest:
    """A request for the lease on creating a user's customer at a gateway."""

    user_id: str
    gateway: str
    lease_seconds: int


def _for_quick_and_slow(
    pool: ConnectionPool, load: Callable[[list[C]], Awaitable[dict[C, V]]], owner: Callable[[C], str]
) -> tuple[RequestCoalescer[C, V], RequestCoalescer[C, V]]:
    """What makes the changes of users that are quick together, and those of users whose changes were late."""
    return (
        RequestCoalescer(pool, load, owner=owner, avoids=pool.changes.are_slow),
        RequestCoalescer(pool, load, owner=owner),
    )


def _unnoted(_users: Sequence[str]) -> None:
    """Do nothing: the default of `note`."""


class TokenStore(TokenReader, Lookups):
    """Reads, changes of single tokens, claims, and transactions for all other changes.

    `note` gets the ids of users whose tokens were written, after the commit. Facts are kept for at most about
    `max_facts` customers without a user.
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
        self._clock = DatabaseClock()
        self._turns = SharesByKey(_TURNS)
        self._slow_calls = _SLOW_CALLS()
        self._slow_turns = SharesByKey(_SLOW_TURNS)
        self._snapshots = RequestCoalescer(pool, self._read_at)
        self._saves = _for_quick_and_slow(pool, self._save, attrgetter("save.user_id"))
        self._changes = _for_quick_and_slow(pool, self._change, attrgetter("old.user_id"))
        self._claims = _for_quick_and_slow(pool, self._claim, attrgetter("user_id"))

    async def read(self, token_id: str) -> TokenSnapshot:
        """A token with what a change of it must know."""
        return _snapshot((await self._run.fetch(sql.READ_BY_ID, token_id))[0])

    async def read_at(self, user_id: str, gateway: str) -> TokenSnapshot:
        """A user's token at a gateway, with what a change of it must know."""
        pair = (user_id, gateway)
        return (await self._snapshots.load([pair]))[pair]

    async def _read_at(self, pairs: list[Pair]) -> dict[Pair, TokenSnapshot]:
        asked_at = time()
        rows = await self._run.fetch(sql.READ_BY_USERS_AND_GATEWAYS, *joined_pairs(pairs))
        self._clock.set(rows[0]["now"], asked_at)
        return {(row[-2], row[-1]): _snapshot(row) for row in rows}

    async def save(self, save: Save, actor: str) -> TokenSnapshot:
        """The same for a save, which is made if it changes only the description or the metadata.

        Concurrent saves share the statement. Not for use in transactions.

        Raises:
            ConflictError: another transaction has locked the token.
            UnavailableError: the answer was lost, and what was done is not known, or the token was deleted or its user
                erased since.
        """
        user_id, connections = save.user_id, self.pool.connections
        is_tried = save.can_change_text and not connections.is_read_only and not self.pool.changes.are_slow([user_id])
        at = self._clock.now() if is_tried else None
        if at is None:
            return await self.read_at(user_id, save.gateway)
        request, losses = SaveRequest(save, at, actor, _new_call_id()), connections.losses
        try:
            found = (await self._load_change(self._saves, request, user_id, losses)).get(
                request, TokenSnapshot(None, at)
            )
            if not found.is_saved and await self._was_made(user_id, request.call_id, losses):
                if found.token is None:
                    raise UnavailableError("The save was made, and its token was deleted since.")
                found = found._replace(is_saved=True)
        finally:
            self._note([user_id])
        return found

    async def _save(self, requests: list[SaveRequest]) -> dict[SaveRequest, TokenSnapshot]:
        asked_at, users = time(), [request.save.user_id for request in requests]
        rows = await self._fetch_change(SAVE, list(map(save_object, requests)), Action.UPDATED.value, users=users)
        if rows:
            self._clock.set(rows[0]["now"], asked_at)
        return {requests[row["index"]]: TokenSnapshot(token_of(row), row["now"], row["is_saved"]) for row in rows}

    async def token_id(self, gateway: str, customer: str) -> str | None:
        """The id of the token that has or had this customer."""
        pair = (gateway, customer)
        found: Any = (await self.by_customers([pair], frozenset({"id"}))).get(pair)
        return None if found is None else found.id

    async def change(self, old: Token, event: Event, actor: str) -> Token:
        """Write a change that keeps the token's user and customer id, and its history entry, in one statement.

        Concurrent changes of other tokens share the statement. Not for use in transactions.

        Raises:
            ConflictError: the token changed after it was read, or another transaction has locked it.
            UnavailableError: the answer was lost, and what was done is not known.
        """
        change, losses = _Change(old, event, actor, _new_call_id()), self.pool.connections.losses
        try:
            made = await self._load_change(self._changes, change, old.user_id, losses)
            if change in made:
                deadline.note_change()
            if change not in made and not await self._was_made(old.user_id, change.call_id, losses):
                raise ConflictError
        finally:
            self._note([old.user_id])
        return event.token

    async def _load_change(
        self, changes: tuple[RequestCoalescer[C, V], ...], change: C, user_id: str, losses: int
    ) -> dict[C, V]:
        """What was made of this change, when no lost connection is still making it.

        Args:
            changes: make it together with others, for quick users and for slow ones
            change: what is to be made
            user_id: whose token it changes
            losses: how many connections were lost before
        """
        until = monotonic() + RETRY_WINDOW_SECONDS
        while True:
            try:
                async with self._slow_turn([user_id]):
                    return await self._of(user_id, changes).load([change])
            except (asyncpg.LockNotAvailableError, SlowUserError):
                if losses == self.pool.connections.losses:
                    raise ConflictError from None
                if deadline.has_passed() or monotonic() > until:
                    raise deadline.exceeded_error() from None
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
            finally:
                if losses != self.pool.connections.losses:
                    deadline.note_change()

    async def _was_made(self, user_id: str, call_id: int, losses: int) -> bool:
        """Whether this call changed a token of this user, although the answer was lost.

        The transaction's id would be in the lost answer; asking for it first would cost a round trip per change.

        Raises:
            UnavailableError: that is not known, because the user was erased since.
        """
        if losses == self.pool.connections.losses:
            return False
        if await self._run.fetch(sql.RECORDED, user_id, call_id):
            return True
        await self._load_erasure_key()
        if await self._run.fetch(erasure_sql.ERASED, [self._hash_user(user_id)]):
            raise UnavailableError("The change may have been made, and its user was erased since.")
        return False

    async def _change(self, changes: list[_Change]) -> dict[_Change, None]:
        objects = [sql.change_object(change.old, change.event, change.actor, change.call_id) for change in changes]
        users = [change.old.user_id for change in changes]
        rows = await self._fetch_change(sql.CHANGE, objects, users, users=users)
        return {changes[row["index"]]: None for row in rows}

    async def _fetch_change(self, statement: Statement, *arguments: Any, users: list[str]) -> list[Row]:
        try:
            return await self.pool.fetch(statement, *arguments, users=users)
        except asyncpg.LockNotAvailableError:
            if len(set(users)) == 1:
                self.pool.changes.note(users, is_slow=True)
            raise

    async def claim(self, user_id: str, gateway: str, lease_seconds: int) -> Claim | None:
        """Take the lease on this user's customer, if it is free; None if there is nothing to create.

        Concurrent requests for it share one transaction, and one of them gets the lease.

        Raises:
            ConflictError: a race was lost.
        """
        request = ClaimRequest(user_id, gateway, lease_seconds)
        async with self._slow_turn([user_id]):
            return (await self._of(user_id, self._claims).load([request])).get(request)

    def _slow_turn(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """A place among the calls that wait for locks on these users or customers, if the last one waited.

        Raises:
            UnchangedError: too many wait, and none of them ended for a while.
        """
        slow = [key for key in keys if self.pool.changes.are_slow([key])]
        return self._wait_for_turn(slow) if slow else nullcontext()

    @asynccontextmanager
    async def _wait_for_turn(self, slow: Collection[str]) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            place.give_up()
            try:
                await enter_to_change(stack, self._slow_calls)
            except UnchangedError:  # those who hold the places seem to be stuck, but perhaps not for these users
                await enter_to_change(stack, self._slow_turns.places(slow))
            yield

    def _of(self, user_id: str, coalescers: tuple[C, ...]) -> C:
        """The second one for users whose changes were late: they hold up only each other's."""
        return coalescers[self.pool.changes.are_slow([user_id])]

    async def _claim(self, requests: list[ClaimRequest]) -> dict[ClaimRequest, Claim]:
        first = {(request.user_id, request.gateway): request for request in reversed(requests)}
        async with self.transaction((user_id for user_id, _ in first), exclusive=True, claims=True) as store:
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
            for request in requests
            if (row := found.get(pair := (request.user_id, request.gateway))) is not None
        }

    async def release_claim(self, user_id: str, gateway: str, key: str) -> bool:
        """Release the claim with this key, so that the next claim has another; False if the claim has another key.

        Raises:
            ConflictError: it was late; nothing was released.
        """
        await self._load_erasure_key()
        rows = await self._run.fetch(sql.CLAIMED, user_id, gateway)
        if not rows or self._idempotency_key(user_id, gateway, rows[0][0]) != key:
            return False
        keys = [user_id]
        try:
            async with (
                self._slow_turn(keys),
                # A transaction is asked for if its answer is lost.
                self.pool.transaction(keys=keys, records=False, repeats=True) as transaction,
            ):
                return bool(await transaction.fetch(sql.RELEASE_CLAIM, user_id, gateway, rows[0][0]))
        except _RACES as error:
            raise ConflictError from error

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
        claims: bool = False,
        before: Callable[[TokenTransaction], Awaitable[None]] | None = None,
        dry_run: bool = False,
    ) -> AsyncGenerator[TokenTransaction]:
        """A transaction that begins with a lock on these users, and on these customers of gateways.

        `before` does what needs no lock, so that it is held for a shorter time.

        Creating and deleting share the lock on users; claiming, merging and erasing take it exclusively. Giving a token
        a customer shares the lock on the customer; storing a report on a customer without a token takes it exclusively,
        so that no report is lost in between. The transaction commits at its end, unless there is an exception or it is
        a dry run. If it `claims`, it does nothing else, and several may share it.

        Raises:
            ConflictError: a race was lost, or it was late; nothing was written.
        """
        await self._load_erasure_key()  # before the transaction holds a connection
        users = list(users)
        lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        locked = {*users, *(f"{gateway}:{customer}" for gateway, customer in customers)}
        stripes = ",".join(map(str, sorted({crc32(name.encode()) % _STRIPES for name in locked})))
        take = f"select {lock}({_LOCKS}, stripe) from unnest('{{{stripes}}}'::int[]) as stripe"  # noqa: S608 - numbers
        first = take if before is None else ""
        are_few = len(users) <= _MAX_USERS_IN_TURN
        suspects = locked if are_few else {f"together: {hash(stripes)}"}  # one locked user delays all
        try:
            async with AsyncExitStack() as stack:
                if not claims:  # which share transactions; each call has a place of its own
                    await stack.enter_async_context(self._slow_turn(locked | suspects))
                    if before is None and are_few:
                        await enter_to_change(stack, self._turns.places(users))
                is_shared = claims and len(users) > 1  # then each claims again alone, which shows who is slow
                opening = self.pool.transaction(
                    first,
                    commits=not dry_run,
                    keys=() if is_shared else locked | suspects,
                    suspects=() if is_shared else suspects,
                    records=not claims,
                    repeats=bool(locked),
                )
                opened = await stack.enter_async_context(opening)
                transaction = TokenTransaction(opened, self._hash_user, self._max_facts)
                if before is not None:
                    await before(transaction)
                    await transaction.execute(take)
                yield transaction
        except _RACES as error:
            raise ConflictError from error
        except asyncpg.InternalServerError as error:  # so Citus reports a constraint that rows of another node break
            if "duplicate key" not in str(error):
                raise
            raise ConflictError from error
        finally:
            if not dry_run:  # even after an error, since the transaction may have taken effect
                self._note(users)

    async def _load_erasure_key(self) -> None:
        if not self._erasure_key:
            self._erasure_key = bytes((await self._run.fetch(erasure_sql.ERASURE_KEY))[0][0])

    def _hash_user(self, user_id: str) -> bytes:
        return hmac.digest(self._erasure_key, user_id.encode(), hashlib.sha256)


def _new_call_id() -> int:
    """A number that no other call has, in this process or another."""
    return randbits(63)


def _snapshot(row: Row) -> TokenSnapshot:
    return TokenSnapshot(token_of(row) if row["id"] is not None else None, row["now"])
