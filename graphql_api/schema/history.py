"""The audit trail of a token, as a page of lines."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import strawberry

from graphql_api.engine import Selection, batched
from graphql_api.schema import cursors
from graphql_api.schema.connection import PageInfo, page_info, paged, size
from graphql_api.schema.context import Info
from graphql_api.schema.enums import Action


@strawberry.type(name="CustomerGatewayTokenEvent", description="One line of a token's append-only audit trail.")
class Event:
    """A line of history."""

    id: strawberry.ID = strawberry.field(description="Unique among all lines.")
    action: Action = strawberry.field(description="What was done.")
    actor: str = strawberry.field(description="Who did it: the access token's `sub`, or the name of the command.")
    at: datetime = strawberry.field(description="When it was done.")
    version: int = strawberry.field(description="The token's version after it.")
    gateway_customer_id: str = strawberry.field(description="The gateway's identifier of the customer after it.")
    is_active: bool = strawberry.field(description="Whether the token was active after it.")
    reason: str | None = strawberry.field(description="Why, where there was a reason.")


@strawberry.type(name="CustomerGatewayTokenEventEdge", description="A line of history and its place.")
class EventEdge:
    """A line with its cursor."""

    cursor: str = strawberry.field(description="The line's place: hand it to `after`.")
    node: Event = strawberry.field(description="The line.")


@strawberry.type(name="CustomerGatewayTokenEventConnection", description="A page of history, newest first.")
class EventConnection:
    """A page of lines."""

    edges: list[EventEdge] = strawberry.field(description="The lines with their cursors.")
    nodes: list[Event] = strawberry.field(description="The lines alone.")
    page_info: PageInfo = strawberry.field(description="Whether and where it goes on.")


async def _histories(
    parents: list[Any],
    info: Info,
    *,
    selection: Selection | None,  # noqa: ARG001 - a line is read as a whole
    first: Annotated[
        int | None, strawberry.argument(description="How many lines, 1 to 500; 50 where it is left out.")
    ] = strawberry.UNSET,
    after: Annotated[
        str | None, strawberry.argument(description="Only lines after this cursor, that is, older ones.")
    ] = strawberry.UNSET,
) -> Sequence[Any]:
    info.context.loads("CustomerGatewayToken.history", len(parents))
    count = size("first", first)
    before = cursors.to_event(after) if isinstance(after, str) else None
    found = await info.context.tokens.history([token.id for token in parents], size=count + 1, before=before)
    return [_page(found.get(token.id, []), count, has_previous=before is not None) for token in parents]


def histories(description: str) -> Any:
    """The field of a token that shows its history."""
    return batched(_histories, reads=("id",), tags=["internal"], directives=[paged("first")], description=description)


def _page(lines: Sequence[Any], count: int, *, has_previous: bool) -> EventConnection:
    edges = [EventEdge(cursor=cursors.of_event(line["version"]), node=_event(line)) for line in lines[:count]]
    return EventConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=page_info([edge.cursor for edge in edges], has_next=len(lines) > count, has_previous=has_previous),
    )


def _event(line: Any) -> Event:
    return Event(
        id=strawberry.ID(f"{line['token_id']}:{line['version']}"),
        action=Action(line["action"]),
        actor=line["actor"],
        at=line["at"],
        version=line["version"],
        gateway_customer_id=line["gateway_customer_id"],
        is_active=line["is_active"],
        reason=line["reason"],
    )
