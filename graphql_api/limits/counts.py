"""What of a document is counted, and how: one function a limit."""

from graphql import (
    DirectiveNode,
    ExecutableDefinitionNode,
    FieldNode,
    FragmentDefinitionNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
)
from graphql.language.ast import QUERY_DOCUMENT_KEYS

from graphql_api.limits.expansion import Expanded

_LISTS = frozenset(
    {"types", "directives", "fields", "args", "inputFields", "enumValues", "interfaces", "possibleTypes"}
)


def operations(expanded: Expanded) -> int:
    """Operations, run or not."""
    return sum(isinstance(definition, OperationDefinitionNode) for definition in expanded.document.definitions)


def fragments(expanded: Expanded) -> int:
    """Named fragments. Validation compares each with each."""
    return sum(isinstance(definition, FragmentDefinitionNode) for definition in expanded.document.definitions)


def directives(expanded: Expanded) -> int:
    """Directives on operations, fragments, variables and selections."""
    definitions = [node for node in expanded.document.definitions if isinstance(node, ExecutableDefinitionNode)]
    variables = [variable for node in definitions for variable in node.variable_definitions or ()]
    on_these = sum(len(node.directives or ()) for node in (*definitions, *variables))
    return on_these + sum(place.directives for place in expanded.places)


def variables(expanded: Expanded) -> int:
    """Variables of the operation that has the most of them."""
    definitions = [node for node in expanded.document.definitions if isinstance(node, ExecutableDefinitionNode)]
    return max((len(node.variable_definitions or ()) for node in definitions), default=0)


def arguments(expanded: Expanded) -> int:
    """Arguments of the field or directive that has the most of them, or fields of an object where these are more."""
    most = 0
    ahead: list[Node] = [*expanded.document.definitions]
    while ahead:
        node = ahead.pop()
        if isinstance(node, FieldNode | DirectiveNode):
            most = max(most, len(node.arguments or ()))
        elif isinstance(node, ObjectValueNode):
            most = max(most, len(node.fields))
        for key in QUERY_DOCUMENT_KEYS.get(node.kind, ()):
            below = getattr(node, key)
            ahead += [below] if isinstance(below, Node) else below or ()
    return most


def depth(expanded: Expanded) -> int:
    """Fields inside one another, the innermost included, in what is no introspection."""
    return max((place.depth for place in expanded.places if not place.is_introspection), default=0)


def introspection_depth(expanded: Expanded) -> int:
    """Fields inside one another below `__schema` and `__type`."""
    return max((place.depth for place in expanded.places if place.is_introspection), default=0)


def introspection_lists(expanded: Expanded) -> int:
    """Lists of introspection: each is as long as the schema is wide, and they stand in one another."""
    return sum(
        same[0].name.value in _LISTS
        for place in expanded.places
        if place.is_introspection
        for same in place.fields.values()
    )


def aliases(expanded: Expanded) -> int:
    """Fields with an alias."""
    return sum(field.alias is not None for place in expanded.places for same in place.fields.values() for field in same)


def root_fields(expanded: Expanded) -> int:
    """Fields at the root of the operation that has the most of them."""
    return max(
        (len(place.fields) for place in expanded.places if place.depth == 1 and not place.is_introspection), default=0
    )


def repeated_fields(expanded: Expanded) -> int:
    """Fields that stand where one of their name stands already. Validation compares each with each."""
    return sum(len(same) - 1 for place in expanded.places for same in place.fields.values())
