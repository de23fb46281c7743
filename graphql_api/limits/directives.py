"""Reads `@cost` and `@listSize` from a Strawberry schema."""

from dataclasses import dataclass
from typing import TypeVar

from graphql import GraphQLField, GraphQLNamedType
from strawberry.federation.schema_directives import Cost, ListSize

_ENTITIES = "_entities"
_REPRESENTATIONS = "representations"

Directive = TypeVar("Directive", Cost, ListSize)


@dataclass(frozen=True, slots=True)
class ListSizes:
    """`@listSize` of a field: the arguments with the size, the assumed size, and the lists below that have it."""

    slicing_arguments: tuple[str, ...] = ()
    assumed_size: int | None = None
    sized_fields: frozenset[str] = frozenset()


def is_entities(name: str) -> bool:
    """Whether a root field is `_entities`."""
    return name == _ENTITIES


def weight(field: GraphQLField, named_type: GraphQLNamedType) -> int | None:
    """The weight by `@cost` of a field or of its type."""
    found = _directive(field, Cost) or _directive(named_type, Cost)
    return found.weight if found else None


def list_sizes(name: str, field: GraphQLField) -> ListSizes:
    """The `@listSize` of a field. For `_entities`, which has none, the size is the number of representations."""
    if is_entities(name):
        return ListSizes((_REPRESENTATIONS,))
    found = _directive(field, ListSize)
    if found is None:
        return ListSizes()
    return ListSizes(
        tuple(found.slicing_arguments or ()), found.assumed_size or None, frozenset(found.sized_fields or ())
    )


def _directive(owner: GraphQLField | GraphQLNamedType, kind: type[Directive]) -> Directive | None:
    definition = owner.extensions.get("strawberry-definition")
    return next((found for found in getattr(definition, "directives", ()) if isinstance(found, kind)), None)
