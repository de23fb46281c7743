"""`gateway-tokens remap`: an account moved, and customers have other identifiers."""

import asyncio

import pytest

from graphql_api.bulk.remapping import remap
from graphql_api.domain.inputs import Gateways
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.bulk.records import token
from tests.conftest import WAITING_ON_WORKERS
from tests.until import until


@pytest.fixture
async def customers(graph):
    for number in range(1, 5):
        await graph.save(f"u{number}", "STRIPE", f"cus_{number}")


def moved(*pairs):
    return [{"old": old, "new": new} for old, new in pairs]


async def test_old_identifiers_become_former_ones(command, write, graph, customers, table):
    await graph.verify("STRIPE", "cus_1")
    outcome = await command(
        "remap", write("m.csv", *moved(("cus_1", "new_1"), ("cus_2", "new_2"))), "--gateway", "stripe"
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "remap m.csv: 2 changed\n")
    token = await graph.customer("STRIPE", "cus_1")
    assert (token["gatewayCustomerId"], token["formerGatewayCustomerIds"]) == ("new_1", ["cus_1"])
    assert (token["version"], token["lastVerifiedAt"]) == (2, None)
    lines = await table(
        "select version, action, actor, gateway_customer_id from customer_gateway_token_events"
        " where user_id = 'u2' order by version"
    )
    assert lines == [(1, "CREATED", "a-service", "cus_2"), (2, "REPLACED", "remap", "new_2")]


async def test_a_gateway_without_tokens_is_refused_as_a_slip(command, write, customers):
    outcome = await command("remap", write("m.csv", *moved(("cus_1", "new_1"))), "--gateway", "STRYPE")
    assert (outcome.status, outcome.out, outcome.err) == (
        2,
        "",
        "gateway-tokens: There are no tokens at STRYPE, only at STRIPE.\n",
    )


async def test_a_deleted_customer_is_active_under_its_new_identifier(command, write, graph, customers):
    await graph.deactivate_customer("STRIPE", "cus_1")
    await graph.deactivate(await graph.customer("STRIPE", "cus_2"), reason="FRAUD")
    file = write("m.csv", *moved(("cus_1", "new_1"), ("cus_2", "new_2")))
    assert (await command("remap", file, "--gateway", "STRIPE")).status == 0
    token = await graph.customer("STRIPE", "new_1")
    assert (token["isActive"], token["deactivatedAt"], token["deactivationReason"]) == (True, None, None)
    ours = await graph.customer("STRIPE", "new_2")
    assert (ours["isActive"], ours["deactivationReason"]) == (False, "FRAUD")


async def test_each_line_that_fails_is_named_and_the_rest_goes_on(command, write, graph, customers, reasons):
    await graph.delete(await graph.customer("STRIPE", "cus_4"))
    file = write(
        "m.jsonl",
        *moved(
            ("nobody", "new_0"),
            ("cus_1", "cus_2"),
            ("cus_2", "a b"),
            ("", "new_2"),
            ("cus_3", "new_3"),
            ("new_3", "newer_3"),
            ("cus_4", "new_4"),
        ),
        {"old": "cus_2"},
        {"old": 5, "new": "new_5"},
    )
    outcome = await command("remap", file, "--gateway", "STRIPE")
    assert (outcome.status, outcome.err) == (
        1,
        "remap m.jsonl: 2 changed, 7 rejected; reasons are in m.jsonl.rejects.jsonl\n",
    )
    assert reasons("m.jsonl.rejects.jsonl") == [
        (1, "old", "NOT_FOUND"),
        (2, "new", "CUSTOMER_TAKEN"),
        (3, "new", "INVALID"),
        (4, "old", "INVALID"),
        (7, "old", "NOT_FOUND"),
        (8, "new", "INVALID"),
        (9, "old", "NOT_FOUND"),
    ]
    assert (await graph.customer("STRIPE", "new_3"))["formerGatewayCustomerIds"] == ["cus_3", "new_3"]
    assert (await graph.customer("STRIPE", "cus_2"))["version"] == 1


async def test_the_same_file_again_changes_nothing(command, write, customers, everything):
    file = write("m.csv", *moved(("cus_1", "new_1"), ("cus_2", "new_2"), ("cus_3", "new_3")))
    await command("remap", file, "--gateway", "STRIPE")
    before = await everything()
    outcome = await command("remap", file, "--gateway", "STRIPE")
    assert (outcome.status, outcome.err) == (0, "remap m.csv: 3 unchanged\n")
    assert await everything() == before


