"""Files opened: to read text that may be compressed, and to write as a whole or not at all, for the owner alone."""

import gzip
import io
import os
import shutil
import stat
import sys
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import BinaryIO, TextIO, cast

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
_MAGIC_BYTES = 6
_Open = Callable[[BinaryIO], BinaryIO]
# By the bytes that such a file begins with, how to read it.
_DECOMPRESSORS: Mapping[bytes, _Open] = {
    b"\x1f\x8b": lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file)),
    # A frame of Zstandard, or one to skip, with which pzstd begins
    **dict.fromkeys(
        (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
        lambda file: cast("BinaryIO", zstd.ZstdFile(file)),
    ),
}
# By the bytes that other files of customers begin with, what they are and what to do.
_OTHERS: Mapping[bytes, str] = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive: save the sheet as CSV UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV UTF-8",
    b"BZh": "compressed with bzip2: decompress it, such as with bunzip2",
    b"\xfd7zXZ\0": "compressed with xz: decompress it, such as with unxz",
    b"PAR1": "a Parquet file: export it as CSV or JSON Lines",
    b"<": "XML or an HTML page, such as that of a login: get the file itself as CSV or JSON",
    b"%PDF": "a PDF document: export a CSV file",
    **dict.fromkeys(_DECOMPRESSORS, "compressed twice: decompress it once"),
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
    ending = _inner_name(path).suffix.lower()
    found = given or _ENDINGS.get(ending)
    if given is None and ending == ".tsv":
        raise BadInputError(f"An export has commas, no tabs: name {path} with .csv instead of {ending}.")
    if found is None:
        raise BadInputError(f"The name {path} does not show the format: add --format csv or --format jsonl.")
    return found


@contextmanager
def reading(path: Path, options: ReadOptions) -> Generator[Source]:
    """The file, or standard input, open for reading.

    Raises:
        BadInputError: it cannot be read, or its encoding is neither said nor to be told.
    """
    with ExitStack() as closing:
        stored = _standard_input() if path == PIPE else closing.enter_context(_open(path))
        size = None if path == PIPE else _size(stored)
        with _naming(path):
            stored, chunks = _uncompressed(stored, path, closing)
        file, recognized = as_utf8_lines(chunks, options.encoding, str(path))
        format_ = options.format or _ENDINGS.get(_inner_name(path).suffix.lower())
        if format_ is None:
            format_ = "jsonl" if file.peek(SAMPLE_BYTES).lstrip()[:1] in {b"{", b"["} else "csv"
            recognized.append("JSON" if format_ == "jsonl" else "CSV")
        yield Source(file, format_, options, recognized, size, stored)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInputError(f"{path} cannot be opened: {error.strerror}") from None


def _standard_input() -> BinaryIO:
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        raise BadInputError("Standard input is closed.")
    return stdin.buffer


def _size(stored: BinaryIO) -> int | None:
    """The size of a file in bytes; None for a pipe or a device."""
    status = os.fstat(stored.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _inner_name(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSORS else path


def _uncompressed(stored: BinaryIO, path: Path, closing: ExitStack) -> tuple[BinaryIO, Iterator[bytes]]:
    """The file that is read from, and its content as it was before it was compressed.

    The checksum of a compressed file is at its end. The file is therefore read twice: the first pass finds damage
    before any record is used. The content of a pipe goes to an anonymous temporary file first.

    Raises:
        BadInputError: it is damaged or cut off.
    """
    begin = stored.read(_MAGIC_BYTES)
    decompressed = next((opened for magic, opened in _DECOMPRESSORS.items() if begin.startswith(magic)), None)
    if decompressed is None:
        return stored, chain([_known(begin, path)], _chunks(stored, path))
    if not stored.seekable():
        kept = closing.enter_context(TemporaryFile())  # noqa: SIM115 - closed with what is read
        kept.write(begin)
        shutil.copyfileobj(stored, kept)
        kept.seek(len(begin))
        stored = cast("BinaryIO", kept)
    start = stored.tell() - len(begin)
    stored.seek(start)
    chunks = _chunks(decompressed(stored), path)
    _known(next(chunks, b""), path)
    deque(chunks, maxlen=0)
    stored.seek(start)
    return stored, _chunks(decompressed(stored), path)


def _known(begin: bytes, path: Path) -> bytes:
    """The beginning of text.

    Raises:
        BadInputError: it is that of another file; the message says what to do.
    """
    for magic, way_out in _OTHERS.items():
        if begin.startswith(magic):
            raise BadInputError(f"{path} is {way_out}.")
    return begin


def _chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        while chunk := _read(file, path):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        raise BadInputError(
            f"{path} cannot be decompressed, it is cut off or damaged: {error}. Get the whole file again."
        ) from None


def _read(file: BinaryIO, path: Path) -> bytes:
    with _naming(path):
        return file.read(SAMPLE_BYTES)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """An error of the operating system names the file, so that it is not taken for one of the database."""
    try:
        yield
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def expect_other_file(output: str, path: Path, *others: Path) -> None:
    """Go on only if what is written to this path takes the place of none of these files.

    Raises:
        BadInputError: it is one of them, by whatever name; the message calls it as `output` does.
    """
    for other in others:
        if path.resolve() == other.resolve() or _is_same(path, other):
            raise BadInputError(f"{output} {path} would overwrite {other}. Name another file.")


def _is_same(path: Path, other: Path) -> bool:
    try:
        status = os.fstat(sys.stdin.fileno()) if other == PIPE else other.stat()
        return stat.S_ISREG(status.st_mode) and os.path.samestat(path.stat(), status)
    except (OSError, AttributeError):  # there is no such file, or standard input is none
        return False


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
        # A device, or a pipe with a name: nothing can take its place. A Path would raise if it may not look.
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
