"""How Strawberry resolves the fields of a schema and converts their arguments."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import strawberry
from graphql import GraphQLField
from strawberry.relay import GlobalID
from strawberry.schema import Schema
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.arguments import (
    StrawberryArgument,
    _is_leaf_type,  # pyright: ignore[reportPrivateUsage]
    _is_optional_leaf_type,  # pyright: ignore[reportPrivateUsage]
    convert_argument,
)
from strawberry.types.base import (
    StrawberryList,
    StrawberryMaybe,
    StrawberryObjectDefinition,
    StrawberryOptional,
    get_object_definition,
)
from strawberry.types.field import StrawberryField
from strawberry.types.fields.resolver import StrawberryResolver

from graphql_api.engine.batching import Batch, BatchFunction, JSONByKey, Refusal
from graphql_api.engine.size import VALUE_LENGTH

_BATCH = "engine.batch"
_READS = "engine.reads"
_LONGEST = "engine.longest"

Conversion: TypeAlias = Callable[[Any, Any], Any]
"""What Strawberry makes of an argument's value, given the field's info."""


class Argument(NamedTuple):
    """An argument's Python name, and its conversion, if any."""

    name: str
    conversion: Conversion | None


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """The field is resolved by an attribute of the parent."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Resolver:
    """The field is resolved by a function."""

    function: Callable[..., Any]
    takes_self: bool
    parent_names: tuple[str, ...]
    info_name: str | None
    arguments: Mapping[str, Argument]
    is_coroutine: bool


@dataclass(frozen=True, slots=True, eq=False)
class Batched:
    """The field is loaded for many parents at once."""

    batch: Batch
    arguments: Mapping[str, Argument]


@dataclass(frozen=True, slots=True, eq=False)
class Delegated:
    """graphql-core resolves the field and everything below it."""


Resolution: TypeAlias = Attribute | Resolver | Batched | Delegated


def batched(
    function: BatchFunction,
    *,
    reads: tuple[str, ...] | None = None,
    refusal: Refusal | None = None,
    by_key: JSONByKey | None = None,
    **options: Any,
) -> Any:
    """A Strawberry field that loads by its parent, declared once for both ways of execution.

    `async def function(parents, info, *, selection, **arguments)` returns one value for each parent. Its keyword
    arguments other than `selection` become the field's arguments. `reads` names the attributes that it reads from a
    parent. `refusal` returns the error for a parent, so that graphql-core need not load anything for it. `by_key` finds
    what the function would return if plain leaves are selected. `options` are those of `strawberry.federation.field`.

        class User:
            tokens: list[Token] | None = batched(tokens_of_users, reads=("id",), description="…")
    """
    batch = Batch(function, refusal, by_key)

    def resolve(root: Any, info: strawberry.Info, **arguments: Any) -> Any:
        return batch.load(root, info, arguments)

    root, info, *_ = inspect.signature(resolve).parameters.values()
    arguments = [each for each in list(inspect.signature(function).parameters.values())[2:] if each.name != "selection"]
    resolve.__name__ = getattr(function, "__name__", "resolve")
    resolve.__module__ = function.__module__
    resolve.__dict__["__signature__"] = inspect.Signature([root, info, *arguments])
    metadata = {_BATCH: batch} if reads is None else {_BATCH: batch, _READS: reads}
    return strawberry.federation.field(resolver=resolve, metadata=metadata, **options)


def refusal_of(definition: GraphQLField) -> Refusal | None:
    """The check of a batched field that refuses parents."""
    field = strawberry_field(definition)
    batch: Batch | None = field.metadata.get(_BATCH) if field is not None else None
    return batch.refusal if batch is not None else None


def reads(*attributes: str) -> dict[str, Any]:
    """The `metadata` of a field whose resolver reads only these attributes of its parent."""
    return {_READS: attributes}


def longest(characters: int) -> dict[str, Any]:
    """The `metadata` of a field whose text or JSON can have more than `VALUE_LENGTH` characters."""
    return {_LONGEST: characters}


def longest_of(definition: GraphQLField) -> int:
    """The maximum number of characters in a value of this field."""
    field = strawberry_field(definition)
    return field.metadata.get(_LONGEST, VALUE_LENGTH) if field is not None else VALUE_LENGTH


def reads_of(definition: GraphQLField, resolution: Resolution) -> tuple[str, ...] | None:
    """The parent's attributes that a field reads; None if unknown."""
    if isinstance(resolution, Attribute):
        return (resolution.name,)
    field = strawberry_field(definition)
    return field.metadata.get(_READS) if field is not None else None


