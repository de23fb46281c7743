"""A TCP proxy that does what networks do: it stalls, resets, refuses, delays, and loses an answer."""

import asyncio
import struct
from contextlib import asynccontextmanager

# https://www.postgresql.org/docs/current/protocol-message-formats.html
CANCEL_REQUEST = struct.pack("!ii", 16, 80877102)


class Proxy:
    """Passes connections on to an address until it is told otherwise.

    `attempts` are the times of all connections, except those that cancel a statement: their times are `cancellations`.
    `loses` is asked of each request whether its answer gets lost, with the connection; `lost` counts them; `meanwhile`
    happens before anybody notices. `silences` is asked whether a connection ends with this request without a word to
    either side: the "request" gets lost itself, or its "answer" does.
    """

    def __init__(self, target):
        self.target = target
        self.delay = 0
        self.attempts = []
        self.cancellations = []
        self.slams = False
        self.loses_answer_to = None
        self.loses = lambda _request: False
        self.lost = 0
        self.silences = lambda _request: None
        self.meanwhile = None
        self._over = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers = set()
        self._server = None
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, host, port):
        proxy = cls((host, port))
        await proxy.accept()
        yield proxy
        await proxy.refuse()

    @classmethod
    @asynccontextmanager
    async def to_socket(cls, path):
        """The same for a server on a Unix socket."""
        proxy = cls((path,))
        await proxy.accept()
        yield proxy
        await proxy.refuse()

    async def accept(self):
        self._over = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self):
        """Nobody listens any more, and all connections are reset."""
        self._server.close()
        self._over.set()
        self.reset()
        await asyncio.sleep(0)

    def reset(self):
        for writer in self._writers:
            writer.transport.abort()

    def forget(self):
        """Nothing comes through the connections that there are, and nobody is told; new ones work."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def stall(self):
        """Connections are accepted, and nothing comes through."""
        self._flows.clear()

    def resume(self):
        self._flows.set()

    async def _serve(self, reader, writer):
        self.attempts.append(began := asyncio.get_running_loop().time())
        if self.slams:
            writer.transport.abort()
            return
        ends = {writer}
        self._writers.add(writer)
        try:
            await (flows := self._flows).wait()
            opening = asyncio.open_unix_connection if len(self.target) == 1 else asyncio.open_connection
            there, back = await opening(*self.target)
            ends.add(back)
            self._writers.add(back)
            loses, silent = asyncio.Event(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back, loses, silent, flows, began, requests=True))
                group.create_task(self._pass(there, writer, loses, silent, flows, began, requests=False))
        except* OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader, writer, loses, silent, flows, began, *, requests):
        while (chunk := await reader.read(65536)) or silent.is_set():
            if requests and chunk.startswith(CANCEL_REQUEST):
                self.cancellations.append(began)
                self.attempts = [time for time in self.attempts if time != began]
            if requests and not silent.is_set() and (lost := self.silences(chunk)):
                self.lost += 1
                silent.set()
                if lost == "answer":
                    writer.write(chunk)
            if silent.is_set():
                await self._over.wait()
                raise ConnectionResetError
            if loses.is_set() and not requests:
                if self.meanwhile:
                    await self.meanwhile()
                raise ConnectionResetError
            await asyncio.sleep(self.delay)
            await flows.wait()
            if requests and self.loses_answer_to and self.loses_answer_to in chunk:
                self.loses_answer_to = None
                loses.set()
            if requests and self.loses(chunk):
                self.lost += 1
                loses.set()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError
