"""Our service, a user, an order and an invoice service, composed into one graph and served by real routers."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateways.graph import GRAPH, ROUTER_SECRET, TESTS, Endpoint, TokenService, compose
from tests.node import install, running, serving
from tests.ports import free_port


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
    """The services of the graph while they run: name, address, and the SDL that each tells of itself."""
    folder = install(GRAPH)

    async def subgraph(name: str, endpoint: Endpoint) -> dict[str, str]:
        answer = await endpoint.ask("{ _service { sdl } }")
        return {"name": name, "url": endpoint.url, "sdl": answer["data"]["_service"]["sdl"]}

    async with (
        running(folder / "users.mjs") as users,
        running(folder / "orders.mjs") as orders,
        running(TESTS / "invoices.mjs") as invoices,
    ):
        yield [
            await subgraph("users", Endpoint(f"{users}/graphql", http)),
            await subgraph("orders", Endpoint(f"{orders}/graphql", http)),
            await subgraph("invoices", Endpoint(f"{invoices}/graphql", http)),
            await subgraph("tokens", tokens),
        ]


def apollo_gateway(supergraph: Path, **options: str) -> AbstractAsyncContextManager[str]:
    return running(install(TESTS) / "apollo.mjs", supergraph, ROUTER_SECRET=ROUTER_SECRET, **options)


def hive_gateway(
    supergraph: Path, folder: Path = TESTS, config: Path = TESTS / "hive.config.mjs", **options: str
) -> AbstractAsyncContextManager[str]:
    command = install(folder) / "node_modules/@graphql-hive/gateway/dist/bin.js"
    where = ("--host=127.0.0.1", f"--port={free_port()}", f"--config-path={config}")
    return running(command, "supergraph", supergraph, *where, ROUTER_SECRET=ROUTER_SECRET, **options)


@asynccontextmanager
async def grafbase_gateway(subgraphs: list[dict[str, str]], folder: Path, *options: str) -> AsyncGenerator[str]:
    """Grafbase's gateway, which composes the subgraphs itself; `options` are lines of its configuration."""
    settings = ["[gateway.batching]", "enabled = true", *options]
    for subgraph in subgraphs:
        schema = folder / f"{subgraph['name']}.graphql"
        schema.write_text(subgraph["sdl"])
        settings += [
            f"[subgraphs.{subgraph['name']}]",
            f"url = {json.dumps(subgraph['url'])}",
            f"schema_path = {json.dumps(str(schema))}",
        ]
    settings += [
        "[[subgraphs.tokens.headers]]",
        'rule = "insert"\nname = "router-authorization"\nvalue = "{{ env.ROUTER_SECRET }}"',
        '[[headers]]\nrule = "forward"\nname = "authorization"',
    ]
    config = folder / "grafbase.toml"
    config.write_text("\n".join(settings))
    program = install(TESTS) / "node_modules/@grafbase/cli-x86_64-unknown-linux-musl/grafbase"
    if not program.exists():
        pytest.skip("There is no such program for this platform.")
    where = ("dev", "--config", config, "--listen-address", f"127.0.0.1:{free_port()}")
    environment = {"ROUTER_SECRET": ROUTER_SECRET, "HOME": str(folder)}
    async with serving(program, *where, **environment) as address:
        yield address


@pytest.fixture(scope="session")
def composed(subgraphs, tmp_path_factory) -> Path:
    """The supergraph as Apollo's library composes it."""
    supergraph = tmp_path_factory.mktemp("apollo") / "supergraph.graphql"
    [composed] = compose("apollo", subgraphs)
    supergraph.write_text(composed["supergraph"])
    return supergraph


@pytest.fixture(scope="session")
def composed_by_guild(subgraphs, tmp_path_factory) -> Path:
    """The supergraph as The Guild's library composes it."""
    supergraph = tmp_path_factory.mktemp("hive") / "supergraph.graphql"
    [composed] = compose("guild", subgraphs)
    supergraph.write_text(composed["supergraph"])
    return supergraph


@pytest.fixture(scope="session")
async def apollo(composed) -> AsyncGenerator[str]:
    async with apollo_gateway(composed) as address:
        yield address


@pytest.fixture(scope="session")
async def hive(composed_by_guild) -> AsyncGenerator[str]:
    async with hive_gateway(composed_by_guild, GRAPH, GRAPH / "gateway.config.mjs") as address:
        yield address


@pytest.fixture(scope="session")
async def hive_rust(composed_by_guild) -> AsyncGenerator[str]:
    """Hive Gateway with the query planner of Hive Router, which is written in Rust."""
    async with hive_gateway(composed_by_guild, PLANNER="rust") as address:
        yield address


@pytest.fixture(scope="session")
async def grafbase(subgraphs, tmp_path_factory) -> AsyncGenerator[str]:
    """Grafbase's gateway, which is written in Rust."""
    async with grafbase_gateway(subgraphs, tmp_path_factory.mktemp("grafbase")) as address:
        yield address


@pytest.fixture(params=["apollo", "hive", "hive_rust", "grafbase"])
def gateway(request, http, tokens) -> Endpoint:
    """Each of the routers in turn; our service counts from here."""
    address = request.getfixturevalue(request.param)
    tokens.requests = 0
    tokens.codings.clear()
    tokens.batches = 0
    return Endpoint(f"{address}/graphql", http)
