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

# By its name, since the module of tokens imports this one.
_TOKEN: Any = Annotated["CustomerGatewayToken", strawberry.lazy("graphql_api.schema.types")]  # noqa: F821 # pyright: ignore[reportUndefinedVariable]


async def _tokens_of_events(parents: list["Event"], info: Info, *, selection: Selection | None) -> Sequence[Any]:
    info.context.loads("CustomerGatewayTokenEvent.token", len(parents))
    ids = list(dict.fromkeys(event.token_id for event in parents))
    found = await info.context.tokens.of_events(ids, None if selection is None else selection.attributes)
    return [found.get(event.token_id) for event in parents]


@strawberry.type(name="CustomerGatewayTokenEvent", description="An entry in a token's append-only audit trail.")
class Event:
    id: strawberry.ID = strawberry.field(description="Unique among all entries.")
    action: Action = strawberry.field(description="What happened.")
    actor: str = strawberry.field(
        description="Who did it: the access token's `sub`, or the name of a webhook or command."
    )
    at: datetime = strawberry.field(description="When it happened.")
    version: int = strawberry.field(description="The token's version afterwards.")
    gateway_customer_id: str = strawberry.field(description="The customer's id at the gateway afterwards.")
    is_active: bool = strawberry.field(description="Whether the token was active afterwards.")
    token_id: strawberry.ID = strawberry.field(description="The token's id.")
    gateway: str = strawberry.field(description="The gateway of the token.")
    user_id: strawberry.ID | None = strawberry.field(
        description="The user who had the token after the change; null if the user was erased."
    )
    reason: str | None = strawberry.field(description="The reason, if there was one.")
    token: Any = batched(
        _tokens_of_events,
        reads=("token_id",),
        graphql_type=_TOKEN | None,
        description="The token as it is now; null if it no longer exists.",
    )


@strawberry.type(name="CustomerGatewayTokenEventEdge", description="A history entry and its cursor.")
class EventEdge:
    cursor: str = strawberry.field(description="The entry's cursor: pass it as `after`.")
    node: Event = strawberry.field(description="The entry.")


@strawberry.type(name="CustomerGatewayTokenEventConnection", description="A page of history entries.")
class EventConnection:
    edges: list[EventEdge] = strawberry.field(description="The entries with their cursors.")
    nodes: list[Event] = strawberry.field(description="The entries without cursors.")
    page_info: PageInfo = strawberry.field(description="Whether there are more pages, and the cursors of this page.")


async def _histories(
    parents: list[Any],
    info: Info,
    *,
    selection: Selection | None,  # noqa: ARG001 - a line is read as a whole
    first: Annotated[
        int | None, strawberry.argument(description="Number of entries: 1 to 500, default 50.")
    ] = strawberry.UNSET,
    after: Annotated[
        str | None, strawberry.argument(description="Only entries after this cursor, that is, older ones.")
    ] = strawberry.UNSET,
) -> Sequence[Any]:
    info.context.loads("CustomerGatewayToken.history", len(parents))
    info.context.caller.authorize("CustomerGatewayToken.history")
    count = size("first", first)
    owner, before = cursors.to_event(after) if isinstance(after, str) else (None, None)
    ids = [token.id for token in parents if owner is None or token.id == owner]
    found = await info.context.tokens.history(ids, size=count + 1, before=before) if ids else {}
    return [
        cursors.of_another(str(after))
        if owner is not None and token.id != owner
        else _page(found.get(token.id, []), count, has_previous=before is not None and token.version >= before)
        for token in parents
    ]


def histories(description: str) -> Any:
    """The field of a token that shows its history."""
    return batched(
        _histories, reads=("id", "version"), tags=["internal"], directives=[paged("first")], description=description
    )


def _page(lines: Sequence[Any], count: int, *, has_previous: bool) -> EventConnection:
    edges = [
        EventEdge(cursor=cursors.of_event(line["token_id"], line["version"]), node=event_of(line))
        for line in lines[:count]
    ]
    return EventConnection(
        edges=edges,
        nodes=[edge.node for edge in edges],
        page_info=page_info([edge.cursor for edge in edges], has_next=len(lines) > count, has_previous=has_previous),
    )


def event_of(line: Any) -> Event:
    """The entry of a row."""
    return Event(
        id=strawberry.ID(f"{line['token_id']}:{line['version']}"),
        action=Action(line["action"]),
        actor=line["actor"],
        at=line["at"],
        version=line["version"],
        gateway_customer_id=line["gateway_customer_id"],
        is_active=line["is_active"] and not Action(line["action"]).ends_token,
        token_id=strawberry.ID(str(line["token_id"])),
        gateway=line["gateway"],
        user_id=line["user_id"],
        reason=line["reason"],
    )
