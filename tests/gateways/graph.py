"""What the gateway tests are made of: our service on a socket, a gateway asked by a caller, composition."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import uvicorn
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.settings import Settings
from graphql_api.web.connection import RESPOND, Connections, Respond
from graphql_api.web.request import Request, Response
from tests.node import install
from tests.ports import free_port
from tests.until import until

TESTS = Path(__file__).parent
GRAPH = TESTS.parent.parent / "supergraph"
AUTH_SECRET = "signs the access tokens of the gateway tests"
ROUTER_SECRET = "what only the gateways know"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # Ctrl-C is for the test run


class Endpoint:
    """A GraphQL server, asked in the name of a caller."""

    def __init__(self, url: str, client: httpx.AsyncClient, **headers: str):
        self.url = url
        self._client = client
        self._headers = headers

    async def ask(self, query: str, *, token: str | None = None, **variables: Any) -> dict[str, Any]:
        headers = self._headers | ({"authorization": f"Bearer {token}"} if token else {})
        response = await self._client.post(self.url, json={"query": query, "variables": variables}, headers=headers)
        return response.json()


class TokenService(Endpoint):
    """Our service on a port of its own; it counts the requests it gets, and can be stopped for a while.

    `methods` are those of the requests, `batches` how many were arrays, `codings` those of the answers;
    `cache_control`, if set, replaces what they say of caches.
    """

    def __init__(self, database_url: str, client: httpx.AsyncClient):
        self.settings = Settings(
            database_url=database_url, auth_secret=SecretStr(AUTH_SECRET), router_secret=(SecretStr(ROUTER_SECRET),)
        )
        self.port = free_port()
        self.requests = self.batches = 0
        self.methods: set[str] = set()
        self.codings: set[str] = set()
        self.cache_control = b""
        headers = {"router-authorization": ROUTER_SECRET}
        super().__init__(f"http://127.0.0.1:{self.port}/graphql", client, **headers)

    async def start(self) -> None:
        app = create_app(self.settings)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def started(message: Message) -> None:
                if message["type"] == "lifespan.startup.complete":
                    scope["state"][RESPOND] = self._watching(scope["state"][RESPOND])
                await send(message)

            await app(scope, receive, started if scope["type"] == "lifespan" else send)

        config = uvicorn.Config(
            watched, http=cast("Any", Connections()), port=self.port, log_config=None, lifespan="on", access_log=False
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        await until(lambda: self._server.started or self._serving.done(), "the service starts")
        assert not self._serving.done(), "the service did not start"

    def _watching(self, respond: Respond) -> Respond:
        async def watched(request: Request, responding: Coroutine[Any, Any, Response | None]) -> Response | None:
            response = await responding
            self.batches += bool(request.batch_size)
            if response is None:
                return None
            coding = re.search(rb"content-encoding: (\w+)", response.head)
            self.codings.add(coding[1].decode() if coding else "identity")
            if self.cache_control:
                head = re.sub(rb"(?<=cache-control: )[^\r]*", self.cache_control, response.head)
                return response._replace(head=head)
            return response

        def counted(request: Request) -> Coroutine[Any, Any, Response | None] | None:
            self.requests += 1
            self.methods.add(request.method)
            responding = respond(request)
            return responding and watched(request, responding)

        return counted

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._serving

    async def restart(self, settings: Settings) -> None:
        await self.stop()
        self.settings = settings
        await self.start()

    @asynccontextmanager
    async def stopped(self) -> AsyncGenerator[None]:
        await self.stop()
        try:
            yield
        finally:
            await self.start()


def access_token(sub: str, *scopes: str) -> str:
    return mint(AUTH_SECRET, sub, scopes, expires_in=3600)


def compose(library: str, *graphs: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What a composition library makes of the subgraphs of each graph: `supergraph` and `complaints`."""
    script = install(TESTS) / "compose.mjs"
    done = subprocess.run(
        ["node", script, library],  # noqa: S607 - whichever Node is found
        input=json.dumps(graphs),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
