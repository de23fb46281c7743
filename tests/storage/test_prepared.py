"""What hostile selections leave in PostgreSQL's backends."""

from itertools import combinations, islice

import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.settings import Settings
from graphql_api.storage import bulkheads
from graphql_api.storage.connection import MAX_PREPARED, MAX_PREPARED_BYTES, Statement
from graphql_api.storage.pool import ConnectionPool
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET

FIELDS = (
    *("id", "userId", "gateway", "gatewayCustomerId", "description", "metadata", "isActive", "createdAt", "updatedAt"),
    *("version", "deactivatedAt", "deactivationReason", "lastVerifiedAt"),
)
QUERY = """
  query($r: [_Any!]!) {
    _entities(representations: $r) { ... on User {
      gatewayTokens { FIELDS } active: gatewayTokens(isActive: true) { FIELDS } gatewayToken(gateway: "S") { FIELDS }
    } }
    customerGatewayToken(id: "00000000-0000-7000-8000-000000000000") { FIELDS }
  }
"""
PREPARED = Statement("prepared", "select count(*), sum(octet_length(statement)) as bytes from pg_prepared_statements")

NAMING = Statement(
    "naming",
    "select count(*), count(*) filter (where statement like '%cho'||'sen%') as named from pg_prepared_statements",
)


@pytest.fixture
def pools(monkeypatch):
    """The pools that run statements."""
    found, fetch = set(), ConnectionPool.fetch

    def remember(self, *arguments, **options):
        found.add(self)
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(ConnectionPool, "fetch", remember)
    return found


async def test_selections_that_all_differ_leave_a_bounded_number_of_statements(
    database_url, straight, pools, monkeypatch
):
    monkeypatch.setattr(bulkheads, "_MIN_SECONDS", 60)  # a read that is late costs its connection
    options = {"database_pool_size": 1, "database_prepared_statements": True}
    settings = Settings(database_url=straight(database_url), auth_secret=AUTH_SECRET, **options)
    async with opened(create_app(settings)) as app:
        service = Client(app, mint(AUTH_SECRET, "s", (ADMIN_SCOPE,)))
        for fields in islice(combinations(FIELDS, 4), MAX_PREPARED // 3 + 10):
            answer = await service(QUERY.replace("FIELDS", " ".join(fields)), r=[{"__typename": "User", "id": "u1"}])
            assert "errors" not in answer
        [pool] = pools
        [row] = await pool.fetch(PREPARED)
    assert MAX_PREPARED <= row["count"] <= MAX_PREPARED + 1  # asyncpg closes one when it prepares the next
    assert row["bytes"] <= MAX_PREPARED_BYTES


async def test_no_name_that_a_caller_chooses_is_in_a_statement(database_url, straight, pools):
    options = {"database_pool_size": 1, "database_prepared_statements": True}
    settings = Settings(database_url=straight(database_url), auth_secret=AUTH_SECRET, **options)
    counts = []
    async with opened(create_app(settings)) as app:
        service = Client(app, mint(AUTH_SECRET, "s", (ADMIN_SCOPE,)))
        for name in ("chosen", "chosen_too", "chosen" * 20):
            answer = await service(
                f"query {name}(${name}: [_Any!]!) {{ {name}: _entities(representations: ${name}) {{ ...{name} }} }}"
                f" fragment {name} on User {{ {name}: gatewayTokens {{ {name}: metadata id }}"
                f' {name}_one: gatewayToken(gateway: "S") {{ {name}: gatewayCustomerId }} }}',
                **{name: [{"__typename": "User", "id": "u1"}]},
            )
            assert "errors" not in answer
            [pool] = pools
            [row] = await pool.fetch(NAMING)
            counts.append((row["count"], row["named"]))
    assert counts == [(counts[0][0], 0)] * 3
