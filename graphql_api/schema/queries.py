"""The queries: what may be asked without a user at hand."""

from datetime import datetime
from typing import Annotated, Any

import strawberry

from graphql_api.domain import values
from graphql_api.domain.errors import BadInputError
from graphql_api.engine import selection_of
from graphql_api.schema import cursors
from graphql_api.schema.connection import PageInfo, page_info, paged, size
from graphql_api.schema.context import Info
from graphql_api.schema.entities import Entity, entities
from graphql_api.schema.types import CustomerGatewayToken, columns, gateway_argument
from graphql_api.service.tokens import Tokens


@strawberry.input(description="Which tokens to list: what is given has to be true of each.")
class CustomerGatewayTokenFilter:
    """Conditions that combine."""

    user_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="This user's.")
    gateway: str | None = strawberry.field(
        default=strawberry.UNSET, description="At this gateway, in any case: `stripe` is `STRIPE`."
    )
    gateway_customer_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Whose customer has this identifier now."
    )
    is_active: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Only the active ones, or only the inactive ones."
    )
    created_after: datetime | None = strawberry.field(default=strawberry.UNSET, description="Made after then.")
    created_before: datetime | None = strawberry.field(default=strawberry.UNSET, description="Made before then.")
    updated_after: datetime | None = strawberry.field(default=strawberry.UNSET, description="Last changed after then.")
    updated_before: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Last changed before then."
    )
    not_verified_since: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="Never verified, or last verified before then: what a periodic check should look at first.",
    )


@strawberry.type(description="A token and its place in the list.")
class CustomerGatewayTokenEdge:
    """A token with its cursor."""

    cursor: str = strawberry.field(description="The token's place: hand it to `after` or `before`.")
    node: CustomerGatewayToken = strawberry.field(description="The token.")


@strawberry.type(description="A page of tokens, in the order of their making.")
class CustomerGatewayTokenConnection:
    """A page of tokens; how many there are in all is counted only where it is asked for."""

    edges: list[CustomerGatewayTokenEdge] = strawberry.field(description="The tokens with their cursors.")
    nodes: list[CustomerGatewayToken] = strawberry.field(description="The tokens alone.")
    page_info: PageInfo = strawberry.field(description="Whether and where it goes on.")
    tokens: strawberry.Private[Tokens]
    filters: strawberry.Private[dict[str, Any]]

    @strawberry.field(description="How many tokens the filter lets through, on all pages; counted anew each time.")
    async def total_count(self) -> int:
        """Count them."""
        return await self.tokens.count(self.filters)


async def _token(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The token's `id`.")],  # noqa: A002
) -> CustomerGatewayToken | None:
    found = await info.context.tokens.by_ids([id], columns(selection_of(info)))
    return found.get(id)  # pyright: ignore[reportReturnType] - see CustomerGatewayToken


async def _token_by_customer(
    info: Info,
    gateway: Annotated[str, strawberry.argument(description="The gateway, in any case: `stripe` is `STRIPE`.")],
    gateway_customer_id: Annotated[
        str, strawberry.argument(description="The gateway's own identifier of its customer, current or former.")
    ],
) -> CustomerGatewayToken | None:
    if not values.is_well_formed(gateway_customer_id):
        raise BadInputError("`gatewayCustomerId` holds a NUL character or a lone surrogate.")
    key = (gateway_argument(info.context, gateway), gateway_customer_id)
    found = await info.context.tokens.by_customers([key], columns(selection_of(info)))
    return found.get(key)  # pyright: ignore[reportReturnType] - see CustomerGatewayToken


async def _tokens(
    info: Info,
    filter: Annotated[  # noqa: A002
        CustomerGatewayTokenFilter | None, strawberry.argument(description="Which tokens; all where it is left out.")
    ] = strawberry.UNSET,
    first: Annotated[
        int | None, strawberry.argument(description="The first so many, 1 to 500; 50 where neither is given.")
    ] = strawberry.UNSET,
    after: Annotated[str | None, strawberry.argument(description="Only after this cursor.")] = strawberry.UNSET,
    last: Annotated[
        int | None, strawberry.argument(description="The last so many, 1 to 500, instead of the first.")
    ] = strawberry.UNSET,
    before: Annotated[str | None, strawberry.argument(description="Only before this cursor.")] = strawberry.UNSET,
) -> CustomerGatewayTokenConnection:
    if isinstance(first, int) and isinstance(last, int):
        raise BadInputError("Ask for the `first` or the `last` tokens, not for both.")
    backwards = isinstance(last, int)
    filters = _filters(info, filter) if filter else {}
    page = await info.context.tokens.page(
        filters,
        size=size("last", last) if backwards else size("first", first),
        after=cursors.to_token(after) if isinstance(after, str) else None,
        before=cursors.to_token(before) if isinstance(before, str) else None,
        backwards=backwards,
    )
    nodes: list[Any] = page.tokens
    edges = [CustomerGatewayTokenEdge(cursor=cursors.of_token(token), node=token) for token in nodes]
    return CustomerGatewayTokenConnection(
        edges=edges,
        nodes=nodes,
        page_info=page_info(
            [edge.cursor for edge in edges],
            has_next=isinstance(before, str) if backwards else page.has_more,
            has_previous=page.has_more if backwards else isinstance(after, str),
        ),
        tokens=info.context.tokens,
        filters=filters,
    )


def _filters(info: Info, given: CustomerGatewayTokenFilter) -> dict[str, Any]:
    filters = {
        name: value for name, value in vars(given).items() if value is not None and value is not strawberry.UNSET
    }
    for name in ("user_id", "gateway_customer_id"):
        if not values.is_well_formed(filters.get(name, "")):
            raise BadInputError(f"`filter.{name}` holds a NUL character or a lone surrogate.")
    if "gateway" in filters:
        filters["gateway"] = gateway_argument(info.context, filters["gateway"])
    return filters


@strawberry.type(description="What may be asked of this subgraph directly; most is asked through `User.gatewayTokens`.")
class Query:
    """The root of queries."""

    customer_gateway_token: CustomerGatewayToken | None = strawberry.field(
        resolver=_token, description="A token by its id; null where there is none that the caller may see."
    )
    customer_gateway_token_by_customer: CustomerGatewayToken | None = strawberry.field(
        resolver=_token_by_customer,
        description="Whose customer is this? What a webhook handler asks. Former identifiers are found too.",
    )
    customer_gateway_tokens: CustomerGatewayTokenConnection = strawberry.federation.field(
        resolver=_tokens,
        directives=[paged("first", "last")],
        description="Tokens in the order of their making: one user's with `filter.userId`, everybody's for admins.",
    )
    entities_: list[Entity | None] = strawberry.field(
        name="_entities", resolver=entities, description="What a federation gateway asks: entities by their keys."
    )
