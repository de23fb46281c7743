"""The sizes of lists, as far as a document determines them. Variables are filled in for each request."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from graphql import (
    FieldNode,
    GraphQLField,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
)

Variables = Mapping[str, Any]

_MAX_DIGITS = 19  # that are read of an integer: enough to exceed every limit


@dataclass(frozen=True, slots=True)
class Size:
    """The largest given size; the assumed size if none is given."""

    assumed: int
    fixed: int | None = None
    variables: tuple[tuple[str, int | None], ...] = ()  # with each one's default

    def of(self, variables: Variables) -> int:
        """The size in a request with these variables."""
        largest = self.fixed
        for name, default in self.variables:
            value = variables.get(name, default)
            size = size_in(value)
            if size is not None and (largest is None or size > largest):
                largest = size
        return self.assumed if largest is None else largest


class Sizes:
    """Reads sizes from the arguments of one operation."""

    def __init__(self, operation: OperationDefinitionNode) -> None:
        self.variables: dict[str, int | None] = {}
        """Those that decide sizes, with each one's default."""
        self._defaults = {
            definition.variable.name.value: _literal(definition.default_value)
            for definition in operation.variable_definitions or ()
        }

    def of_field(self, node: FieldNode, field: GraphQLField, slicing: tuple[str, ...], assumed: int) -> Size:
        """The size in slicing arguments; an omitted argument counts with its default."""
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        left_out = [
            size_in(field.args[name].default_value) for name in slicing if name in field.args.keys() - given.keys()
        ]
        return self._of([given[name] for name in slicing if name in given], left_out, assumed)

    def of_value(self, value: ValueNode) -> Size:
        """The number of items in an argument's list; any other value counts as one."""
        return self._of([value], [], 1)

    def _of(self, values: list[ValueNode], others: list[int | None], assumed: int) -> Size:
        numbers = [number for number in (*others, *map(_literal, values)) if number is not None]
        names = [value.name.value for value in values if isinstance(value, VariableNode)]
        self.variables.update((name, self._defaults.get(name)) for name in names)
        return Size(assumed, max(numbers, default=None), tuple((name, self._defaults.get(name)) for name in names))


def _literal(node: ValueNode | None) -> int | None:
    match node:
        case IntValueNode():
            return max(int(node.value[:_MAX_DIGITS]), 0)
        case ListValueNode():
            return len(node.values)
        case ObjectValueNode():
            return 1
        case _:
            return None


def size_in(value: object) -> int | None:
    """The size in a value; None if it has none."""
    if isinstance(value, list):
        return len(cast("list[object]", value))
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return max(int(value), 0)
    return 1 if isinstance(value, dict) else None
