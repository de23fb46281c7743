import asyncio

import pytest

from graphql_api.observability import supervision
from graphql_api.observability.supervision import supervise
from tests.until import until


@pytest.fixture
async def started():
    """Starts tasks that end with the test."""
    tasks = []
    yield lambda *arguments, **options: tasks.append(asyncio.create_task(supervise(*arguments, **options)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_task_that_dies_is_counted_and_runs_again(started):
    runs = []

    async def die_once():
        runs.append(1)
        if len(runs) == 1:
            raise KeyError
        await asyncio.Event().wait()

    before = supervision.deaths["once"]
    started("once", die_once, pause_seconds=0.01)
    await until(lambda: len(runs) == 2, "the task runs again")
    assert supervision.deaths["once"] == before + 1
    assert supervision.failing() == []


async def test_a_task_that_dies_at_once_again_and_again_is_named_until_it_runs(started):
    lives = asyncio.Event()

    async def die():
        if not lives.is_set():
            raise KeyError
        await asyncio.Event().wait()

    started("often", die, pause_seconds=0.05)
    await until(lambda: supervision.failing() == ["often"], "the task is named")
    lives.set()


async def test_the_end_of_a_task_is_no_death(started):
    async def end():
        pass

    before = supervision.deaths["ends"]
    await asyncio.wait_for(supervise("ends", end), 5)
    assert supervision.deaths["ends"] == before
