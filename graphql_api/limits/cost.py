"""The cost of an operation, by the rules of federation's demand control.

An object costs 1 and a leaf 0, unless `@cost` says otherwise. A list costs that times its size by `@listSize`. A
mutation costs 10 more, each input object 1. `@skip` and `@include` change nothing. The cost of an operation is computed
once, and sizes that come from variables are filled in for each request.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Self, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_leaf_type,
    is_list_type,
)

from graphql_api.limits.directives import is_entities, list_sizes, weight
from graphql_api.limits.sizes import Size, Sizes, Variables

MUTATION = 10
ASSUMED_LIST_SIZE = 10  # if the schema does not say


@dataclass(frozen=True, slots=True)
class Cost:
    """A constant, and terms that are multiplied by sizes from variables."""

    fixed: int = 0
    open: tuple[tuple[Size, "Cost"], ...] = ()

    def of(self, variables: Variables) -> int:
        """The cost in a request with these variables."""
        total = self.fixed
        for size, cost in self.open:
            total += size.of(variables) * (cost.of(variables) if cost.open else cost.fixed)
        return total

    def __add__(self, other: Self) -> Self:
        return type(self)(self.fixed + other.fixed, self.open + other.open)

    def times(self, size: Size) -> "Cost":
        """This many of these."""
        if size.variables:
            return Cost(open=((size, self),))
        number = size.of({})
        return Cost(self.fixed * number, tuple((inner, cost.times(size)) for inner, cost in self.open))


@dataclass(frozen=True, slots=True)
class _Sized:
    """The lists below a field that have the field's size."""

    fields: frozenset[str]
    size: Size


class Estimate:
    """The cost of one operation of a valid document, and its number of entities."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._sizes = Sizes(operation)
        self.variables = self._sizes.variables
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self.representations: list[Size] = []
        is_mutation = operation.operation is OperationType.MUTATION
        root = cast("GraphQLObjectType", schema.get_root_type(operation.operation))
        self.cost = Cost(MUTATION if is_mutation else 0) + self._field_set([operation.selection_set], root, None)

    def _field_set(
        self, selection_sets: list[SelectionSetNode], parent: GraphQLNamedType, sized: _Sized | None
    ) -> Cost:
        """One object of the answer. Fields with one response name count once, as in execution."""
        return _sum(self._field(nodes, kind, sized) for kind, nodes in self._fields(selection_sets, parent))

    def _fields(
        self, selection_sets: list[SelectionSetNode], parent: GraphQLNamedType
    ) -> Iterable[tuple[GraphQLNamedType, list[FieldNode]]]:
        """The fields of one object by type and response name. Each fragment opens once."""
        found: dict[tuple[str, str], tuple[GraphQLNamedType, list[FieldNode]]] = {}
        ahead = [(selection_set, parent) for selection_set in selection_sets]
        opened: set[str] = set()
        while ahead:
            selection_set, kind = ahead.pop()
            for selection in selection_set.selections:
                if isinstance(selection, FieldNode):
                    name = (selection.alias or selection.name).value
                    found.setdefault((kind.name, name), (kind, []))[1].append(selection)
                elif fragment := self._opened(selection, opened):
                    condition = fragment.type_condition
                    inner = self._schema.type_map[condition.name.value] if condition else kind
                    ahead.append((fragment.selection_set, inner))
        return found.values()

    def _opened(self, selection: SelectionNode, opened: set[str]) -> InlineFragmentNode | FragmentDefinitionNode | None:
        """The fragment of a selection, unless it has already been opened."""
        if isinstance(selection, InlineFragmentNode):
            return selection
        name = cast("FragmentSpreadNode", selection).name.value
        if name in opened:
            return None
        opened.add(name)
        return self._fragments[name]

    def _field(self, nodes: list[FieldNode], parent: GraphQLNamedType, sized: _Sized | None) -> Cost:
        node = nodes[0]  # fields with one name have the same arguments
        name = node.name.value
        if name.startswith("__"):
            return Cost()
        field = cast("GraphQLObjectType | GraphQLInterfaceType", parent).fields[name]
        named_type = get_named_type(field.type)
        says = list_sizes(name, field)
        size = self._sizes.of_field(node, field, says.slicing_arguments, says.assumed_size or ASSUMED_LIST_SIZE)
        selection_sets = [node.selection_set for node in nodes if node.selection_set]
        one = Cost(_weight(field, named_type))
        one += self._field_set(selection_sets, named_type, _Sized(says.sized_fields, size))
        if is_list_type(get_nullable_type(field.type)):
            one = one.times(sized.size if sized and name in sized.fields else size)
        if is_entities(name):
            self.representations.append(size)
        return one + self._arguments(node, field)

    def _arguments(self, node: FieldNode, field: GraphQLField) -> Cost:
        return _sum(
            Cost(1).times(self._sizes.of_value(argument.value))
            for argument in node.arguments or ()
            if is_input_object_type(get_named_type(field.args[argument.name.value].type))
        )


def _weight(field: GraphQLField, named_type: GraphQLNamedType) -> int:
    said = weight(field, named_type)
    return said if said is not None else int(not is_leaf_type(named_type))


def _sum(costs: Iterable[Cost]) -> Cost:
    return reduce(add, costs, Cost())
