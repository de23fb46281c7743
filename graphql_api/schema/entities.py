"""What a gateway's `_entities` gets: each representation's entity in its place, one statement for each kind of key.

The rules are Apollo's: https://www.apollographql.com/docs/graphos/schema-design/federated-schemas/reference/subgraph-spec
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

import strawberry
from strawberry.federation import Schema
from strawberry.federation.schema import FederationAny
from strawberry.types.fields.resolver import StrawberryResolver

from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import BadInputError, ForbiddenError
from graphql_api.engine import by_class, selection_of
from graphql_api.schema.context import Info
from graphql_api.schema.types import CustomerGatewayToken, User, columns
from graphql_api.service.tokens import Tokens

Entity = Annotated[
    User | CustomerGatewayToken,
    strawberry.union("_Entity", description="An entity that a router can fetch by its key."),
]
_new = object.__new__
Lookup: TypeAlias = Callable[[Tokens, list[Any], frozenset[str] | None], Awaitable[dict[Any, Any]]]


class _TokenKey(NamedTuple):
    """A key of a token: how it is looked up, and by what."""

    names: tuple[str, ...]
    values: tuple[str, ...]


async def _by_ids(tokens: Tokens, keys: list[tuple[str]], wanted: frozenset[str] | None) -> dict[tuple[str], Any]:
    return {(key,): token for key, token in (await tokens.by_ids([key for (key,) in keys], wanted)).items()}


async def _by_customers(tokens: Tokens, keys: list[tuple[str, str]], wanted: frozenset[str] | None) -> dict[Any, Any]:
    """An entity answers to its own key alone: a former customer id is not the key of any."""
    return await tokens.by_customers(keys, wanted, former=False)


# The keys of a token; a representation is taken by the first that is complete.
_LOOKUPS: dict[tuple[str, ...], Lookup] = {
    ("id",): _by_ids,
    ("userId", "gateway"): Tokens.by_users_and_gateways,
    ("gateway", "gatewayCustomerId"): _by_customers,
}
_NUL = "A key of a representation contains a NUL character. Remove it."  # JSON and GraphQL have no lone surrogates
_NO_USER_KEY = "A representation of User needs its key: `id`, a string."
_NO_KEY = (
    "A representation of CustomerGatewayToken must contain one of its keys as strings:"
    " `id`, or `userId` and `gateway`, or `gateway` and `gatewayCustomerId`."
)


def entities(
    info: Info,
    representations: Annotated[
        list[FederationAny],
        strawberry.argument(description="Objects with `__typename` and the fields of one key."),
    ],
) -> list[Entity | None]:
    """The entity of each representation, null for one that is not there; an error stands in the place of its own."""
    info.context.loads("Query._entities", len(representations))
    results: Any = []
    given: Any = representations
    for each in given:
        is_user = type(each) is dict and each.get("__typename") == "User"
        if is_user and type(user_id := each.get("id")) is str and "\0" not in user_id:
            user = _new(User)  # to call the class takes twice as long
            user.id = user_id  # pyright: ignore[reportAttributeAccessIssue] - to say that it is an ID is a call
            results.append(user)
        else:
            results.append(_parsed(each))
    if _TokenKey in set(map(type, results)):
        return cast("Any", _with_tokens(info, results))
    return results


def name_entity_types(schema: Schema) -> None:
    """Have the union tell its types by the class of the object: what is not a user is a row of the store, a token."""

    @by_class
    def type_name(entity: object, *_: object) -> str:
        return "User" if type(entity) is User else "CustomerGatewayToken"

    # Strawberry has no public name for what it made of the types.
    cast("Any", schema)._schema.type_map["_Entity"].resolve_type = type_name  # noqa: SLF001


def print_once(schema: Schema) -> None:
    """Have `_service { sdl }` answer a text that is printed once, when it is first asked for."""

    @cache
    def printed() -> str:
        return schema.as_str()

    def sdl() -> str:
        return printed()

    field = cast("Any", schema)._schema.type_map["_Service"].fields["sdl"]  # noqa: SLF001 - as above
    field.extensions["strawberry-definition"].base_resolver = StrawberryResolver(sdl)


def _parsed(representation: Any) -> _TokenKey | BadInputError:
    """What a representation stands for that is not the key of a user."""
    if not isinstance(representation, dict):
        return BadInputError("A representation must be an object with `__typename` and a key.")
    given: dict[str, Any] = representation  # pyright: ignore[reportUnknownVariableType]
    kind = given.get("__typename")
    if kind == "User":
        return BadInputError(_NUL if isinstance(given.get("id"), str) else _NO_USER_KEY)
    if kind == "CustomerGatewayToken":
        return _token_key(given)
    found = f", not {quoted(kind)}" if isinstance(kind, str) else ""
    return BadInputError(f"`__typename` of a representation must be User or CustomerGatewayToken{found}.")


def _token_key(given: dict[str, Any]) -> _TokenKey | BadInputError:
    for names in _LOOKUPS:
        values = tuple(given.get(name) for name in names)
        if all(isinstance(value, str) for value in values):
            if any("\0" in value for value in cast("tuple[str, ...]", values)):
                return BadInputError(_NUL)
            return _TokenKey(names, cast("tuple[str, ...]", values))
    return BadInputError(_NO_KEY)


async def _with_tokens(info: Info, results: list[Any]) -> list[Any]:
    """The same, with the tokens in the places of their keys."""
    wanted = columns(selection_of(info, "CustomerGatewayToken"))
    places: defaultdict[tuple[str, ...], defaultdict[tuple[str, ...], list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for index, result in enumerate(results):
        if isinstance(result, _TokenKey):
            places[result.names][result.values].append(index)
    for names, indexes in places.items():
        try:
            found = await _LOOKUPS[names](info.context.tokens, list(indexes), wanted)
        except ForbiddenError as error:
            found = dict.fromkeys(indexes, error)
        for values, same in indexes.items():
            for index in same:
                results[index] = found.get(values)
    return results
