"""What checks of gateways found. Other processes write it into the database; it is read when Prometheus asks."""

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
    """Reads the summaries of checks, at most four times a minute. If the database is away, the last ones stay.

    Args:
        checks: where they are
        show: takes each of them
    """

    def __init__(self, checks: CheckStore, show: Callable[[CheckSummary], object]) -> None:
        self._checks = checks
        self._show = show
        self._read_at = -inf

    async def refresh(self) -> None:
        """Show what is there now."""
        if monotonic() - self._read_at < _SECONDS:
            return
        self._read_at = monotonic()
        with suppress(UnavailableError, *FAILURES):  # of which TimeoutError is one
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                for summary in await self._checks.summaries():
                    self._show(summary)
