"""The service does all of its work without the right to change history."""

import asyncio
import io
import json
import os
import re
import secrets
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.bulk import jobs
from graphql_api.bulk.files.opening import ReadOptions
from graphql_api.bulk.reconciling import Guards
from graphql_api.doctor import findings
from graphql_api.domain.caller import ADMIN_SCOPE
from graphql_api.domain.inputs import Gateways
from graphql_api.gateway_apis import jobs as gateway_jobs
from graphql_api.gateway_apis.checking import CheckOptions
from graphql_api.gateway_apis.keys import GatewayKey
from graphql_api.gateway_apis.purging import PurgeOptions
from graphql_api.gateway_apis.stripe import Stripe
from graphql_api.observability import logs
from graphql_api.settings import Settings
from graphql_api.storage.connection import Statement
from graphql_api.storage.migrate import newest_revision, upgrade
from graphql_api.storage.pool import ConnectionPool
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET
from tests.gateway_apis import standin
from tests.graph import MUTATIONS, Graph, wanted

# What the change feed counts on: a transaction that records something changed or created a token, and so had its id,
# before it asks for a position.
ASKS_FOR_AN_ID_FIRST = """
  create function has_an_id() returns trigger language plpgsql as $$ begin
    if pg_current_xact_id_if_assigned() is null then
      raise 'the transaction has no id yet, but position %', new.position;
    end if;
    return new;
  end $$;
  create trigger has_an_id before insert on customer_gateway_token_events for each row execute function has_an_id()
"""
PAGE = Path(__file__).parents[2] / "docs" / "database-roles.md"


def as_role(url, role):
    parts = urlsplit(url)
    return parts._replace(query=urlencode([*parse_qsl(parts.query), ("role", role)])).geturl()


async def run(url, script):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def lacking(url):
    """What `doctor` says of the grants of the role that connects, and which checks follow."""
    settings = Settings(database_url=url, auth_secret=AUTH_SECRET)
    lines = [each async for each in findings(settings) if each.check not in {"settings", "access", "keys"}]
    return [each.says for each in lines if each.check == "grants"], {each.check for each in lines}


def statements(script):
    """Each grant of a script alone: one privilege on one object."""
    for privileges, objects, role in re.findall(r"grant ([\w, ]+) on\s([^;]+?) to (\w+);", script):
        for privilege in privileges.split(", "):
            for each in objects.split(","):
                yield f"{privilege} on {each.strip()}", role


@pytest.fixture(scope="module")
async def service_url(new_database, straight):
    """A database as the page says: migrated by its owner, opened by the service. Roles are all databases' together."""
    prefix = f"test_{secrets.token_hex(6)}_"
    owner, service, auditor = f"{prefix}owner", f"{prefix}service", f"{prefix}auditor"
    page = PAGE.read_text().replace("gateway_tokens_", prefix)
    create_roles, grants, create_auditor, publication, _ = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    url = straight(await new_database())  # a pooler does not let anybody take a role
    await run(url, create_roles)
    try:
        await upgrade(as_role(url, owner))
        await run(as_role(url, owner), grants)
        await run(url, create_auditor)
        await run(url, publication)
        await run(url, ASKS_FOR_AN_ID_FIRST)
        yield as_role(url, service)
    finally:
        await run(url, f"drop owned by {owner}, {service}, {auditor} cascade; drop role {owner}, {service}, {auditor}")


