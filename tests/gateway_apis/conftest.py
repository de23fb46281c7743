"""Checks and purges on this worker's database: of a stand-in within the process, or by the commands."""

from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from graphql_api.domain.inputs import Gateways
from graphql_api.gateway_apis.checking import Check, CheckOptions
from graphql_api.gateway_apis.client import APIResponse, GatewayClient, Pace
from graphql_api.gateway_apis.purging import Purge, PurgeOptions
from graphql_api.gateway_apis.stripe import Stripe
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.bulk.conftest import command, folder, process, table  # noqa: F401 - fixtures
from tests.gateway_apis import standin

NOW = timedelta(0)


@pytest.fixture
def stripe():
    """Stripe, as a stand-in."""
    return standin.Stripe()


@pytest.fixture
def clock():
    return standin.Clock()


@pytest.fixture
async def pool(empty_database):
    async with ConnectionPool.open(empty_database, size=4) as opened:
        yield opened


@asynccontextmanager
async def client_of(gateway, clock, *, rate=1e6, api=None):
    """Asks a stand-in, by a clock that only sleeping moves."""
    api = api or Stripe(is_test=False)
    headers = dict(api.headers(gateway.key))

    async def send(method, request):
        address = f"http://gateway{request.path}"
        answer = await gateway.handle(httpx.Request(method, address, params=request.query or None, headers=headers))
        return APIResponse(answer.status_code, answer.headers.get("retry-after"), answer.content)

    yield GatewayClient(api, send, Pace(rate, clock, clock.sleep))


@pytest.fixture
def check(pool, clock):
    """Runs a check of a stand-in: `tally, lines = await check(stripe, limit=3)`."""

    async def run(gateway, *, name="STRIPE", rate=1e6, api=None, older_than=NOW, lines=None, **options):
        lines = [] if lines is None else lines
        async with client_of(gateway, clock, rate=rate, api=api) as client:
            wanted = CheckOptions(older_than=older_than, **options)
            running = Check(TokenStore(pool), Gateways(), name, client, wanted, lines.extend)
            async for _ in running.run():
                pass
        return running.tally, lines

    return run


@pytest.fixture
def purge(pool, clock):
    """Runs a purge of a stand-in."""

    async def run(gateway, *, name="STRIPE", api=None, **options):
        lines = []
        async with client_of(gateway, clock, api=api) as client:
            running = Purge(TokenStore(pool), Gateways(), name, client, PurgeOptions(**options), lines.extend)
            async for _ in running.run():
                pass
        return running.tally, [(each.customer, each.outcome.value) for each in lines]

    return run


@pytest.fixture
def tokens(graph, stripe):
    """Saves tokens of users u1, u2, … at STRIPE, whose customers it has."""

    async def save(count, gateway="STRIPE"):
        inputs = [
            {"userId": f"u{number}", "gateway": gateway, "gatewayCustomerId": f"cus_{number}"}
            for number in range(1, count + 1)
        ]
        await graph.save_many(inputs)
        stripe.customers.update({each["gatewayCustomerId"]: stripe.mode for each in inputs})

    return save
