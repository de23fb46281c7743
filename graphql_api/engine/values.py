"""Coerces variables and arguments, with a fast path for common values.

The fast path accepts only values that are clearly valid. graphql-core coerces all others, and reports the errors.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from math import isfinite
from typing import Any, NamedTuple, TypeAlias, cast

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    Undefined,
    ValueNode,
    VariableNode,
    is_non_null_type,
    is_required_input_field,
)
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues, get_argument_values, get_variable_values
from graphql.utilities.coerce_input_value import coerce_default_value, coerce_input_literal

from graphql_api.engine.fields import Argument, Conversion, copied
from graphql_api.engine.messages import with_enum_values
from graphql_api.engine.runtime import Run
from graphql_api.engine.types import is_unchanged_input

MAX_ERRORS = 50
MAX_INT, MIN_INT = 2_147_483_647, -2_147_483_648

Coercer: TypeAlias = Callable[[Any], Any]
"""Makes the value that graphql-core would make of an input, or Undefined: then graphql-core has to look at it."""

# --- variables ------------------------------------------------------------------------------------------------------


class _Variable(NamedTuple):
    name: str
    coerce: Coercer
    absent: Any
    """What replaces a missing value: a default, `_OMITTED`, or Undefined if graphql-core must report it."""


_OMITTED = object()


class Variables:
    """The variables of an operation."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode, *, suggestions: bool) -> None:
        self._schema = schema
        self._definitions = operation.variable_definitions or ()
        self._suggestions = suggestions
        self._variables = self._fast_path()

    def coerce(self, values: dict[str, Any]) -> dict[str, Any] | list[GraphQLError]:
        """The coerced variables, or the errors."""
        if self._variables is not None:
            coerced: dict[str, Any] = {}
            for name, coerce, absent in self._variables:
                value = values.get(name, Undefined)
                value = absent if value is Undefined else coerce(value)
                if value is Undefined:
                    break
                if value is not _OMITTED:
                    coerced[name] = value
            else:
                return coerced
        variables = self._of_core(values)
        return variables if isinstance(variables, list) else variables.coerced

    def of_core(self, values: dict[str, Any]) -> VariableValues:
        """Valid values in graphql-core's form."""
        return cast("VariableValues", self._of_core(values))

    def _of_core(self, values: dict[str, Any]) -> VariableValues | list[GraphQLError]:
        found = get_variable_values(
            self._schema, self._definitions, values, max_errors=MAX_ERRORS, hide_suggestions=not self._suggestions
        )
        return self.told(found) if isinstance(found, list) else found

    def told(self, errors: list[GraphQLError]) -> list[GraphQLError]:
        """Errors in variables as callers are told of them: with the values of an enum, if suggestions are on."""
        if self._suggestions:
            for error in errors:
                error.message = with_enum_values(error.message, self._schema)
        return errors

    def _fast_path(self) -> list[_Variable] | None:
        variables: list[_Variable] = []
        for definition in self._definitions:
            signature = get_variable_signature(self._schema, definition)
            if isinstance(signature, GraphQLError):
                return None
            coerce = coercer(signature.type)
            if coerce is None:
                return None
            variables.append(_Variable(signature.name, coerce, _absent(signature)))
        return variables


def _absent(signature: GraphQLVariableSignature) -> Any:
    if signature.default is not None:
        return _constant_default(signature)
    return Undefined if is_non_null_type(signature.type) else _OMITTED


def _constant_default(owner: Any) -> Any:
    """The default of a variable, argument or input field if executions can share it; otherwise Undefined."""
    try:
        default = coerce_default_value(owner)
    except Exception:  # noqa: BLE001 - an invalid default is an error that graphql-core words
        return Undefined
    return default if is_constant(default) else Undefined


def is_constant(value: Any) -> bool:
    """Whether a value is immutable, so that all executions can share it."""
    return type(value) in _CONSTANTS or isinstance(value, Enum)


_CONSTANTS = frozenset({str, int, float, bool, type(None)})