async def test_every_mutation_works_without_the_right_to_change_history(service_url):
    settings = Settings(database_url=service_url, auth_secret=AUTH_SECRET)
    async with opened(create_app(settings)) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        done = []

        async def do(name, **arguments):
            done.append(name)
            payload = await graph.mutate(name, **arguments)
            assert payload["userErrors"] == []
            return payload

        await do("claim", userId="u1", gateway="STRIPE")
        token = (await do("create", input=wanted("u1", "STRIPE", "cus_1")))["gatewayToken"]
        await do("save", input=wanted("u1", "STRIPE", "cus_2", replaces="cus_1"))
        await do("save_many", inputs=[wanted("u2", "STRIPE", "cus_3"), wanted("u2", "PAYPAL", "pp_3")])
        await do("update", input={"id": token["id"], "description": "x"})
        await do("deactivate", id=token["id"])
        await do("activate", id=token["id"])
        await do("verify", gateway="STRIPE", gatewayCustomerId="cus_2")
        await do("deactivate_customer", gateway="STRIPE", gatewayCustomerId="cus_2")
        await do("merge", fromUserId="u2", intoUserId="u1", onConflict="KEEP_TARGET", dryRun=True)
        await do("merge", fromUserId="u2", intoUserId="u1", onConflict="KEEP_TARGET")
        key = (await do("claim", userId="u4", gateway="STRIPE"))["claim"]["idempotencyKey"]
        await do("release", userId="u4", gateway="STRIPE", idempotencyKey=key)
        await do("reassign", customers=[{"gateway": "STRIPE", "gatewayCustomerId": "cus_2", "toUserId": "u1"}])
        assert len(await graph.history(await graph.customer("STRIPE", "cus_3"))) == 2
        paypal = await graph.customer("PAYPAL", "pp_3")
        await do("delete", id=paypal["id"])
        erased = await do("erase", userId="u1")
        assert [each["gatewayCustomerId"] for each in erased["erased"]] == ["pp_3", "cus_1", "cus_2", "cus_3"]
        assert (await do("confirm", customers=erased["erased"]))["confirmedCount"] == 4
        await do("lift", userId="u1")
        assert set(done) == set(MUTATIONS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--history-older-than", "1d", "--yes"),
        ("prune", "--history-older-than", "1d", "--dry-run"),
        ("partition", "--table", "customer_gateway_tokens"),
        ("partition", "--table", "customer_gateway_tokens", "--dry-run"),
    ],
)
async def test_a_command_that_needs_the_owner_says_so(service_url, arguments):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", *arguments),
        env={**os.environ, "DATABASE_URL": service_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    _, said = err.decode().splitlines()
    assert (process.returncode, out) == (1, b"")
    assert said.startswith("gateway-tokens: the database cannot be used (")
    assert said.endswith("): run this as the role that owns the tables: `gateway-tokens help database-roles`")


@pytest.mark.parametrize("arguments", [("serve", "--port", "0"), ("migrate",)])
async def test_a_migration_by_another_role_than_the_owner_says_who_runs_it(service_url, straight, arguments):
    parts = urlsplit(service_url)
    administrator = straight(parts.path)
    newest = newest_revision()
    await run(administrator, "update alembic_version set version_num = '0003'")
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "graphql_api", *arguments),
            env={**os.environ, "DATABASE_URL": service_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    finally:
        await run(administrator, f"update alembic_version set version_num = '{newest}'")  # noqa: S608
    assert (process.returncode, out) == (1, b"")
    said = err.decode().splitlines()[-1]
    assert said.startswith(
        f"gateway-tokens: The database must be migrated from 0003 to {newest}, and this role cannot do it ("
    )
    assert said.endswith("): run `gateway-tokens migrate` as the role that owns the tables.")


@pytest.mark.parametrize(
    ("arguments", "grant"),
    [
        (("export", "out.csv"), "select on alembic_version"),
        (("export", "out.csv"), "select on customer_gateway_tokens"),
        (("serve", "--port", "0"), "select on alembic_version"),
    ],
)
async def test_a_command_whose_role_lacks_a_grant_names_the_step_that_gives_it(service_url, tmp_path, arguments, grant):
    parts = urlsplit(service_url)
    role = dict(parse_qsl(parts.query))["role"]
    as_superuser = [(name, value) for name, value in parse_qsl(parts.query) if name != "role"]
    administrator = parts._replace(query=urlencode(as_superuser)).geturl()
    await run(administrator, f"revoke {grant} from {role}")
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "graphql_api", *arguments),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PAGE.parents[1]), "DATABASE_URL": service_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    finally:
        await run(administrator, f"grant {grant} to {role}")
    assert process.returncode == 1
    assert err.decode().endswith(
        "): run the grants of step 3 of `gateway-tokens help database-roles`; `gateway-tokens doctor` lists them\n"
    )


async def test_doctor_names_the_grant_that_is_missing_and_it_is_what_is_missing(service_url):
    page = PAGE.read_text()
    parts = urlsplit(service_url)
    role = dict(parse_qsl(parts.query))["role"]
    as_superuser = [(name, value) for name, value in parse_qsl(parts.query) if name != "role"]
    administrator = await asyncpg.connect(parts._replace(query=urlencode(as_superuser)).geturl())
    database = await administrator.fetchval("select current_database()")
    try:
        grants = [grant for grant, to in statements(page) if to == "gateway_tokens_service"]
        assert len(grants) > 40
        for grant in [*grants, f"temporary on database {database}"]:
            public = ", public" if "schema" in grant or "database" in grant else ""
            await administrator.execute(f"revoke {grant} from {role}{public}")
            (told,), checks = await lacking(service_url)
            assert told == f"one is missing: as the owner or a superuser, run `grant {grant} to {role}`"
            assert {"clock", "migrations", "feed"} <= checks
            await administrator.execute(told.split("`")[1])
        assert (await lacking(service_url))[0] == ["are complete"]
        two = "customer_gateway_tokens, gateway_erasures"
        await administrator.execute(f"revoke insert on {two} from {role}")
        (told,), _ = await lacking(service_url)
        first, *lines = told.splitlines()
        assert first == "2 are missing. As the owner or a superuser, run:"
        await administrator.execute("".join(lines))
        assert (await lacking(service_url))[0] == ["are complete"]
    finally:
        await administrator.close()


