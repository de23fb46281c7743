"""A database, a store that writes to it, and receivers of deliveries, which do what they are told to."""

import asyncio
import base64
import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import asyncpg
import pytest
from standardwebhooks import Webhook

from graphql_api.deliveries import delivering
from graphql_api.deliveries.delivering import DeliveryTiming
from graphql_api.deliveries.sending import Endpoint, HTTPSender

KEY = bytes(range(32))
STANDARD = DeliveryTiming()


def opens_sender(endpoint, timing, *, allow_private):
    return HTTPSender.open(endpoint, allow_private=allow_private, timeout=timing.answer, read_timeout=timing.read)


SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answers(status, *headers):
    """What a receiver answers with this status."""
    lines = "".join(f"{header}\r\n" for header in headers)

    async def answer(writer):
        writer.write(f"HTTP/1.1 {status} Something\r\nContent-Length: 0\r\n{lines}\r\n".encode())

    return answer


async def never(writer):
    await asyncio.sleep(600)


async def endlessly(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"400\r\n" + bytes(1024) + b"\r\n")
        await writer.drain()


async def closing_early(writer):
    writer.write(b"HTTP/1.1 20")
    writer.close()


async def with_nonsense(writer):
    writer.write(b"\x00\xff" * 100)
    writer.close()


async def with_hints_for_ever(writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()


class Receiver:
    """An HTTP server that verifies what it gets, and answers as it is told to, or 200."""

    def __init__(self):
        self.requests, self.script = [], []
        self.default = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.requests]

    @property
    def bodies(self):
        return [json.loads(body) for _, body in self.requests]

    @property
    def events(self):
        """What it got, each once: pairs of the token and the version."""
        return list(dict.fromkeys((body["data"]["id"], body["data"]["version"]) for body in self.bodies))

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._tasks = set()
        yield self
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers["content-length"]))
                headers[":path"] = head[0].split(" ")[1]
                Webhook(SECRET).verify(body, headers)
                self.requests.append((headers, body))
                answer = self.script.pop(0) if self.script else self.default
                if answer is None:
                    writer.write(OK)
                else:
                    await answer(writer)
                await writer.drain()
                if writer.is_closing():
                    return


@pytest.fixture
async def receiver():
    async with Receiver().listening() as receiver:
        yield receiver


@pytest.fixture
async def connection(url):
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def delivering_to(pool):
    """Makes the delivery to a receiver, as another process each time."""
    async with AsyncExitStack() as stack:

        async def make(
            receiver, *, name="hook", actions=(), allow_private=False, keys=(KEY,), timing=STANDARD, opens=opens_sender
        ):
            stop = asyncio.Event()
            opened = delivering.deliveries(
                pool,
                [Endpoint(name, receiver if isinstance(receiver, str) else receiver.url, keys)],
                actions=actions,
                open_sender=partial(opens, allow_private=allow_private),
                stop=stop,
                timing=timing,
            )
            [made] = await stack.enter_async_context(opened)
            return made

        yield make
