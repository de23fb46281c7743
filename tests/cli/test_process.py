"""What commands share: here, how Ctrl-C ends what they do."""

import asyncio
from contextlib import suppress

import pytest

from graphql_api.cli import process


async def test_work_that_swallows_a_cancellation_is_cancelled_again():
    swallowed = asyncio.Event()

    async def work():
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        swallowed.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    process._cancel(task, asyncio.get_running_loop(), again_seconds=0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert swallowed.is_set()