def coercer(type_: Any, within: tuple[Any, ...] = ()) -> Coercer | None:
    """The fast path for an input type; None if it has none, as a recursive input type."""
    match type_:
        case GraphQLNonNull():
            if type_.of_type in _EXACTLY:
                return _exactly(_EXACTLY[type_.of_type])
            inner = coercer(type_.of_type, within)
            return inner if inner is _unchanged_list else inner and _not_null(inner)
        case GraphQLList():
            inner = coercer(type_.of_type, within)
            return inner and _list(type_.of_type, inner)
        case GraphQLInputObjectType():
            unusual = type_ in within or type_.is_one_of or type_.out_type is not GraphQLInputObjectType.out_type
            return None if unusual else _input_object(type_, (*within, type_))
        case _:
            return _LEAVES.get(type_) or _leaf(type_)


def _not_null(inner: Coercer) -> Coercer:
    return lambda value: Undefined if value is None else inner(value)


def _leaf(type_: GraphQLScalarType | GraphQLEnumType) -> Coercer:
    # The suggestions for one wrong value take a millisecond. graphql-core makes them for the errors that it reports.
    options = {"hide_suggestions": True} if isinstance(type_, GraphQLEnumType) else {}

    def coerce(value: Any) -> Any:
        if value is None:
            return None
        try:
            return type_.coerce_input_value(value, **options)
        except Exception:  # noqa: BLE001 - graphql-core words it
            return Undefined

    return coerce


def _exactly(class_: type) -> Coercer:
    return lambda value: value if type(value) is class_ else Undefined


def _exactly_or_null(class_: type) -> Coercer:
    return lambda value: value if type(value) is class_ or value is None else Undefined


def _int(value: Any) -> Any:
    return value if value is None or (type(value) is int and MIN_INT <= value <= MAX_INT) else Undefined


def _float(value: Any) -> Any:
    return value if value is None or (type(value) is float and isfinite(value)) else Undefined


