"""The file of lines that were not taken: why, and what is on them, so that they can be corrected and used again."""

import codecs
import fcntl
import json
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from graphql_api.bulk.files.columns import REASONS, TEXT
from graphql_api.bulk.files.opening import Source
from graphql_api.bulk.records import Format, Rejection
from graphql_api.domain.cards import has_card_number
from graphql_api.domain.errors import BadInputError, Code
from graphql_api.domain.values import is_well_formed

WriteRejects = Callable[[Iterable[Rejection]], None]

_ENDINGS: dict[Format, str] = {"csv": ".csv", "jsonl": ".jsonl"}


def rejects_path(path: Path, source: Source) -> Path:
    """Where the lines of this file go that were not taken, if nothing else is said."""
    return Path(f"{path}.rejects{_ENDINGS[source.format]}")


@contextmanager
def rejects(path: Path, source: Source) -> Generator[WriteRejects]:
    """A file for what is not taken of the source, in its format. The first such line overwrites what is in the file.

    Without such a line, a file that was there stays as it was, and no new one stays. No card number comes into it, nor
    what is not text: such values are left out.

    Raises:
        BadInputError: the file's ending is that of another format, it is a device or a pipe, or another process is
            writing it.
        OSError: it cannot be written.
    """
    if path.suffix.lower() == _ENDINGS["csv" if source.format == "jsonl" else "jsonl"]:
        raise BadInputError(
            f"--rejects {path}: rejected lines of this file need a name that ends in {_ENDINGS[source.format]}."
        )
    try:
        opened = _open_alone(path)
    except BlockingIOError:
        raise BadInputError(
            f"another run is writing its rejected lines to {path}: wait for it, or use --rejects with another name."
        ) from None
    except OSError as error:
        way_out = "name a file with --rejects, in a directory that you can write to"
        raise OSError(
            error.errno, f"the rejected lines cannot be written there ({error.strerror}): {way_out}", str(path)
        ) from None
    with opened as file:
        write_line: Callable[[Rejection], None] | None = None

        def write(some: Iterable[Rejection]) -> None:
            nonlocal write_line
            for rejection in some:
                write_line = write_line or _begin(file, source)
                write_line(rejection)
            file.flush()

        try:
            yield write
        finally:
            file.flush()
            if not os.fstat(file.fileno()).st_size:
                path.unlink()


def _begin(file: BinaryIO, source: Source) -> Callable[[Rejection], None]:
    """Overwrite the file. Returns what writes a line."""
    os.fchmod(file.fileno(), 0o600)
    file.truncate()
    if source.options.encoding:  # which is said once more if they are imported, and a mark takes precedence
        file.write(codecs.BOM_UTF8)
    return _csv_lines(file, source.columns) if source.format == "csv" else _json_lines(file)


def _open_alone(path: Path) -> BinaryIO:
    """The file, as it is or new, held until it is closed. A link is replaced by a new file.

    Raises:
        BadInputError: it is a device or a pipe.
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise BadInputError(f"--rejects {path} is no regular file. Name another one.")
    if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1):
        path.unlink()
    while True:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), os.fstat(file.fileno())):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that held it has removed it


def _csv_lines(file: BinaryIO, columns: Sequence[str]) -> Callable[[Rejection], None]:
    columns = list(dict.fromkeys(columns))
    file.write(_csv_line([*REASONS, *columns]))

    def write(rejection: Rejection) -> None:
        record = _presentable(rejection)
        file.write(_csv_line([*_reasons(rejection), *(record.get(name) for name in columns)]))

    return write


def _json_lines(file: BinaryIO) -> Callable[[Rejection], None]:
    def write(rejection: Rejection) -> None:
        reasons = dict(zip(REASONS, _reasons(rejection), strict=True))
        # orjson writes no integers of more than 64 bits
        file.write(json.dumps({**reasons, **_presentable(rejection)}, ensure_ascii=False, default=str).encode() + b"\n")

    return write


def _reasons(rejection: Rejection) -> tuple[object, ...]:
    problems = rejection.problems
    return (
        rejection.line,
        "; ".join(".".join(problem.field) for problem in problems),
        "; ".join(problem.code.value for problem in problems),
        " ".join(dict.fromkeys(problem.message for problem in problems)),
        rejection.record.get(TEXT) if _may_be_quoted(rejection.record.get(TEXT)) else None,
    )


def _presentable(rejection: Rejection) -> dict[str, Any]:
    """What is on the line, without what must not be quoted or cannot be."""
    cards = {problem.field[0] for problem in rejection.problems if problem.code is Code.CARD_NUMBER and problem.field}
    return {
        name: value for name, value in rejection.record.items() if name not in {TEXT, *cards} and _may_be_quoted(value)
    }


def _may_be_quoted(value: Any) -> bool:
    text = value if isinstance(value, str) else _cell(value)
    return is_well_formed(text) and not has_card_number(text)


def _csv_line(values: Sequence[object]) -> bytes:
    return (",".join(map(_quoted, values)) + "\n").encode()


def _quoted(value: object) -> str:
    """A cell; as in the file that was read, nothing and the empty text are two things."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _cell(value)
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if doubled != text or not text or any(mark in text for mark in ",\r\n") else text


def _cell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list | bool) else str(value)
