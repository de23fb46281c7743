"""Ctrl-C: the first press ends the command, a second one what it still finishes, and none disturbs the cleaning up."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the status that shells give to a command that Ctrl-C ended
_MAX_CANCELLATIONS = 2

_cancel: Callable[[], object] | None = None
_presses = 0


def listen() -> None:
    """Take over Ctrl-C. A signal handler belongs to the process, so this is called once, at the start of it."""
    signal.signal(signal.SIGINT, _pressed)


def ignore() -> None:
    """From now on Ctrl-C means nothing: the process is about to exit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def happened() -> bool:
    """Whether Ctrl-C was pressed."""
    return _presses > 0


@contextmanager
def cancelling(cancel: Callable[[], object]) -> Generator[None]:
    """Call this on Ctrl-C, instead of raising KeyboardInterrupt wherever the process happens to be."""
    global _cancel  # noqa: PLW0603 - like the handler, it belongs to the process
    _cancel = cancel
    try:
        yield
    finally:
        _cancel = None


def _pressed(_number: int, _frame: FrameType | None) -> None:
    global _presses  # noqa: PLW0603
    _presses += 1
    if _cancel is not None:
        if _presses <= _MAX_CANCELLATIONS:
            _cancel()
    elif _presses == 1:
        raise KeyboardInterrupt
