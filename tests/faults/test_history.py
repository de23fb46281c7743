"""Random faults, one after another: what was acknowledged is what is stored, and what readers saw was never older."""

import asyncio
import random
import signal

import pytest

from tests.faults.conftest import LONG
from tests.faults.load import Load


class Faults:
    """What can happen; all is well again at the end of each."""

    def __init__(self, postgres, proxy):
        self._postgres, self._proxy = postgres, proxy

    async def terminate(self):
        await self._postgres.terminate_backends()

    async def restart(self):
        await self._postgres.stop()
        await self._postgres.start()

    async def die(self):
        await self._postgres.kill()
        await asyncio.sleep(random.random())
        await self._postgres.start()

    async def freeze(self):
        self._postgres.signal_all(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.5, 4))
        self._postgres.signal_all(signal.SIGCONT)

    async def stall(self):
        self._proxy.stall()
        await asyncio.sleep(random.uniform(0.5, 4))
        self._proxy.resume()

    async def refuse(self):
        await self._proxy.refuse()
        await asyncio.sleep(random.uniform(0.2, 4))
        await self._proxy.accept()

    async def reset(self):
        for _ in range(20):
            self._proxy.reset()
            await asyncio.sleep(0.1)

    async def lose_answers(self):
        for script in random.choices([b"commit", b"UPDATED"], k=5):
            self._proxy.loses_answer_to = script
            await asyncio.sleep(0.2)
        self._proxy.loses_answer_to = None

    async def kill_a_backend(self):
        self._postgres.kill_a_backend()
        await asyncio.sleep(0.05)

    async def delay(self):
        self._proxy.delay = random.uniform(0, 0.1)
        await asyncio.sleep(1)
        self._proxy.delay = 0


NAMES = sorted(name for name in vars(Faults) if not name.startswith("_"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20 if LONG else 2))
async def test_what_was_acknowledged_is_what_is_stored(service, postgres, proxy, measured, seed):
    random.seed(seed)
    happened = random.choices(NAMES, k=3)
    load = Load([service.graphql])
    async with load.running():
        for name in happened:
            await asyncio.sleep(random.random())
            await getattr(Faults(postgres, proxy), name)()
            await postgres.answers()
        await asyncio.sleep(1)
    differences = await load.differences(postgres.url)
    acknowledged = sum(each.kind == "save" and not each.error for each in load.answers)
    measured(", ".join(happened), f"{acknowledged} saves acknowledged, {len(differences)} differences")
    assert differences == []
    assert {each.error for each in load.failed()} <= {"UNAVAILABLE"}
