"""Counts what is limited in a document: one function per limit."""

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

from graphql_api.limits.expansion import ExpandedDocument

_LISTS = frozenset(
    {"types", "directives", "fields", "args", "inputFields", "enumValues", "interfaces", "possibleTypes"}
)


def operations(expanded: ExpandedDocument) -> int:
    """All operations, whether they run or not."""
    return sum(isinstance(definition, OperationDefinitionNode) for definition in expanded.document.definitions)


def fragments(expanded: ExpandedDocument) -> int:
    """Named fragments. Validation compares each with each."""
    return sum(isinstance(definition, FragmentDefinitionNode) for definition in expanded.document.definitions)


def directives(expanded: ExpandedDocument) -> int:
    """Directives on operations, fragments, variables and selections."""
    definitions = [node for node in expanded.document.definitions if isinstance(node, ExecutableDefinitionNode)]
    variables = [variable for node in definitions for variable in node.variable_definitions or ()]
    on_these = sum(len(node.directives or ()) for node in (*definitions, *variables))
    return on_these + sum(field_set.directives for field_set in expanded.field_sets)


def variables(expanded: ExpandedDocument) -> int:
    """Variables of the operation with the most."""
    definitions = [node for node in expanded.document.definitions if isinstance(node, ExecutableDefinitionNode)]
    return max((len(node.variable_definitions or ()) for node in definitions), default=0)


def arguments(expanded: ExpandedDocument) -> int:
    """The highest number of arguments of one field or directive, or of fields of one input object."""
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


def depth(expanded: ExpandedDocument) -> int:
    """Nesting depth of fields, the innermost included, outside introspection."""
    return max((field_set.depth for field_set in expanded.field_sets if not field_set.is_introspection), default=0)


def introspection_depth(expanded: ExpandedDocument) -> int:
    """Nesting depth of fields below `__schema` and `__type`."""
    return max((field_set.depth for field_set in expanded.field_sets if field_set.is_introspection), default=0)


def introspection_lists(expanded: ExpandedDocument) -> int:
    """Nested lists of introspection, each as long as the schema is wide."""
    return sum(
        same[0].name.value in _LISTS
        for field_set in expanded.field_sets
        if field_set.is_introspection
        for same in field_set.fields.values()
    )


def aliases(expanded: ExpandedDocument) -> int:
    """Fields with an alias."""
    return sum(
        field.alias is not None
        for field_set in expanded.field_sets
        for same in field_set.fields.values()
        for field in same
    )


def root_fields(expanded: ExpandedDocument) -> int:
    """Root fields of the operation with the most."""
    return max(
        (
            len(field_set.fields)
            for field_set in expanded.field_sets
            if field_set.depth == 1 and not field_set.is_introspection
        ),
        default=0,
    )


def repeated_fields(expanded: ExpandedDocument) -> int:
    """Fields with the same response name in one selection. Validation compares each with each."""
    return sum(len(same) - 1 for field_set in expanded.field_sets for same in field_set.fields.values())
