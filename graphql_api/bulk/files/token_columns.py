"""A token's columns in files: their names, in either spelling, and what stands in a CSV cell."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from graphql_api.bulk.files.sources import Source
from graphql_api.bulk.records import Line, Record, unreadable
from graphql_api.domain.errors import BadInputError, Problem

REQUIRED = ("userId", "gateway", "gatewayCustomerId")
COLUMNS = (
    "id",
    *REQUIRED,
    "description",
    "metadata",
    "isActive",
    "createdAt",
    "updatedAt",
    "version",
    "activatedAt",
    "deactivatedAt",
    "deactivationReason",
    "lastVerifiedAt",
    "formerGatewayCustomerIds",
)


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


_NAMES = {spelling: name for name in COLUMNS for spelling in (name, _snake(name))}


def token_columns(header: Sequence[str]) -> list[str]:
    """The columns with these names, in `camelCase` or `snake_case`.

    Raises:
        BadInputError: one is unknown, or there twice.
    """
    names = [_NAMES.get(name.strip(), "") for name in header]
    if "" in names:
        unknown = header[names.index("")]
        raise BadInputError(f"There is no column {unknown[:50]!r}. The columns are {', '.join(COLUMNS)}.")
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(f"The column {name} occurs twice.")
    return names


def _required_columns(header: Sequence[str]) -> list[str]:
    names = token_columns(header)
    for name in REQUIRED:
        if name not in names:
            raise BadInputError(f"The column {name} is missing.")
    return names


def read_tokens(source: Source) -> Iterator[Line]:
    """The file's records as JSON Lines have them, whatever its format.

    An empty cell clears a description and metadata; in other columns it leaves the value out.

    Raises:
        BadInputError: the first line of a CSV file does not name the columns of a token.
    """
    return _decoded(source.records(_required_columns)) if source.format == "csv" else source.records(token_columns)


def _decoded(records: Iterator[Line]) -> Iterator[Line]:
    for number, record in records:
        yield number, record if isinstance(record, Problem) else _decode(record)


def _decode(record: Record) -> Record | Problem:
    decoded: dict[str, Any] = {}
    try:
        for name, cell in record.items():
            if cell and name in _CELLS:
                decoded[name] = _CELLS[name](cell)
            elif cell or name == "description":
                decoded[name] = cell
            elif name == "metadata":
                decoded[name] = None
    except ValueError as error:
        return unreadable(str(error))
    return decoded


def _json(column: str) -> Callable[[str], Any]:
    def decode(cell: str) -> Any:
        try:
            return orjson.loads(cell)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{column} is not valid JSON: {error.msg}.") from None

    return decode


def _boolean(cell: str) -> bool:
    match cell.strip().lower():
        case "true" | "t" | "1":
            return True
        case "false" | "f" | "0":
            return False
        case _:
            raise ValueError("isActive must be true or false.")


def _integer(cell: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", cell):
        raise ValueError("version must be a number.")
    return int(cell)


_CELLS: dict[str, Callable[[str], Any]] = {
    "metadata": _json("metadata"),
    "isActive": _boolean,
    "version": _integer,
    "formerGatewayCustomerIds": _json("formerGatewayCustomerIds"),
}
