"""Optimistic concurrency: what lost a race against another change is tried again from its reading on."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.changes import ConflictError
from graphql_api.storage.connection import ConnectionLostError
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS

T = TypeVar("T")

_MAX_ATTEMPTS = 1000  # each lost race is one that another change won, so this many are lost in a row by no accident


async def retry_on_conflict(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run the attempt until no other change comes between its reading and its writing.

    Raises:
        UnavailableError: it lost too many races, or the database cannot be asked.
    """
    began = monotonic()
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await attempt()
        except ConflictError:
            continue
        except ConnectionLostError:  # what was written is found by the next attempt, and harmless to repeat
            if monotonic() - began > RETRY_WINDOW_SECONDS:
                raise
    raise UnavailableError("Too many concurrent changes of the same token.")
