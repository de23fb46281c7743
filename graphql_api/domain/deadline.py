"""Until when a mutation may change something: what is not committed by then is given up."""

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from types import TracebackType

from graphql_api.domain.errors import UnavailableError, UnchangedError

# A request that lost its database connection has so long for its statements. To learn whether its commit was made may
# take 0.4 seconds more, so that it is answered within 2.5 seconds.
_FIRST_ANSWER_SECONDS = 2.1
# After such a mutation, what its answer holds is read for so long after its deadline: it is answered within 3 seconds.
_READ_SECONDS = 0.7


class Deadline:
    """When a mutation has to be done, by the clock of the event loop.

    Args:
        at: when; infinite for work that many mutations share, which goes on as long as one of them wants it
        sharing: those mutations
        request: that of the mutation's request
    """

    def __init__(self, at: float, sharing: Iterable["Deadline"] = (), request: "RequestDeadline | None" = None) -> None:
        self.at = at
        self.may_have_changed = False
        self.is_executing = False  # a statement or a transaction
        self._request = request
        self._sharing = list(sharing)
        self._earliest = asyncio.get_running_loop().time() + _FIRST_ANSWER_SECONDS
        self.timeouts: set[asyncio.Timeout] = set()  # those that end at it

    @property
    def is_shared(self) -> bool:
        """Whether it is that of work which mutations share; each of them has its own."""
        return bool(self._sharing)

    @property
    def mutations(self) -> list["Deadline"]:
        """Those of the mutations whose work it is."""
        return self._sharing or [self]

    def shorten(self, *, is_own: bool) -> None:
        """A connection was lost, of this mutation or not: its caller is not to wait for everything else that may be."""
        for deadline in self._sharing:
            deadline.shorten(is_own=is_own)
        if self.at < inf:
            self.at = min(self.at, self._earliest)
            if is_own:
                self.shorten_request()
            self._reschedule()

    def shorten_request(self) -> None:
        """Let the other mutations of the request have no more time than this one."""
        if self._request is not None:
            self._request.shorten_mutations(self.at)

    def _reschedule(self) -> None:
        for limit in self.timeouts:
            if not limit.expired():
                limit.reschedule(self.at)

    def seconds_left(self) -> float:
        """Seconds that are left."""
        return self.at - asyncio.get_running_loop().time()


class RequestDeadline(Deadline):
    """When what a request's answer reads has to be done: never, unless a connection was lost.

    Once one of its mutations has lost one, or was given up for a loss, the others have no more time than it has. Once
    what the answer reads has lost one, all of them have as much as one that began with the request.

    Args:
        of_mutations: when all mutations of the request have to be done, by the clock of the event loop
    """

    def __init__(self, of_mutations: float) -> None:
        super().__init__(inf)
        self.of_mutations = of_mutations

    def shorten(self, *, is_own: bool) -> None:
        """A connection was lost by what the answer reads, if it `is_own`."""
        if is_own and self.at == inf:
            self._end_soon(max(self._earliest, asyncio.get_running_loop().time()))

    def shorten_mutations(self, at: float) -> None:
        """Let the mutations be done by then, and what the answer reads soon afterwards."""
        if at < self.of_mutations:
            self._end_soon(at)

    def _end_soon(self, at: float) -> None:
        self.of_mutations = min(self.of_mutations, at)
        self.at = at + _READ_SECONDS
        self._reschedule()


current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
"""That of the mutation that runs, or of what its answer reads; None for work of no mutation."""

_running: set[Deadline] = set()  # those of all mutations that run


class until:  # noqa: N801 - reads like a function
    """Let what is done in this end at this time, by the clock of the event loop; None for no deadline.

    Raises:
        UnavailableError: a part of it may have changed something, and another part ended with an `UnchangedError`.
    """

    __slots__ = ("_at", "_deadline", "_outside", "_request")

    def __init__(self, at: float | None, request: RequestDeadline | None = None) -> None:
        self._at = at
        self._request = request

    def __enter__(self) -> None:
        self._deadline = None if self._at is None else Deadline(self._at, request=self._request)
        self._outside = current.set(self._deadline)
        if self._deadline is not None:
            _running.add(self._deadline)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        current.reset(self._outside)
        if self._deadline is not None:
            _running.discard(self._deadline)
            if isinstance(error, UnavailableError):
                self._deadline.shorten_request()
            if isinstance(error, UnchangedError) and self._deadline.may_have_changed:
                raise exceeded_error() from error  # that is true of what it did last, and not of all that it did


def for_mutation() -> until:
    """Let the request's deadline count for what is done in this, which is one mutation."""
    request = current.get()
    return until(request.of_mutations, request) if isinstance(request, RequestDeadline) else until(None)


def suspended() -> until:
    """Let no deadline count for what is done in this: it finds out what was changed."""
    return until(None)


class timeout:  # noqa: N801 - reads like a function
    """What is done in this ends at the deadline, if there is one, by a `TimeoutError`."""

    __slots__ = ("_deadline", "_limit")

    async def __aenter__(self) -> asyncio.Timeout:
        self._deadline = deadline = current.get()
        self._limit = limit = asyncio.timeout_at(None if deadline is None or deadline.at == inf else deadline.at)
        await limit.__aenter__()
        if deadline is not None:
            deadline.timeouts.add(limit)
        return limit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._deadline is not None:
            self._deadline.timeouts.discard(self._limit)
        await self._limit.__aexit__(kind, error, traceback)


class enforced(timeout):  # noqa: N801 - reads like a function
    """Give up what is done in this at the deadline.

    Raises:
        UnavailableError: it was given up.
    """

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        except TimeoutError:
            raise exceeded_error() from None
        if isinstance(error, TimeoutError) and self._limit.expired():
            raise exceeded_error() from None


def exceeded_error() -> UnavailableError:
    """The error of what was given up at the deadline."""
    return UnavailableError("The change took too long, and may already have been made. It is safe to try again.")


def note_change() -> None:
    """The mutation that runs has changed something, or a connection was lost that may have done so."""
    deadline = current.get()
    if deadline is not None:
        deadline.may_have_changed = True


def note_loss() -> None:
    """A connection was lost: the mutation that runs has to end soon, and so have all that wait for others."""
    own = current.get()
    if own is not None:
        own.shorten(is_own=True)
    for deadline in _running:
        if not deadline.is_executing and deadline is not own:
            deadline.shorten(is_own=False)


@contextmanager
def executing() -> Generator[None]:
    """What is done in this is a statement or a transaction of the mutation that runs, or of all that share it.

    That others lose connections does not end it sooner.
    """
    deadline = current.get()
    mutations = [] if deadline is None else deadline.mutations
    for mutation in mutations:
        mutation.is_executing = True
    try:
        yield
    finally:
        for mutation in mutations:
            mutation.is_executing = False


def seconds_left() -> float:
    """Seconds that are left; infinite without a deadline."""
    deadline = current.get()
    return inf if deadline is None else deadline.seconds_left()


def has_passed() -> bool:
    """Whether nothing may be begun any more."""
    return seconds_left() <= 0
