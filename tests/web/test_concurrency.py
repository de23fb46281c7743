"""Places are taken first come, first served, and none is ever lost."""

import asyncio
from contextlib import suppress

from graphql_api.web.concurrency import ConcurrencyLimiter


async def waiting(places, number):
    """Tasks that wait in line, in this order."""
    tasks = [asyncio.create_task(places.wait()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def done(tasks):
    return [task.done() for task in tasks]


async def test_there_are_as_many_as_are_free():
    places = ConcurrencyLimiter(2)
    assert [places.acquire(), places.acquire(), places.acquire()] == [True, True, False]
    places.release()
    await asyncio.wait_for(places.wait(), 5)
    assert not places.acquire()


async def test_who_has_waited_longest_is_next_and_nobody_overtakes():
    places = ConcurrencyLimiter(1)
    places.acquire()
    tasks = await waiting(places, 3)
    for served in range(3):
        places.release()
        assert not places.acquire()
        await asyncio.sleep(0)
        assert done(tasks) == [number <= served for number in range(3)]
    places.release()
    assert places.acquire()


async def test_who_has_left_the_line_is_passed_over():
    places = ConcurrencyLimiter(1)
    places.acquire()
    gone, next_one = await waiting(places, 2)
    gone.cancel()
    places.release()
    await asyncio.wait_for(next_one, 5)
    assert gone.cancelled()
    assert not places.acquire()


async def test_who_leaves_when_the_turn_has_come_hands_the_place_on():
    places = ConcurrencyLimiter(1)
    places.acquire()
    leaving, next_one = await waiting(places, 2)
    places.release()
    leaving.cancel()
    await asyncio.wait_for(next_one, 5)
    with suppress(asyncio.CancelledError):
        await leaving
    places.release()
    assert places.acquire()
    assert not places.acquire()
