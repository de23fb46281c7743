"""Until when a mutation may change something: what is not committed by then is given up, and changes nothing."""

import asyncio
from contextvars import ContextVar

at: ContextVar[float | None] = ContextVar("deadline", default=None)
"""By the clock of the event loop; None for work that is not a mutation."""


def is_over() -> bool:
    """Whether nothing may be begun any more."""
    moment = at.get()
    return moment is not None and asyncio.get_running_loop().time() >= moment
