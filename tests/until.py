"""Waiting for what another task, thread or process is about to do. What never happens fails and is named."""

import asyncio
import socket
import time
from inspect import isawaitable

SECONDS = 30
_PAUSE_SECONDS = 0.01


async def until(question, what, *, seconds=SECONDS):
    """Ask again and again, by a function or a coroutine function, and return the first answer that is true.

    Raises:
        AssertionError: the answer was never true; `what` says what was expected, and the last answer follows.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, _never(what, seconds, answer)
        await asyncio.sleep(_PAUSE_SECONDS)


def until_sync(question, what, *, seconds=SECONDS):
    """The same for tests that block."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, _never(what, seconds, answer)
        time.sleep(_PAUSE_SECONDS)
    return answer


def _never(what, seconds, answer):
    return f"never within {seconds} s: {what} (last: {answer!r})"


def listens(port):
    """Whether a port of this machine takes connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
