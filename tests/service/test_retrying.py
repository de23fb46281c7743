import asyncio

import pytest

from graphql_api.domain import deadline
from graphql_api.domain.errors import UnavailableError, UnchangedError
from graphql_api.service.retrying import retry_on_conflict
from graphql_api.storage.bulkheads import ConflictError
from graphql_api.storage.connection import ConnectionLostError


def attempts(*errors):
    """A change that fails by these errors, one after the other, and how often it was tried."""
    tried = []

    async def attempt():
        tried.append(1)
        if len(tried) <= len(errors):
            raise errors[len(tried) - 1]
        return "made"

    return attempt, tried


async def test_lost_races_and_connections_are_tried_again():
    attempt, tried = attempts(ConflictError(), ConnectionLostError(), ConflictError())
    assert await retry_on_conflict(attempt) == "made"
    assert len(tried) == 4


async def test_a_change_that_loses_for_too_long_is_given_up():
    attempt, tried = attempts(ConflictError(), ConflictError())
    with pytest.raises(UnchangedError):
        await retry_on_conflict(attempt, max_seconds=0)
    assert len(tried) == 1


async def test_no_attempt_begins_that_would_be_given_up_at_the_deadline():
    attempt, tried = attempts(ConflictError())
    with deadline.until(asyncio.get_running_loop().time() + 0.1), pytest.raises(UnchangedError, match="took too long"):
        await retry_on_conflict(attempt)
    assert len(tried) == 1


async def test_those_that_lose_a_race_together_do_not_meet_again(monkeypatch):
    pauses, sleep = [], asyncio.sleep

    async def pause(seconds):
        if asyncio.current_task() in losers:  # and not work in the background
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pause)
    losers = [asyncio.create_task(retry_on_conflict(attempts(*[ConflictError()] * 20)[0])) for _ in range(5)]
    await asyncio.gather(*losers)
    assert len(pauses) == len(set(pauses)) == 100
    assert max(pauses) <= 0.05


@pytest.mark.parametrize("error", [UnavailableError("It may have been made."), KeyError()])
async def test_what_may_have_taken_effect_is_not_tried_again(error):
    attempt, tried = attempts(error)
    with pytest.raises(type(error)):
        await retry_on_conflict(attempt)
    assert len(tried) == 1
