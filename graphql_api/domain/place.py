"""The place that a request has among those which run at a time; `MAX_CONCURRENT_REQUESTS` is their number."""

from collections.abc import Callable
from contextvars import ContextVar


def _keep() -> None:
    """Do nothing: what runs has no place."""


give_up: ContextVar[Callable[[], None]] = ContextVar("give_up", default=_keep)
"""Gives up the place of the mutation that runs, before it waits for locks: `TokenStore` limits how many do that."""
