"""Files about a gateway's customers: which one became which, and which ones there are."""

import re
from collections.abc import Iterator, Sequence

from graphql_api.bulk.files.sources import Source
from graphql_api.bulk.records import Line, unreadable
from graphql_api.domain.errors import BadInputError, Problem
from graphql_api.domain.values import is_well_formed

OLD, NEW = "old", "new"
# What the column of the identifiers may be called, in any case, with spaces or underscores; the first one counts.
# Stripe's list of customers has `id`, its reports have `customer_id` and `Customer ID`.
_ID_COLUMNS = ("id", "gatewaycustomerid", "customerid", "customer")


def read_id_changes(source: Source) -> Iterator[Line]:
    """Records with `old` and `new`. A CSV file with two columns may do without a line that names them.

    Raises:
        BadInputError: a CSV file has other columns.
    """
    unnamed: list[Sequence[str]] = []

    def named(header: Sequence[str]) -> Sequence[str]:
        names = [name.strip().lower() for name in header]
        if OLD in names and NEW in names:
            return names
        if source.format == "csv" and len(header) == len((OLD, NEW)):
            unnamed.append(header)
            return (OLD, NEW)
        raise BadInputError("The columns old and new are missing.")

    records = source.records(named)
    first = next(records, None)
    for header in unnamed:
        yield 1, dict(zip((OLD, NEW), header, strict=True))
    if first:
        yield first
        yield from records


def read_customer_ids(source: Source, column: str | None) -> Iterator[tuple[int, str | Problem]]:
    """The identifier on each line, from the column of this name or else the one that is known to have it.

    Raises:
        BadInputError: a CSV file has no such column.
    """
    wanted = _ID_COLUMNS if column is None else (column,)

    def named(header: Sequence[str]) -> Sequence[str]:
        known = [_normalized(name) for name in header] if column is None else list(header)
        found = next((known.index(name) for name in wanted if name in known), None)
        if found is None:
            name = "id or Customer ID" if column is None else column
            raise BadInputError(f"There is no column {name}. Name the column of the customer ids with --column.")
        return ["id" if index == found else f"other {index}" for index in range(len(header))]

    for number, record in source.records(named):
        if isinstance(record, Problem):
            yield number, record
        elif isinstance(customer := record["id"], str) and customer and is_well_formed(customer):
            yield number, customer
        else:
            yield number, unreadable("This line has no customer id.")


def _normalized(name: str) -> str:
    return re.sub("[ _]", "", name).lower()
