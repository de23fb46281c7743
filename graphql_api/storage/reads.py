"""Reads of tokens: by key, for a list, and what lies beside them. Few keys of many requests share a statement."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, Protocol, TypeVar

from graphql_api.domain.filter import TokenFilter
from graphql_api.domain.token import Token
from graphql_api.storage import selects
from graphql_api.storage import statements as sql
from graphql_api.storage.coalescing import RequestCoalescer
from graphql_api.storage.connection import Row, Runner
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.selects import JsonField

Pair = tuple[str, str]
Columns = frozenset[str] | None
"""The columns to read, by their attribute's name; None for all of them."""
C = TypeVar("C")
K = TypeVar("K")
V = TypeVar("V")

# A request's keys are read together with those of other requests up to this number. If PostgreSQL writes the JSON, the
# service has little to do with each row.
_MAX_COALESCED, _MAX_COALESCED_AS_JSON = 8, 50
_MAX_COALESCERS = 100  # sets of columns, each of which is read on its own
_gateway = attrgetter("gateway")
_in_order = itemgetter(*Token._fields)


class TokenView(Protocol):
    """A row of a token. Only its owner is always there; the engine reads the columns that were asked for by name."""

    @property
    def user_id(self) -> str:
        """Whose token it is."""
        ...


class CustomerView(TokenView, Protocol):
    """A row of a token that has its id and the columns of its customer."""

    @property
    def id(self) -> str:
        """The token's id."""
        ...

    @property
    def gateway(self) -> str:
        """Where the customer is."""
        ...

    @property
    def gateway_customer_id(self) -> str:
        """The current identifier there."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Tokens in their order, and whether there are more on the far side of the direction that was read."""

    tokens: list[Token]
    has_more: bool


class TokenReads(Protocol):
    """What answers the reads of a request: the primary, a replica of it, or a dry run.

    `coalesce` is for callers who may read every user's tokens: few keys then share a statement with those of other
    requests, and the answer may hold what others asked for.
    """

    def by_ids(
        self, ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, TokenView]]:
        """Tokens by id; an unknown id is left out."""
        ...

    def by_users_and_gateways(
        self, pairs: Sequence[Pair], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[Pair, TokenView]]:
        """Tokens by (user id, gateway)."""
        ...

    def by_customers(
        self, pairs: Sequence[Pair], columns: Columns = None, *, owner: str | None = None, former: bool = True
    ) -> Awaitable[dict[Pair, TokenView]]:
        """Tokens by (gateway, gateway customer id), the current one, or a `former` one too.

        A single current identifier has a statement of its own, since that is what webhook handlers ask all day. With an
        `owner` it finds only their token: another user's token then takes the same way, and as long, as one that does
        not exist. Without an owner it coalesces.
        """
        ...

    def of_users(
        self, user_ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, list[TokenView]]]:
        """Every token of these users, each user's by gateway; users without a token are left out."""
        ...

    def of_users_as_json(
        self, user_ids: Sequence[str], fields: tuple[JsonField, ...], *, coalesce: bool = False
    ) -> Awaitable[dict[str, str]]:
        """The same as JSON text that PostgreSQL writes: for each user a list of objects with these fields."""
        ...

    def page(
        self,
        wanted: TokenFilter,
        *,
        size: int,
        after: tuple[datetime, str] | None = None,
        before: tuple[datetime, str] | None = None,
        backwards: bool = False,
    ) -> Awaitable[Page]:
        """The first tokens between the cursors, or the last ones if read backwards; always in ascending order."""
        ...

    def count(self, wanted: TokenFilter) -> Awaitable[int]:
        """How many tokens there are."""
        ...

    def identifiers(self, pairs: Sequence[Pair]) -> Awaitable[dict[Pair, list[str]]]:
        """By (user id, gateway), the identifiers that the user has or had at the gateway, oldest first."""
        ...

    def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> Awaitable[dict[str, list[Row]]]:
        """By token id, at most `size` lines of history older than this version, newest first."""
        ...


