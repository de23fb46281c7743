"""Optimistic concurrency: a change that lost a race reads and decides again."""

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from time import monotonic
from typing import TypeVar

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnchangedError
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.connection import ConnectionLostError
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS

T = TypeVar("T")

_MAX_SECONDS = 8.0  # a little less than a request may take
_MAX_PAUSE_SECONDS = 0.05
# An attempt may wait for a lock for a third of this. If the deadline ended it, its outcome would be unknown.
_MIN_ATTEMPT_SECONDS = 0.15


async def retry_on_conflict(attempt: Callable[[], Awaitable[T]], *, max_seconds: float = _MAX_SECONDS) -> T:
    """Run the attempt until no other change happens between its read and its write.

    Args:
        attempt: reads, decides and writes
        max_seconds: how long to retry after lost races

    Raises:
        UnchangedError: it lost races for too long.
        UnavailableError: the database is unavailable.
    """
    began, longest_pause = monotonic(), 0.001
    while True:
        try:
            return await attempt()
        except ConflictError:
            if deadline.seconds_left() < _MIN_ATTEMPT_SECONDS:
                raise UnchangedError("The change took too long") from None
            if monotonic() - began > max_seconds:
                raise UnchangedError from None
            await asyncio.sleep(random() * longest_pause)  # noqa: S311 - so that losers do not meet again
            longest_pause = min(2 * longest_pause, _MAX_PAUSE_SECONDS)
        except ConnectionLostError:  # nothing was changed
            if monotonic() - began > RETRY_WINDOW_SECONDS or deadline.has_passed():
                raise
