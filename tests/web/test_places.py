"""Places are taken first come, first served, and none is ever lost."""

import asyncio
from contextlib import suppress

from graphql_api.web.places import Places


async def waiting(places, number):
    """Tasks that wait in line, in this order."""
    tasks = [asyncio.create_task(places.wait()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def done(tasks):
    return [task.done() for task in tasks]


async def test_there_are_as_many_as_are_free():
    places = Places(2)
    assert [places.take(), places.take(), places.take()] == [True, True, False]
    places.give_back()
    await asyncio.wait_for(places.wait(), 5)
    assert not places.take()


async def test_who_has_waited_longest_is_next_and_nobody_overtakes():
    places = Places(1)
    places.take()
    tasks = await waiting(places, 3)
    for served in range(3):
        places.give_back()
        assert not places.take()
        await asyncio.sleep(0)
        assert done(tasks) == [number <= served for number in range(3)]
    places.give_back()
    assert places.take()


async def test_who_has_left_the_line_is_passed_over():
    places = Places(1)
    places.take()
    gone, next_one = await waiting(places, 2)
    gone.cancel()
    places.give_back()
    await asyncio.wait_for(next_one, 5)
    assert gone.cancelled()
    assert not places.take()


async def test_who_leaves_when_the_turn_has_come_hands_the_place_on():
    places = Places(1)
    places.take()
    leaving, next_one = await waiting(places, 2)
    places.give_back()
    leaving.cancel()
    await asyncio.wait_for(next_one, 5)
    with suppress(asyncio.CancelledError):
        await leaving
    places.give_back()
    assert places.take()
    assert not places.take()
