"""What each command reads: tokens, changes of identifiers, or customers, whatever format the file has."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from graphql_api.bulk.files.columns import CUSTOMERS, ID_CHANGES, TOKENS
from graphql_api.bulk.files.csv_lines import read_csv
from graphql_api.bulk.files.json_records import read_json
from graphql_api.bulk.files.opening import Source
from graphql_api.bulk.records import Line, Record, Unreadable, unreadable


def read_tokens(source: Source) -> Iterator[Line]:
    """The file's records as JSON Lines have them, whatever its format.

    An empty cell clears a description and metadata; in other columns it leaves the value out.

    Raises:
        BadInputError: the first line of a CSV file does not name the columns of a token.
    """
    records = _decoded(read_csv(source, TOKENS)) if source.format == "csv" else read_json(source, TOKENS)
    gateway = source.options.gateway
    if gateway is None:
        return records
    source.columns = list(dict.fromkeys([*source.columns, "gateway"]))
    return _at(gateway, records)


def read_id_changes(source: Source) -> Iterator[Line]:
    """Records with `old` and `new`. A CSV file with two columns of identifiers may do without a line that names them.

    Raises:
        BadInputError: a CSV file has other columns.
    """
    return (read_csv if source.format == "csv" else read_json)(source, ID_CHANGES)


def read_customers(source: Source) -> Iterator[Line]:
    """Records with `id`, and `deleted` if the list says it: so, by when it was, or as a status.

    Raises:
        BadInputError: a CSV file has no such column, or two.
    """
    return _with_deleted((read_csv if source.format == "csv" else read_json)(source, CUSTOMERS))


def _with_deleted(records: Iterator[Line]) -> Iterator[Line]:
    for number, record in records:
        if isinstance(record, Unreadable):
            yield number, record
            continue
        deleted = record.get("deleted")
        is_gone = bool(record.get("deletedAt")) or str(record.get("status")).strip().lower() == "deleted"
        try:
            says_so = deleted if deleted is None or isinstance(deleted, bool) else _boolean("deleted")(str(deleted))
            yield number, {**record, "deleted": bool(says_so) or is_gone}
        except ValueError as error:
            yield number, unreadable(str(error), record)


def _at(gateway: str, records: Iterator[Line]) -> Iterator[Line]:
    """The records, with this gateway if they name none."""
    for number, record in records:
        if isinstance(record, Unreadable) or record.get("gateway") is not None:
            yield number, record
        else:
            yield number, {**record, "gateway": gateway}


def _decoded(records: Iterator[Line]) -> Iterator[Line]:
    for number, record in records:
        yield number, record if isinstance(record, Unreadable) else _decode(record)


def _decode(record: Record) -> Record | Unreadable:
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
        return unreadable(str(error), record)
    return decoded


def _json(column: str) -> Callable[[str], Any]:
    def decode(cell: str) -> Any:
        try:
            return orjson.loads(cell)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{column} is not valid JSON: {error.msg}.") from None

    return decode


def _boolean(column: str) -> Callable[[str], bool]:
    def decode(cell: str) -> bool:
        match cell.strip().lower():
            case "true" | "t" | "1" | "yes":
                return True
            case "false" | "f" | "0" | "no":
                return False
            case _:
                raise ValueError(f"{column} must be true or false.")

    return decode


def _integer(cell: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", cell):
        raise ValueError("version must be a number.")
    return int(cell)


_CELLS: dict[str, Callable[[str], Any]] = {
    "metadata": _json("metadata"),
    "isActive": _boolean("isActive"),
    "version": _integer,
    "formerGatewayCustomerIds": _json("formerGatewayCustomerIds"),
}
