"""The queries of this subgraph."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import strawberry

from graphql_api.domain import values
from graphql_api.domain.errors import BadInputError, InputError
from graphql_api.domain.filter import TokenFilter
from graphql_api.engine import selection_of
from graphql_api.schema import cursors
from graphql_api.schema.connection import PageInfo, page_info, paged, size
from graphql_api.schema.context import Info
from graphql_api.schema.entities import Entity, entities
from graphql_api.schema.erasures import GatewayErasureConnection, gateway_erasures
from graphql_api.schema.feed import token_events
from graphql_api.schema.history import EventConnection
from graphql_api.schema.types import CustomerGatewayToken, columns, gateway_argument
from graphql_api.service.tokens import Tokens

_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_FIRST_ID, _LAST_ID = str(UUID(int=0)), str(UUID(int=2**128 - 1))


@strawberry.input(description="Selects tokens. Conditions combine with AND.")
class CustomerGatewayTokenFilter:
    user_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Only this user's tokens.")
    gateway: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=("Only tokens at this gateway. Not case-sensitive: `stripe` is the same as `STRIPE`."),
    )
    gateway_customer_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Only tokens with this current customer id."
    )
    is_active: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Only active (true) or only inactive (false) tokens."
    )
    created_after: datetime | None = strawberry.field(default=strawberry.UNSET, description="Created after this time.")
    created_before: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Created before this time."
    )
    updated_after: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Last changed after this time."
    )
    updated_before: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Last changed before this time."
    )
    not_verified_since: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="Never verified, or last verified before this time. A periodic check should start with these.",
    )


@strawberry.type(description="A token and its cursor.")
class CustomerGatewayTokenEdge:
    cursor: str = strawberry.field(description="The token's cursor: pass it as `after` or `before`.")
    node: CustomerGatewayToken = strawberry.field(description="The token.")


@strawberry.type(description="A page of tokens in creation order.")
class CustomerGatewayTokenConnection:
    edges: list[CustomerGatewayTokenEdge] = strawberry.field(description="The tokens with their cursors.")
    nodes: list[CustomerGatewayToken] = strawberry.field(description="The tokens without cursors.")
    page_info: PageInfo = strawberry.field(description="Whether there are more pages, and the cursors of this page.")
    tokens: strawberry.Private[Tokens]
    wanted: strawberry.Private[TokenFilter]

    @strawberry.field(
        description=(
            "The number of tokens that match the filter, on all pages. It is counted for each request that selects "
            "it, so omit it if you do not need it."
        )
    )
    async def total_count(self) -> int:
        """Count them."""
        return await self.tokens.count(self.wanted)


async def _token(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The token's `id`.")],  # noqa: A002
) -> CustomerGatewayToken | None:
    found = await info.context.tokens.by_ids([id], columns(selection_of(info)))
    return found.get(id)  # pyright: ignore[reportReturnType] - see CustomerGatewayToken


async def _token_by_customer(
    info: Info,
    gateway: Annotated[
        str, strawberry.argument(description="The gateway. Not case-sensitive: `stripe` is the same as `STRIPE`.")
    ],
    gateway_customer_id: Annotated[
        str, strawberry.argument(description="The customer's current or former id at the gateway.")
    ],
) -> CustomerGatewayToken | None:
    try:
        return await info.context.tokens.by_customer(  # pyright: ignore[reportReturnType] - see CustomerGatewayToken
            gateway, gateway_customer_id, columns(selection_of(info))
        )
    except InputError as refused:
        raise BadInputError(str(refused)) from None


async def _tokens(
    info: Info,
    filter: Annotated[  # noqa: A002
        CustomerGatewayTokenFilter | None, strawberry.argument(description="Which tokens to list; all if omitted.")
    ] = strawberry.UNSET,
    first: Annotated[
        int | None, strawberry.argument(description="Number of tokens from the start: 1 to 500, default 50.")
    ] = strawberry.UNSET,
    after: Annotated[str | None, strawberry.argument(description="Only tokens after this cursor.")] = strawberry.UNSET,
    last: Annotated[
        int | None,
        strawberry.argument(description="Number of tokens from the end: 1 to 500. Use either `first` or `last`."),
    ] = strawberry.UNSET,
    before: Annotated[
        str | None, strawberry.argument(description="Only tokens before this cursor.")
    ] = strawberry.UNSET,
) -> CustomerGatewayTokenConnection:
    info.context.tokens.authorize_list(TokenFilter(user_id=filter.user_id or None if filter else None))
    if isinstance(first, int) and isinstance(last, int):
        raise BadInputError("Use `first` or `last`, not both.")
    backwards = isinstance(last, int)
    wanted = _token_filter(info, filter) if filter else TokenFilter()
    start = cursors.to_token(after) if isinstance(after, str) else None
    end = cursors.to_token(before) if isinstance(before, str) else None
    tokens = info.context.tokens
    page = await tokens.page(
        wanted,
        size=size("last", last) if backwards else size("first", first),
        after=start,
        before=end,
        backwards=backwards,
    )
    nodes: list[Any] = page.tokens
    edges = [CustomerGatewayTokenEdge(cursor=cursors.of_token(token), node=token) for token in nodes]
    return CustomerGatewayTokenConnection(
        edges=edges,
        nodes=nodes,
        page_info=page_info(
            [edge.cursor for edge in edges],
            has_next=page.has_more
            if not backwards
            else bool(end) and _beyond(tokens, wanted, end, nodes[-1:], after=True),
            has_previous=page.has_more
            if backwards
            else bool(start) and _beyond(tokens, wanted, start, nodes[:1], after=False),
        ),
        tokens=tokens,
        wanted=wanted,
    )


def _beyond(
    tokens: Tokens, wanted: TokenFilter, cursor: tuple[datetime, str], edge: list[Any], *, after: bool
) -> Callable[[], Awaitable[bool]]:
    """Whether tokens lie beyond a page that ended at this cursor: after or before the token at its edge.

    An empty page has no edge. Then the token of the cursor itself may be one, and none lies between it and the page.
    """
    if edge:
        place = (edge[0].created_at, edge[0].id)
    else:
        at, _ = cursor
        place = (max(at, _FIRST) - _MICROSECOND, _LAST_ID) if after else (min(at, _LAST) + _MICROSECOND, _FIRST_ID)

    async def look() -> bool:
        page = await tokens.page(
            wanted, size=1, after=place if after else None, before=None if after else place, backwards=not after
        )
        return bool(page.tokens)

    return look


def _token_filter(info: Info, given: CustomerGatewayTokenFilter) -> TokenFilter:
    conditions = {
        name: value for name, value in vars(given).items() if value is not None and value is not strawberry.UNSET
    }
    for name, field in (("user_id", "userId"), ("gateway_customer_id", "gatewayCustomerId")):
        if not values.is_well_formed(conditions.get(name, "")):
            message = f"`filter.{field}` contains a NUL character or a lone surrogate. Send well-formed Unicode."
            raise BadInputError(message)
    if "gateway" in conditions:
        conditions["gateway"] = gateway_argument(info.context, conditions["gateway"])
    return TokenFilter(**conditions)


@strawberry.type(description="Queries of this subgraph. Most clients use `User.gatewayTokens` instead.")
class Query:
    customer_gateway_token: CustomerGatewayToken | None = strawberry.field(
        resolver=_token, description="A token by its id; null if there is none that you may read."
    )
    customer_gateway_token_by_customer: CustomerGatewayToken | None = strawberry.field(
        resolver=_token_by_customer,
        description=(
            "The token of a gateway customer, looked up by a current or former customer id, for example in a webhook "
            "handler; null if there is none that you may read."
        ),
    )
    customer_gateway_tokens: CustomerGatewayTokenConnection = strawberry.federation.field(
        resolver=_tokens,
        directives=[paged("first", "last")],
        description=(
            "Tokens in creation order. Set `filter.userId` to list one user's tokens; to list all users' tokens, you "
            "need the admin scope."
        ),
    )
    customer_gateway_token_events: EventConnection = strawberry.federation.field(
        resolver=token_events,
        directives=[paged("first")],
        description=(
            "The change feed: changes to all users' tokens in the order in which they became visible, oldest first. "
            "To continue without missing a change, pass `pageInfo.endCursor` as `after`; an empty page has one too. "
            "Requires the scope gateway-tokens:events or gateway-tokens:admin."
        ),
    )
    gateway_erasures: GatewayErasureConnection = strawberry.federation.field(
        resolver=gateway_erasures,
        directives=[paged("first")],
        description=(
            "Erased users' customers that you have not yet confirmed as deleted at their gateways. Requires the admin "
            "scope."
        ),
    )
    entities_: list[Entity | None] = strawberry.field(
        name="_entities", resolver=entities, description="Entities by their keys, for federation routers."
    )
