"""How far the change feed and its endpoints are behind. A scrape by Prometheus reads it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import FAILURES
from graphql_api.storage.endpoints import Endpoints
from graphql_api.storage.feed import Feed

_SECONDS = 5
_TIMEOUT_SECONDS = 0.6  # of which the feed takes up to 0.25


class EventMetrics:
    """Reads what is behind, at most every five seconds. If the database is away, what was read last stays.

    Args:
        feed: the feed
        endpoints: its endpoints
        show_feed: takes the feed's lag in seconds
        show_endpoint: takes the name of each endpoint, its lag in seconds, and whether it is disabled
    """

    def __init__(
        self,
        feed: Feed,
        endpoints: Endpoints,
        show_feed: Callable[[float], object],
        show_endpoint: Callable[[str, float, bool], object],
    ) -> None:
        self._feed = feed
        self._endpoints = endpoints
        self._show_feed = show_feed
        self._show_endpoint = show_endpoint
        self._read_at = -inf

    async def refresh(self) -> None:
        """Update the metrics."""
        if monotonic() - self._read_at < _SECONDS:
            return
        self._read_at = monotonic()
        with suppress(UnavailableError, *FAILURES):
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                place, lag = await self._feed.measure()
                self._show_feed(lag)
                for name, behind, is_disabled in await self._endpoints.lags(place.position):
                    self._show_endpoint(name, behind, is_disabled)
