"""Lookups for one caller, who is in the object: no resolver can forget whose tokens may be read."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import TypeVar

from graphql_api.domain import values
from graphql_api.domain.caller import Caller, Permission
from graphql_api.domain.errors import Code, ForbiddenError, InputError, Problem
from graphql_api.domain.filter import TokenFilter
from graphql_api.domain.inputs import Gateways
from graphql_api.storage.connection import Row
from graphql_api.storage.reads import Columns, CustomerView, Page, Pair, TokenReads, TokenView
from graphql_api.storage.selects import JsonField
from graphql_api.storage.tokens import TokenStore

K = TypeVar("K")
L = TypeVar("L")


class Tokens:
    """One caller's view of the tokens: lookups answer only what the caller may read.

    Changes are functions on it, in the other modules of this package. What is only to be shown is read by `reads`,
    which may be a replica's, until the caller changes something. `lost` has, by the id of a token that lost its place
    in a merge, the customer ids that its user had then.
    """

    def __init__(self, store: TokenStore, caller: Caller, gateways: Gateways, reads: TokenReads | None = None) -> None:
        self.store = store
        self.caller = caller
        self.gateways = gateways
        self.reads = reads or store
        self._refusal: ForbiddenError | None = None
        self.lost: dict[str, list[str]] = {}

    @property
    def actor(self) -> str:
        """The name that the history gives to the caller."""
        return self.caller.subject or "anonymous"

    async def by_ids(self, ids: Sequence[str], columns: Columns = None) -> dict[str, TokenView]:
        """Tokens by id in either case; what is not there, or not the caller's to see, is left out alike.

        Raises:
            InputError: an id is malformed text.
        """
        self.caller.authorize("Query.customerGatewayToken")
        known = {text: token_id for text in ids if (token_id := values.token_id(text)) is not None}
        if not known:
            return {}
        found = await self.reads.by_ids(list(known.values()), columns, coalesce=self.caller.reads_all)
        return self._seen(known, found)

    async def of_events(self, ids: Sequence[str], columns: Columns = None) -> dict[str, TokenView]:
        """Tokens by id, of entries of the history or the change feed that the caller was answered."""
        if not self.caller.has(Permission.READ):
            self.caller.require(Permission.EVENTS)
        return await self.reads.by_ids(ids, columns, coalesce=self.caller.has(Permission.READ))

    async def by_users_and_gateways(self, pairs: Sequence[Pair], columns: Columns = None) -> dict[Pair, TokenView]:
        """Tokens by (user id, gateway in any spelling)."""
        self.caller.authorize("User.gatewayToken")
        known = {
            (user_id, text): (user_id, gateway)
            for user_id, text in pairs
            if (gateway := self.gateways.key(text)) is not None and values.can_be_an_id(user_id)
        }
        if not known:
            return {}
        coalesce = self.caller.reads_all
        found = await self.reads.by_users_and_gateways(list(known.values()), columns, coalesce=coalesce)
        return self._seen(known, found)

    async def by_customers(
        self, pairs: Sequence[Pair], columns: Columns = None, *, former: bool = True
    ) -> dict[Pair, TokenView]:
        """Tokens by (gateway in any spelling, gateway customer id), the current one, or a `former` one too."""
        self.caller.authorize("Query.customerGatewayTokenByCustomer")
        known = {
            (text, customer): (gateway, customer)
            for text, customer in pairs
            if (gateway := self.gateways.key(text)) is not None and values.can_be_an_id(customer)
        }
        owner = None if self.caller.reads_all else self.caller.subject
        found = (
            await self.reads.by_customers(list(known.values()), columns, owner=owner, former=former) if known else {}
        )
        return self._seen(known, found)

    async def by_customer(self, gateway: str, customer: str, columns: Columns = None) -> TokenView | None:
        """The token of one customer, by their current or a former id.

        Raises:
            InputError: one of both is malformed text.
        """
        self.caller.authorize("Query.customerGatewayTokenByCustomer")
        if not values.is_well_formed(customer):
            message = "`gatewayCustomerId` contains a NUL character or a lone surrogate. Send well-formed Unicode."
            raise InputError([Problem(Code.INVALID, message)])
        pair = self.gateways.parse(gateway), customer
        if len(customer) > values.MAX_ID_LENGTH:
            return None
        owner = None if self.caller.reads_all else self.caller.subject
        token = (await self.reads.by_customers([pair], columns, owner=owner)).get(pair)
        return token if token is not None and self.caller.may_read(token.user_id) else None

    def unreadable(self, user_ids: Sequence[str]) -> dict[str, ForbiddenError]:
        """Those of these users whose tokens the caller may not read, and why: one error for all of them.

        Raises:
            UnauthenticatedError: there is no access token, so no user's tokens may be read.
        """
        if self.caller.reads_all:
            return {}
        self.caller.require(Permission.OWNER)
        others = [user_id for user_id in user_ids if not self.caller.may_read(user_id)]
        return dict.fromkeys(others, error) if others and (error := self.refusal(others[0])) else {}

    def refusal(self, user_id: str) -> ForbiddenError | None:
        """Why the caller may not read this user's tokens, one error for all of them; None: they may."""
        if self.caller.may_read(user_id):
            return None
        if self._refusal is None:
            try:
                self.caller.authorize_read(user_id)
            except ForbiddenError as error:
                self._refusal = error
        return self._refusal

    async def of_users(self, user_ids: Sequence[str], columns: Columns = None) -> dict[str, list[TokenView]]:
        """The tokens of users whom the caller may read, each user's by gateway; users without one are left out."""
        known = self._readable(user_ids)
        return await self.reads.of_users(known, columns, coalesce=self.caller.reads_all) if known else {}

    def of_users_as_json(self, user_ids: Sequence[str], fields: tuple[JsonField, ...]) -> Awaitable[dict[str, str]]:
        """The same as the JSON text of a list of objects with these fields."""
        known = self._readable(user_ids)
        return self.reads.of_users_as_json(known, fields, coalesce=self.caller.reads_all) if known else _nothing()

    def _readable(self, user_ids: Sequence[str]) -> list[str]:
        """Those whom the caller may read, each once. Most are looked at as one text."""
        text = "".join(user_ids)
        is_usual = self.caller.reads_all and text.isascii() and "\0" not in text
        if is_usual and (len(text) <= values.MAX_ID_LENGTH or max(map(len, user_ids)) <= values.MAX_ID_LENGTH):
            return list(dict.fromkeys(user_ids))
        return [
            user_id
            for user_id in dict.fromkeys(user_ids)
            if values.can_be_an_id(user_id) and self.caller.may_read(user_id)
        ]

    async def former_ids(self, found: Sequence[CustomerView]) -> list[list[str]]:
        """For each of these tokens, what its user was called at the gateway before, oldest first."""
        self.caller.authorize("CustomerGatewayToken.formerGatewayCustomerIds")
        known = await self.reads.identifiers([(token.user_id, token.gateway) for token in found])
        return [
            [
                customer
                for customer in self.lost.get(token.id) or known.get((token.user_id, token.gateway), ())
                if customer != token.gateway_customer_id
            ]
            for token in found
        ]

    async def history(self, token_ids: Sequence[str], *, size: int, before: int | None) -> dict[str, list[Row]]:
        """By token id, at most `size` lines of history older than this version, newest first."""
        self.caller.authorize("CustomerGatewayToken.history")
        return await self.reads.history(token_ids, size=size, before=before)

    async def page(
        self,
        wanted: TokenFilter,
        *,
        size: int,
        after: tuple[datetime, str] | None,
        before: tuple[datetime, str] | None,
        backwards: bool,
    ) -> Page:
        """A page of tokens in creation order: one user's, or with the right to it everybody's.

        Raises:
            ForbiddenError: as `authorize_list` does.
        """
        self.authorize_list(wanted)
        return await self.reads.page(wanted, size=size, after=after, before=before, backwards=backwards)

    async def count(self, wanted: TokenFilter) -> int:
        """How many tokens there are; raises as `page` does."""
        self.authorize_list(wanted)
        return await self.reads.count(wanted)

    def authorize_list(self, wanted: TokenFilter) -> None:
        """Go on only if the caller may list with this filter.

        Raises:
            UnauthenticatedError: there is no access token.
            ForbiddenError: the tokens are another user's, or every user's, and the caller lacks the scope.
        """
        if wanted.user_id is None:
            self.caller.require(Permission.ADMIN, " To list one user's tokens, set `filter.userId`.")
        else:
            self.caller.authorize_read(wanted.user_id)

    def _seen(self, known: dict[K, L], found: dict[L, TokenView]) -> dict[K, TokenView]:
        """What was found that the caller may see, by the keys that were asked for."""
        pairs = [(key, token) for key, known_as in known.items() if (token := found.get(known_as)) is not None]
        return dict(
            pairs if self.caller.reads_all else [pair for pair in pairs if self.caller.may_read(pair[1].user_id)]
        )


async def _nothing() -> dict[str, str]:
    return {}
