"""Client libraries as they come, each with its persisted queries and its batches, if it has them."""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from gql import Client, gql
from gql.transport.httpx import HTTPXAsyncTransport

from tests.gateways.graph import TokenService, access_token
from tests.node import install

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent
ADMIN = f"Bearer {access_token('admin', 'gateway-tokens:admin')}"
ONE = "{ customerGatewayTokens(first: 1) { totalCount } }"
ANSWERS = [{"customerGatewayTokens": {"totalCount": 0}}, {"customerGatewayToken": None}]

# How many requests each sends for two queries: when it asks for the first time, and when it asks again.
CLIENTS = {
    "Apollo Client": (2, 2),
    "Apollo Client, batches": (1, 1),
    "Apollo Client, persisted queries": (4, 2),
    "Apollo Client, persisted queries by GET": (4, 2),
    "urql, by GET": (2, 2),
    "urql, persisted queries": (4, 2),
    "urql, persisted queries by GET": (4, 2),
    "graphql-request": (2, 2),
    "graphql-request, batches": (1, 1),
    "Relay": (1, 1),
}


@pytest.fixture
async def service(empty_database) -> AsyncGenerator[TokenService]:
    """The service, which has no document yet, for clients that ask it directly."""
    async with httpx.AsyncClient() as http:
        service = TokenService(empty_database, http)
        service.settings = service.settings.model_copy(update={"router_secret": ()})
        await service.start()
        yield service
        await service.stop()


async def run(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_is_answered(service, name):
    script = install(FOLDER) / "clients.mjs"
    sent = []
    for _ in range(2):
        service.requests = 0
        service.methods.clear()
        printed = await run("node", script, name, service.url, ADMIN)
        assert json.loads(printed, object_hook=without_typename) == ANSWERS
        sent.append(service.requests)
    assert tuple(sent) == CLIENTS[name]
    assert service.methods == ({"GET"} if name.endswith("by GET") else {"POST"})


async def test_relays_persisted_queries_are_trusted_documents(service, tmp_path):
    query = "query One { customerGatewayTokens(first: 1) { totalCount } }"
    (tmp_path / "persisted_queries.json").write_text(json.dumps({"one": query}))
    trusted = service.settings.model_copy(update={"trusted_documents": tmp_path / "persisted_queries.json"})
    await service.restart(trusted)
    script = install(FOLDER) / "clients.mjs"
    printed = await run("node", script, "Relay, persisted queries", service.url, ADMIN)
    assert json.loads(printed) == ANSWERS


def without_typename(found):
    return {key: value for key, value in found.items() if key != "__typename"}


async def test_nodes_client_reads_why_its_body_is_refused(service):
    install(FOLDER)  # or Node may be missing
    answers = await asyncio.gather(*(run("node", FOLDER / "large.mjs", service.url) for _ in range(5)))
    assert answers == ["413\n"] * 5


@pytest.mark.parametrize("batch_interval", [0, 0.02])
async def test_gql_is_answered(service, batch_interval):
    transport = HTTPXAsyncTransport(service.url, headers={"authorization": ADMIN})
    async with Client(transport=transport, batch_interval=batch_interval) as session:
        queries = [ONE, '{ customerGatewayToken(id: "x") { gateway } }']
        assert await asyncio.gather(*(session.execute(gql(query)) for query in queries)) == ANSWERS
    assert service.requests == (1 if batch_interval else 2)


async def test_javas_client_is_answered(service):
    if shutil.which("java") is None:
        pytest.skip("Java is missing; what its client sends is in tests/web/test_framing.py.")
    body = json.dumps({"query": ONE})
    assert json.loads(await run("java", FOLDER / "Ask.java", service.url, ADMIN, body)) == {"data": ANSWERS[0]}
