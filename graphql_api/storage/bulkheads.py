"""Bounds what slow work may hold of a pool's connections, so that everybody else's reads find one.

Every statement holds a connection of some share (`docs/architecture.md` lists them).

A read by key answers in milliseconds. One that does not is given up and asked again on another connection, since its
own may hang. If it is late again, it is slow, and runs on the share of connections that slow work has, for as long as
it stays slow. Lists and changes have shares of their own; a transaction that is late is rolled back, and runs again on
the share of slow ones. Where everything is slow, to ask again makes it slower: so it takes credit, which quick reads
earn.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from time import monotonic
from typing import TypeVar
from weakref import WeakValueDictionary

import asyncpg

from graphql_api.domain import deadline, place
from graphql_api.domain.errors import UnavailableError, UnchangedError

T = TypeVar("T")

LOOK_SECONDS = 0.025
"""How often reads that are under way are looked at."""
_MIN_SECONDS, _ROUND_TRIPS = 0.05, 4
_WEIGHT = 0.3  # of a round trip in the mean of all
_MAX_KNOWN = 1000
_KNOWN_SECONDS = 30.0
_CHANGE_PATIENCE = 5  # times the patience with a read
_LOCK_PATIENCE = 2  # the same
# While a statement waits for a lock, nothing shows that its connection was silently dropped. So it does not wait
# longer, but again in another transaction, and a caller hears of the loss within three seconds.
_MAX_LOCK_SECONDS = 1.0
_MAX_CREDIT, _CREDIT_PER_ANSWER = 400.0, 0.25

tries: ContextVar[int] = ContextVar("tries", default=1)
"""How often a late read is asked again before it is slow; -1 for one that several requests share or might share."""

avoids_slow: ContextVar[bool] = ContextVar("avoids_slow", default=False)
"""Whether a change of users who are known to be slow is refused: its callers ask again, among those who may wait."""

was_slow: ContextVar[bool] = ContextVar("was_slow", default=False)
"""Whether the last read of this task was slow, once it had a place."""


class SharedReadIsLateError(Exception):
    """A read that several requests may share is late, because of one of them, or of its connection."""


class ChangeIsLateError(Exception):
    """A transaction was rolled back because it was late; it has a place among the slow ones if it is run again."""


class ConflictError(Exception):
    """Another transaction changed the same: read and decide again."""


class SlowUserError(ConflictError):
    """Changes of this user wait for locks: ask again, apart from other users."""


class SlowKeys:
    """What was slow in the last half minute."""

    def __init__(self) -> None:
        self.since: OrderedDict[Hashable, float] = OrderedDict()
        """When each was seen to be slow; empty if nothing was."""

    def __contains__(self, key: Hashable) -> bool:
        while self.since and monotonic() - next(iter(self.since.values())) > _KNOWN_SECONDS:
            self.since.popitem(last=False)
        return key in self.since

    def note(self, key: Hashable, *, is_slow: bool) -> None:
        """This was slow, or not."""
        self.since.pop(key, None)
        if is_slow:
            self.since[key] = monotonic()
            if len(self.since) > _MAX_KNOWN:
                self.since.popitem(last=False)


class Patience:
    """When a read is late: after 50 ms, or four times what a round trip to the database takes.

    That is seen by those who look now and then, since a process that had no time itself looked only once meanwhile.
    """

    def __init__(self) -> None:
        self._credit = _MAX_CREDIT
        self._round_trip = 0.0

    @property
    def seconds(self) -> float:
        """What takes longer is slow."""
        return max(_MIN_SECONDS, _ROUND_TRIPS * self._round_trip)

    def note_round_trip(self, seconds: float) -> None:
        """An empty statement took so long."""
        self._round_trip += (seconds - self._round_trip) * _WEIGHT

    def note_answer(self) -> None:
        """A read was not late."""
        self._credit = min(self._credit + _CREDIT_PER_ANSWER, _MAX_CREDIT)

    def ends(self, looks: int) -> bool:
        """Whether a read that was seen so often is to be given up."""
        return looks * LOOK_SECONDS > self.seconds and self._pay()

    def is_late_change(self, seconds: float) -> bool:
        """Whether one statement of a change took too long."""
        return seconds > _CHANGE_PATIENCE * self.seconds

    def lock_seconds(self, *, ends_early: bool) -> float:
        """How long a statement of a transaction waits for one lock; for a shorter time if it may end early."""
        return min(_LOCK_PATIENCE * self.seconds, _MAX_LOCK_SECONDS) if ends_early else _MAX_LOCK_SECONDS

    def ends_change(self, looks: int) -> bool:
        """Whether a transaction whose statement was seen so often is to be rolled back."""
        return self.is_late_change(looks * LOOK_SECONDS) and self._pay()

    def _pay(self) -> bool:
        if self._credit < 1:
            return False
        self._credit -= 1
        return True


_NOT_MOVED = (UnavailableError, ChangeIsLateError, ConflictError, asyncpg.LockNotAvailableError)


class Share:
    """A limit on the connections that one kind of work may hold.

    Work waits for a place as long as other work of its kind ends: there is much of it, but it is not stuck. Time is
    counted in looks, since a process that had no time itself looked only once meanwhile.

    Args:
        places: how much of it runs at a time
        waiting: how much more may wait
        seconds: how long it may wait while none of it ends
        moving_seconds: more may wait, and for longer, as long as some of it ended within this time
    """

    def __init__(self, places: int, *, waiting: int, seconds: float, moving_seconds: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._max_waiting = waiting
        self._seconds = seconds
        self._moving_seconds = moving_seconds
        self._now = self._moved = 0.0  # in seconds of waiting, as far as they were seen
        self._waiting: dict[asyncio.Timeout, float] = {}
        self._is_looking = False

    @property
    def is_full(self) -> bool:
        """Whether work has to wait for a place."""
        return self._places.locked()

    async def __aenter__(self) -> None:
        """Take a place, once there is one.

        Raises:
            UnavailableError: too many wait, or none of this work ended for a while.
        """
        if self.is_full:
            await self._wait()
        else:
            await self._places.acquire()

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Give the place up; what failed because others are slow has not moved anything."""
        if not isinstance(error, _NOT_MOVED):
            self._moved = self._now
        self._places.release()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._max_waiting and self._now - self._moved >= self._moving_seconds:
            raise UnavailableError("Too many slow requests wait already.")
        limit = asyncio.timeout(None)
        self._waiting[limit] = self._now
        try:
            async with limit:
                self._look_later()
                await self._places.acquire()
        except TimeoutError:
            raise UnavailableError("Requests of this kind take long, and none ended in time.") from None
        finally:
            del self._waiting[limit]

    def _look_later(self) -> None:
        if self._waiting and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._now += LOOK_SECONDS
        for ahead, (limit, began) in enumerate(self._waiting.items()):
            seconds = self._seconds if ahead < self._max_waiting else self._moving_seconds
            if self._now - max(began, self._moved) >= seconds and not limit.expired():
                limit.reschedule(0)
        self._is_looking = False
        self._look_later()


