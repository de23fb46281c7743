"""The scalars of the contract: instants with an offset, and JSON."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any, NewType, cast

import orjson
import strawberry
from graphql import (
    GraphQLError,
    GraphQLID,
    GraphQLScalarType,
    GraphQLSchema,
    Undefined,
    ValueNode,
    is_scalar_type,
    is_specified_scalar_type,
    value_from_ast_untyped,
)
from graphql.pyutils import inspect
from strawberry.schema.config import StrawberryConfig

from graphql_api.domain import values
from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import InputError

Json = NewType("Json", object)

_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def instant(value: object) -> datetime:
    """A point in time in UTC, as https://scalars.graphql.org/chillicream/date-time has it.

    Raises:
        GraphQLError: it has another form, or is outside the years 1 to 9999 in UTC.
    """
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        raise GraphQLError(
            "A DateTime must be ISO 8601 with a UTC offset (`Z` or `+02:00`) and at most nine fractional digits,"
            " such as"
            f" 2026-11-22T17:28:02Z, not {quoted(value) if isinstance(value, str) else inspect(value)}."
        )
    try:
        return values.instant(value.upper())
    except InputError:
        raise GraphQLError(
            f"{value} is not a valid DateTime. Send an existing date and time after 0001-01-01T00:00:00Z and before"
            " 9999-12-31T23:59:59.999999Z."
        ) from None


def written(value: datetime) -> str:
    """ISO 8601 in UTC, always with six digits of the second."""
    inside = value if value.tzinfo is UTC else value.astimezone(UTC)
    if inside.microsecond:  # without, orjson would leave the six digits out; with, it takes a third of the time
        return orjson.dumps(inside)[1:-1].decode()
    return inside.isoformat("T", "microseconds")


def refuse_floats_as_ids() -> None:
    """Have the library's ID take text and integers only, as the GraphQL specification has it.

    An integer of more than 64 bits in JSON arrives as a rounded float: it would become another id.
    """
    cast("Any", GraphQLID).coerce_input_value = _identifier


def omit_missing_variables(schema: GraphQLSchema) -> None:
    """Have custom scalars take a variable without a value inside of a literal as the specification does elsewhere.

    Its key is left out; in a list it is null. The library puts `Undefined` there.
    """
    for type_ in schema.type_map.values():
        if is_scalar_type(type_) and not is_specified_scalar_type(type_):
            cast("Any", type_).parse_literal = partial(_parse_literal, type_)


def _parse_literal(type_: GraphQLScalarType, node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    try:
        return type_.parse_value(_complete(value_from_ast_untyped(node, variables)))
    except GraphQLError as error:
        raise GraphQLError(error.message, node) from None


def _complete(value: Any) -> Any:
    if isinstance(value, dict):
        given: dict[str, Any] = value
        return {key: _complete(item) for key, item in given.items() if item is not Undefined}
    if isinstance(value, list):
        return [None if item is Undefined else _complete(item) for item in cast("list[Any]", value)]
    return value


def _identifier(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GraphQLError(f"An ID must be a string, or an integer of at most 64 bits, not {inspect(value)}.")


def _unchanged(value: Any) -> Any:
    return value


config = StrawberryConfig(
    scalar_map={
        datetime: strawberry.scalar(
            name="DateTime",
            description=(
                "A point in time in ISO 8601 format with a UTC offset, such as 2026-11-22T17:28:02Z, after "
                "0001-01-01T00:00:00Z and before 9999-12-31T23:59:59.999999Z. It can have up to nine fractional "
                "digits; six are stored. Responses are in UTC."
            ),
            specified_by_url="https://scalars.graphql.org/chillicream/date-time",
            serialize=written,
            parse_value=instant,
        ),
        Json: strawberry.scalar(
            name="JSON",
            description="Any JSON value.",
            specified_by_url=(
                "https://ecma-international.org/wp-content/uploads/ECMA-404_2nd_edition_december_2017.pdf"
            ),
            serialize=_unchanged,
            parse_value=_unchanged,
        ),
    }
)
