"""TokenStore: every statement of the service, one method each. Reads answer by key, writes say what came between."""

import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar, cast
from zlib import crc32

import asyncpg

from graphql_api.domain.token import Changes, Event, Token
from graphql_api.storage import selects
from graphql_api.storage import statements as sql
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Connection, Row, Runner, Statement
from graphql_api.storage.connector import RawConnection
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.selects import JsonField

Pair = tuple[str, str]
Columns = frozenset[str] | None
C = TypeVar("C")
K = TypeVar("K")
V = TypeVar("V")

_LOCKS = 0x746F6B65  # the first key of our advisory locks: "toke" in ASCII
_STRIPES = 1024  # so many locks share all users: a batch of a thousand users must not exhaust PostgreSQL's lock table

# So many keys of one request, and not more, are read together with those of other requests. Those whose rows become
# JSON in PostgreSQL leave the service little to do.
_MAX_COALESCED, _MAX_COALESCED_AS_JSON = 8, 50
_MAX_COALESCERS = 100  # sets of columns, each of which is read on its own
_gateway = attrgetter("gateway")
_in_order = itemgetter(*Token._fields)


class ConflictError(Exception):
    """Somebody else's change came between: read again and decide again."""


@dataclass(frozen=True, slots=True)
class Page:
    """Tokens in their order, and whether there are more on the far side of the direction that was read."""

    tokens: list[Token]
    has_more: bool


class TokenSnapshot(NamedTuple):
    """A token, if it is there, and the database's time."""

    token: Token | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A pending first customer: its generation is never used twice."""

    generation: int
    expires_at: datetime
    acquired: bool


@dataclass(slots=True, eq=False)
class _Change:
    """A change of one token that waits to be written."""

    old: Token
    event: Event
    actor: str


@dataclass(slots=True, eq=False)
class ClaimRequest:
    """To create a user's first customer at a gateway, within so many seconds."""

    user_id: str
    gateway: str
    lease_seconds: int


def _unnoted(_users: Sequence[str]) -> None:
    """Nobody wants to know."""


