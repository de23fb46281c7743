"""What each command reads: tokens, changes of identifiers, or customers, whatever format the file has."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from graphql_api.bulk.files.columns import CUSTOMERS, ID_CHANGES, TOKENS
from graphql_api.bulk.files.csv_lines import read_csv
from graphql_api.bulk.files.json_records import read_json
from graphql_api.bulk.files.opening import Source
from graphql_api.bulk.records import Line, Record, Unreadable, unreadable
from graphql_api.domain.cards import quoted

_NO_TIMES = {"", "0", "null", "\\n", "none", "nan", "-", "false"}
_EPOCH = re.compile(r"([0-9]{10})(?:[0-9]{3}|\.[0-9]*)?")  # Unix time, in seconds or milliseconds
_EARLIEST = datetime(2001, 9, 9, tzinfo=UTC)  # when Unix time got its tenth digit
_ZONES = timedelta(hours=14)  # by which local times are ahead of UTC at most


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
        yield number, record if isinstance(record, Unreadable) else _customer(record)


def _customer(record: Record) -> Record | Unreadable:
    is_deleted = str(record.get("status")).strip().lower() == "deleted"
    for name, says_so in (("deleted", _is_true), ("deletedAt", _is_past)):
        try:
            is_deleted |= says_so(name, record.get(name))
        except ValueError as error:
            return unreadable(str(error), record, name)
    return {**record, "deleted": is_deleted}


def _is_true(column: str, value: object) -> bool:
    return value if isinstance(value, bool) else value is not None and _boolean(column)(str(value))


def _is_past(column: str, value: object) -> bool:
    """Whether a deletion has a time. Databases and programs write many things if it has none."""
    text = str(value).strip().lower().removesuffix(" utc")
    if text in _NO_TIMES or text.startswith("0000-00-00"):
        return False
    try:
        epoch = _EPOCH.fullmatch(text)
        at = datetime.fromtimestamp(int(epoch[1]), UTC) if epoch else datetime.fromisoformat(text.upper())
        if _EARLIEST <= at.replace(tzinfo=UTC) <= datetime.now(UTC) + _ZONES:
            return True
    except ValueError:
        pass
    raise ValueError(f"{column} must be a past time, such as 2026-11-22T17:28:02Z, or empty, not {quoted(text)}.")


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
    for name, cell in record.items():
        if cell and name in _CELLS:
            try:
                decoded[name] = _CELLS[name](cell)
            except ValueError as error:
                return unreadable(str(error), record, name)
        elif cell or name == "description":
            decoded[name] = cell
        elif name == "metadata":
            decoded[name] = None
    return decoded


def _json(column: str) -> Callable[[str], Any]:
    def decode(cell: str) -> Any:
        try:
            return orjson.loads(cell)
        except orjson.JSONDecodeError:
            raise ValueError(f'{column} must be valid JSON, such as {{"plan": "gold"}}, not {quoted(cell)}.') from None

    return decode


def _boolean(column: str) -> Callable[[str], bool]:
    def decode(cell: str) -> bool:
        match cell.strip().lower():
            case "true" | "t" | "1" | "yes":
                return True
            case "false" | "f" | "0" | "no":
                return False
            case _:
                raise ValueError(f"{column} must be true or false, not {quoted(cell)}.")

    return decode


def _integer(cell: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", cell):
        raise ValueError(f"version must be a number, not {quoted(cell)}.")
    return int(cell)


_CELLS: dict[str, Callable[[str], Any]] = {
    "metadata": _json("metadata"),
    "isActive": _boolean("isActive"),
    "version": _integer,
    "formerGatewayCustomerIds": _json("formerGatewayCustomerIds"),
}
