"""Plans an operation before it runs: its fields, how each is resolved, and where errors propagate to.

graphql-core collects and merges the fields. `fields` determines how Strawberry resolves each.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues

from graphql_api.engine.fields import Attribute, Delegated, Resolution, reads_of, resolution_of
from graphql_api.engine.paths import PathLink
from graphql_api.engine.selection import JSONField, Selection
from graphql_api.engine.types import strawberry_schema

OutputType: TypeAlias = "GraphQLNamedType | GraphQLList[Any] | GraphQLNonNull[Any]"

MAX_FIELDS = 400
"""More than that take longer to compile than one execution is worth waiting for."""


class UnsupportedOperationError(Exception):
    """graphql-core must run the operation. The message is the reason, in two or three words."""


class Position:
    """A place in the answer that holds a value: a field, or an item of a field's list."""

    __slots__ = ("field", "nullable", "type")

    def __init__(self, field: "FieldPlan", type_: OutputType, above: tuple[bool, ...]) -> None:
        self.field = field
        self.type = type_
        self.nullable = (not is_non_null_type(type_), *above)
        """Whether null may stand here, then one place up, and so on to the root."""


class FieldPlan:
    """One field of one type of object, under its response key."""

    __slots__ = (
        "definition",
        "details",
        "item",
        "key",
        "nodes",
        "objects",
        "owner",
        "owner_name",
        "parent",
        "resolution",
        "selections",
        "value",
    )

    def __init__(
        self,
        owner: "FieldPlan | None",
        key: str,
        parent: GraphQLObjectType,
        definition: GraphQLField,
        details: list[FieldDetails],
        resolution: Resolution,
    ) -> None:
        self.owner = owner
        """The field whose object this is a field of; None at the root."""
        self.owner_name = None if owner is None or owner.item else owner.parent.name
        """The name of the type that the owner is a field of; in the place of a list's item there is none."""
        self.key = key
        self.parent = parent
        self.definition = definition
        self.details = details
        self.nodes: list[FieldNode] = [detail.node for detail in details]
        self.resolution = resolution
        self.value = Position(self, definition.type, owner.innermost.nullable if owner else ())
        listed = nullable_type(definition.type)
        self.item = Position(self, listed.of_type, self.value.nullable) if is_list_type(listed) else None
        self.objects: dict[str, ObjectPlan] = {}
        """What to do with the objects that stand here, by the name of their type."""
        self.selections: dict[str, Selection] = {}
        """What is asked of them."""

    def release(self) -> None:
        """Break the cycles of references that this field is part of; it cannot be used afterwards."""
        self.objects.clear()
        for position in (self.value, self.item):
            if position is not None:
                del position.field

    @property
    def innermost(self) -> Position:
        """The position of this field's objects."""
        return self.item or self.value

    def path_in(self, above: "PathLink | None", key: Any) -> PathLink:
        """The path of this field in the object under this key below a path."""
        return None if self.owner is None else (above, key, self.owner_name), self.key, self.parent.name

    @property
    def name(self) -> str:
        """The field's name in the schema."""
        return self.nodes[0].name.value

    @property
    def type(self) -> GraphQLNamedType:
        """The type at this position; of an item, if it is a list."""
        return cast("GraphQLNamedType", nullable_type(self.innermost.type))

    @property
    def is_leaf(self) -> bool:
        """Whether it holds a single scalar or enum, not a list."""
        return self.item is None and is_leaf_type(self.type)

    @property
    def takes_json(self) -> bool:
        """Whether an object that can be here could be written directly as JSON."""
        return any(plan.selection.json is not None for plan in self.objects.values())


class TypeName:
    """The field `__typename`, whose value is known in advance."""

    __slots__ = ("key", "name")

    def __init__(self, key: str, name: str) -> None:
        self.key = key
        self.name = name


class ObjectPlan:
    """The fields to return for an object of one type."""

    __slots__ = ("fields", "selection", "type")

    def __init__(self, type_: GraphQLObjectType, fields: Sequence[FieldPlan | TypeName]) -> None:
        self.type = type_
        self.fields = fields
        self.selection = Selection(_attributes(fields), _json(fields))


def plan_operation(
    schema: GraphQLSchema,
    fragments: dict[str, FragmentDetails],
    operation: OperationDefinitionNode,
    variables: VariableValues,
) -> ObjectPlan:
    """Plan an operation, with @skip and @include evaluated by these variables."""
    root = cast("GraphQLObjectType", schema.get_root_type(operation.operation))
    planner = _Planner(schema, fragments, operation, variables)
    collected = collect_fields(schema, fragments, variables, root, operation)
    return ObjectPlan(root, planner.fields(None, root, collected.grouped_field_set))


class _Planner:
    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: dict[str, FragmentDetails],
        operation: OperationDefinitionNode,
        variables: VariableValues,
    ) -> None:
        self._schema = schema
        self._strawberry = strawberry_schema(schema)
        self._fragments = fragments
        self._operation = operation
        self._variables = variables
        self._count = 0

    def fields(
        self, owner: FieldPlan | None, parent: GraphQLObjectType, grouped: dict[str, list[FieldDetails]]
    ) -> list[FieldPlan | TypeName]:
        self._count += len(grouped)
        if self._count > MAX_FIELDS:
            raise UnsupportedOperationError("too many fields")
        return [self._field(owner, key, parent, details) for key, details in grouped.items()]

    def _field(
        self, owner: FieldPlan | None, key: str, parent: GraphQLObjectType, details: list[FieldDetails]
    ) -> FieldPlan | TypeName:
        name = details[0].node.name.value
        if name == "__typename":
            return TypeName(key, parent.name)
        definition = cast("GraphQLField", self._schema.get_field(parent, name))
        plan = FieldPlan(owner, key, parent, definition, details, resolution_of(self._strawberry, definition))
        if not isinstance(plan.resolution, Delegated):
            plan.objects = {type_.name: self._object(plan, type_) for type_ in self._possible_types(plan.type)}
            plan.selections = {name: objects.selection for name, objects in plan.objects.items()}
        return plan

    def _object(self, field: FieldPlan, type_: GraphQLObjectType) -> ObjectPlan:
        collected = collect_subfields(
            self._schema, self._fragments, self._variables, self._operation, type_, field.details
        )
        return ObjectPlan(type_, self.fields(field, type_, collected.grouped_field_set))

    def _possible_types(self, type_: GraphQLNamedType) -> Sequence[GraphQLObjectType]:
        if is_object_type(type_):
            return [type_]
        return self._schema.get_possible_types(type_) if is_abstract_type(type_) else []


def nullable_type(type_: OutputType) -> OutputType:
    """The type without its non-null wrapper."""
    return type_.of_type if is_non_null_type(type_) else type_


def _attributes(fields: Sequence[FieldPlan | TypeName]) -> frozenset[str] | None:
    found: set[str] = set()
    for field in fields:
        if isinstance(field, TypeName):
            continue
        read = reads_of(field.definition, field.resolution)
        if read is None:
            return None
        found.update(read)
    return frozenset(found)


def _json(fields: Sequence[FieldPlan | TypeName]) -> tuple[JSONField, ...] | None:
    written: list[JSONField] = []
    for field in fields:
        match field:
            case TypeName(key="__typename" as key, name=name):
                written.append(JSONField(key, None, name))
            case FieldPlan(key=key, resolution=Attribute(name=name), is_leaf=True) if key == field.name:
                written.append(JSONField(key, name))
            case _:
                return None
    return tuple(written) or None