class ChangeShares:
    """Limits on the connections that changes may hold: a half of the pool's.

    One of those is kept for what leaves no history, which is claims: they go on while the history is locked. Of users
    whose last change was late, changes may hold a half of it, and transactions of one such user one connection.

    Args:
        size: the pool's connections
        seconds: as for a `Share`
        moving_seconds: as for a `Share`
    """

    def __init__(self, size: int, *, seconds: float, moving_seconds: float) -> None:
        places = max(2, size // 2)
        share = partial(Share, waiting=sys.maxsize, seconds=seconds, moving_seconds=moving_seconds)
        self._all = share(places)
        self._recorded = share(max(2, places - 1))
        self._slow = share(max(1, places // 2))
        self._slow_users = SlowKeys()
        self._slow_turns = SharesByKey(partial(share, 1))

    def are_slow(self, users: Iterable[str]) -> bool:
        """Whether the last change of one of these users, or on one of these customers, was late."""
        return bool(self._slow_users.since) and any(user in self._slow_users for user in users)

    def note(self, users: Iterable[str], *, is_slow: bool) -> None:
        """A change of these was late, or not."""
        if is_slow or self._slow_users.since:
            for user in users:
                self._slow_users.note(user, is_slow=is_slow)

    @asynccontextmanager
    async def place(
        self, users: Collection[str], *, records: bool, waits_for_locks: bool = False
    ) -> AsyncGenerator[bool]:
        """A place for a change of these users, which `records` what it does or not; answers whether it is slow.

        Raises:
            SlowUserError: one of these users is slow, and `avoids_slow` is set.
            UnavailableError: none of this work ended for a while.
        """
        is_slow = self.are_slow(users)
        async with AsyncExitStack() as stack:
            while True:
                if is_slow:
                    if avoids_slow.get():
                        raise SlowUserError
                    if waits_for_locks:
                        slow = [user for user in users if user in self._slow_users]
                        await stack.enter_async_context(self._slow_turns.places(slow))
                    await stack.enter_async_context(self._slow)
                if records:
                    await stack.enter_async_context(self._recorded)
                await stack.enter_async_context(self._all)
                if is_slow or not self.are_slow(users):
                    break
                await stack.aclose()  # another change of theirs was late meanwhile
                is_slow = True
            yield is_slow


async def enter_to_change(stack: AsyncExitStack, place: AbstractAsyncContextManager[T]) -> T:
    """Wait for a place before anything is changed.

    Raises:
        UnchangedError: there was none in time.
    """
    try:
        async with deadline.enforced():
            return await stack.enter_async_context(place)
    except UnavailableError:
        raise UnchangedError from None


class SharesByKey:
    """A limit for each key, such as a user: who waits for one leaves connections, and places, to the others."""

    def __init__(self, share: Callable[[], Share]) -> None:
        self._new_share = share
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    @asynccontextmanager
    async def places(self, keys: Iterable[str]) -> AsyncGenerator[None]:
        """A place for each of the keys.

        Raises:
            UnavailableError: too many wait for one of them, or none of its work ended for a while.
        """
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):  # in one order for all, to avoid deadlocks
                share = self._shares.get(key)
                if share is None:
                    self._shares[key] = share = self._new_share()
                if share.is_full:
                    place.give_up()
                await stack.enter_async_context(share)
            yield
