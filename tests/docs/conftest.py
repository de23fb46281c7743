"""A reader of the documentation, with demo tokens in a database, the service beside them, and a graph around it."""

from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest

from graphql_api.app import create_app
from graphql_api.demo import fill
from graphql_api.settings import Settings
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.asgi import opened
from tests.conftest import AUTH_SECRET
from tests.docs.pages import blocks
from tests.docs.reader import IN_THE_GRAPH, Reader
from tests.gateways.conftest import composed_by_guild, hive, http, subgraphs  # noqa: F401 - fixtures
from tests.gateways.graph import TokenService
from tests.web.conftest import listening


@pytest.fixture(scope="session")
async def demo_database(new_database, migrated_database, straight):
    """The name of a database with demo tokens, to copy from."""
    url = straight(await new_database(migrated_database))
    async with ConnectionPool.open(url) as database:
        await fill(TokenStore(database))
    return urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="session")
async def tokens(new_database, demo_database, http):  # noqa: F811
    """The service as a part of the graph."""
    service = TokenService(await new_database(demo_database), http)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def graph(request, page):
    """Where a gateway is, if the page asks one."""
    asks_it = any(block.words.startswith(IN_THE_GRAPH) for block in blocks(page))
    return request.getfixturevalue("hive") if asks_it else None


@pytest.fixture
async def reader(graph, new_database, demo_database, connection, tmp_path):
    """Somebody who tries one page, in an empty folder and on demo tokens of their own."""
    url, restored = await new_database(demo_database), await new_database()
    for each in (url, restored):  # PostgreSQL's default, which `doctor` has advice about
        name = urlsplit(each).path.removeprefix("/")
        await connection.execute(f"alter database {name} set log_error_verbosity = 'default'")
    async with AsyncExitStack() as stack:

        async def serving(**settings):
            app = await stack.enter_async_context(opened(create_app(Settings(database_url=url, **settings))))
            host, port = await stack.enter_async_context(listening(app))
            return f"http://{host}:{port}"

        yield Reader(
            tmp_path,
            url,
            restored,
            everybodys=await serving(auth_mode="disabled"),
            with_tokens=await serving(auth_secret=AUTH_SECRET),
            graph=graph,
        )
