"""JSON as records, one at a time: lines, an array, a gateway's list object, or objects over several lines.

ijson streams all of these too. But its C library makes `?` of a lone surrogate and cannot read an integer of more than
64 bits, and after the first mistake the rest of the file is lost. So this finds where records begin and end, and orjson
reads each.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any, cast

import orjson

from graphql_api.bulk.files.columns import Columns, renamed, text_of
from graphql_api.bulk.files.opening import Source
from graphql_api.bulk.files.text import MAX_LINE_BYTES, SAMPLE_BYTES, lines
from graphql_api.bulk.records import Line, unreadable
from graphql_api.domain.cards import quoted
from graphql_api.domain.errors import BadInputError

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]|[^\s",:\[\]{}]+', re.DOTALL)
_ENDS = {b"[", b"]", b"{", b"}"}
_CONTAINERS = (dict, list)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_INCOMPLETE = "The file is incomplete: it ends inside a record or list. Get the whole file again."
_UNCLOSED = (
    "The file is incomplete: the quotation mark in {} is not closed, or one is missing before it. Correct it, or get "
    "the whole file again."
)
_NOWHERE = sys.maxsize  # the level of records behind a list object's `data`


def read_json(source: Source, columns: Columns) -> Iterator[Line]:
    """The number of each line and its record; of what is not a record a line, the number of the record."""
    first = source.file.readline(MAX_LINE_BYTES)
    if (shape := _shape(first)) is not None:
        source.recognized.append(shape)
        chunks = iter(lambda: source.file.read(SAMPLE_BYTES), b"")
        texts = _Splitter().split(chain([first], chunks, [b"\n"]))
    else:
        texts = _split_at_cr(chain([first], lines(source.file)))
    records = _records(texts, source, columns, is_lines=shape is None)
    begin = list(islice(records, 1))  # which is when keys are recognized
    return chain(begin, records)


def _shape(first: bytes) -> str | None:
    """What the file is if it is not a record a line, as its first line tells."""
    if first.startswith(b"["):
        return "a JSON array"
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        if re.match(rb'\{\s*"object"\s*:\s*"list"', first):
            return "a JSON list object"
        # A line that ends inside an object is the beginning of one over several lines, or a record that was cut.
        return "JSON over several lines" if re.search(rb"[{\[,]\s*\Z", first) else None
    return "a JSON list object" if isinstance(value, dict) and isinstance(value.get("data"), list) else None


class _Splitter:
    """Finds the records: the objects of an array, those in the `data` of a list object, or the outermost ones."""

    def __init__(self) -> None:
        self._text = b""  # from where a record begins, or from what was not looked at
        self._place = 0  # up to where it was looked at
        self._begin = -1  # where a record begins, if one does
        self._open: list[bytes] = []  # the marks of the objects and arrays that are open
        self._dropped = b""  # what is before the text of its last line
        self._dropped_lines = 0
        self._wrong = ""  # the first place where an object or array ends like the other
        self._level = 0  # how many are where records begin
        self._last = b""
        self._says_more = False  # whether the list object that is open has more
        self._has_more = False  # whether the last one had

    def split(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The texts of the records.

        Raises:
            BadInputError: what follows is lost, because the text ends inside a record or list, says that it is not the
                whole list, or has a value without an end.
        """
        for chunk in chunks:
            kept = self._place if self._begin < 0 else self._begin
            self._drop(self._text[:kept])
            self._text = self._text[kept:] + chunk
            self._place, self._begin = self._place - kept, min(self._begin, 0)
            if len(self._text) - len(chunk) > MAX_LINE_BYTES:
                raise BadInputError(
                    f"The file cannot be read on: the value in {self._at(0)} is longer than 1 MiB, or a brace or a "
                    "quotation mark is missing in it."
                )
            for token in _TOKEN.finditer(self._text, self._place):
                if token[0] == b'"' or (token.end() == len(self._text) and token[0] not in _ENDS):
                    break  # it may go on in the next chunk
                self._place = token.end()
                if (record := self._take(token[0], token.start())) is not None:
                    yield record
        if self._open:
            cut = _TOKEN.search(self._text, self._place)
            reason = _UNCLOSED.format(self._at(cut.start())) if cut and cut[0] == b'"' else _INCOMPLETE
            raise BadInputError(self._wrong or reason)
        if self._has_more:
            raise BadInputError(
                "The file is one page of a list: it ends with has_more true. Get the other pages too, and join them."
            )

    def _at(self, place: int) -> str:
        lines = (self._dropped + self._text[:place]).split(b"\n")
        return f"line {self._dropped_lines + len(lines):,}, column {len(lines[-1].decode(errors='replace')) + 1:,}"

    def _drop(self, text: bytes) -> None:
        begin = text.rfind(b"\n") + 1
        self._dropped_lines += text.count(b"\n")
        self._dropped = text[begin:] if begin else (self._dropped + text)[-MAX_LINE_BYTES:]

    def _take(self, mark: bytes, start: int) -> bytes | None:
        """The record that ends with this mark, or is none."""
        if mark in {b"}", b"]"}:
            return self._close(mark, start)
        record, depth = None, len(self._open)
        if depth == self._level and self._begin < 0:
            if mark == b"[" and depth == 0:
                self._level = 1
            elif mark in {b"{", b"["}:
                self._begin = start
            else:
                record = mark
        elif mark == b"[" and depth == 1 and self._level == 0 and self._last == b'"data"':
            self._begin, self._level = -1, 2
        elif depth == 1 and self._last == b'"has_more"':
            self._says_more = mark == b"true"
        if mark in {b"{", b"["}:
            self._open.append(mark)
        self._last = mark
        return record

    def _close(self, mark: bytes, start: int) -> bytes | None:
        record = None
        if self._open and (opened := self._open.pop() + mark) not in {b"{}", b"[]"} and not self._wrong:
            opening = opened[:1].decode()
            self._wrong = f"The file is not valid JSON: {self._at(start)} has {mark.decode()}, but {opening} is open."
        depth = len(self._open)
        if self._begin >= 0 and depth == self._level:
            record = self._text[self._begin : self._place]
            self._begin = -1
        if depth == 0:
            self._has_more = self._says_more and self._level == _NOWHERE
            self._level, self._says_more = 0, False
        elif depth < self._level:
            self._level = _NOWHERE
        return record


