"""The web in front of a schema in which everything can go wrong, over ASGI and over a socket."""

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import AsyncMock

import httpx
import psutil
import pytest
import uvicorn

from graphql_api.app import create_app
from graphql_api.auth import Authenticator, RouterSecret, mint
from graphql_api.engine import Engine
from graphql_api.observability import logs
from graphql_api.observability.metrics import Metrics
from graphql_api.settings import Settings
from graphql_api.web.authentication import RequestAuthenticator
from graphql_api.web.connection import RESPOND, Connections
from graphql_api.web.connection_registry import ConnectionLimits
from graphql_api.web.documents import Documents
from graphql_api.web.graphql import GraphQL, RequestLimits
from graphql_api.web.uploads import Uploads
from tests.asgi import opened
from tests.until import until
from tests.web import standin

AUTH_SECRET = "0123456789abcdef0123456789abcdef"
BODY = b'{"query": "{ hello }"}'


def token(subject="u1"):
    return "Bearer " + mint(AUTH_SECRET, subject)


@pytest.fixture
def log():
    """The lines of the log, as objects."""
    stream = io.BytesIO()
    logs.configure("info", "json", stream)

    def lines():
        logs.access.flush()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield lines
    logs.configure("info", "json")


@pytest.fixture
async def waiting():
    return standin.Waiting()


@pytest.fixture
async def graphql(log, waiting):
    """Makes the web's callable; closed at the end."""
    async with Authenticator.open(enabled=True, secret=AUTH_SECRET) as authenticator:
        made = []

        def make(
            *,
            router_secrets=(),
            documents=None,
            max_body_bytes=10_000,
            max_concurrent=100,
            timeout=5,
            limits=None,
            **engine,
        ):
            made.append(
                GraphQL(
                    documents=Documents(engine=Engine(standin.schema(), **engine), trusted=documents),
                    authenticator=RequestAuthenticator(RouterSecret(router_secrets), authenticator),
                    context=lambda caller, request_id, _: SimpleNamespace(
                        caller=caller, request_id=request_id, waiting=waiting
                    ),
                    metrics=Metrics("of a test"),
                    wait_connected=AsyncMock(),
                    limits=RequestLimits(
                        max_body_bytes=max_body_bytes,
                        max_concurrent=max_concurrent,
                        timeout_seconds=timeout,
                        **(limits or {}),
                    ),
                    uploads=Uploads(max_concurrent * max_body_bytes),
                    traces_fields=bool(router_secrets),
                )
            )
            return made[-1]

        make.made = made
        yield make
        for one in made:
            await one.close()


@pytest.fixture
async def web(graphql):
    """A client of it with the usual limits."""
    transport = httpx.ASGITransport(graphql())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


class _Server(uvicorn.Server):
    """uvicorn's, without the tenths of a second that it sleeps until it looks whether to stop, and while it does."""

    def __init__(self, config):
        super().__init__(config)
        self.stopping = asyncio.Event()

    def capture_signals(self):
        return nullcontext()

    async def main_loop(self):
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets=None):
        for listener in (*self.servers, *sockets):
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        await until(lambda: not state.connections and not state.tasks, "what is under way has ended")
        await self.lifespan.shutdown()


def with_state(app):
    """What uvicorn runs: the app, and for GraphQL alone a lifespan that tells connections who answers."""

    async def lifespan(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        scope["state"][RESPOND] = app.respond
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return lifespan if isinstance(app, GraphQL) else app


@asynccontextmanager
async def listening(app, limits=None, **options):
    """The address of a socket behind which uvicorn runs the app."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as on those that uvicorn opens
        options = {"lifespan": "on" if isinstance(app, GraphQL) else "off", "interface": "asgi3", **options}
        connections = Connections(limits or ConnectionLimits(), sweep_seconds=0.02)
        server = _Server(uvicorn.Config(with_state(app), http=connections, log_config=None, ws="none", **options))
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()
        finally:
            server.stopping.set()
            await running


@pytest.fixture
async def service(database_url):
    """Makes the whole service with these settings, on a database that is there."""
    async with AsyncExitStack() as stack:
        yield lambda **settings: stack.enter_async_context(
            opened(create_app(Settings(**{"database_url": database_url, **settings})))
        )


class Running:
    """The service as a process of its own."""

    def __init__(self, database_url, log):
        self._log = log
        environment = {"DATABASE_URL": database_url, "AUTH_MODE": "disabled", "DRAIN_SECONDS": "0"}
        with log.open("wb") as stream:
            self.process = psutil.Popen(
                [sys.executable, "-m", "graphql_api", "serve", "--port", "0"],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=stream,
            )
        self.url = re.search(r"http://\S+", self.process.stdout.readline().decode()).group()

    def log(self):
        return self._log.read_text()


@contextmanager
def started(database_url, log):
    """The service, running alone, for everybody, with introspection."""
    service = Running(database_url, log)
    try:
        yield service
    finally:
        service.process.terminate()
        assert service.process.wait(20) == 0
        service.process.stdout.close()


@pytest.fixture(scope="module")
def running(database_url, tmp_path_factory):
    with started(database_url, tmp_path_factory.mktemp("running") / "log") as service:
        yield service


@contextmanager
def connected(address):
    with socket.create_connection(address, timeout=5) as connection:
        yield connection
