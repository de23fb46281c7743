"""What the faults happen to: a PostgreSQL, a proxy before it, a service that knows only the proxy, and its callers."""

import os

import pytest

from tests.faults.postgres import servers
from tests.faults.proxy import Proxy
from tests.faults.service import serving
from tests.until import until

# `make test-faults` takes its time; otherwise every fault comes once, and is short.
LONG = os.environ.get("FAULTS") == "long"


@pytest.fixture(scope="module")
def new_server(tmp_path_factory):
    with servers(tmp_path_factory.mktemp("servers")) as make:
        yield make


@pytest.fixture(scope="module")
async def postgres(new_server):
    server = new_server()
    server.create()
    await server.start()
    return server


@pytest.fixture
async def pair(new_server):
    """A primary and its standby."""
    first, second = new_server(), new_server()
    first.create()
    await first.start()
    second.follow(first)
    await second.start()
    return first, second


@pytest.fixture(scope="module")
async def proxy(postgres):
    async with Proxy.to("127.0.0.1", postgres.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
async def _service(tmp_path_factory, postgres, proxy):
    async with serving(tmp_path_factory.mktemp("service"), DATABASE_URL=postgres.url_by(proxy.port)) as service:
        yield service


@pytest.fixture
async def service(_service):
    """The service; whatever happened to it, all connections have come back soon afterwards."""
    yield _service
    await until(lambda: is_idle(_service), "all connections to the database have come back")


async def is_idle(service):
    return await service.connections_in_use() == 0


@pytest.fixture
def measured(record_property):
    """Notes a figure for the table at the end of the run."""
    return lambda what, figure: record_property("measured", (what, figure))