class TokenStore:
    """Tokens, identifiers, history, claims and erasures: what is stored, whoever asks.

    `note` is told of whose tokens something was written, once it is there for everybody.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        note: Callable[[Sequence[str]], None] = _unnoted,
    ) -> None:
        self.pool = pool
        self._note = note
        self._run: Runner = pool
        self._erasure_key = b""
        self._ids: dict[Columns, RequestCoalescer[str, Token]] = {}
        self._pairs: dict[Columns, RequestCoalescer[Pair, Token]] = {}
        self._users: dict[Columns, RequestCoalescer[str, list[Token]]] = {}
        self._json: dict[tuple[JsonField, ...], RequestCoalescer[str, str]] = {}
        self._customers: dict[Columns, RequestCoalescer[Pair, Token]] = {}
        self._snapshots = RequestCoalescer(pool, self._read_at)
        self._changes = RequestCoalescer(pool, self._change)
        self._claims = RequestCoalescer(pool, self._claim)

    def bind(self, runner: Runner) -> "TokenStore":
        """This store with something else to run its statements; `change` and `claim` go to the database itself."""
        store = copy(self)
        store._run = runner  # noqa: SLF001 - it is one of us
        return store

    async def fetch(self, statement: Statement, *arguments: Any) -> list[Row]:
        """Run a statement of this store."""
        return await self._run.fetch(statement, *arguments)

    @property
    def raw(self) -> RawConnection:
        """The driver's connection of this store's transaction, for COPY."""
        return cast("Connection", self._run).raw

    # --- reads

    # Only for callers who may read every user's tokens: with `coalesce`, few keys share a statement with those of other
    # requests, and the answer may hold what others asked for.

    def by_ids(
        self, ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, Token]]:
        """Tokens by id; what is not there is left out."""
        return self._found(self._ids, columns, self._by_ids, ids, coalesce=coalesce)

    async def _by_ids(self, columns: Columns, ids: Sequence[str]) -> dict[str, Token]:
        rows = await self._run.fetch(selects.by_ids(columns), ids)
        return {row.id: row for row in _tokens(rows)}

    def by_users_and_gateways(
        self, pairs: Sequence[Pair], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[Pair, Token]]:
        """Tokens by (user id, gateway)."""
        return self._found(self._pairs, columns, self._by_users_and_gateways, pairs, coalesce=coalesce)

    async def _by_users_and_gateways(self, columns: Columns, pairs: Sequence[Pair]) -> dict[Pair, Token]:
        rows = await self._run.fetch(selects.by_users_and_gateways(columns), *_unzip(pairs))
        return {(row.user_id, row.gateway): row for row in _tokens(rows)}

    async def by_customers(
        self, pairs: Sequence[Pair], columns: Columns = None, *, owner: str | None = None
    ) -> dict[Pair, Token]:
        """Tokens by (gateway, gateway customer id), the current one or a former one.

        A single current identifier has a statement of its own, since that is what webhook handlers ask all day. It
        finds only the owner's token where one is named: then a token that is not theirs takes the same way, and as
        long, as one that is not there. Without an owner it coalesces.
        """
        if len(pairs) == 1:
            if owner is None:
                found = await self._found(self._customers, columns, self._by_current_customers, pairs, coalesce=True)
            else:
                found = await self._by_current_customers(columns, pairs, owner)
            if pairs[0] in found:
                return {pairs[0]: found[pairs[0]]}
        gateways, customers = _unzip(pairs)
        rows = await self._run.fetch(selects.by_customers(columns), customers, gateways)
        return {(row[1], row[0]): cast("Token", row) for row in rows}

    async def _by_current_customers(
        self, columns: Columns, pairs: Sequence[Pair], owner: str | None = None
    ) -> dict[Pair, Token]:
        gateways, customers = _unzip(pairs)
        rows = await self._run.fetch(selects.by_current_customers(columns), customers, gateways, owner)
        return {(row.gateway, row.gateway_customer_id): row for row in _tokens(rows)}

    def of_users(
        self, user_ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, list[Token]]]:
        """Every token of these users, each user's by gateway; users without one are left out."""
        return self._found(self._users, columns, self._of_users, user_ids, coalesce=coalesce)

    async def _of_users(self, columns: Columns, user_ids: Sequence[str]) -> dict[str, list[Token]]:
        found: dict[str, list[Token]] = {}
        for row in _tokens(await self._run.fetch(selects.of_users(columns), *selects.joined(user_ids))):
            found.setdefault(row.user_id, []).append(row)
        for tokens in found.values():
            if len(tokens) > 1:
                tokens.sort(key=_gateway)
        return found

    def of_users_as_json(
        self, user_ids: Sequence[str], fields: tuple[JsonField, ...], *, coalesce: bool = False
    ) -> Awaitable[dict[str, str]]:
        """The same as JSON text that PostgreSQL writes: for each user a list of objects with these fields."""
        return self._found(
            self._json, fields, self._of_users_as_json, user_ids, coalesce=coalesce, max_keys=_MAX_COALESCED_AS_JSON
        )

    async def _of_users_as_json(self, fields: tuple[JsonField, ...], user_ids: Sequence[str]) -> dict[str, str]:
        rows: Any = await self._run.fetch(selects.of_users_as_json(fields), *selects.joined(user_ids))
        return dict(rows)

    def _found(
        self,
        known: dict[C, RequestCoalescer[K, V]],
        wanted: C,
        load: Callable[[C, Sequence[K]], Awaitable[dict[K, V]]],
        keys: Sequence[K],
        *,
        coalesce: bool,
        max_keys: int = _MAX_COALESCED,
    ) -> Awaitable[dict[K, V]]:
        """What is wanted of these keys, with those of others who want the same where that is allowed and pays."""
        if not coalesce or len(keys) > max_keys or self._run is not self.pool:
            return load(wanted, keys)
        coalescer = known.get(wanted)
        if coalescer is None:
            if len(known) >= _MAX_COALESCERS:
                known.clear()
            coalescer = known[wanted] = RequestCoalescer(self.pool, partial(load, wanted))
        return coalescer.load(keys)

    async def page(
        self,
        filters: Mapping[str, Any],
        *,
        size: int,
        after: tuple[datetime, str] | None = None,
        before: tuple[datetime, str] | None = None,
        backwards: bool = False,
    ) -> Page:
        """The first tokens between the cursors, or where read backwards the last ones; always in ascending order."""
        statement = selects.page(
            frozenset(filters), after=after is not None, before=before is not None, backwards=backwards
        )
        values = [filters[name] for name in sorted(filters)]
        rows = await self._run.fetch(statement, *values, *(after or ()), *(before or ()), size + 1)
        tokens = list(_tokens(rows[:size]))
        return Page(tokens[::-1] if backwards else tokens, len(rows) > size)

    async def count(self, filters: Mapping[str, Any]) -> int:
        """How many tokens there are."""
        rows = await self._run.fetch(selects.count(frozenset(filters)), *(filters[name] for name in sorted(filters)))
        return rows[0][0]

    async def former_ids(self, tokens: Sequence[Token]) -> dict[Pair, list[str]]:
        """By (user id, gateway), what the user was called at the gateway before, oldest first."""
        current = {(token.user_id, token.gateway): token.gateway_customer_id for token in tokens}
        found: dict[Pair, list[str]] = {}
        for user_id, gateway, customer in await self._run.fetch(sql.IDENTIFIERS, *_unzip(list(current))):
            if customer != current[user_id, gateway]:
                found.setdefault((user_id, gateway), []).append(customer)
        return found

    async def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> dict[str, list[Row]]:
        """By token id, at most `size` lines of history older than this version, newest first."""
        found: dict[str, list[Row]] = {}
        for row in await self._run.fetch(sql.HISTORY, token_ids, before, size):
            found.setdefault(row["token_id"], []).append(row)
        return found

    async def owners(self, pairs: Sequence[Pair]) -> dict[Pair, str]:
        """By (gateway, gateway customer id), the user whose identifier it is, was, or is reserved for."""
        rows = await self._run.fetch(sql.OWNERS, *_unzip(pairs))
        return {(row["gateway"], row["gateway_customer_id"]): row["user_id"] for row in rows}

    async def identifiers_of(self, user_id: str) -> list[Pair]:
        """Every (gateway, gateway customer id) that the user has or had."""
        rows = await self._run.fetch(sql.IDENTIFIERS_OF, user_id)
        return [(row["gateway"], row["gateway_customer_id"]) for row in rows]

    async def deleted(self, token_id: str) -> tuple[bool, str | None]:
        """Whether a token that is not there left a line of history, and whose it was unless they were erased."""
        rows = await self._run.fetch(sql.LAST_LINE, token_id)
        return (True, rows[0]["user_id"]) if rows else (False, None)

    # --- a change of one token

    async def read(self, token_id: str) -> TokenSnapshot:
        """A token as a change of it has to know it."""
        return _snapshot((await self._run.fetch(sql.READ_BY_ID, token_id))[0])

    async def read_at(self, user_id: str, gateway: str) -> TokenSnapshot:
        """A user's token at a gateway as a change of it has to know it."""
        pair = (user_id, gateway)
        found = await (self._snapshots.load([pair]) if self._run is self.pool else self._read_at([pair]))
        return found[pair]

    async def _read_at(self, pairs: list[Pair]) -> dict[Pair, TokenSnapshot]:
        rows = await self._run.fetch(sql.READ_BY_USERS_AND_GATEWAYS, *_unzip(pairs))
        return {(row[-2], row[-1]): _snapshot(row) for row in rows}

    async def change(self, old: Token, event: Event, actor: str) -> Token:
        """Write a change that keeps the token's user and identifier, and its line of history, in one statement.

        Changes of other tokens that are written at the same time go with it. Outside of transactions.

        Raises:
            ConflictError: the token is no longer as it was read.
        """
        change, losses = _Change(old, event, actor), self.pool.losses
        is_made = change in await self._changes.load([change])
        # Where a connection was lost, so may only be the answer to this change, which was made.
        if not is_made and losses != self.pool.losses:
            is_made = (await self.read(old.id)).token == event.token
        if not is_made:
            raise ConflictError
        self._note([old.user_id])
        return event.token

    async def _change(self, changes: list[_Change]) -> dict[_Change, None]:
        objects = [sql.change_object(change.old, change.event, change.actor) for change in changes]
        rows = await self._run.fetch(sql.CHANGE, objects)
        return {changes[row["index"]]: None for row in rows}

    async def move_deactivation(self, old: Token, new: Token) -> None:
        """Remember an earlier deactivation of an inactive token, which is no change of it.

        Raises:
            ConflictError: the token is no longer as it was read.
        """
        arguments = (new.deactivated_at, new.deactivation_reason, old.id, old.version, old.deactivated_at)
        if not await self._run.fetch(sql.MOVE_DEACTIVATION, *arguments):
            raise ConflictError
        self._note([old.user_id])

    async def claim(self, user_id: str, gateway: str, lease_seconds: int) -> Claim | None:
        """Take the lease on this user's first customer, where nobody holds it; None where there is nothing to create.

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
            rows = await store.fetch(sql.CLAIM, *_unzip(list(first)), seconds, hashes)
        found = {(row["user_id"], row["gateway"]): row for row in rows}
        return {
            request: Claim(row["generation"], row["expires_at"], row["acquired"] and request is first[pair])
            for request in requestes
            if (row := found.get(pair := (request.user_id, request.gateway))) is not None
        }

    # --- changes of many, in a transaction

    @asynccontextmanager
    async def transaction(
        self, users: Iterable[str], *, exclusive: bool = False, dry_run: bool = False
    ) -> AsyncGenerator["TokenStore"]:
        """This store in a transaction that begins with a lock on these users.

        Whoever creates or deletes shares the lock; who claims, merges or erases has it alone. What the transaction
        writes is there for everybody at its end; after an exception, or where it runs dry, it never was.

        Raises:
            ConflictError: a race was lost; nothing was written.
        """
        await self._load_erasure_key()  # before the transaction holds a connection
        users = list(users)
        lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        stripes = ",".join(map(str, sorted({crc32(user.encode()) % _STRIPES for user in users})))
        first = f"select {lock}({_LOCKS}, stripe) from unnest('{{{stripes}}}'::int[]) as stripe"  # noqa: S608 - numbers
        try:
            async with self.pool.transaction(first, commits=not dry_run) as transaction:
                yield self.bind(transaction)
        except _RACES as error:
            raise ConflictError from error
        if not dry_run:
            self._note(users)

    async def now(self) -> datetime:
        """The database's time."""
        return (await self._run.fetch(sql.NOW))[0][0]

    async def lock_at(self, pairs: Iterable[Pair]) -> dict[Pair, Token]:
        """Tokens by (user id, gateway), which nobody else changes before the transaction ends."""
        rows = await self._run.fetch(sql.LOCK_BY_USERS_AND_GATEWAYS, *_unzip(list(pairs)))
        return {(row["user_id"], row["gateway"]): _token(row) for row in rows}

    async def lock_of(self, user_ids: Sequence[str]) -> list[Token]:
        """All tokens of these users, which nobody else changes before the transaction ends."""
        return [_token(row) for row in await self._run.fetch(sql.LOCK_OF_USERS, user_ids)]

    async def write(self, changes: Changes, actor: str) -> None:
        """Write these changes.

        Raises:
            ConflictError: an identifier, or the place of a token, was taken meanwhile.
        """
        created, changed, deleted = changes.created.values(), changes.changed.values(), changes.deleted
        if changes.identifiers:
            await self.reserve(changes.identifiers)
        if deleted:  # first, since a token that is kept may take the place of one that goes
            await self._run.fetch(sql.DELETE, [token.id for token in deleted])
            await self.depart(deleted)
        if changed:
            await self._run.fetch(sql.UPDATE, *sql.token_arrays(list(changed)))
        if created:
            await self._run.fetch(sql.INSERT, *sql.token_arrays(list(created)))
            await self.end_claims(created)
        if changes.events:
            await self._run.fetch(sql.RECORD, *sql.event_arrays(changes.events), actor)

    async def reserve(self, identifiers: Mapping[Pair, str]) -> None:
        """Write down whose each (gateway, gateway customer id) is, in one order for all: batches wait in no circle.

        Raises:
            ConflictError: one of them is another user's.
        """
        rows = await self._run.fetch(sql.RESERVE, *_unzip(list(identifiers)), list(identifiers.values()))
        if len(rows) != len(identifiers):
            raise ConflictError

    async def depart(self, tokens: Sequence[Token]) -> None:
        """Remember that these users had these tokens, for the day when they are erased."""
        await self._run.fetch(sql.DEPART, [token.user_id for token in tokens], [token.id for token in tokens])

    async def reassign_identifiers(self, from_user: str, into_user: str) -> None:
        """All that one user was ever called at gateways is the other's from now on, and so are tokens that are gone."""
        await self._run.fetch(sql.REASSIGN_IDENTIFIERS, from_user, into_user)

    async def end_claims(self, tokens: Iterable[Token]) -> None:
        """These customers are there: nobody waits for them any longer."""
        await self._run.fetch(sql.END_CLAIMS, *_unzip([(token.user_id, token.gateway) for token in tokens]))

    async def erased(self, user_ids: Iterable[str]) -> set[str]:
        """Which of these users were erased."""
        hashes = {self._hash(user_id): user_id for user_id in user_ids}
        return {hashes[row[0]] for row in await self._run.fetch(sql.ERASED, list(hashes))}

    async def erase(self, user_id: str) -> None:
        """Take a user out of everything but the tokens, which are deleted before; keep a hash of who it was."""
        rows = await self._run.fetch(sql.FORGET_DEPARTED, user_id)
        token_ids = [row["token_id"] for row in rows]
        await self._run.fetch(sql.ERASE_HISTORY, token_ids, user_id)
        await self._run.fetch(sql.FORGET_NAMELESS, token_ids)
        await self._run.fetch(sql.FORGET_IDENTIFIERS, user_id)
        await self._run.fetch(sql.FORGET_CLAIMS, user_id)
        await self._run.fetch(sql.REMEMBER_ERASURE, self._hash(user_id))

    async def lift_erasure(self, user_id: str) -> None:
        """The user may have tokens again."""
        await self._run.fetch(sql.LIFT_ERASURE, self._hash(user_id))

    async def _load_erasure_key(self) -> None:
        if not self._erasure_key:
            self._erasure_key = bytes((await self._run.fetch(sql.ERASURE_KEY))[0][0])

    def _hash(self, user_id: str) -> bytes:
        return hmac.digest(self._erasure_key, user_id.encode(), hashlib.sha256)


_RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
)


def _tokens(rows: list[Row]) -> list[Token]:
    """Rows have the attributes of a token, as far as its columns were asked for."""
    return cast("list[Token]", rows)


def _token(row: Row) -> Token:
    return Token._make(_in_order(row))


def _snapshot(row: Row) -> TokenSnapshot:
    return TokenSnapshot(_token(row) if row["id"] is not None else None, row["now"])


def _unzip(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
