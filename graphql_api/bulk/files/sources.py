"""CSV and JSON Lines as records, one at a time: what cannot be read is named by its line, and the rest goes on."""

import csv
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import orjson

from graphql_api.bulk.records import Format, Line, Record, unreadable
from graphql_api.domain.errors import BadInputError

# What the columns, or the keys of one line, are called here.
Naming = Callable[[Sequence[str]], Sequence[str]]

PIPE = Path("-")
_ENDINGS: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
# What is longer is cut, so that a file without line ends does not fill the memory; no record of ours comes near it.
_MAX_LINE_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CELL = re.compile(r'("(?:[^"]|"")*"|[^,\r\n]*)(?:,|\r?\n|$)')


@dataclass(frozen=True, slots=True)
class Source:
    """An open file, its format, and its size in bytes where that is known."""

    file: BinaryIO
    format: Format
    size: int | None

    @property
    def position(self) -> int:
        """How many bytes were taken from the file; 0 for a pipe."""
        return 0 if self.size is None else self.file.tell()

    def records(self, named: Naming) -> Iterator[Line]:
        """The number of each line and its record; a record over several lines has the number of its first.

        A CSV cell is text, or None where it is empty; as in PostgreSQL, `""` is the empty text.

        Raises:
            BadInputError: the first line of a CSV file does not name its columns.
        """
        return _csv_records(self.file, named) if self.format == "csv" else _json_records(self.file, named)


def format_of(path: Path, given: Format | None) -> Format:
    """What is given, or else what the file's ending says.

    Raises:
        BadInputError: it says nothing.
    """
    found = given or _ENDINGS.get(path.suffix.lower())
    if found is None:
        raise BadInputError(f"The extension of {path} does not tell the format. Add --format csv or --format jsonl.")
    return found


@contextmanager
def reading(path: Path, given: Format | None) -> Generator[Source]:
    """The file, or standard input, open for reading.

    Raises:
        BadInputError: it cannot be read, or its format is not known.
    """
    format_ = format_of(path, given)
    if path == PIPE:
        yield Source(sys.stdin.buffer, format_, None)
        return
    with _open(path, "rb", path) as file:
        yield Source(file, format_, os.fstat(file.fileno()).st_size)


@contextmanager
def writing(path: Path) -> Generator[BinaryIO]:
    """The file, or standard output, open for writing; what does not come to its end leaves the file as it was.

    Raises:
        BadInputError: it cannot be written.
    """
    if path == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # A device, or a pipe with a name: nothing can take its place. A Path would raise where it may not look.
    if os.path.exists(path) and not path.is_file():  # noqa: PTH110
        with _open(path, "wb", path) as file:
            yield file
        return
    target = path.resolve()
    unfinished = target.with_name(f"{target.name}.unfinished")
    with _open(unfinished, "wb", path) as file:
        try:
            yield file
            file.close()
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def _open(path: Path, mode: Literal["rb", "wb"], called: Path) -> BinaryIO:
    try:
        return path.open(mode)
    except OSError as error:
        raise BadInputError(f"{called} cannot be opened: {error.strerror}") from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    first = file.readline(_MAX_LINE_BYTES).removeprefix(_BYTE_ORDER_MARK)
    line = first or file.readline(_MAX_LINE_BYTES)
    while line:
        yield line
        while len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE_BYTES)
        line = file.readline(_MAX_LINE_BYTES)


class _Text:
    """Lines of text for a `csv.reader`, which can be given back."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        # What is no UTF-8 becomes lone surrogates, which no value may have: its line is refused and no other.
        line = self._again.popleft() if self._again else next(self._lines).decode(errors="surrogateescape")
        self.number += 1
        self.taken.append(line)
        return line

    def keep_first(self) -> None:
        """Give back all that was taken but its first line: a quote that is never closed spoils no line but its own."""
        self.number -= len(self.taken) - 1
        self._again.extendleft(reversed(self.taken[1:]))


def _csv_records(file: BinaryIO, named: Naming) -> Iterator[Line]:
    text = _Text(_lines(file))
    reader = csv.reader(text, strict=True)
    try:
        names = named(next(reader, []))
    except csv.Error as error:
        raise BadInputError(f"The first line does not name the columns: {error}.") from None
    while True:
        text.taken.clear()
        number = text.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            text.keep_first()
            yield number, unreadable(f"This line is not valid CSV: {error}.")
            continue
        if len(cells) == len(names):
            yield number, _record(names, cells, text.taken)
        elif cells:
            yield number, unreadable(f"This line has {len(cells)} values; the first line names {len(names)}.")


def _record(names: Sequence[str], cells: list[str], lines: list[str]) -> Record:
    record = {name: cell or None for name, cell in zip(names, cells, strict=True)}
    if any('""' in line for line in lines):
        for name, cell in zip(names, _CELL.finditer("".join(lines)), strict=False):
            if cell[1] == '""':
                record[name] = ""
    return record


def _json_records(file: BinaryIO, named: Naming) -> Iterator[Line]:
    known = lru_cache(maxsize=100)(named)
    for number, line in enumerate(_lines(file), 1):
        if line.isspace():
            continue
        try:
            yield number, _object(line, known)
        except orjson.JSONDecodeError as error:
            yield number, unreadable(f"This line is not valid JSON: {error.msg}.")
        except BadInputError as error:
            yield number, unreadable(str(error))


def _object(line: bytes, named: Naming) -> Record:
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise BadInputError("A line must be a JSON object.")
    record = cast("dict[str, Any]", value)
    return dict(zip(named(tuple(record)), record.values(), strict=True))
