"""An app of ours as tests reach it: its lifespan runs, and GraphQL goes in and out by HTTP, without a socket."""

import asyncio
from contextlib import asynccontextmanager

import httpx


@asynccontextmanager
async def opened(app):
    """The app while its lifespan runs, which is what a server gives it: the lifespan's state in every scope."""
    state, asked, said = {}, asyncio.Queue(), asyncio.Queue()
    running = asyncio.create_task(app({"type": "lifespan", "state": state}, asked.get, said.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await said.get()) == {"type": "lifespan.startup.complete"}

    async def with_state(scope, receive, send):
        await app({**scope, "state": dict(state)}, receive, send)

    with_state.state = state
    yield with_state
    await asked.put({"type": "lifespan.shutdown"})
    assert (await said.get()) == {"type": "lifespan.shutdown.complete"}
    await running


class Client:
    """Somebody who asks: `await client("{ … }", name=value)` is the answer's JSON; `http` sends anything else."""

    def __init__(self, app, token=None):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers)

    async def __call__(self, query, **variables):
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        return response.json()
