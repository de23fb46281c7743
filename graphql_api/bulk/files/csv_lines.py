"""Comma-separated values and what spreadsheets make of them, a record at a time.

The delimiter is the one with which the first line names the columns that a command needs. In 60 files of 1, 3 and 10
lines with commas, also in a quoted cell, `csv.Sniffer` never found the delimiter. clevercsv always did, as does this,
which does not guess.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence

from graphql_api.bulk.files.columns import Columns, renamed, text_of
from graphql_api.bulk.files.opening import Source
from graphql_api.bulk.files.text import MAX_LINE_BYTES, lines
from graphql_api.bulk.records import Line, Unreadable, unreadable
from graphql_api.domain.errors import BadInputError
from graphql_api.domain.values import is_well_formed

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAYS_DELIMITER = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's own first line


def read_csv(source: Source, columns: Columns) -> Iterator[Line]:
    """The number of each line and its record; a record over several lines has the number of its first.

    A cell is text, or None if it is empty; as in PostgreSQL, `""` is the empty text. Rows of empty cells are none.

    Raises:
        BadInputError: the file is empty, or its first line does not name the columns.
    """
    text = _Text(lines(source.file))
    while (blank := text.peek()) and not blank.strip(' \t\r\n,;|"'):  # rows of empty cells above the header
        next(text)
    text.taken.clear()
    if not blank:
        raise BadInputError("The file is empty.")
    delimiter = source.options.delimiter
    said = _SAYS_DELIMITER.fullmatch(text.peek())
    if said:
        next(text)
        text.taken.clear()
        delimiter = delimiter or said[1]
    delimiter = delimiter or _delimiter(text.peek(), columns)
    if delimiter != ",":
        source.recognized.append(_DELIMITERS.get(delimiter, f"cells separated by {delimiter!r}"))
    quote = _quote(text.peek(), delimiter)
    if quote != '"':
        source.recognized.append("cells in apostrophes")
    reader = csv.reader(text, delimiter=delimiter, quotechar=quote, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise BadInputError(f"The first line does not name the columns: {_wrong(error, text, quote)}.") from None
    if _is_pair_of_identifiers(header, columns):
        header = list(columns.required)
        text.keep_all()
        source.recognized.append("no header")
    meanings = columns.resolve(header, source.options)
    source.recognized += renamed(columns, header, meanings)
    source.columns = [meaning for meaning in meanings if meaning is not None]
    return _records(reader, text, header, meanings, delimiter, quote)


def _delimiter(line: str, columns: Columns) -> str:
    """What separates the names in the first line.

    Raises:
        BadInputError: two may.
    """
    scores: dict[str, tuple[int, int]] = {}
    for delimiter in _DELIMITERS:
        try:
            [cells] = csv.reader([line], delimiter=delimiter)
        except (csv.Error, ValueError):
            continue
        scores[delimiter] = (len(columns.find(cells)), len(cells))
    best = max(scores.values(), default=(0, 0))
    found = [delimiter for delimiter, score in scores.items() if score == best]
    if len(found) > 1 and best[1] > 1:
        names = " or ".join(_DELIMITERS[delimiter] for delimiter in found)
        raise BadInputError(f"The first line may be delimited by {names}. Say which with --delimiter.")
    return found[0] if found else ","


def _quote(line: str, delimiter: str) -> str:
    """What cells are quoted with: apostrophes, which LibreOffice can write, if all names of columns are."""
    cells = line.strip().split(delimiter)
    return "'" if all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in cells) else '"'


def _is_pair_of_identifiers(header: Sequence[str], columns: Columns) -> bool:
    """Whether two columns without names hold what the command needs two of, as a list of pairs does."""
    return (
        len(columns.required) == len(header) == 2  # noqa: PLR2004 - a pair
        and not columns.find(header)
        and all(re.search("[0-9]", cell) for cell in header)
    )


class _Text:
    """Lines of text for a `csv.reader`, which can be given back."""

    def __init__(self, encoded: Iterator[bytes]) -> None:
        self._lines = encoded
        self._again: deque[str] = deque()
        self.number = 0
        self.taken: list[str] = []
        self.has_undecodable = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._decoded(next(self._lines))
        self.number += 1
        self.taken.append(line)
        return line

    def peek(self) -> str:
        """The next line, which stays the next one; empty at the end."""
        if not self._again and (line := next(self._lines, None)) is not None:
            self._again.append(self._decoded(line))
        return self._again[0] if self._again else ""

    def keep_first(self) -> None:
        """Give back all that was taken but its first line: a quote that is never closed spoils no line but its own."""
        self._give_back(1)

    def keep_all(self) -> None:
        """Give back all that was taken."""
        self._give_back(0)

    def split_first(self) -> bool:
        """Give back the lines of a first line in which carriage returns end some, as in joined files; if they do."""
        first = self.taken[0]
        if "\r" not in first.rstrip("\r\n") or len(first) >= MAX_LINE_BYTES // 4:  # it may have been cut
            return False
        self.keep_first()
        self.number -= 1
        self._again.extendleft(reversed(re.findall(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+", first)))
        return True

    def _give_back(self, kept: int) -> None:
        self.number -= len(self.taken) - kept
        self._again.extendleft(reversed(self.taken[kept:]))

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.has_undecodable = True
            return line.decode(errors="surrogateescape")


def _records(
    reader: Iterator[list[str]],
    text: _Text,
    header: list[str],
    meanings: Sequence[str | None],
    delimiter: str,
    quote: str,
) -> Iterator[Line]:
    end, empty = re.escape(delimiter), quote * 2
    quoted = re.compile(rf"({quote}(?:[^{quote}]|{empty})*{quote}|[^{end}\r\n]*)(?:{end}|\r\n?|\n|$)")
    while True:
        text.taken.clear()
        number = text.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if text.split_first():
                continue
            reason = f"This line is not valid CSV: {_wrong(error, text, quote)}."
            text.keep_first()
            yield number, unreadable(reason, text_of(text.taken[0]))
            continue
        taken = text.taken[0] if len(text.taken) == 1 else "".join(text.taken)
        has_empty_text = empty in taken
        if not has_empty_text and _is_no_record(cells, header):
            continue
        if len(cells) != len(meanings) and (len(cells) < len(meanings) or any(cells[len(meanings) :])):
            reason = f"This line has {len(cells)} values, but the header has {len(meanings)}."
            yield number, unreadable(reason, text_of(taken))
            continue
        record = {meaning: cell or None for meaning, cell in zip(meanings, cells, strict=False) if meaning is not None}
        if has_empty_text:
            for meaning, cell in zip(meanings, quoted.finditer(taken), strict=False):
                if cell[1] == empty and meaning is not None:
                    record[meaning] = ""
        yield number, _undecodable(record) if text.has_undecodable and not _is_text(text.taken) else record


def _wrong(error: csv.Error, text: _Text, quote: str) -> str:
    """Why the lines that were taken are not a record."""
    if "expected after" in str(error):
        first = text.number - len(text.taken) + 1
        where = f"in lines {first:,} to {text.number:,}" if first < text.number else "here"
        return f"a quotation mark is missing {where}, or one inside a cell is not doubled"
    marks = [line.replace(quote * 2, "").count(quote) for line in text.taken]  # a pair in a cell stands for one
    if not re.match("unexpected end of data|field larger than", str(error)) or sum(marks) % 2 == 0:
        return str(error).partition(" - ")[0]
    after = next(lines for lines, count in enumerate(reversed(marks)) if count)
    return f"the quotation mark that opens in line {text.number - after:,} is not closed"


def _is_no_record(cells: list[str], header: list[str]) -> bool:
    """Whether a row is empty, or the header of a file that was joined to another."""
    return not any(cells) or (cells[-1] == header[-1] and [cells[0].removeprefix("\ufeff"), *cells[1:]] == header)


def _is_text(taken: list[str]) -> bool:
    return all(is_well_formed(line.replace("\0", "")) for line in taken)


def _undecodable(record: dict[str, str | None]) -> Unreadable:
    reason = "This line is not valid text. Name the encoding of the file with --encoding, such as windows-1252."
    return unreadable(reason, record)
