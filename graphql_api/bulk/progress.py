"""What a bulk command says while it works and when it ends: how far it is."""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphql_api.domain.cards import redact_card_numbers

_SECONDS_BETWEEN_LINES = 10
# How much of the total is done, and what to say beside it.
Show = Callable[[int, str], None]
Write = Callable[[Iterable[Sequence[object]]], None]


def named(path: Path) -> str:
    """The name of a file as messages say it: without a card number that is in it."""
    return redact_card_numbers(str(path))


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is what a command says


@contextmanager
def progress(title: str, total: int | None) -> Generator[Show]:
    """Show on standard error how far the work is: a bar on a terminal, in a log a line now and then."""
    with _bar(title, total) if sys.stderr.isatty() else _log(title) as show:
        yield show


@contextmanager
def waiting(title: str) -> Generator[None]:
    """Show on a terminal that something of unknown duration is running."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    with Console(stderr=True).status(title):
        yield


@contextmanager
def _bar(title: str, total: int | None) -> Generator[Show]:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total, note="")
        yield lambda done, note: bars.update(task, completed=done, note=note)


@contextmanager
def _log(title: str) -> Generator[Show]:
    last = time.monotonic()

    def show(_done: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{title}: {note}")

    yield show
