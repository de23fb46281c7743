"""Metrics whose values are in the database, where other processes write them; a scrape by Prometheus reads them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from time import monotonic

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import FAILURES


class DatabaseMetrics:
    """Reads such values now and then. If the database is away, what was read last stays.

    Args:
        read: reads them, and shows them
        interval_seconds: the least time between two readings
        timeout_seconds: how long one may take
    """

    def __init__(self, read: Callable[[], Awaitable[None]], *, interval_seconds: float, timeout_seconds: float) -> None:
        self._read = read
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._read_at = -inf

    async def refresh(self) -> None:
        """Read the values, unless they were read a short time ago."""
        if monotonic() - self._read_at < self._interval:
            return
        self._read_at = monotonic()
        with suppress(UnavailableError, *FAILURES):  # of which TimeoutError is one
            async with asyncio.timeout(self._timeout):
                await self._read()
