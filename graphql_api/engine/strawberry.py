"""All that the engine knows of Strawberry: its schemas and fields, and how it has graphql-core run them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import strawberry
from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLAbstractType,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    MiddlewareManager,
    Undefined,
    is_abstract_type,
    located_error,
)
from strawberry.execution import optimized_is_awaitable as is_awaitable
from strawberry.relay import GlobalID
from strawberry.schema import Schema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
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
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE
from strawberry.types.field import StrawberryField
from strawberry.types.fields.resolver import StrawberryResolver
from strawberry.types.union import StrawberryUnion

from graphql_api.engine.batching import Batch, BatchFunction

if TYPE_CHECKING:
    from graphql_api.engine.plan import FieldPlan
    from graphql_api.engine.runtime import Place, Run
    from graphql_api.engine.selection import Selection

__all__ = [
    "CAST",
    "VALIDATION_RULES",
    "Argument",
    "Attribute",
    "Batched",
    "CompiledInfo",
    "Conversion",
    "CoreExecutor",
    "Delegated",
    "Resolution",
    "Resolver",
    "batched",
    "by_class",
    "core_executor",
    "enum_members",
    "heeds_casts",
    "is_awaitable",
    "is_unchanged_input",
    "object_type_of",
    "reads",
    "reads_of",
    "resolution_of",
    "strawberry_field",
    "strawberry_schema",
]

_OF_STRAWBERRY = (GraphQLCoreConverter.__module__, StrawberryUnion.__module__)
_ResolveType = TypeVar("_ResolveType", bound=Callable[..., Any])

_BATCH = "engine.batch"
_READS = "engine.reads"

CAST = TYPE_CAST_ATTRIBUTE
"""The attribute by which `strawberry.cast` marks an object."""

VALIDATION_RULES: tuple[type[ASTValidationRule], ...] = (MaybeNullValidationRule, OneOfInputValidationRule)


def strawberry_schema(schema: GraphQLSchema) -> Schema:
    """The Strawberry schema behind a GraphQL schema; one that the engine would run differently is refused."""
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


class CoreExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, which here looks for the place of a field in the document once, not for each error."""

    @cached_property
    def _places(self) -> dict[int, tuple[Any, GraphQLError]]:
        """Errors that say where fields stand, with what they were made of, by its identity."""
        return {}

    def handle_field_error(self, raw_error: Exception, return_type: Any, field_details_list: Any, path: Any) -> None:
        """Locate an error and collect it, or raise it where null may not stand."""
        error = located_error(raw_error, None, path.as_list())
        if error is not raw_error and error.source is None:
            known = self._places.get(id(field_details_list))
            if known is None:
                place = GraphQLError("", [details.node for details in field_details_list])
                known = self._places[id(field_details_list)] = (field_details_list, place)
            _, place = known
            error.nodes, error.source = place.nodes, place.source
            error.positions, error.locations = place.positions, place.locations
        super().handle_field_error(error, return_type, field_details_list, path)

    def end(self) -> list[GraphQLError]:
        """The errors of an execution that nothing is resolved for any more; then the executor is no cycle."""
        self.async_helpers = cast("Any", None)  # its own methods, which resolvers are given
        return self.collected_errors.errors


def core_executor(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation_name: str | None,
    variables: dict[str, Any] | None,
    context: Any,
    root: Any,
    *,
    middleware: MiddlewareManager | None,
    suggestions: bool,
) -> CoreExecutor | list[GraphQLError]:
    """graphql-core's executor of one operation, as Strawberry sets it up, or the errors in its variables."""
    return cast("Any", CoreExecutor).build(
        schema,
        document,
        root,
        context,
        variables,
        operation_name,
        middleware=middleware,
        is_awaitable=is_awaitable,
        hide_suggestions=not suggestions,
        operation_extensions=None,
    )


# --- fields ---------------------------------------------------------------------------------------------------------

Conversion: TypeAlias = Callable[[Any, Any], Any]
"""What Strawberry makes of an argument's value, given the field's info."""


