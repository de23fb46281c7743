"""Until when a mutation may change something: what is not committed by then is given up."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from graphql_api.domain.errors import UnavailableError

given: ContextVar[float | None] = ContextVar("given_deadline", default=None)
"""When the mutations of this request have to be done, by the clock of the event loop."""
at: ContextVar[float | None] = ContextVar("deadline", default=None)
"""The same while a mutation runs; None for work that is not a mutation, and for what its answer reads."""


@contextmanager
def applied() -> Generator[None]:
    """Let the request's deadline count for what is done in this."""
    outside = at.set(given.get())
    try:
        yield
    finally:
        at.reset(outside)


@contextmanager
def lifted() -> Generator[None]:
    """Let no deadline count for what is done in this: it finds out what was changed."""
    outside = at.set(None)
    try:
        yield
    finally:
        at.reset(outside)


@asynccontextmanager
async def kept() -> AsyncGenerator[None]:
    """Give up what is done in this at the deadline.

    Raises:
        UnavailableError: it was given up.
    """
    limit = asyncio.timeout_at(at.get())
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise UnavailableError("The change took too long, and may have been made.") from None
        raise


def is_over() -> bool:
    """Whether nothing may be begun any more."""
    moment = at.get()
    return moment is not None and asyncio.get_running_loop().time() >= moment
