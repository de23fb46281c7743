"""Metrics of checks of gateways. Other processes write the sums into the database; a scrape reads them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.checks import CheckStore, CheckSummary
from graphql_api.storage.connector import FAILURES

_SECONDS = 15
_TIMEOUT_SECONDS = 0.5


class CheckMetrics:
    """Reads the summaries of checks, at most four times a minute. While the database is away, the last ones stay.

    Args:
        checks: reads the summaries
        show: takes each of them
    """

    def __init__(self, checks: CheckStore, show: Callable[[CheckSummary], object]) -> None:
        self._checks = checks
        self._show = show
        self._read_at = -inf

    async def refresh(self) -> None:
        """Update the metrics."""
        if monotonic() - self._read_at < _SECONDS:
            return
        self._read_at = monotonic()
        with suppress(UnavailableError, *FAILURES):  # of which TimeoutError is one
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                for summary in await self._checks.summaries():
                    self._show(summary)
