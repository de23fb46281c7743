"""Ctrl-C: the first press ends the command, a second one what it still finishes, and none disturbs the cleaning up.

While a command works, SIGTERM and SIGHUP are presses too, so that it cleans up and says how far it came.
"""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the status that shells give to a command that Ctrl-C ended
_TERMINATIONS = (signal.SIGTERM, signal.SIGHUP)
_MAX_CANCELLATIONS = 2

_cancel: Callable[[], object] | None = None
_presses = 0
_status = INTERRUPTED
_listens = False


class InterruptedByUser(KeyboardInterrupt):
    """Ctrl-C was pressed.

    If a KeyboardInterrupt itself passes through code that was compiled from a string, as by `dataclasses`, Python ends
    with the signal, whatever is caught and whatever status was asked for.
    """


def listen() -> None:
    """Take over Ctrl-C. A signal handler belongs to the process, so this is called once, at the start of it."""
    global _listens  # noqa: PLW0603
    _listens = True
    signal.signal(signal.SIGINT, _pressed)


def ignore() -> None:
    """From now on Ctrl-C and SIGTERM mean nothing: the process is about to exit, and its status is known."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def happened() -> bool:
    """Whether Ctrl-C was pressed."""
    return _presses > 0


def status() -> int:
    """The exit status after that: 128 and the number of the first signal."""
    return _status


@contextmanager
def cancelling(cancel: Callable[[], object]) -> Generator[None]:
    """Call this on Ctrl-C, instead of raising KeyboardInterrupt wherever the process happens to be."""
    global _cancel  # noqa: PLW0603 - like the handler, it belongs to the process
    _cancel = cancel
    outside = {number: signal.signal(number, _pressed) for number in _TERMINATIONS if _listens}
    try:
        yield
    finally:
        _cancel = None
        if not _presses:
            for number, handler in outside.items():
                signal.signal(number, handler)


def _pressed(number: int, _frame: FrameType | None) -> None:
    global _presses, _status  # noqa: PLW0603
    _presses += 1
    if _presses == 1:
        _status = 128 + number
    signal.signal(signal.SIGTERM, _pressed)  # after Ctrl-C it is one more press
    if _cancel is not None:
        if _presses <= _MAX_CANCELLATIONS:
            _cancel()
    elif _presses == 1:
        raise InterruptedByUser