def strawberry_field(definition: GraphQLField) -> StrawberryField | None:
    """The Strawberry field behind a GraphQL field; introspection has none."""
    return definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)


def resolution_of(schema: Schema, definition: GraphQLField) -> Resolution:
    """How a field is resolved. If Strawberry wraps the resolver in extensions, Strawberry resolves it."""
    field = strawberry_field(definition)
    if (
        field is None
        or field.extensions
        or field.is_subscription
        or type(field).get_result is not StrawberryField.get_result
        or getattr(definition.resolve, "__module__", None) != GraphQLCoreConverter.__module__
        or schema.exception_handlers
    ):
        return Delegated()
    if field.base_resolver is None:
        return Attribute(field.python_name) if field.default_resolver is getattr else Delegated()
    arguments = _arguments(schema, field)
    if _BATCH in field.metadata:
        return Batched(field.metadata[_BATCH], arguments)
    return _resolver(field.base_resolver, arguments)


def _resolver(resolver: StrawberryResolver[Any], arguments: Mapping[str, Argument]) -> Resolver:
    parents = (resolver.parent_parameter, resolver.root_parameter)
    return Resolver(
        function=cast("Callable[..., Any]", resolver.wrapped_func),
        takes_self=resolver.self_parameter is not None,
        parent_names=tuple({parameter.name: None for parameter in parents if parameter is not None}),
        info_name=resolver.info_parameter.name if resolver.info_parameter is not None else None,
        arguments=arguments,
        is_coroutine=inspect.iscoroutinefunction(resolver.wrapped_func),
    )


def _arguments(schema: Schema, field: StrawberryField) -> dict[str, Argument]:
    return {
        schema.config.name_converter.from_argument(argument): Argument(
            argument.python_name, _conversion(schema, argument)
        )
        for argument in field.arguments
    }


def _conversion(schema: Schema, argument: StrawberryArgument) -> Conversion | None:
    type_, registry = argument.type, schema.schema_converter.scalar_registry
    path = (schema.config.name_converter.from_argument(argument),)
    if not isinstance(type_, StrawberryMaybe):
        inner = type_.of_type if isinstance(type_, StrawberryOptional) else type_
        if _is_leaf_type(inner, registry, (GlobalID,)):
            return None
        if isinstance(inner, StrawberryList) and _holds_leaves(inner, registry):
            return copied
        if (make := _plain_input(schema, inner)) is not None:
            return lambda value, _info: make(value)
        if isinstance(inner, StrawberryList) and (make := _plain_input(schema, inner.of_type)) is not None:
            return lambda value, _info: None if value is None else [make(item) for item in value]

    def convert(value: Any, info: Any) -> Any:
        return convert_argument(value, type_, registry, schema.config, info, path=path)

    return convert


def _plain_input(schema: Schema, type_: Any) -> Callable[[Any], Any] | None:
    """What `convert_argument` makes of an input, precomputed; None if a field is not a leaf."""
    definition: StrawberryObjectDefinition | None = get_object_definition(type_)
    if definition is None or not definition.is_input or definition.from_input is not None:
        return None
    names: dict[str, str] = {}
    for field in definition.fields:
        inner = field.resolve_type(type_definition=definition)
        if isinstance(inner, StrawberryOptional) and not isinstance(inner, StrawberryMaybe):
            inner = inner.of_type
        if not _is_leaf_type(inner, schema.schema_converter.scalar_registry, (GlobalID,)):
            return None
        names[schema.config.name_converter.from_field(field)] = field.python_name
    nulls = {
        field.python_name: None
        for field in definition.fields
        if field.default_value is MISSING and field.default_factory is MISSING
    }

    def make(value: Any) -> Any:
        if value is None:
            return None
        return type_(**nulls | {names[name]: given for name, given in value.items()})

    return make


def _holds_leaves(type_: StrawberryList, registry: Mapping[object, Any]) -> bool:
    return _is_leaf_type(type_.of_type, registry, (GlobalID,)) or _is_optional_leaf_type(
        type_.of_type, registry, (GlobalID,)
    )


def copied(value: Any, _info: Any) -> Any:
    """A list that is the resolver's own."""
    return None if value is None else list(value)
