"""The change feed, as a page of history entries of all tokens."""

from typing import Annotated

import strawberry

from graphql_api.domain.filter import FeedFilter
from graphql_api.schema import cursors
from graphql_api.schema.connection import PageInfo, size
from graphql_api.schema.context import Info
from graphql_api.schema.enums import Action, EventStart
from graphql_api.schema.history import EventConnection, EventEdge, event_of
from graphql_api.schema.types import gateway_argument
from graphql_api.service import events


@strawberry.input(description="Selects entries of the change feed. Conditions combine with AND.")
class CustomerGatewayTokenEventFilter:
    gateways: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Only tokens at these gateways. Not case-sensitive: `stripe` is the same as `STRIPE`.",
    )
    actions: list[Action] | None = strawberry.field(default=strawberry.UNSET, description="Only these changes.")


async def token_events(
    info: Info,
    after: Annotated[
        str | None, strawberry.argument(description="Only entries after this cursor: the `endCursor` of the last page.")
    ] = strawberry.UNSET,
    start_at: Annotated[
        EventStart, strawberry.argument(description="Where to start if there is no `after`.")
    ] = EventStart.OLDEST,
    first: Annotated[
        int | None, strawberry.argument(description="Number of entries: 1 to 500, default 50.")
    ] = strawberry.UNSET,
    filter: Annotated[  # noqa: A002
        CustomerGatewayTokenEventFilter | None,
        strawberry.argument(description="Which entries to return; all if omitted."),
    ] = strawberry.UNSET,
) -> EventConnection:
    """A page of the feed."""
    info.context.caller.authorize("Query.customerGatewayTokenEvents")
    service, count = info.context.tokens, size("first", first)
    position = cursors.to_position(after) if isinstance(after, str) else None
    wanted = _wanted(info, filter) if filter else FeedFilter()
    if position is None and start_at is EventStart.NOW:
        page = await events.now(service)
    else:
        page = await events.events(service, wanted, size=count, after=position)
    edges = [
        EventEdge(cursor=cursors.of_position(page.end._replace(position=line["position"])), node=event_of(line))
        for line in page.lines
    ]
    return EventConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=PageInfo(
            next_page=page.has_more,
            previous_page=page.start.position > 0 and (lambda: service.store.feed.precedes(page.start, wanted)),
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else cursors.of_position(page.end),
        ),
    )


def _wanted(info: Info, given: CustomerGatewayTokenEventFilter) -> FeedFilter:
    return FeedFilter(
        [gateway_argument(info.context, name) for name in given.gateways] if isinstance(given.gateways, list) else None,
        [action.value for action in given.actions] if isinstance(given.actions, list) else None,
    )
