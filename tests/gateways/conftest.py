"""Our service, a user service and an order service, composed into one graph and served by real gateways."""

from collections.abc import AsyncGenerator

import httpx
import pytest

from tests.gateways.graph import GRAPH, ROUTER_SECRET, TESTS, Endpoint, TokenService, compose, free_port
from tests.node import install, running


@pytest.fixture(scope="session")
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
async def tokens(database_url, http) -> AsyncGenerator[TokenService]:
    service = TokenService(database_url, http)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture(scope="session")
async def subgraphs(tokens, http) -> AsyncGenerator[list[dict[str, str]]]:
    """The three services of the graph while they run: name, address, and the SDL that each tells of itself."""
    folder = install(GRAPH)

    async def subgraph(name: str, endpoint: Endpoint) -> dict[str, str]:
        answer = await endpoint.ask("{ _service { sdl } }")
        return {"name": name, "url": endpoint.url, "sdl": answer["data"]["_service"]["sdl"]}

    async with running(folder / "users.mjs") as users, running(folder / "orders.mjs") as orders:
        yield [
            await subgraph("users", Endpoint(f"{users}/graphql", http)),
            await subgraph("orders", Endpoint(f"{orders}/graphql", http)),
            await subgraph("tokens", tokens),
        ]


@pytest.fixture(scope="session")
async def apollo(subgraphs, tmp_path_factory) -> AsyncGenerator[str]:
    supergraph = tmp_path_factory.mktemp("apollo") / "supergraph.graphql"
    supergraph.write_text(compose("apollo", subgraphs)["supergraph"])
    async with running(TESTS / "apollo.mjs", supergraph, ROUTER_SECRET=ROUTER_SECRET) as address:
        yield address


@pytest.fixture(scope="session")
async def hive(subgraphs, tmp_path_factory) -> AsyncGenerator[str]:
    supergraph = tmp_path_factory.mktemp("hive") / "supergraph.graphql"
    supergraph.write_text(compose("guild", subgraphs)["supergraph"])
    command = GRAPH / "node_modules/@graphql-hive/gateway/dist/bin.js"
    options = ("--host=127.0.0.1", f"--port={free_port()}", f"--config-path={GRAPH / 'gateway.config.mjs'}")
    async with running(command, "supergraph", supergraph, *options, ROUTER_SECRET=ROUTER_SECRET) as address:
        yield address


@pytest.fixture(params=["apollo", "hive"])
def gateway(request, http, tokens) -> Endpoint:
    """Each of the gateways in turn; our service counts from here."""
    address = request.getfixturevalue(request.param)
    tokens.requests = 0
    return Endpoint(f"{address}/graphql", http)
