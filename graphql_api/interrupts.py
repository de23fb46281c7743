"""Ctrl-C: the first press ends the command, a second one what it still finishes, and none disturbs the cleaning up."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the status that shells give to a command that Ctrl-C ended
_MAX_CANCELLATIONS = 2

_cancel: Callable[[], object] | None = None
_presses = 0


class InterruptedByUser(KeyboardInterrupt):
    """Ctrl-C was pressed.

    If a KeyboardInterrupt itself passes through code that was compiled from a string, as by `dataclasses`, Python ends
    with the signal, whatever is caught and whatever status was asked for.
    """


def listen() -> None:
    """Take over Ctrl-C. A signal handler belongs to the process, so this is called once, at the start of it."""
    signal.signal(signal.SIGINT, _pressed)


def ignore() -> None:
    """From now on Ctrl-C and SIGTERM mean nothing: the process is about to exit, and its status is known."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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
    signal.signal(signal.SIGTERM, _pressed)  # after Ctrl-C it is one more press
    if _cancel is not None:
        if _presses <= _MAX_CANCELLATIONS:
            _cancel()
    elif _presses == 1:
        raise InterruptedByUser
