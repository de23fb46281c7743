"""PostgreSQL logs no user id and no customer id, whichever save loses a race."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.settings import Settings
from graphql_api.storage.partitioning import alone
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, GIVEN, POOLED
from tests.graph import Graph
from tests.until import until

COPY = """
insert into customer_gateway_tokens
select (jsonb_populate_record(
  known, jsonb_build_object('id', $1::uuid, 'user_id', $2::text, 'gateway_customer_id', $3::text)
)).* from customer_gateway_tokens known
"""
WAITS = "select exists (select from pg_stat_activity where datname = $1 and wait_event_type = 'Lock')"


@pytest.mark.skipif(bool(GIVEN or POOLED), reason="needs the log of the tests' own PostgreSQL")
@pytest.mark.parametrize(("verbosity", "tells"), [("terse", False), ("default", True)])
async def test_a_save_that_loses_a_race_leaves_no_ids_in_the_log(
    verbosity, tells, new_database, migrated_database, connection
):
    url = await new_database(migrated_database)
    name = urlsplit(url).path.removeprefix("/")
    await connection.execute(f"alter database {name} set log_error_verbosity = '{verbosity}'")
    user, customer = f"user-{uuid4()}", f"cus-{uuid4()}"
    app = create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))
    async with alone(url) as other, opened(app) as running:
        graph = Graph(Client(running, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        await graph.save("another", "STRIPE", "another")
        async with other.transaction():
            await other.execute(COPY, uuid4(), user, customer)
            save = asyncio.create_task(graph.save(user, "STRIPE", customer))
            await until(lambda: connection.fetchval(WAITS, name), "the save waits")
        await save
    log = Path(await connection.fetchval("show data_directory")).parent / "postgresql.log"
    told = log.read_text()
    assert "violates unique constraint" in told
    assert (user in told or customer in told) == tells