async def test_what_another_run_does_meanwhile_counts_as_unchanged(command, write, customers, connection):
    file = write("m.csv", *moved(("cus_1", "new_1"), ("cus_2", "new_2")))
    waiting = f"select count(*) + {WAITING_ON_WORKERS} from pg_locks"  # noqa: S608
    waiting += " where not granted and transactionid = pg_current_xact_id()::xid"
    async with connection.transaction():  # the other run
        for number in ("1", "2"):
            await connection.execute(
                "insert into gateway_customers (user_id, gateway, gateway_customer_id)"
                " values ('u' || $1, 'STRIPE', 'new_' || $1)",
                number,
            )
            await connection.execute(
                "update customer_gateway_tokens set gateway_customer_id = 'new_' || $1, version = 2"
                " where user_id = 'u' || $1",
                number,
            )
        running = asyncio.create_task(command("remap", file, "--gateway", "STRIPE"))
        await until(lambda: connection.fetchval(waiting), "this run waits for the other")
    outcome = await running
    assert (outcome.status, outcome.err) == (0, "remap m.csv: 2 unchanged\n")


async def test_a_customer_that_has_yet_another_identifier_meanwhile_is_left_alone(
    command, write, graph, customers, reasons
):
    await graph.save("u1", "STRIPE", "cus_1b", replaces="cus_1")
    assert (await command("remap", write("m.csv", *moved(("cus_1", "new_1"))), "--gateway", "STRIPE")).status == 1
    assert reasons("m.csv.rejects.csv") == [(2, "old", "ALREADY_EXISTS")]
    assert (await graph.customer("STRIPE", "cus_1"))["gatewayCustomerId"] == "cus_1b"


async def test_a_dry_run_says_the_same_and_changes_nothing(command, write, customers, everything):
    file = write("m.csv", *moved(("cus_1", "new_1"), ("new_1", "newer_1"), ("cus_2", "cus_3")))
    before = await everything()
    dry = await command("remap", file, "--gateway", "STRIPE", "--dry-run")
    assert await everything() == before
    real = await command("remap", file, "--gateway", "STRIPE")
    reasons = "reasons are in m.csv.rejects.csv\n"
    assert (dry.status, dry.err) == (1, f"check of remap m.csv: would change 2, reject 1; {reasons}")
    assert (real.status, real.err) == (1, f"remap m.csv: 2 changed, 1 rejected; {reasons}")


async def test_two_columns_need_no_names(command, folder, graph, customers):
    (folder / "m.csv").write_text("cus_1,new_1\ncus_2,new_2\n")
    assert (await command("remap", "m.csv", "--gateway", "STRIPE")).status == 0
    assert (await graph.customer("STRIPE", "new_1"))["userId"] == "u1"
    assert (await graph.customer("STRIPE", "new_2"))["userId"] == "u2"


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        (
            "a,b,c\n",
            ["--gateway", "STRIPE"],
            "The columns old and new are missing. Map them with --column old=COLUMN, --column new=COLUMN.",
        ),
        ("old,new\n", ["--gateway", "?"], "'?' is not a valid gateway name. A name is"),
        ("old,new\n", [], "Missing option '--gateway'."),
    ],
)
async def test_a_wrong_call_is_one_line(command, folder, customers, content, arguments, says):
    (folder / "m.csv").write_text(content)
    outcome = await command("remap", "m.csv", *arguments)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert says in outcome.err


async def test_chunks_follow_one_another(customers, database_url, graph):
    records = enumerate(moved(("cus_1", "new_1"), ("cus_2", "new_2"), ("new_1", "newer_1")), 1)
    async with ConnectionPool.open(database_url, size=2) as database:
        reports = [
            report
            async for report in remap(TokenStore(database), Gateways(), "STRIPE", records, dry_run=False, max_lines=2)
        ]
    assert [(report.line, report.changed) for report in reports] == [(2, 2), (3, 1)]
    assert (await graph.customer("STRIPE", "newer_1"))["formerGatewayCustomerIds"] == ["cus_1", "new_1"]


async def test_what_was_replaced_for_a_rule_of_its_gateway_is_exported_and_imported(
    command, write, table, empty, monkeypatch
):
    stored = ["pm_1", "tok_2"]
    await command("import", write("t.csv", *(token(f"u{n}", customer=each) for n, each in enumerate(stored))))
    monkeypatch.setenv("CUSTOMER_IDS", "STRIPE:cus_*")
    changes = write("moved.csv", *({"old": each, "new": f"cus_{n}"} for n, each in enumerate(stored)))
    assert (await command("remap", changes, "--gateway", "STRIPE")).status == 0
    for name in ("all.csv", "all.jsonl"):
        await command("export", name)
        await empty()
        assert (await command("import", name)).err == f"import {name}: 2 created\n"
    assert await table("select gateway_customer_id from gateway_customers order by 1") == [
        ("cus_0",),
        ("cus_1",),
        ("pm_1",),
        ("tok_2",),
    ]
    listed = write("list.csv", *({"id": each} for each in ("cus_0", "cus_1", "pm_9")))
    assert "3 listed" in (await command("reconcile", listed, "--gateway", "STRIPE")).err
