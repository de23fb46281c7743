"""Mutations that have begun: they go on although their callers stop waiting, so that nothing is left half done."""

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any
from weakref import WeakMethod

from graphql_api.domain import deadline, place
from graphql_api.engine import Result
from graphql_api.web.request import Request


class Mutations:
    """Runs mutations to their ends."""

    def __init__(self) -> None:
        self.running: set[asyncio.Future[Result]] = set()

    async def run(
        self, request: Request, mutation: Coroutine[Any, Any, Result], until: deadline.RequestDeadline
    ) -> Result:
        """What the mutation answers; if the caller stops waiting, it runs on.

        Args:
            request: whose mutation it is
            mutation: what it does
            until: when its changes must have begun
        """
        loop = asyncio.get_running_loop()
        context = copy_context()
        context.run(deadline.current.set, until)
        context.run(place.release.set, WeakMethod(request.give_up_place))
        request.mutation = task = loop.create_task(mutation, context=context)
        self.running.add(task)
        ended = loop.create_future()  # to wait for the task itself would be to cancel it, too

        def end(task: "asyncio.Future[Result]") -> None:
            self.running.discard(task)
            if not ended.done():
                ended.set_result(None)
            elif not task.cancelled():
                task.exception()  # no client is left to get it

        task.add_done_callback(end)
        await ended
        return task.result()

    async def close(self) -> None:
        """Wait for those whose callers have been answered already."""
        await asyncio.gather(*self.running, return_exceptions=True)
