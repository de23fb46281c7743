"""The place that a request has among those which run at a time; `MAX_CONCURRENT_REQUESTS` is their number."""

from collections.abc import Callable
from contextvars import ContextVar


def keep() -> None:
    """Do nothing: what runs has no place."""


release: ContextVar[Callable[[], None]] = ContextVar("release", default=keep)
"""Releases the place of the mutation that runs, if it still has one. Work that several requests share has none."""


def give_up() -> None:
    """Let another request run, before the mutation waits for locks or turns: `TokenStore` limits how many do that."""
    release.get()()
