"""Background tasks that run until they are cancelled: one that dies is logged, counted and started again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic

import structlog

deaths: Counter[str] = Counter()
"""How often each task of this process died, by its name."""

_PAUSE_SECONDS = 1.0
_MAX_QUICK_DEATHS = 3
_failing: set[str] = set()
_log = structlog.get_logger()


def failing() -> list[str]:
    """The tasks that keep failing right after they are started."""
    return sorted(_failing)


async def supervise(name: str, work: Callable[[], Awaitable[None]], *, pause_seconds: float = _PAUSE_SECONDS) -> None:
    """Run a task until cancelled, and start it again after a pause if it dies."""
    quick = 0
    try:
        while True:
            began = monotonic()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it was, the task is needed
                deaths[name] += 1
                quick = quick + 1 if monotonic() - began < pause_seconds else 1
                _log.error("background task died and is started again", task=name, exc_info=error)
            else:
                return
            if quick >= _MAX_QUICK_DEATHS:
                _failing.add(name)
            await asyncio.sleep(pause_seconds)
            if quick < _MAX_QUICK_DEATHS:
                _failing.discard(name)
    finally:
        _failing.discard(name)