class TokenReader:
    """`TokenReads` by statements, which a pool runs, or a runner in front of it."""

    def __init__(self, pool: ConnectionPool, runner: Runner | None = None) -> None:
        self.pool = pool
        self._run: Runner = runner or pool
        self._ids: dict[Columns, RequestCoalescer[str, TokenView]] = {}
        self._pairs: dict[Columns, RequestCoalescer[Pair, TokenView]] = {}
        self._users: dict[Columns, RequestCoalescer[str, list[TokenView]]] = {}
        self._json: dict[tuple[JsonField, ...], RequestCoalescer[str, str]] = {}
        self._customers: dict[Columns, RequestCoalescer[Pair, TokenView]] = {}

    def by_ids(
        self, ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, TokenView]]:
        """Tokens by id; what is not there is left out."""
        return self._found(self._ids, columns, self._by_ids, ids, coalesce=coalesce)

    async def _by_ids(self, columns: Columns, ids: Sequence[str]) -> dict[str, TokenView]:
        rows: list[Any] = await self._run.fetch(selects.by_ids(columns), ids)
        return {row.id: row for row in rows}

    def by_users_and_gateways(
        self, pairs: Sequence[Pair], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[Pair, TokenView]]:
        """Tokens by (user id, gateway)."""
        return self._found(self._pairs, columns, self._by_users_and_gateways, pairs, coalesce=coalesce)

    async def _by_users_and_gateways(self, columns: Columns, pairs: Sequence[Pair]) -> dict[Pair, TokenView]:
        rows: list[Any] = await self._run.fetch(selects.by_users_and_gateways(columns), *unzip(pairs))
        return {(row.user_id, row.gateway): row for row in rows}

    async def by_customers(
        self, pairs: Sequence[Pair], columns: Columns = None, *, owner: str | None = None, former: bool = True
    ) -> dict[Pair, TokenView]:
        """Tokens by (gateway, gateway customer id), the current one, or a `former` one too."""
        if len(pairs) == 1 or not former:
            if owner is None:
                found = await self._found(self._customers, columns, self._by_current_customers, pairs, coalesce=True)
            else:
                found = await self._by_current_customers(columns, pairs, owner)
            if not former or pairs[0] in found:
                return found
        gateways, customers = unzip(pairs)
        rows: list[Any] = await self._run.fetch(selects.by_customers(columns), customers, gateways)
        return {(row[1], row[0]): row for row in rows}

    async def _by_current_customers(
        self, columns: Columns, pairs: Sequence[Pair], owner: str | None = None
    ) -> dict[Pair, TokenView]:
        gateways, separator, customers = selects.joined_pairs(pairs)
        statement = selects.by_current_customers(columns)
        rows: list[Any] = await self._run.fetch(statement, customers, separator, gateways, owner)
        return {(row.gateway, row.gateway_customer_id): row for row in rows}

    def of_users(
        self, user_ids: Sequence[str], columns: Columns = None, *, coalesce: bool = False
    ) -> Awaitable[dict[str, list[TokenView]]]:
        """Every token of these users, each user's by gateway; users without one are left out."""
        return self._found(self._users, columns, self._of_users, user_ids, coalesce=coalesce)

    async def _of_users(self, columns: Columns, user_ids: Sequence[str]) -> dict[str, list[TokenView]]:
        found: dict[str, list[TokenView]] = {}
        once = list(dict.fromkeys(user_ids))
        rows: list[Any] = await self._run.fetch(selects.of_users(columns), *selects.joined(once))
        for row in rows:
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
        return {row[0]: row[1] for row in rows}  # to make it of the rows themselves takes twice as long

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
        """Load these keys, together with those of other requests if that is allowed and pays off."""
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
        wanted: TokenFilter,
        *,
        size: int,
        after: tuple[datetime, str] | None = None,
        before: tuple[datetime, str] | None = None,
        backwards: bool = False,
    ) -> Page:
        """The first tokens between the cursors, or the last ones if read backwards; always in ascending order."""
        conditions = wanted.conditions()
        statement = selects.page(
            tuple(conditions), after=after is not None, before=before is not None, backwards=backwards
        )
        rows = await self._run.fetch(statement, *conditions.values(), *(after or ()), *(before or ()), size + 1)
        tokens = [token_of(row) for row in rows[:size]]
        return Page(tokens[::-1] if backwards else tokens, len(rows) > size)

    async def count(self, wanted: TokenFilter) -> int:
        """How many tokens there are."""
        conditions = wanted.conditions()
        rows = await self._run.fetch(selects.count(tuple(conditions)), *conditions.values())
        return rows[0][0]

    async def identifiers(self, pairs: Sequence[Pair]) -> dict[Pair, list[str]]:
        """By (user id, gateway), what the user is or was called at the gateway, oldest first."""
        return await identifiers(self._run, pairs)

    async def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> dict[str, list[Row]]:
        """By token id, at most `size` lines of history older than this version, newest first."""
        found: dict[str, list[Row]] = {}
        for row in await self._run.fetch(sql.HISTORY, token_ids, before, size):
            found.setdefault(row["token_id"], []).append(row)
        return found


async def identifiers(run: Runner, pairs: Sequence[Pair]) -> dict[Pair, list[str]]:
    """By (user id, gateway), what the user is or was called at the gateway, oldest first."""
    found: dict[Pair, list[str]] = {}
    for user_id, gateway, customer in await run.fetch(sql.IDENTIFIERS, *unzip(list(dict.fromkeys(pairs)))):
        found.setdefault((user_id, gateway), []).append(customer)
    return found


def token_of(row: Row) -> Token:
    """The token of a row that has all of its columns."""
    return Token._make(_in_order(row))


def unzip(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    """The first of each pair, and the second of each."""
    return [first for first, _ in pairs], [second for _, second in pairs]
