"""The line before the places in which requests run, over a socket."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.until import until
from tests.web.conftest import connected, listening

SHORT = 0.3  # seconds
HEAD = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
MUTATION = b'{"query": "mutation { wait(seconds: 0) }"}'


class Asking:
    """A client of a service that has one place."""

    def __init__(self, app, address, http):
        self.app = app
        self.address = address
        self._http = http

    def ask(self, query):
        url = f"http://{self.address[0]}:{self.address[1]}/graphql"
        return asyncio.create_task(self._http.post(url, json={"query": query}))


@pytest.fixture
def one_place(graphql):
    @asynccontextmanager
    async def start(**limits):
        app = graphql(max_concurrent=1, limits=limits)
        async with listening(app) as address, httpx.AsyncClient() as http:
            yield Asking(app, address, http)

    return start


def served(response):
    return response.json() == {"data": {"hello": "hello you"}}


async def test_who_finds_no_place_is_served_when_one_becomes_free(one_place, waiting):
    async with one_place() as service:
        first = service.ask(f"{{ wait(seconds: {SHORT}) }}")
        await waiting.began.wait()
        others = [await service.ask("{ hello }") for _ in range(3)]
        assert first.done()
        assert all(map(served, others))


@pytest.mark.parametrize("kind", ["query", "mutation"])
async def test_who_waits_too_long_is_refused_and_told_when_to_try_again(one_place, waiting, kind):
    async with one_place(max_wait_seconds=SHORT) as service:
        first = service.ask(f"{kind} {{ wait(seconds: {3 * SHORT}) }}")
        await waiting.began.wait()
        refused = await service.ask(f"{kind} {{ wait(seconds: 0) }}")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert (await first).json() == {"data": {"wait": "waited"}}
        assert served(await service.ask("{ hello }"))


async def test_what_waits_in_line_does_not_begin_when_its_client_has_gone(one_place, waiting, log):
    async with one_place() as service:
        first = service.ask("{ wait(seconds: 1) }")
        await waiting.began.wait()
        waiting.began.clear()
        with connected(service.address) as connection:
            connection.sendall(HEAD % len(MUTATION) + MUTATION)
            await until(lambda: service.app.in_flight == 2, "the mutation waits in line")
        assert served(await service.ask("{ hello }"))
        await first
    assert not waiting.began.is_set()
    assert "CLIENT_HAS_GONE" in {line.get("outcome") for line in log()}


async def test_a_body_that_is_still_to_come_takes_no_place(one_place):
    async with one_place() as service:
        with connected(service.address) as connection:
            connection.sendall(HEAD % len(MUTATION) + MUTATION[:5])
            await until(lambda: service.app.in_flight == 1, "the beginning of the body has come")
            assert served(await service.ask("{ hello }"))
