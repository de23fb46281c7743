"""Which requests run: a number of them at a time; the others wait in line for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from graphql_api.domain.errors import UnavailableError
from graphql_api.web.concurrency import ConcurrencyLimiter
from graphql_api.web.http_errors import Headers, HTTPError
from graphql_api.web.in_flight import RequestsInFlight
from graphql_api.web.request import Interruption, Request

LATER: Headers = [(b"retry-after", b"1")]


class Admission:
    """Places for queries, and as many for mutations: queries never wait behind mutations that wait for a lock.

    What a request is becomes known when it has a place. A mutation that waits for a lock gives its place up.

    Args:
        number: how many queries run at a time, and how many mutations
        wait_seconds: how long a request may wait for its place
        timeout_seconds: how long it may take then
        in_flight: ends those whose time is up
        wait_connected: waits for a database that is away
    """

    def __init__(
        self,
        number: int,
        *,
        wait_seconds: float,
        timeout_seconds: float,
        in_flight: RequestsInFlight,
        wait_connected: Callable[[float], Awaitable[None]],
    ) -> None:
        self.places = ConcurrencyLimiter(number)
        self.of_mutations = ConcurrencyLimiter(number)
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._in_flight = in_flight
        self._wait_connected = wait_connected

    async def move(self, request: Request) -> None:
        """Give the request, which turned out to be a mutation, one of the places of mutations for its own.

        Raises:
            HTTPError: as from `wait`.
        """
        request.give_up_place()
        await self.enter(request)

    async def enter(self, request: Request) -> None:
        """Give a mutation a place. Waiting for it moves no deadline of the request.

        Raises:
            HTTPError: as from `wait`.
        """
        if not self.of_mutations.acquire():
            deadline = request.deadline
            try:
                await self.wait(request, self.of_mutations)
            finally:
                request.deadline = deadline
        request.place = self.of_mutations

    def leave(self, request: Request) -> None:
        """Give up the place of the request: that of a mutation which goes on, at its end."""
        mutation = request.mutation
        if mutation is None or mutation.done():
            request.give_up_place()
        else:
            mutation.add_done_callback(lambda _: request.give_up_place())

    async def wait(self, request: Request, places: ConcurrencyLimiter) -> None:
        """Take one of these places, first come, first served.

        Requests that wait for the database keep theirs. While it is away, no other requests wait behind them.

        Raises:
            HTTPError: 503, none became free in time, or the database did not come back.
        """
        began = perf_counter()
        await self.wait_for_the_database(0)
        self._in_flight.allow(request, self._wait_seconds)
        try:
            await places.wait()
        except asyncio.CancelledError:
            if request.interruption is not Interruption.TIME_IS_UP:
                raise
            request.interruption = None  # it may have other operations to answer
            if request.task is not None:
                request.task.uncancel()
            message = "The service is overloaded. Try again in a moment."
            raise HTTPError(503, "UNAVAILABLE", message, LATER, limits=["MAX_CONCURRENT_REQUESTS"]) from None
        try:
            self._in_flight.allow(request, self._timeout_seconds)
            await self.wait_for_the_database(perf_counter() - began)
        except BaseException:
            places.release()
            raise

    async def wait_for_the_database(self, waited: float) -> None:
        """Wait until there is a connection to the database; `waited` seconds count towards the time limit.

        Raises:
            HTTPError: there was none in time.
        """
        try:
            await self._wait_connected(waited)
        except UnavailableError as error:
            message = f"{error} The operation was not run. Send the request again."
            raise HTTPError(503, "UNAVAILABLE", message, LATER) from None