async def test_a_request_that_lacks_a_grant_is_told_in_the_log(service_url):
    parts = urlsplit(service_url)
    role = dict(parse_qsl(parts.query))["role"]
    as_superuser = [(name, value) for name, value in parse_qsl(parts.query) if name != "role"]
    administrator = parts._replace(query=urlencode(as_superuser)).geturl()
    grant = "insert on customer_gateway_tokens"
    await run(administrator, f"revoke {grant} from {role}")
    try:
        async with opened(create_app(Settings(database_url=service_url, auth_secret=AUTH_SECRET))) as app:
            logs.configure("info", "json", stream := io.BytesIO())
            client = Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE]))
            save = 'saveCustomerGatewayToken(input: {userId: "u9", gateway: "STRIPE", gatewayCustomerId: "cus_99"})'
            await client(f"mutation {{ {save} {{ created }} }}")
    finally:
        logs.configure("info", "json")
        await run(administrator, f"grant {grant} to {role}")
    lines = {line["event"]: line for line in map(json.loads, stream.getvalue().splitlines())}
    assert "permission denied for table customer_gateway_tokens: a grant is missing" in str(lines["unexpected error"])


async def test_doctor_says_that_it_may_not_see_how_long_others_have_been_writing(service_url, straight, database_url):
    writer = await asyncpg.connect(straight(database_url))
    try:
        async with writer.transaction():
            await writer.execute("select pg_current_xact_id()")
            settings = Settings(database_url=service_url, auth_secret=AUTH_SECRET)
            [feed] = [each async for each in findings(settings, max_open_seconds=1000) if each.check == "feed"]
            assert feed.is_well
            assert "may see" in feed.says
    finally:
        await writer.close()


def options(name):
    return jobs.FileOptions(Path(name), ReadOptions())


async def test_every_bulk_command_works_without_the_right_to_change_history(service_url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "userId,gateway,gatewayCustomerId"
    files = {"new.csv": f"{names}\nu3,STRIPE,cus_5\nu4,STRIPE,cus_6\n", "moved.csv": "old,new\ncus_5,new_5\n"}
    files |= {"known.csv": f"{names},description\nu3,STRIPE,cus_5,x\n", "listed.csv": "id\nnew_5\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    async with ConnectionPool.open(service_url, watches=False) as database:
        for name in ("new.csv", "known.csv"):
            assert await jobs.import_file(database, Gateways(), options(name))
        assert await jobs.remap_file(database, Gateways(), options("moved.csv"), gateway="STRIPE")
        asked = {"gateway": "STRIPE", "exported_at": datetime.now(UTC).isoformat(), "report": None}
        guards = Guards(max_missing_percent=100)
        assert not await jobs.reconcile_file(database, Gateways(), options("listed.csv"), **asked, guards=guards)
        await jobs.export_file(database, Path("all.csv"), None)
        lines = await database.fetch(
            Statement("test", "select action, actor from customer_gateway_token_events where user_id in ('u3', 'u4')")
        )
    assert Counter(tuple(line) for line in lines) == {
        ("IMPORTED", "import"): 3,
        ("REPLACED", "remap"): 1,
        ("DEACTIVATED", "reconcile"): 1,
    }
    assert "u4,STRIPE,cus_6,,,false" in (tmp_path / "all.csv").read_text()


async def test_checks_and_purges_work_without_the_right_to_change_history(service_url):
    stripe = standin.Stripe()
    stripe.customers = {"cus_7": standin.DELETED, "cus_8": standin.LIVE, "cus_9": standin.LIVE}
    settings = Settings(database_url=service_url, auth_secret=AUTH_SECRET)
    async with opened(create_app(settings)) as app:
        graph = Graph(Client(app, mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])))
        for customer in stripe.customers:
            await graph.save(customer, "CHECKED", customer)
        await graph.erase("cus_9")
    with standin.serving(stripe) as url:
        key = GatewayKey("CHECKED", Stripe(is_test=False), SecretStr(standin.KEY), url)
        async with ConnectionPool.open(service_url, watches=False) as database:
            assert await gateway_jobs.check_gateway(database, Gateways(), key, CheckOptions())
            assert await gateway_jobs.purge_gateway(database, Gateways(), key, PurgeOptions())
    assert stripe.customers == {"cus_7": "deleted", "cus_8": "live", "cus_9": "deleted"}


@pytest.mark.parametrize(
    "attempt",
    [
        "update customer_gateway_token_events set actor = 'somebody else'",
        "delete from customer_gateway_token_events",
        "truncate customer_gateway_token_events",
        "alter table customer_gateway_token_events drop column actor",
        "create or replace function erase_history(uuid[], text) returns void language sql as 'select 1'",
        "update erasure_key set key = ''",
        "drop table customer_gateway_tokens",
    ],
)
async def test_the_service_may_not_change_history_nor_the_tables(service_url, attempt):
    connection = await asyncpg.connect(service_url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(attempt)
    finally:
        await connection.close()
