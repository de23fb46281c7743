"""What the migrations make of a database is what the models say."""

import re

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from graphql_api.storage import models
from tests.conftest import CITUS, PARTITIONS

unpartitioned = pytest.mark.skipif(
    PARTITIONS or bool(CITUS), reason="test_partitioning and test_distribution compare other tables with these"
)


@pytest.fixture
async def inspected(database_url):
    """Runs a function with a synchronous connection to the migrated database."""
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection.run_sync


@unpartitioned
async def test_tables_columns_indexes_and_defaults_are_those_of_the_models(inspected):
    assert models.CustomerGatewayTokenRow.__tablename__ in SQLModel.metadata.tables

    def differences(connection):
        options = {"compare_type": True, "compare_server_default": True, "include_name": _ours}
        return compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata)

    assert await inspected(differences) == []


def _ours(name, kind, _parents):
    return (kind, name) != ("table", "alembic_version")


@unpartitioned
async def test_constraints_have_the_names_and_the_words_of_the_models(inspected, connection):
    rows = await connection.fetch(
        "select conrelid::regclass::text as table, conname as name, pg_get_constraintdef(oid) as text"
        " from pg_constraint where connamespace = 'public'::regnamespace and contype in ('c', 'u', 'p')"
        " and conrelid::regclass::text <> 'alembic_version'"
    )
    stored = {(row["table"], row["name"]): row for row in rows}
    declared = {
        (table.name, constraint.name): constraint
        for table in SQLModel.metadata.tables.values()
        for constraint in table.constraints
    }
    assert stored.keys() == declared.keys()
    for key, constraint in declared.items():
        if isinstance(constraint, CheckConstraint):
            assert _squeezed(stored[key]["text"]) == "check" + _squeezed(str(constraint.sqltext)), key
        else:
            kind = "UNIQUE" if isinstance(constraint, UniqueConstraint) else "PRIMARY KEY"
            text, included = f"{kind} ({', '.join(constraint.columns.keys())})", constraint.kwargs["postgresql_include"]
            assert stored[key]["text"] == (f"{text} INCLUDE ({', '.join(included)})" if included else text), key


@unpartitioned
async def test_tables_leave_as_much_room_as_the_models_say(connection):
    for table in SQLModel.metadata.tables.values():
        stored = await connection.fetchval("select reloptions from pg_class where oid = $1::text::regclass", table.name)
        declared = table.kwargs.get("postgresql_with") or {}
        assert stored == ([f"{name}={value}" for name, value in declared.items()] or None), table.name


def _squeezed(expression):
    """A check as PostgreSQL prints it and as it was written: without casts, brackets, spaces and `between`."""
    text = re.sub(r"(\w+\(\w+\)) between (\d+) and (\d+)", r"\1 >= \2 and \1 <= \3", expression)
    return re.sub(r"::text|[()\s]", "", text).lower()


async def test_a_row_needs_no_more_than_its_three_names(empty_database, connection):
    row = await connection.fetchrow(
        "insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id) values ('u1', 'STRIPE', 'cus_1')"
        " returning *"
    )
    assert (row["version"], row["is_active"], row["description"], row["metadata"]) == (1, True, None, None)
    assert row["created_at"] == row["updated_at"] == row["activated_at"]


async def test_a_row_that_came_by_other_ways_is_a_token_like_any_other(graph, connection):
    await connection.executemany(
        "insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id) values ($1, 'STRIPE', $2)",
        [(user, f"cus_{user}") for user in ("u1", "u2", "u3")],
    )
    token = await graph.customer("STRIPE", "cus_u1")
    assert (await graph.save("u9", "STRIPE", "cus_u1"))["userErrors"][0]["code"] == "CUSTOMER_TAKEN"
    replaced = await graph.save("u1", "STRIPE", "cus_new", replaces="cus_u1")
    assert replaced["gatewayToken"]["formerGatewayCustomerIds"] == ["cus_u1"]
    assert (await graph.customer("STRIPE", "cus_u1"))["id"] == token["id"]
    merged = await graph.merge("u2", "u1", onConflict="KEEP_TARGET")
    assert [each["gatewayCustomerId"] for each in merged["conflicts"]] == ["cus_u2"]
    assert (await graph.token(token["id"]))["formerGatewayCustomerIds"] == ["cus_u1", "cus_u2"]
    third = await graph.customer("STRIPE", "cus_u3")
    assert (await graph.delete(third))["deletedId"] == third["id"]
    assert (await graph.save("u9", "STRIPE", "cus_u3"))["userErrors"][0]["code"] == "CUSTOMER_TAKEN"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_id", ""),
        ("user_id", "x" * 256),
        ("gateway", "stripe"),
        ("gateway", "STRIPE EU"),
        ("gateway_customer_id", "a b"),
        ("gateway_customer_id", ""),
        ("description", "x" * 2001),
        ("metadata", "[]"),
        ("version", 0),
    ],
)
async def test_the_database_refuses_what_is_malformed(empty_database, connection, column, value):
    row = {"user_id": "u1", "gateway": "STRIPE", "gateway_customer_id": "cus_1", "version": 1}
    row |= {"description": None, "metadata": None, column: value}
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "insert into customer_gateway_tokens"
            " (user_id, gateway, gateway_customer_id, version, description, metadata) values ($1, $2, $3, $4, $5, $6)",
            *(
                row[name]
                for name in ("user_id", "gateway", "gateway_customer_id", "version", "description", "metadata")
            ),
        )
