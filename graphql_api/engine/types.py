"""Strawberry's schemas and types: which ones the engine supports, and how the class of a value determines its type."""

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar, cast

import strawberry
from graphql import (
    GraphQLAbstractType,
    GraphQLEnumType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    Undefined,
    is_abstract_type,
)
from strawberry.schema import Schema
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE
from strawberry.types.union import StrawberryUnion

from graphql_api.engine.executor import is_awaitable

_OF_STRAWBERRY = (GraphQLCoreConverter.__module__, StrawberryUnion.__module__)
_ResolveType = TypeVar("_ResolveType", bound=Callable[..., Any])

CAST = TYPE_CAST_ATTRIBUTE
"""The attribute by which `strawberry.cast` marks an object."""


def strawberry_schema(schema: GraphQLSchema) -> Schema:
    """The Strawberry schema behind a GraphQL schema. Raises `TypeError` if the engine would run it differently."""
    found = getattr(schema, "_strawberry_schema", None)
    if not isinstance(found, Schema):
        raise TypeError("The engine runs schemas made by Strawberry.")
    if found.extensions or cast("Any", found).directives:
        raise TypeError("The engine runs no schema extensions and no custom operation directives.")
    if found.config.info_class is not strawberry.Info:
        raise TypeError("The engine makes Strawberry's own Info, no other.")
    if schema.get_directive("defer") or schema.get_directive("stream"):
        raise TypeError("The engine delivers nothing incrementally: a schema with @defer or @stream is not for it.")
    return found


def enum_members(type_: GraphQLEnumType) -> list[Any]:
    """The members of the Python enum behind a GraphQL enum."""
    return list(type_.wrapped_cls) if isinstance(type_, CustomGraphQLEnumType) else []


def is_unchanged_input(type_: GraphQLScalarType) -> bool:
    """Whether this scalar accepts any value unchanged, as federation's `_Any` does."""
    definition = type_.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return (
        type_.name == "_Any"
        and getattr(getattr(definition, "parse_value", None), "__module__", "") == "strawberry.federation.schema"
    )


def by_class(resolve_type: _ResolveType) -> _ResolveType:
    """Mark a `resolve_type` that depends only on the class of a value, so that it is called once per class."""
    cast("Any", resolve_type).by_class = True
    return resolve_type


def object_type_of(schema: GraphQLSchema, type_: GraphQLNamedType, value: Any) -> GraphQLObjectType | None:
    """The object type of a value for `type_`, if its class alone decides; otherwise None.

    None for types with unmarked hooks (`is_type_of`, `resolve_type`) or dynamic attributes, and for generic types.
    Also for an object that `strawberry.cast` has marked, if the type respects that.
    """
    class_ = type(value)
    if (
        value is None
        or value is Undefined
        or isinstance(value, Exception)
        or hasattr(class_, "__getattr__")
        or isinstance(class_.__getattribute__, FunctionType)
        or is_awaitable(value)
    ):
        return None
    found = _runtime_type(schema, type_, value) if is_abstract_type(type_) else cast("GraphQLObjectType", type_)
    if found is None or found.is_type_of is None:
        return found
    undecided = _has_hooks(found) or getattr(value, CAST, None) is not None
    return None if undecided or not found.is_type_of(value, cast("Any", None)) else found


def heeds_casts(type_: GraphQLNamedType, found: GraphQLObjectType) -> bool:
    """Whether `strawberry.cast` could have given an object of `type_` another type."""
    return found.is_type_of is not None or (is_abstract_type(type_) and not _is_by_class(type_))


def _runtime_type(schema: GraphQLSchema, type_: GraphQLAbstractType, value: Any) -> GraphQLObjectType | None:
    """What an abstract type resolves to, if the value's class decides."""
    if not _is_by_class(type_) and not _strawberry_goes_by_class(schema, type_, value):
        return None
    info = SimpleNamespace(schema=schema, field_name="", is_awaitable=is_awaitable)
    try:
        name = cast("Any", type_).resolve_type(value, info, type_)
    except Exception:  # noqa: BLE001 - graphql-core asks again and reports it in its place
        return None
    return next((possible for possible in schema.get_possible_types(type_) if possible.name == name), None)


def _is_by_class(type_: GraphQLAbstractType) -> bool:
    return getattr(type_.resolve_type, "by_class", False)


def _strawberry_goes_by_class(schema: GraphQLSchema, type_: GraphQLAbstractType, value: Any) -> bool:
    definition = getattr(type(value), "__strawberry_definition__", None)
    if (
        not isinstance(definition, StrawberryObjectDefinition)
        or definition.is_graphql_generic
        or definition.concrete_of is not None
        or getattr(value, CAST, None) is not None
    ):
        return False
    interface = _definition(type_)
    if isinstance(interface, StrawberryObjectDefinition) and not isinstance(value, interface.origin):
        return False
    if getattr(type_.resolve_type, "__module__", None) not in _OF_STRAWBERRY:
        return False
    return not any(_has_hooks(possible) for possible in schema.get_possible_types(type_))


def _has_hooks(type_: GraphQLObjectType) -> bool:
    definition = _definition(type_)
    return not isinstance(definition, StrawberryObjectDefinition) or definition.is_type_of is not None


def _definition(type_: GraphQLNamedType) -> Any:
    return type_.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
