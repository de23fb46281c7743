"""Optimistic concurrency: what lost a race against another change is tried again from its reading on."""

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from time import monotonic
from typing import TypeVar

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.changes import ConflictError
from graphql_api.storage.connection import ConnectionLostError
from graphql_api.storage.pool import RETRY_WINDOW_SECONDS

T = TypeVar("T")

_MAX_SECONDS = 8.0  # a little less than a request may take
_MAX_PAUSE_SECONDS = 0.05


async def retry_on_conflict(attempt: Callable[[], Awaitable[T]], *, max_seconds: float = _MAX_SECONDS) -> T:
    """Run the attempt until no other change comes between its reading and its writing.

    Args:
        attempt: what is tried, from its reading on
        max_seconds: for so long races are lost before it is given up

    Raises:
        UnavailableError: it lost too many races, or the database cannot be asked.
    """
    began, longest_pause = monotonic(), 0.001
    while True:
        try:
            return await attempt()
        except ConflictError:
            if monotonic() - began > max_seconds or deadline.is_over():
                raise UnavailableError("Too many concurrent changes of the same token.") from None
            await asyncio.sleep(random() * longest_pause)  # noqa: S311 - so that losers do not meet again
            longest_pause = min(2 * longest_pause, _MAX_PAUSE_SECONDS)
        except ConnectionLostError:  # nothing was changed
            if monotonic() - began > RETRY_WINDOW_SECONDS or deadline.is_over():
                raise
