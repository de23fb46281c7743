"""What a schema says of costs by `@cost` and `@listSize`, and nothing else of Strawberry, which keeps it."""

from dataclasses import dataclass
from typing import TypeVar

from graphql import GraphQLField, GraphQLNamedType
from strawberry.federation.schema_directives import Cost, ListSize

_ENTITIES = "_entities"
_REPRESENTATIONS = "representations"

Directive = TypeVar("Directive", Cost, ListSize)


@dataclass(frozen=True, slots=True)
class ListSizes:
    """`@listSize` of a field: which arguments say how many items there are, how many else, and in which lists below."""

    slicing_arguments: tuple[str, ...] = ()
    assumed_size: int | None = None
    sized_fields: frozenset[str] = frozenset()


def is_entities(name: str) -> bool:
    """Whether a field of the root is the one that a gateway asks for entities."""
    return name == _ENTITIES


def weight(field: GraphQLField, named_type: GraphQLNamedType) -> int | None:
    """What `@cost` says of a field, or of its type."""
    found = _directive(field, Cost) or _directive(named_type, Cost)
    return found.weight if found else None


def list_sizes(name: str, field: GraphQLField) -> ListSizes:
    """What `@listSize` says of a field. Entities, of which it says nothing, are as many as their representations."""
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