def _split_at_cr(texts: Iterator[bytes]) -> Iterator[bytes]:
    """The lines, of which some in joined files may end in a carriage return, which no record has inside of a string."""
    for text in texts:
        if b"\r" in text.rstrip(b"\r\n"):
            yield from text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines(keepends=True)
        else:
            yield text


def _records(texts: Iterator[bytes], source: Source, columns: Columns, *, is_lines: bool) -> Iterator[Line]:
    @lru_cache(maxsize=100)
    def meanings(keys: tuple[str, ...]) -> tuple[str | None, ...]:
        found = tuple(columns.resolve(keys, source.options, is_complete=False))
        if not source.columns:
            source.columns = [meaning for meaning in found if meaning is not None]
            source.recognized += renamed(columns, keys, found)
        return found

    for number, text in enumerate(texts, 1):
        if text and not text.isspace():
            try:
                record = _object(text)
                keys = tuple(record)
                names = meanings(keys)
            except orjson.JSONDecodeError as error:
                if is_lines and _is_cut(text):
                    raise BadInputError(_INCOMPLETE) from None
                place = f"line {error.lineno}, column {error.colno}"
                yield number, unreadable(f"This is not valid JSON: see {place} of the record.", text_of(text))
            except BadInputError as error:
                yield number, unreadable(str(error), text_of(text))
            else:
                if names == keys:
                    yield number, record
                else:
                    yield number, {name: value for name, value in zip(names, record.values(), strict=True) if name}


def _is_cut(line: bytes) -> bool:
    """Whether this is the last line of a file and ends inside its record."""
    if line.endswith(b"\n") or len(line) >= MAX_LINE_BYTES:
        return False
    try:
        orjson.loads(line.decode(errors="ignore"))
    except orjson.JSONDecodeError as error:
        return error.pos >= len(error.doc.rstrip())
    return False


def _object(text: bytes) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise BadInputError("A record must be a JSON object.")
    record = cast("dict[str, Any]", value)
    # A key that is there twice is counted twice in the text, in which strings with colons may be counted too.
    try:
        if text.count(b":") > len(record) and text.translate(None, b" \t\r\n").count(b'":') > _keys(record):
            json.loads(text, object_pairs_hook=_once, parse_int=float)
    except RecursionError:
        raise BadInputError("The record is nested too deeply.") from None
    if _has_float(record) and _LONG_NUMBER.search(text):
        return json.loads(text)  # orjson makes a float of an integer of more than 64 bits
    return record


def _keys(value: Any) -> int:
    """How many keys the objects have that an object or array consists of."""
    members: Iterable[Any] = value.values() if type(value) is dict else value
    keys = len(value) if members is not value else 0
    for each in members:
        if type(each) in _CONTAINERS:
            keys += _keys(each)
    return keys


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInputError(f"There are two keys {quoted(twice)}. Rename or remove one.")
    return record


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).values()
    elif not isinstance(value, list):
        return type(value) is float
    return any(map(_has_float, cast("Iterable[Any]", value)))
