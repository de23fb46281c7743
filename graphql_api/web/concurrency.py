"""Limits how many requests run at once: a semaphore that costs next to nothing while places are free."""

import asyncio
from collections import deque


class ConcurrencyLimiter:
    """A number of places, taken first come, first served."""

    def __init__(self, number: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = number
        self._line: deque[asyncio.Future[None]] = deque()

    def acquire(self) -> bool:
        """Take a place if one is free. Returns whether it did."""
        if not self._free:  # and none is free while a request waits
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take a place, once there is one."""
        if self.acquire():
            return
        turn = self._loop.create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came just now
                self.release()
            raise

    def release(self) -> None:
        """Give the place to the request that has waited longest."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