_EXACTLY: dict[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
_LEAVES: dict[Any, Coercer] = {
    **{type_: _exactly_or_null(class_) for type_, class_ in _EXACTLY.items()},
    GraphQLInt: _int,
    GraphQLFloat: _float,
}


def _unchanged_list(value: Any) -> Any:
    if type(value) is not list or None in value:
        return Undefined
    return value.copy()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - a cast is a call


def _list(item: Any, coerce: Coercer) -> Coercer:
    if is_non_null_type(item) and isinstance(item.of_type, GraphQLScalarType) and is_unchanged_input(item.of_type):
        return _unchanged_list

    def coerce_list(value: Any) -> Any:
        if type(value) is not list:
            return value if value is None else Undefined
        coerced: list[Any] = []
        for each in cast("list[Any]", value):
            answer = coerce(each)
            if answer is Undefined:
                return Undefined
            coerced.append(answer)
        return coerced

    return coerce_list


def _input_object(type_: GraphQLInputObjectType, within: tuple[Any, ...]) -> Coercer | None:
    fields: dict[str, tuple[str, Coercer]] = {}
    absent: dict[str, Any] = {}
    """What replaces a missing value: a default, or Undefined if graphql-core must report it."""
    for name, field in type_.fields.items():
        coerce = coercer(field.type, within)
        if coerce is None:
            return None
        out_name = field.out_name or name
        fields[name] = out_name, coerce
        if field.default is not None or field.default_value is not Undefined or is_required_input_field(field):
            absent[out_name] = _constant_default(field)
    needed = {name for name, (out_name, _) in fields.items() if absent.get(out_name) is Undefined}

    def coerce_object(value: Any) -> Any:
        if type(value) is not dict:
            return value if value is None else Undefined
        all_given, coerced = cast("dict[str, Any]", value), absent.copy()
        for name, given in all_given.items():
            if name not in fields:
                return Undefined
            out_name, coerce = fields[name]
            coerced[out_name] = answer = coerce(given)
            if answer is Undefined:
                return Undefined
        return coerced if needed <= all_given.keys() else Undefined

    return coerce_object


# --- arguments ------------------------------------------------------------------------------------------------------


class _Slot(NamedTuple):
    """Where one argument comes from."""

    name: str
    variable: str | None
    value: Any
    """A constant; with a variable, its default if the variable has no value; `_OMITTED` if there is none."""
    nullable: bool
    conversion: Conversion | None


class Arguments:
    """The arguments of one field of an operation, in the form that its resolver takes."""

    def __init__(
        self, definition: GraphQLField, node: FieldNode, arguments: Mapping[str, Argument], *, suggestions: bool
    ) -> None:
        self._definition = definition
        self._node = node
        self._arguments = arguments
        self._suggestions = suggestions
        self._slots = self._fast_path()
        self.constant = self._constant(self._slots)
        """The keyword arguments, if they are the same in every execution."""

    def of(self, run: Run, info: Any) -> dict[str, Any]:
        """The keyword arguments in this execution; raises what graphql-core would report."""
        if self._slots is None:
            return self._of_core(run.variable_values, info)
        variables, keywords = run.variables, dict[str, Any]()
        for name, variable, value, nullable, conversion in self._slots:
            if variable is not None and variable in variables:
                given = variables[variable]
                if given is None and not nullable:
                    return self._of_core(run.variable_values, info)
                keywords[name] = given if conversion is None else conversion(given, info)
            elif value is not _OMITTED:
                keywords[name] = value
        return keywords

    def written(self, required: frozenset[str], bind: Callable[[str, Any], str]) -> list[str] | None:
        """The keyword arguments as source if each is a constant or a variable that is never null, else None.

        Args:
            required: variables that have a value, and not null
            bind: names an object in the source
        """
        if self._slots is None or any(
            slot.variable is not None and slot.variable not in required for slot in self._slots
        ):
            return None
        given: list[str] = []
        for name, variable, value, _, conversion in self._slots:
            if variable is None:
                expression = None if value is _OMITTED else bind("CONSTANT", value)
            elif conversion is None:
                expression = f"run.variables[{variable!r}]"
            elif conversion is copied:
                expression = f"[*run.variables[{variable!r}]]"
            else:
                expression = f"{bind('convert', conversion)}(run.variables[{variable!r}], info)"
            if expression is not None:
                given.append(f"{name}={expression}")
        return given

    def _of_core(self, variables: VariableValues, info: Any) -> dict[str, Any]:
        values = get_argument_values(self._definition, self._node, variables, hide_suggestions=not self._suggestions)
        return {
            name: values[given] if conversion is None else conversion(values[given], info)
            for given, (name, conversion) in self._arguments.items()
            if given in values
        }

    @staticmethod
    def _constant(slots: list[_Slot] | None) -> dict[str, Any] | None:
        if slots is None or any(slot.variable is not None for slot in slots):
            return None
        return {slot.name: slot.value for slot in slots if slot.value is not _OMITTED}

    def _fast_path(self) -> list[_Slot] | None:
        nodes = {argument.name.value: argument.value for argument in self._node.arguments or ()}
        slots: list[_Slot] = []
        for given, definition in self._definition.args.items():
            slot = _slot(self._arguments[given], definition, nodes.get(given))
            if slot is None:
                return None
            slots.append(slot)
        return slots


def _slot(argument: Argument, definition: GraphQLArgument, node: ValueNode | None) -> _Slot | None:
    """The fast path for one argument; None if it has none."""
    name, conversion = argument
    nullable = not is_non_null_type(definition.type)
    if isinstance(node, VariableNode):
        absent = _converted(_absent_argument(definition), conversion)
        return None if absent is Undefined else _Slot(name, node.name.value, absent, nullable, conversion)
    if isinstance(node, ListValueNode | ObjectValueNode):
        return None
    value = _absent_argument(definition) if node is None else coerce_input_literal(node, definition.type)
    constant = _converted(value, conversion)
    return None if constant is Undefined else _Slot(name, None, constant, nullable, None)


def _absent_argument(definition: GraphQLArgument) -> Any:
    has_default = definition.default is not None or definition.default_value is not Undefined
    return _constant_default(definition) if has_default else _OMITTED


def _converted(value: Any, conversion: Conversion | None) -> Any:
    """The value that the resolver gets for a constant, if it is a constant too."""
    if value is Undefined or value is _OMITTED or conversion is None:
        converted = value
    else:
        try:
            converted = conversion(value, None)
        except Exception:  # noqa: BLE001 - reported where the field is resolved
            return Undefined
    return converted if converted is _OMITTED or is_constant(converted) else Undefined
