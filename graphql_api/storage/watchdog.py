"""Looks at statements that are under way, and ends those that are late, if they can be run again."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from graphql_api.storage.bulkheads import LOOK_SECONDS, ChangeIsLateError
from graphql_api.storage.connection import Connection
from graphql_api.storage.connection_set import ConnectionSet


class Watchdog:
    """Looks at the connections of a set now and then, while one of them does what may be ended."""

    def __init__(self, connections: ConnectionSet) -> None:
        self._connections = connections
        self._patience = connections.patience
        self._is_looking = False

    def watch_read(self, connection: Connection) -> None:
        """Give up the read that the current task begins on this connection once it is late."""
        connection.reader, connection.looks = asyncio.current_task(self._connections.loop), 0
        self._go_on_looking()

    @asynccontextmanager
    async def may_end_early(self, connection: Connection, *, ends_early: bool) -> AsyncGenerator[None]:
        """What is done within ends once one of its statements is late.

        Raises:
            ChangeIsLateError: one was.
        """
        connection.is_late = False
        if not ends_early:
            yield
            return
        limit = asyncio.timeout(None)
        try:
            async with limit:
                connection.change, connection.looks = limit, 0
                self._go_on_looking()
                try:
                    yield
                finally:
                    connection.change = None
        except TimeoutError as error:
            if connection.is_late and limit.expired():
                raise ChangeIsLateError from error
            raise

    def _go_on_looking(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._connections.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Give up what was seen some times already, so that no moment of ours without time counts."""
        reading = [connection for connection in self._connections.open if connection.reader is not None]
        changing = [connection for connection in self._connections.open if connection.change is not None]
        for connection in changing:
            limit, looks = connection.change, connection.look_at_change()
            if limit is not None and self._patience.ends_change(looks):
                connection.is_late, connection.change = True, None
                limit.reschedule(self._connections.loop.time())
        for connection in reading:
            connection.looks += 1
            if self._patience.ends(connection.looks):
                connection.give_up()
        self._is_looking = bool(reading or changing)
        if self._is_looking:
            self._connections.loop.call_later(LOOK_SECONDS, self._look)
