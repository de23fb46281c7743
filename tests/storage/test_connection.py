"""What the database lacks: a change that finds no space is unavailable, does nothing, and readiness says why."""

import os
import secrets
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.errors import UnavailableError
from graphql_api.settings import Settings
from graphql_api.storage.connection import Statement
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET, CITUS
from tests.graph import MUTATIONS, Graph, wanted
from tests.until import until

TABLES = [
    "customer_gateway_tokens",
    "gateway_customers",
    "gateway_customer_claims",
    "gateway_erasures",
    "gateway_customer_reports",
    "customer_gateway_token_events",
    "erased_users",
]
REFUSE = """
create function refuses() returns trigger language plpgsql as
  $$begin raise exception 'no more' using errcode = '{state}'; end$$;
do $$declare name text; begin
  for name in select unnest('{{{tables}}}'::text[]) loop
    execute format('create trigger refuses before insert or update or delete on %I execute function refuses()', name);
  end loop;
end$$;
"""


@pytest.fixture
async def url(new_database, migrated_database, straight):
    return straight(await new_database(migrated_database))


@pytest.fixture
async def connection(url):
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def graph(url):
    async with opened(create_app(Settings(database_url=url, auth_secret=AUTH_SECRET))) as app:
        yield Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))


async def stored(connection):
    return {name: await connection.fetch(f"select * from {name} order by 1, 2") for name in TABLES}  # noqa: S608


async def readiness(graph):
    response = await graph.client.http.get("/readyz")
    return response.status_code, response.json().get("reason", "")


async def every_mutation(graph):
    """By name, the arguments with which each mutation changes something."""
    token = await graph.saved("u1", "STRIPE", "cus_1")
    off = await graph.saved("u1", "PAYPAL", "cus_off")
    await graph.mutate("deactivate", id=off["id"], reason="FRAUD")
    await graph.saved("u2", "ADYEN", "cus_2")
    await graph.saved("gone", "STRIPE", "cus_gone")
    await graph.mutate("erase", userId="gone")
    claimed = await graph.mutate("claim", userId="u9", gateway="STRIPE", leaseSeconds=60)
    customer = {"gateway": "STRIPE", "gatewayCustomerId": "cus_1"}
    return {
        "create": {"input": wanted("u3", "STRIPE", "cus_3")},
        "save": {"input": wanted("u4", "STRIPE", "cus_4")},
        "save_many": {"inputs": [wanted("u5", "STRIPE", "cus_5")]},
        "update": {"input": {"id": token["id"], "description": "x"}},
        "activate": {"id": off["id"]},
        "deactivate": {"id": token["id"], "reason": "FRAUD"},
        "delete": {"id": token["id"]},
        "deactivate_customer": customer,
        "verify": customer,
        "claim": {"userId": "u6", "gateway": "STRIPE", "leaseSeconds": 60},
        "merge": {"fromUserId": "u2", "intoUserId": "u1", "onConflict": "KEEP_TARGET"},
        "release": {"userId": "u9", "gateway": "STRIPE", "idempotencyKey": claimed["claim"]["idempotencyKey"]},
        "reassign": {"customers": [{**customer, "toUserId": "u7"}]},
        "erase": {"userId": "u1"},
        "confirm": {"customers": [{"gateway": "STRIPE", "gatewayCustomerId": "cus_gone"}]},
        "lift": {"userId": "gone"},
    }


@pytest.mark.skipif(bool(CITUS), reason="Citus lets no distributed table have the triggers that refuse here")
@pytest.mark.parametrize("state", ["53100", "58030"])
async def test_every_mutation_without_space_is_unavailable_and_does_nothing(graph, connection, state):
    mutations = await every_mutation(graph)
    assert mutations.keys() == MUTATIONS.keys()
    before = await stored(connection)
    await connection.execute(REFUSE.format(state=state, tables=",".join(TABLES)))
    for name, arguments in mutations.items():
        answer = await graph.answer(name, **arguments)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"], (name, answer)
    assert await stored(connection) == before
    await until(lambda: is_said(graph, state), "readiness says why")
    await connection.execute("drop function refuses() cascade")
    assert (await graph.save("u8", "STRIPE", "cus_8"))["created"]
    await until(lambda: is_said(graph, ""), "readiness says nothing any more")


async def is_said(graph, state):
    status, reason = await readiness(graph)
    assert status == 200
    return state in reason if state else not reason


@contextmanager
def small_disk(folder, socket):
    """A folder with room for 24 MB."""
    command = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size=24m,uid={Path(socket).stat().st_uid},mode=700",
        "tmpfs",
        str(folder),
    ]
    mounted = subprocess.run(command, check=False, capture_output=True) if os.getuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


async def test_on_a_full_disk_mutations_are_unavailable_and_reads_go_on(
    server_url, new_database, migrated_database, straight, tmp_path_factory
):
    socket = parse_qs(urlsplit(server_url).query).get("host")
    if not socket:
        pytest.skip("the server's disk is not ours")
    folder = tmp_path_factory.mktemp("small")
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    with small_disk(folder, socket[0]):
        name = f"small_{secrets.token_hex(4)}"
        way = straight(await new_database(migrated_database))
        database = urlsplit(way).path[1:]
        administrator = await asyncpg.connect(server_url)
        await administrator.execute(f"create tablespace {name} location '{folder}'")
        await administrator.execute(f"alter database {database} set tablespace {name}")
        try:
            async with opened(create_app(Settings(database_url=way, auth_secret=AUTH_SECRET))) as app:
                graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
                token = await graph.saved("u1", "STRIPE", "cus_1")
                with suppress(OSError), (folder / "rest").open("wb", buffering=0) as rest:
                    while rest.write(b"0" * 65536):
                        pass
                codes = set()
                for number in range(100):
                    save = wanted(f"full-{number}", "STRIPE", f"full_{number}", metadata={"a": "z" * 4000})
                    answer = await graph.answer("save_many", inputs=[save])
                    codes |= {error["extensions"]["code"] for error in answer.get("errors", [])}
                assert codes == {"UNAVAILABLE"}
                await until(lambda: is_said(graph, "53100"), "readiness says why")
                assert (await graph.token(token["id"]))["gatewayCustomerId"] == "cus_1"
                (folder / "rest").unlink()
                assert (await graph.save("u2", "STRIPE", "cus_2"))["created"]
        finally:
            await administrator.execute(f"alter database {database} set tablespace pg_default")
            await administrator.execute(f"drop tablespace {name}")
            await administrator.close()


@pytest.mark.parametrize(
    "words",
    [
        "failure on connection marked as essential: host:5432",
        "terminating connection due to unexpected postmaster exit",
    ],
)
async def test_a_worker_that_was_lost_is_a_lost_connection(pool, words):
    statement = Statement("worker", f"do $$ begin raise internal_error using message = '{words}'; end $$")
    with pytest.raises(UnavailableError, match="lost during the statement"):
        await pool.fetch(statement)
