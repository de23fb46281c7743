"""The customers of erased users that are still to be deleted at their gateways."""

from datetime import datetime
from typing import Annotated

import strawberry

from graphql_api.schema import cursors
from graphql_api.schema.connection import PageInfo, page_info, size
from graphql_api.schema.context import Info
from graphql_api.schema.types import gateway_argument
from graphql_api.service import erasing


@strawberry.type(description="An erased user's customer that you have not yet confirmed as deleted at its gateway.")
class GatewayErasure:
    gateway: str = strawberry.field(description="The gateway.")
    gateway_customer_id: str = strawberry.field(description="The customer's current or former id at the gateway.")
    erased_at: datetime = strawberry.field(description="When the user was erased.")


@strawberry.type(description="A customer to delete and its cursor.")
class GatewayErasureEdge:
    cursor: str = strawberry.field(description="The customer's cursor: pass it as `after`.")
    node: GatewayErasure = strawberry.field(description="The customer.")


@strawberry.type(description="A page of customers to delete, oldest first.")
class GatewayErasureConnection:
    edges: list[GatewayErasureEdge] = strawberry.field(description="The customers with their cursors.")
    nodes: list[GatewayErasure] = strawberry.field(description="The customers without cursors.")
    page_info: PageInfo = strawberry.field(description="Whether there are more pages, and the cursors of this page.")


async def gateway_erasures(
    info: Info,
    gateway: Annotated[
        str | None,
        strawberry.argument(
            description=("Only customers at this gateway. Not case-sensitive: `stripe` is the same as `STRIPE`.")
        ),
    ] = strawberry.UNSET,
    first: Annotated[
        int | None, strawberry.argument(description="Number of customers: 1 to 500, default 50.")
    ] = strawberry.UNSET,
    after: Annotated[
        str | None, strawberry.argument(description="Only customers after this cursor.")
    ] = strawberry.UNSET,
) -> GatewayErasureConnection:
    """A page of the list."""
    info.context.caller.authorize("Query.gatewayErasures")
    service, count = info.context.tokens, size("first", first)
    wanted = gateway_argument(info.context, gateway) if isinstance(gateway, str) else None
    place = cursors.to_erasure(after) if isinstance(after, str) else None
    rows = await erasing.erasures(service, wanted, size=count + 1, after=place)
    edges = [
        GatewayErasureEdge(
            cursor=cursors.of_erasure(row["erased_at"], row["gateway"], row["gateway_customer_id"]),
            node=GatewayErasure(**row),
        )
        for row in rows[:count]
    ]
    return GatewayErasureConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=page_info(
            [edge.cursor for edge in edges],
            has_next=len(rows) > count,
            has_previous=place is not None and (lambda: service.store.erasures_precede(wanted, place)),
        ),
    )
