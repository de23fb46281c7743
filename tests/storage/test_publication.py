"""An auditor's copy by logical replication goes on after its table was partitioned, as docs/scale.md says."""

import io
import re
from pathlib import Path

import asyncpg

from graphql_api.storage.migrate import upgrade
from graphql_api.storage.partitioning import Partitioning, alone
from tests.faults.postgres import servers
from tests.until import until

DOCS = Path(__file__).parents[2] / "docs"
EVENTS = "customer_gateway_token_events"
ADD = """
insert into customer_gateway_token_events
  (token_id, version, gateway, gateway_customer_id, is_active, action, actor, at)
values (gen_random_uuid(), 1, 'STRIPE', 'cus_1', true, 'CREATED', 'a test', now())
"""


def block(page, start):
    """The page's SQL that starts so, without what only psql knows."""
    (sql,) = re.findall(rf"```sql\n({start}.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return re.sub(r"^\\.*\n", "", sql, flags=re.MULTILINE)


async def entries(server):
    connection = await asyncpg.connect(server.url)
    try:
        return {row["position"]: tuple(row) for row in await connection.fetch(f"table {EVENTS}")}
    finally:
        await connection.close()


async def test_a_copy_by_logical_replication_has_every_entry_after_the_table_was_partitioned(tmp_path):
    with servers(tmp_path) as make:
        service, auditor = make(), make()
        for server in (service, auditor):
            server.create()
            await server.start()
            await upgrade(server.url)
        await service.run("alter system set wal_level = logical")
        await service.stop()
        await service.start()

        async def copied():
            return await entries(service) == await entries(auditor)

        await service.run(ADD)
        await service.run(block("database-roles.md", "create publication"))
        await auditor.run(
            block("database-roles.md", "create subscription").replace("postgresql://…/tokens", service.url)
        )
        await until(copied, "the copy has what was there before")
        await service.run(block("scale.md", "alter publication gateway_token_history drop"))
        await service.run(ADD)
        async with alone(service.url) as connection:
            await (await Partitioning.of(connection, EVENTS, 4)).run(lambda *_: None)
        await service.run(ADD)
        await service.run(block("scale.md", "alter publication gateway_token_history set"))
        await service.run(ADD)

        async def goes_on():
            return max(await entries(auditor)) == max(await entries(service))

        await until(goes_on, "the subscription goes on")
        assert len(await entries(service)) - len(await entries(auditor)) == 2
        await _copy_what_is_missing(service, auditor)
        assert await copied()
        await service.run(ADD)
        await until(copied, "the subscription goes on after that")


async def _copy_what_is_missing(service, auditor):
    create, insert = block("scale.md", "create temporary table saved").splitlines()
    source, target = await asyncpg.connect(service.url), await asyncpg.connect(auditor.url)
    try:
        saved = io.BytesIO()
        await source.copy_from_query(f"table {EVENTS}", output=saved)
        await target.execute(create)
        await target.copy_to_table("saved", source=io.BytesIO(saved.getvalue()))
        await target.execute(insert)
    finally:
        await source.close()
        await target.close()
