"""The place that a request has among those which run at a time; `MAX_CONCURRENT_REQUESTS` is their number."""

from collections.abc import Callable
from contextvars import ContextVar


def none() -> None:
    """Refer to nothing: what runs has no place of its own."""


release: ContextVar[Callable[[], Callable[[], None] | None]] = ContextVar("release", default=none)
"""A weak reference to what releases the place of the mutation that runs: the request refers to its context already."""


def give_up() -> None:
    """Let another request run, before the mutation waits for locks or turns: `TokenStore` limits how many do that."""
    if (of_mutation := release.get()()) is not None:
        of_mutation()
