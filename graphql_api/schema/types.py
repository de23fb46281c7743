"""The entities of the graph: a user, as far as we know them, and their tokens.

A `CustomerGatewayToken` is never made: its fields are read from the rows of the store. What needs more than its own row
is loaded for a whole list of parents at once (`graphql_api.engine.batched`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from operator import attrgetter
from typing import Annotated, Any, cast

import strawberry

from graphql_api.domain import values
from graphql_api.domain.errors import BadInputError, InputError
from graphql_api.domain.token import Token
from graphql_api.engine import JSONField, Selection, batched, longest, raw_json, reads
from graphql_api.schema.caching import NEVER_SHARED
from graphql_api.schema.connection import listed
from graphql_api.schema.context import Context, Info
from graphql_api.schema.enums import DeactivationReason
from graphql_api.schema.history import EventConnection, histories
from graphql_api.schema.scalars import Json

Results = Sequence[Any]

_id = attrgetter("id")
_FILTERED = frozenset({"gateway", "is_active"})
_GATEWAYS_PER_USER = 5  # what a router's demand control may assume


def columns(selection: Selection | None) -> frozenset[str] | None:
    """The attributes of tokens that are asked for; None: all of them."""
    return None if selection is None else selection.attributes


def gateway_argument(context: Context, text: str) -> str:
    """A gateway that an argument names.

    Raises:
        BadInputError: it is not the name of a gateway.
    """
    try:
        return context.tokens.gateways.parse(text)
    except InputError as refused:
        raise BadInputError(str(refused)) from None


def _refusal(user: "User", context: Context) -> Exception | None:
    return context.tokens.refusal(user.id)


async def _tokens_of_users(
    parents: list["User"],
    info: Info,
    *,
    selection: Selection | None,
    gateway: Annotated[
        str | None,
        strawberry.argument(
            description=("Only tokens at this gateway. Not case-sensitive: `stripe` is the same as `STRIPE`.")
        ),
    ] = strawberry.UNSET,
    is_active: Annotated[
        bool | None, strawberry.argument(description="Only active (true) or only inactive (false) tokens.")
    ] = strawberry.UNSET,
) -> Results:
    info.context.loads("User.gatewayTokens", len(parents))
    tokens = info.context.tokens
    ids = list(map(_id, parents))
    refusals = {} if tokens.caller.reads_all else tokens.unreadable(ids)
    whole = not isinstance(gateway, str) and not isinstance(is_active, bool)
    if whole and selection is not None and selection.json is not None:
        found: dict[str, Any] = await tokens.of_users_as_json(ids, selection.json)
        lists = raw_json(info, list(map(found.get, ids, repeat("[]"))))
    elif whole:
        found = await tokens.of_users(ids, columns(selection))
        lists = [found.get(user, []) for user in ids]
    else:
        try:
            keep = _filter(info.context, gateway, is_active)
        except BadInputError as refused:
            return [refusals.get(user, refused) for user in ids]
        wanted = columns(selection)
        found = await tokens.of_users(ids, None if wanted is None else wanted | _FILTERED)
        lists = [list(filter(keep, found.get(user, ()))) for user in ids]
    return [refusals.get(user, some) for user, some in zip(ids, lists, strict=True)] if refusals else lists


def _json_of_users(
    context: Context,
    ids: list[str],
    fields: tuple[JSONField, ...],
    *,
    gateway: object = None,
    is_active: object = None,
) -> Awaitable[Mapping[str, str]] | None:
    """The JSON of these users' tokens, of all of them, for a caller who may read every user's."""
    tokens = context.tokens
    if not tokens.caller.reads_all or type(gateway) is str or type(is_active) is bool:
        return None
    context.loads("User.gatewayTokens", len(ids))
    return tokens.of_users_as_json(ids, fields)


def _filter(context: Context, gateway: str | None, active: bool | None) -> Callable[[Token], bool]:  # noqa: FBT001
    name = gateway_argument(context, gateway) if isinstance(gateway, str) else None
    any_state = not isinstance(active, bool)

    def keep(token: Token) -> bool:
        return (name is None or token.gateway == name) and (any_state or token.is_active is active)

    return keep


async def _token_of_users(
    parents: list["User"],
    info: Info,
    *,
    selection: Selection | None,
    gateway: Annotated[
        str, strawberry.argument(description="The gateway. Not case-sensitive: `stripe` is the same as `STRIPE`.")
    ],
) -> Results:
    info.context.loads("User.gatewayToken", len(parents))
    tokens = info.context.tokens
    refusals = tokens.unreadable([user.id for user in parents])
    try:
        name = gateway_argument(info.context, gateway)
    except BadInputError as refused:
        return [refusals.get(user.id, refused) for user in parents]
    pairs = [(user.id, name) for user in parents if user.id not in refusals]
    found: dict[Any, Any] = await tokens.by_users_and_gateways(pairs, columns(selection)) if pairs else {}
    return [refusals.get(user.id) or found.get((user.id, name)) for user in parents]


async def _former_ids(
    parents: list["CustomerGatewayToken"],
    info: Info,
    *,
    selection: Selection | None,  # noqa: ARG001 - a list of text
) -> Results:
    info.context.loads("CustomerGatewayToken.formerGatewayCustomerIds", len(parents))
    return await info.context.tokens.former_ids(cast("list[Token]", parents))


@strawberry.federation.type(
    keys=["id"],
    description="A user of the platform, owned by the user service. This subgraph adds their gateway tokens.",
)
class User:
    """A user by their id; whether they exist is not known here."""

    id: strawberry.ID = strawberry.field(description="The user's id in the user service.")
    gateway_tokens: list["CustomerGatewayToken"] | None = batched(
        _tokens_of_users,
        reads=("id",),
        refusal=_refusal,
        by_key=("id", _json_of_users, "[]"),
        directives=[listed(_GATEWAYS_PER_USER), NEVER_SHARED],
        description=(
            "The user's tokens, ordered by gateway; empty if there are none."
            " Null, with an error, if you may not read them or this service is unavailable."
        ),
    )
    gateway_token: "CustomerGatewayToken | None" = batched(
        _token_of_users,
        reads=("id",),
        refusal=_refusal,
        directives=[NEVER_SHARED],
        description="The user's token at one gateway; null if there is none.",
    )

    @classmethod
    def resolve_reference(cls, id: strawberry.ID) -> "User":  # noqa: A002 - the key's name
        """The user with this key: see `graphql_api.schema.entities`."""
        return cls(id=id)


def _internal(attribute: str, field: str, characters: int, description: str) -> Any:
    """A field that mere users may not read, while the rest of their token is answered."""

    def resolve(root: Any, info: Info) -> Any:
        info.context.caller.authorize(field)
        return getattr(root, attribute)

    return strawberry.federation.field(
        resolver=resolve, tags=["internal"], metadata=reads(attribute) | longest(characters), description=description
    )


@strawberry.federation.type(
    keys=["id", "userId gateway", "gateway gatewayCustomerId"],
    directives=[NEVER_SHARED],
    description=(
        "Maps a user to their customer at a payment gateway. It contains the gateway's customer id, never a card or "
        "other payment method. A user has at most one token for each gateway."
    ),
)
class CustomerGatewayToken:
    """The fields of a token; the objects that they are read from are `graphql_api.domain.token.Token`s."""

    id: strawberry.ID = strawberry.field(description="The token's id, a UUID.")
    user_id: strawberry.ID = strawberry.field(description="The user's id in the user service.")
    gateway: str = strawberry.field(
        description=(
            "The gateway's name, such as STRIPE. If you have several accounts at a gateway, each has its own name, "
            "such as STRIPE_EU."
        )
    )
    gateway_customer_id: str = strawberry.field(
        description="The customer's id at the gateway, such as Stripe's `cus_…`."
    )
    description: str | None = _internal(
        "description",
        "CustomerGatewayToken.description",
        values.MAX_DESCRIPTION_LENGTH,
        "A note for people. Requires the scope gateway-tokens:read.",
    )
    metadata: Json | None = _internal(
        "metadata",
        "CustomerGatewayToken.metadata",
        values.MAX_METADATA_BYTES,
        "A JSON object for programs. Requires the scope gateway-tokens:read.",
    )
    is_active: bool = strawberry.field(description="Whether you may use this customer.")
    created_at: datetime = strawberry.field(description="When the token was created.")
    updated_at: datetime = strawberry.field(description="When the token last changed. Every change sets a later time.")
    version: int = strawberry.field(
        description=(
            "Incremented by one with every change. To avoid overwriting a concurrent change, pass it as "
            "`expectedVersion`."
        )
    )
    deactivated_at: datetime | None = strawberry.field(
        description=(
            "When the token became inactive, or, for GATEWAY_DELETED, the time of the latest reported deletion; null "
            "if the token is active."
        )
    )
    deactivation_reason: DeactivationReason | None = strawberry.field(
        description="Why the token is inactive; null if it is active."
    )
    last_verified_at: datetime | None = strawberry.field(
        description="When the gateway last confirmed that this customer exists; null if it never has."
    )
    former_gateway_customer_ids: list[str] | None = batched(
        _former_ids,
        reads=("id", "user_id", "gateway", "gateway_customer_id"),
        tags=["internal"],
        directives=[listed(_GATEWAYS_PER_USER)],
        description=(
            "The user's previous customer ids at this gateway, oldest first. Lookups by these ids still find this "
            "token. Requires the scope gateway-tokens:read."
        ),
    )
    history: EventConnection | None = histories(
        "The token's history, newest first. Requires the scope gateway-tokens:read."
    )

    @strawberry.federation.field(
        metadata=reads("user_id"),
        description="The user; null if the user service no longer knows them.",
    )
    def user(self) -> User | None:
        """The user, for the gateway to stitch."""
        return User(id=self.user_id)

    @classmethod
    def resolve_reference(cls, **key: str) -> "CustomerGatewayToken":
        """Strawberry wants to see that there is one: `graphql_api.schema.entities` resolves them all at once."""
        raise NotImplementedError
