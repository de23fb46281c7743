"""The database is asked for its readiness a few times a second, however many ask."""

import asyncio

from graphql_api.domain.errors import UnavailableError
from graphql_api.web import probes
from graphql_api.web.probes import Readiness


class Check:
    def __init__(self):
        self.count, self.reason = 0, None

    async def __call__(self):
        self.count += 1
        await asyncio.sleep(0)
        if self.reason:
            raise UnavailableError(self.reason)


async def test_all_who_ask_at_a_time_share_one_answer():
    check = Check()
    readiness = Readiness(check)
    assert await asyncio.gather(*(readiness.reason() for _ in range(100))) == [None] * 100
    assert check.count == 1


async def test_who_leaves_does_not_end_the_question_of_the_others():
    check = Check()
    readiness = Readiness(check)
    first, second = (asyncio.create_task(readiness.reason()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None


async def test_an_answer_is_asked_for_anew_after_a_moment(monkeypatch):
    check, now = Check(), [0.0]
    monkeypatch.setattr(probes, "monotonic", lambda: now[0])
    readiness = Readiness(check)
    assert await readiness.reason() is None
    check.reason = "The database cannot be reached."
    assert await readiness.reason() is None
    now[0] = probes.READINESS_SECONDS
    assert await readiness.reason() == "The database cannot be reached."
