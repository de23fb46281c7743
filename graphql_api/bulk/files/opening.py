"""Files opened: to read text that may be compressed, and to write as a whole or not at all, for the owner alone."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, cast

from graphql_api.bulk.files.text import SAMPLE_BYTES, as_utf8_lines
from graphql_api.bulk.records import Format
from graphql_api.domain.errors import BadInputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIPE = Path("-")
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_Open = Callable[[BinaryIO], BinaryIO]
# By the bytes that such a file begins with, how to read it.
_DECOMPRESSORS: Mapping[bytes, _Open] = {
    b"\x1f\x8b": lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file)),
    b"\x28\xb5\x2f\xfd": lambda file: cast("BinaryIO", zstd.ZstdFile(file)),
}
_COMPRESSORS: Mapping[str, _Open] = {
    ".gz": lambda file: cast("BinaryIO", gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)),
    ".zst": lambda file: cast("BinaryIO", zstd.ZstdFile(file, "wb")),
}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is to be read, as far as that is said: the command line's options.

    Args:
        format: what the file is, if not what its ending or its content says
        encoding: what its text is in
        delimiter: what separates the cells of a CSV file
        columns: by what they mean, the names of columns
        skip_unknown_columns: whether columns that mean nothing to the command are left out
        gateway: the gateway of records that name none
    """

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    skip_unknown_columns: bool = False
    gateway: str | None = None


@dataclass(slots=True)
class Source:
    """An open file: its text in UTF-8, its format, its size in bytes if known, and what was recognized of it."""

    file: io.BufferedReader
    format: Format
    options: ReadOptions
    recognized: list[str]
    size: int | None
    _stored: BinaryIO
    # What the columns of a CSV file, or the keys of a JSON object, are called here.
    columns: list[str] = field(default_factory=list[str])

    @property
    def position(self) -> int:
        """How many bytes were taken from the file; 0 for a pipe."""
        return 0 if self.size is None else self._stored.tell()


def format_of(path: Path, given: Format | None) -> Format:
    """What is given, or else what the file's ending says.

    Raises:
        BadInputError: it says nothing.
    """
    found = given or _ENDINGS.get(_uncompressed(path).suffix.lower())
    if found is None:
        raise BadInputError(f"The extension of {path} does not tell the format. Add --format csv or --format jsonl.")
    return found


@contextmanager
def reading(path: Path, options: ReadOptions) -> Generator[Source]:
    """The file, or standard input, open for reading.

    Raises:
        BadInputError: it cannot be read, or its encoding is neither said nor to be told.
    """
    with ExitStack() as closing:
        stored = sys.stdin.buffer if path == PIPE else closing.enter_context(_open(path))
        size = None if path == PIPE else os.fstat(stored.fileno()).st_size
        file, recognized = as_utf8_lines(_chunks(stored, path), options.encoding, str(path))
        format_ = options.format or _ENDINGS.get(_uncompressed(path).suffix.lower())
        if format_ is None:
            format_ = "jsonl" if file.peek(SAMPLE_BYTES).lstrip()[:1] in {b"{", b"["} else "csv"
            recognized.append("JSON" if format_ == "jsonl" else "CSV")
        yield Source(file, format_, options, recognized, size, stored)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInputError(f"{path} cannot be opened: {error.strerror}") from None


def _uncompressed(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSORS else path


def _chunks(stored: BinaryIO, path: Path) -> Iterator[bytes]:
    """The file's content as it was before it was compressed."""
    begin = stored.read(4)
    file = cast("BinaryIO", _Rejoined(begin, stored))
    for magic, decompressed in _DECOMPRESSORS.items():
        if begin.startswith(magic):
            file = decompressed(file)
    try:
        while chunk := file.read(SAMPLE_BYTES):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        raise BadInputError(f"{path} cannot be decompressed, it is cut off or damaged: {error}") from None


class _Rejoined:
    """A file whose first bytes were read already."""

    def __init__(self, begin: bytes, file: BinaryIO) -> None:
        self._begin = begin
        self._file = file

    def read(self, size: int) -> bytes:
        """Up to `size` of the next bytes; none at the end."""
        if self._begin:
            begin, self._begin = self._begin[:size], self._begin[size:]
            return begin
        return self._file.read(size)


@contextmanager
def writing(path: Path) -> Generator[BinaryIO]:
    """The file, or standard output, open for writing; it is compressed if its ending says so.

    A file is new and its owner's alone. Once it is whole it takes the place of the one before, or of a link. What does
    not come to its end leaves everything as it was.

    Raises:
        BadInputError: it cannot be written.
    """
    if path == PIPE:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    compressed = _COMPRESSORS.get(path.suffix.lower(), lambda file: file)
    try:
        # A device, or a pipe with a name: nothing can take its place. A Path would raise where it may not look.
        if os.path.exists(path) and not path.is_file():  # noqa: PTH110
            with path.open("wb") as device, compressed(device) as file:
                yield file
            return
        whole = NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115 - closed below
    except OSError as error:
        raise BadInputError(f"{path} cannot be opened: {error.strerror}") from None
    unfinished = Path(whole.name)
    try:
        with whole, compressed(cast("BinaryIO", whole)) as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
