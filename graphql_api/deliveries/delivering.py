"""Deliveries: each endpoint gets the entries of the feed one after another, from one process at a time.

An entry is at the receiver before the endpoint's position passes it, so that a process that is killed repeats what was
under way, and nothing is left out. An entry that is not taken is tried again by the schedule of Standard Webhooks, and
holds back those behind it. After the last attempt the endpoint is disabled: its entries wait until it is resumed.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import uniform
from time import monotonic

import structlog

from graphql_api.deliveries.sending import (
    MAX_READ_SECONDS,
    TIMEOUT_SECONDS,
    DeliveryOutcome,
    Endpoint,
    Sender,
    message_id,
)
from graphql_api.domain.errors import BadInputError, UnavailableError
from graphql_api.domain.filter import FeedFilter, FeedPosition
from graphql_api.observability.supervision import supervise
from graphql_api.storage.connector import FAILURES
from graphql_api.storage.endpoints import LEASE_SECONDS, Endpoints, EndpointState
from graphql_api.storage.feed import Feed
from graphql_api.storage.pool import ConnectionPool

# Seconds after each attempt until the next one: 10 attempts in 75.6 hours.
SCHEDULE = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
_JITTER = 0.1  # of the schedule, so that endpoints that failed at once are not tried at once

_PAGE_SIZE = 100
_POLL_SECONDS = 0.1
_OUTAGE_SECONDS = 1.0
# How often an endpoint's position moves past entries whose actions it does not want: in entries, and in seconds.
_PASS_OVER, _PASS_SECONDS = 100, 5.0
_SETTLE_SECONDS = 30.0  # that `once` waits for the transactions which run at its start

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeliveryTiming:
    """How long deliveries wait.

    Attributes:
        schedule: seconds after each failed attempt until the next one
        denied: seconds until a process asks again for a lease that another one holds
        lease: seconds for which a process holds an endpoint without an answer from it
        answer: seconds within which an endpoint has to answer
        read: seconds for which the body of its answer is read
    """

    schedule: Sequence[float] = SCHEDULE
    denied: float = 0.5
    lease: float = LEASE_SECONDS
    answer: float = TIMEOUT_SECONDS
    read: float = MAX_READ_SECONDS


_STANDARD = DeliveryTiming()


@dataclass(slots=True)
class _Progress:
    """Where a process is that has the lease on an endpoint."""

    position: int
    attempts: int
    delivered: int = 0
    is_denied: bool = False
    has_failed: bool = False
    leased_at: float = field(default_factory=monotonic)

    def moved(self, position: int) -> None:
        """Record that the endpoint got everything up to this position, which renewed the lease."""
        self.position, self.attempts, self.leased_at = position, 0, monotonic()


@dataclass
class Delivery:
    """The deliveries to one endpoint.

    Attributes:
        name: the endpoint's
        sender: sends to it
        feed: where entries come from
        endpoints: where its state is stored
        wanted: which entries it gets
        stop: is set when nothing more is to be sent
        timing: how long to wait for what
    """

    name: str
    sender: Sender
    feed: Feed
    endpoints: Endpoints
    wanted: FeedFilter
    stop: asyncio.Event
    timing: DeliveryTiming
    _pass_at: float = 0.0

    async def run(self) -> None:
        """Deliver until it is stopped."""
        while not self.stop.is_set():
            try:
                pause = await self._deliver()
            except (UnavailableError, *FAILURES) as error:
                _log.warning("deliveries wait for the database", endpoint=self.name, reason=type(error).__name__)
                pause = _OUTAGE_SECONDS
            await self._pause(pause)

    async def _deliver(self) -> float:
        """Deliver if there seems to be anything. Returns seconds until the next look."""
        position = await self.endpoints.due(self.name)
        if position is None:
            return self.timing.denied
        page = await self.feed.read(position, 1, self.wanted)
        passed = page.end.position - position
        if not page.lines and (passed == 0 or (passed < _PASS_OVER and monotonic() < self._pass_at)):
            return _POLL_SECONDS
        self._pass_at = monotonic() + _PASS_SECONDS
        return self.timing.denied if (await self.step()).is_denied else 0.0

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass

    async def step(self, *, early: bool = False, until: int | None = None) -> _Progress:
        """Deliver what there is, up to a position if one is given; stop at the first entry that is not taken."""
        lease = await self.endpoints.lease(self.name, early=early)
        if lease is None:
            return _Progress(0, 0, is_denied=True)
        progress = _Progress(*lease)
        try:
            while await self._deliver_page(progress, until):
                pass
        finally:
            await self.endpoints.release(self.name)
        return progress

    async def _deliver_page(self, progress: _Progress, until: int | None) -> bool:
        """Deliver a page. Returns whether to go on."""
        page = await self.feed.read(progress.position, _PAGE_SIZE, self.wanted)
        for line in page.lines:
            is_late = monotonic() - progress.leased_at > self.timing.lease / 3
            if (until is not None and line["position"] > until) or is_late or self.stop.is_set():
                return False
            outcome = await self.sender.send(line)
            if outcome.error:
                progress.has_failed = True
                await self._fail(progress, line["position"], outcome)
                return False
            if not await self.endpoints.advance(self.name, progress.position, line["position"]):
                return False
            progress.moved(line["position"])
            progress.delivered += 1
        if page.end.position > progress.position:
            if not await self.endpoints.advance(self.name, progress.position, page.end.position):
                return False
            progress.moved(page.end.position)
        return page.has_more

    async def _fail(self, progress: _Progress, failed: int, outcome: DeliveryOutcome) -> None:
        attempts, error = progress.attempts + 1, outcome.error
        schedule = self.timing.schedule
        is_last = outcome.is_gone or attempts > len(schedule)
        delay = schedule[min(attempts, len(schedule)) - 1] * uniform(1, 1 + _JITTER)  # noqa: S311 - no secret
        delay = max(delay, outcome.retry_after or 0.0)
        await self.endpoints.fail(
            self.name, progress.position, failed, error, delay=delay, retry_after=outcome.retry_after, disable=is_last
        )
        if is_last:
            _log.error("endpoint disabled", endpoint=self.name, reason=error, attempts=attempts)
        else:
            _log.warning("delivery failed", endpoint=self.name, reason=error, attempts=attempts, retry_in=round(delay))

    async def once(self) -> str:
        """Deliver what is there now. Returns why the endpoint stays behind, or nothing."""
        until, deadline = await self._now(), monotonic() + self.timing.lease + 1
        if until is None:
            return "a transaction has been running for so long that not all entries can be delivered yet"
        while not self.stop.is_set():
            step = await self.step(early=True, until=until)
            state = next(each for each in await self.endpoints.states() if each.name == self.name)
            lines = (await self.feed.read(state.position, 1, self.wanted)).lines
            if not lines or lines[0]["position"] > until:
                return ""
            if step.delivered:
                deadline = monotonic() + self.timing.lease + 1
            is_waiting = step.is_denied and state.is_leased
            if step.has_failed or state.disabled_at or (step.is_denied and not is_waiting) or monotonic() > deadline:
                return _described(state)
            await self._pause(_POLL_SECONDS if is_waiting else 0.0)
        return "the command was interrupted"

    async def _now(self) -> int | None:
        """The position up to which there is something, once that is settled."""
        deadline = monotonic() + _SETTLE_SECONDS
        await self.feed.look()
        newest = self.feed.newest
        while (settled := await self.feed.now()).position < newest:
            if monotonic() > deadline or self.stop.is_set():
                return None
        return settled.position


def _described(state: EndpointState) -> str:
    if state.disabled_at:
        return f"it is disabled, since it {state.last_error}; enable it with --resume {state.name}"
    if state.last_error:
        return f"it {state.last_error}"
    return "another process delivers to it"


@asynccontextmanager
async def deliveries(
    pool: ConnectionPool,
    endpoints: Sequence[Endpoint],
    *,
    actions: Sequence[str],
    open_sender: Callable[[Endpoint, DeliveryTiming], AbstractAsyncContextManager[Sender]],
    stop: asyncio.Event,
    timing: DeliveryTiming = _STANDARD,
) -> AsyncGenerator[list[Delivery]]:
    """The deliveries to these endpoints. A new endpoint gets the entries from now on.

    Args:
        pool: the database
        endpoints: where to send
        actions: what kinds of entries; none are all
        open_sender: opens what sends to an endpoint
        stop: is set when nothing more is to be sent
        timing: how long to wait for what
    """
    feed = Feed(pool)
    states = Endpoints(pool, f"{socket.gethostname()}-{secrets.token_hex(8)}", lease_seconds=timing.lease)
    wanted = FeedFilter(None, list(actions) or None)
    now = (await feed.now()).position
    async with AsyncExitStack() as stack:
        made: list[Delivery] = []
        for endpoint in endpoints:
            await states.register(endpoint.name, now)
            sender = await stack.enter_async_context(open_sender(endpoint, timing))
            made.append(Delivery(endpoint.name, sender, feed, states, wanted, stop, timing))
        yield made


async def run(made: Sequence[Delivery]) -> None:
    """Deliver until they are stopped."""
    await asyncio.gather(*(supervise(f"deliveries to {each.name}", each.run) for each in made))


async def resume(
    pool: ConnectionPool, name: str, *, start: FeedPosition | None = None, skip: bool = False
) -> str | None:
    """Enable an endpoint. Returns the id of the entry that was left out, if there is one.

    Args:
        pool: the database
        name: the endpoint
        start: where in the feed it continues; None for after its last entry
        skip: leave out the entry that was not taken

    Raises:
        BadInputError: there is no such endpoint, no such position, or no failed entry to leave out. It is an
            `ExpiredCursorError` if entries after that were deleted.
    """
    feed, states = Feed(pool), Endpoints(pool, "")
    known = {each.name: each for each in await states.states()}
    state = known.get(name)
    if state is None:
        names = f"there are {', '.join(known)}" if known else "`deliver` has not run on this database yet"
        raise BadInputError(f"There is no endpoint {name!r}: {names}.")
    position = pruning = left_out = None
    if start is not None:
        page = await feed.page(start, 1)
        position, pruning = page.start.position, page.end.pruning
    elif skip:
        page = await feed.read(state.position, 1)
        if not (state.attempts and page.lines):
            raise BadInputError(f"The next entry of {name} has not failed. --resume {name} enables it without --skip.")
        line = page.lines[0]
        position, left_out = line["position"], message_id(line)
    await states.resume(name, position, pruning=pruning)
    return left_out
