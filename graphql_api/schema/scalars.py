"""The scalars of the contract: instants with an offset, and JSON."""

from datetime import UTC, datetime
from typing import Any, NewType, cast

import orjson
import strawberry
from graphql import GraphQLError, GraphQLID
from graphql.pyutils import inspect
from strawberry.schema.config import StrawberryConfig

from graphql_api.domain import values
from graphql_api.domain.errors import InputError

Json = NewType("Json", object)


def instant(value: object) -> datetime:
    """An instant in UTC.

    Raises:
        GraphQLError: it is not ISO 8601 text, has no offset, or lies outside the years 1 to 9999 in UTC.
    """
    try:
        return values.instant(value)
    except InputError as refused:
        raise GraphQLError(str(refused)) from None


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


def _identifier(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GraphQLError(f"ID takes a string, or an integer of at most 64 bits, not {inspect(value)}.")


def _unchanged(value: Any) -> Any:
    return value


config = StrawberryConfig(
    scalar_map={
        datetime: strawberry.scalar(
            name="DateTime",
            description="A point in time: ISO 8601 with an offset. Answers are in UTC with microseconds.",
            specified_by_url="https://scalars.graphql.org/andimarek/date-time",
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