class Argument(NamedTuple):
    """What an argument is called in Python, and its conversion, where it has one."""

    name: str
    conversion: Conversion | None


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """The field is an attribute of the parent."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Resolver:
    """The field is what a function answers."""

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
    """The field is left to graphql-core, with all that is below it."""


Resolution: TypeAlias = Attribute | Resolver | Batched | Delegated


def batched(function: BatchFunction, *, reads: tuple[str, ...] | None = None, **options: Any) -> Any:
    """A Strawberry field that loads by its parent, declared once for both ways of execution.

    `async def function(parents, info, *, selection, **arguments)` answers one value for each parent; its keyword
    arguments other than `selection` become the field's arguments. `reads` names the attributes that it reads from a
    parent; `options` are those of `strawberry.federation.field`.

        class User:
            tokens: list[Token] | None = batched(tokens_of_users, reads=("id",), description="…")
    """
    batch = Batch(function)

    def resolve(root: Any, info: strawberry.Info, **arguments: Any) -> Any:
        return batch.load(root, info, arguments)

    root, info, *_ = inspect.signature(resolve).parameters.values()
    arguments = [each for each in list(inspect.signature(function).parameters.values())[2:] if each.name != "selection"]
    resolve.__name__ = getattr(function, "__name__", "resolve")
    resolve.__module__ = function.__module__
    resolve.__dict__["__signature__"] = inspect.Signature([root, info, *arguments])
    metadata = {_BATCH: batch} if reads is None else {_BATCH: batch, _READS: reads}
    return strawberry.federation.field(resolver=resolve, metadata=metadata, **options)


def reads(*attributes: str) -> dict[str, Any]:
    """The `metadata` of a field whose resolver reads no more than these attributes of its parent."""
    return {_READS: attributes}


def reads_of(definition: GraphQLField, resolution: Resolution) -> tuple[str, ...] | None:
    """The attributes of its parent that a field reads, None where nobody knows."""
    if isinstance(resolution, Attribute):
        return (resolution.name,)
    field = strawberry_field(definition)
    return field.metadata.get(_READS) if field is not None else None


def strawberry_field(definition: GraphQLField) -> StrawberryField | None:
    """The Strawberry field behind a GraphQL field; introspection has none."""
    return definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)


def resolution_of(schema: Schema, definition: GraphQLField) -> Resolution:
    """How a field is resolved. What Strawberry wraps in something of its own is left to it."""
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
            return _copied
        if (make := _plain_input(schema, inner)) is not None:
            return lambda value, _info: make(value)
        if isinstance(inner, StrawberryList) and (make := _plain_input(schema, inner.of_type)) is not None:
            return lambda value, _info: None if value is None else [make(item) for item in value]

    def convert(value: Any, info: Any) -> Any:
        return convert_argument(value, type_, registry, schema.config, info, path=path)

    return convert


def _plain_input(schema: Schema, type_: Any) -> Callable[[Any], Any] | None:
    """What `convert_argument` makes of an input, worked out ahead; None where a field is more than a leaf."""
    definition: StrawberryObjectDefinition | None = get_object_definition(type_)
    if definition is None or not definition.is_input or definition.from_input is not None:
        return None
    names: list[tuple[str, str]] = []
    for field in definition.fields:
        inner = field.resolve_type(type_definition=definition)
        if isinstance(inner, StrawberryOptional) and not isinstance(inner, StrawberryMaybe):
            inner = inner.of_type
        if not _is_leaf_type(inner, schema.schema_converter.scalar_registry, (GlobalID,)):
            return None
        names.append((schema.config.name_converter.from_field(field), field.python_name))
    nulls = {
        field.python_name: None
        for field in definition.fields
        if field.default_value is MISSING and field.default_factory is MISSING
    }

    def make(value: Any) -> Any:
        if value is None:
            return None
        return type_(**{**nulls, **{name: value[given] for given, name in names if given in value}})

    return make


def _holds_leaves(type_: StrawberryList, registry: Mapping[object, Any]) -> bool:
    return _is_leaf_type(type_.of_type, registry, (GlobalID,)) or _is_optional_leaf_type(
        type_.of_type, registry, (GlobalID,)
    )


def _copied(value: Any, _info: Any) -> Any:
    return None if value is None else list(value)


class CompiledInfo(strawberry.Info):
    """Strawberry's Info, which costs little until more is asked of it than the context."""

    context: Any = None  # pyright: ignore[reportIncompatibleMethodOverride]
    """The context of the request."""

    def __init__(self, run: "Run", plan: "FieldPlan", place: "Place") -> None:
        self._run = run
        self._plan = plan
        self._place = place
        self.context = run.context

    @property
    def selections(self) -> "dict[str, Selection]":
        """What is asked of the objects that the field returns, by the name of their type."""
        return {name: plan.selection for name, plan in self._plan.objects.items()}

    @cached_property
    def _raw_info(self) -> "GraphQLResolveInfo[Any]":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._run.resolve_info(self._plan, self._place)

    @property
    def _field(self) -> StrawberryField:  # pyright: ignore[reportIncompatibleVariableOverride]
        return cast("StrawberryField", strawberry_field(self._plan.definition))


# --- values ---------------------------------------------------------------------------------------------------------


def enum_members(type_: GraphQLEnumType) -> list[Any]:
    """The members of the Python enum behind a GraphQL enum."""
    return list(type_.wrapped_cls) if isinstance(type_, CustomGraphQLEnumType) else []


def is_unchanged_input(type_: GraphQLScalarType) -> bool:
    """Whether any value is taken for this scalar as it is: federation's `_Any`."""
    definition = type_.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return (
        type_.name == "_Any"
        and getattr(getattr(definition, "parse_value", None), "__module__", "") == "strawberry.federation.schema"
    )


def by_class(resolve_type: _ResolveType) -> _ResolveType:
    """Mark a `resolve_type` that looks at nothing but the class of a value: it is asked once for each class."""
    cast("Any", resolve_type).by_class = True
    return resolve_type


def object_type_of(schema: GraphQLSchema, type_: GraphQLNamedType, value: Any) -> GraphQLObjectType | None:
    """The object type of a value that stands for `type_`, where its class alone decides; else None.

    What has hooks of its own (`is_type_of`, `resolve_type`) that are not marked, makes up attributes, or is generic is
    not decided here. Nor is an object that `strawberry.cast` has marked, where the type heeds that.
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
    """Whether `strawberry.cast` could have made another type of an object that stands for `type_`."""
    return found.is_type_of is not None or (is_abstract_type(type_) and not _is_by_class(type_))


def _runtime_type(schema: GraphQLSchema, type_: GraphQLAbstractType, value: Any) -> GraphQLObjectType | None:
    """What an abstract type resolves to, where it goes by the class of the value."""
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
