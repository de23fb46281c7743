"""`gateway-tokens reconcile`: our tokens beside a gateway's own list of its customers."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from graphql_api.bulk.reconciling import apply
from graphql_api.storage.customer_lists import CustomerList
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore


def now(**ahead):
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


@pytest.fixture
def differences(folder):
    """The lines of a report, without ids."""

    def read(name):
        first, *lines = (folder / name).read_text().splitlines()
        assert first == "difference,gatewayCustomerId,userId,id"
        return [tuple(line.split(",")[:3]) for line in lines]

    return read


@pytest.fixture
def listing(write):
    """Writes a list of customers as the gateway exports it."""
    return lambda *customers, name="list.csv": write(name, *({"id": customer, "Email": ""} for customer in customers))


@pytest.fixture
async def customers(graph):
    """Five users at STRIPE, the last of whom is inactive, and one elsewhere."""
    for number in range(1, 6):
        await graph.save(f"u{number}", "STRIPE", f"cus_{number}")
    await graph.deactivate(await graph.customer("STRIPE", "cus_5"), reason="USER_REQUEST")
    await graph.save("u1", "STRIPE_EU", "cus_9")


async def test_what_differs_is_reported_and_nothing_changes(command, listing, customers, differences, everything):
    before = await everything()
    outcome = await command("reconcile", listing("cus_1", "cus_2", "cus_5", "cus_9", "cus_7"), "--gateway", "stripe")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        "reconcile list.csv with STRIPE: 5 listed, 3 known here, 2 missing there, 2 unknown here;"
        " differences are in list.csv.report.csv\n"
    )
    assert differences("list.csv.report.csv") == [
        ("MISSING_THERE", "cus_3", "u3"),
        ("MISSING_THERE", "cus_4", "u4"),
        ("UNKNOWN_HERE", "cus_7", ""),
        ("UNKNOWN_HERE", "cus_9", ""),
    ]
    assert await everything() == before


async def test_applied_it_deactivates_what_is_missing_and_verifies_what_is_there(
    command, listing, customers, graph, table
):
    at = now()
    file = listing("cus_1", "cus_2", "cus_3", "cus_5")
    outcome = await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", at)
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == "reconcile list.csv with STRIPE: 1 deactivated, 4 verified"
    gone = await graph.customer("STRIPE", "cus_4")
    assert (gone["isActive"], gone["deactivationReason"], gone["deactivatedAt"]) == (False, "GATEWAY_DELETED", at)
    inactive = await graph.customer("STRIPE", "cus_5")
    assert (inactive["isActive"], inactive["deactivationReason"], inactive["lastVerifiedAt"]) == (
        False,
        "USER_REQUEST",
        at,
    )
    lines = await table(
        "select gateway_customer_id, action, reason, version from customer_gateway_token_events"
        " where actor = 'reconcile' order by 1"
    )
    assert lines == [
        ("cus_1", "VERIFIED", None, 2),
        ("cus_2", "VERIFIED", None, 2),
        ("cus_3", "VERIFIED", None, 2),
        ("cus_4", "DEACTIVATED", "GATEWAY_DELETED", 2),
        ("cus_5", "VERIFIED", None, 3),
    ]
    again = await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", at)
    assert again.status == 0
    assert again.err.splitlines()[-1] == "reconcile list.csv with STRIPE: 0 deactivated, 0 verified"


async def test_what_is_younger_than_the_list_is_not_missing_in_it(command, listing, customers, graph, differences):
    active = await graph.customer("STRIPE", "cus_1")
    await graph.deactivate(active)
    at = now()
    await graph.save("u6", "STRIPE", "cus_6")
    await graph.save("u2", "STRIPE", "cus_2b", replaces="cus_2")
    await graph.activate(active)
    await command("reconcile", listing("cus_3"), "--gateway", "STRIPE", "--exported-at", at)
    assert differences("list.csv.report.csv") == [("MISSING_THERE", "cus_4", "u4")]


async def test_a_former_identifier_is_neither_unknown_nor_verified(command, listing, customers, graph, differences):
    await graph.save("u2", "STRIPE", "cus_2b", replaces="cus_2")
    await graph.delete(await graph.customer("STRIPE", "cus_3"))
    file = listing("cus_1", "cus_2", "cus_3", "cus_4", "cus_2b")
    assert (await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", now())).status == 0
    assert differences("list.csv.report.csv") == []
    assert (await graph.customer("STRIPE", "cus_2b"))["version"] == 3


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("id\n", "The file lists no customers."),
        ("id\ncus_1\n", "3 of 4 active tokens would be deactivated."),
        ("id,x\ncus_1\ncus_2,\ncus_3,\ncus_4,\n", "1 of the file's lines cannot be read"),
    ],
)
async def test_a_list_that_looks_incomplete_is_not_applied_unless_it_is_forced(
    command, folder, customers, everything, lines, says
):
    (folder / "list.csv").write_text(lines)
    before = await everything()
    arguments = ["reconcile", "list.csv", "--gateway", "STRIPE", "--apply", "--exported-at", now()]
    refused = await command(*arguments)
    assert refused.status == 1
    assert refused.err.splitlines()[-1].startswith(f"gateway-tokens: {says}")
    assert await everything() == before
    await command(*arguments, "--force")
    assert await everything() != before


async def test_half_may_be_missing(command, listing, customers, graph):
    await command("reconcile", listing("cus_1", "cus_2"), "--gateway", "STRIPE", "--apply", "--exported-at", now())
    assert not (await graph.customer("STRIPE", "cus_3"))["isActive"]


async def test_lines_without_an_identifier_are_named(command, folder, customers, reasons):
    (folder / "list.jsonl").write_text(
        '{"id": "cus_1"}\n{"id": null}\n{"id": ""}\n{"email": "x"}\n[\n{"id": "a\\u0000"}\n'
    )
    outcome = await command("reconcile", "list.jsonl", "--gateway", "STRIPE")
    assert outcome.err.startswith("reconcile list.jsonl with STRIPE: 5 of the lines have no customer id")
    assert [line for line, _, _ in reasons("list.jsonl.rejects.csv")] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "header",
    [
        "id,Description,Email,Name,Created (UTC)",
        "Email,Customer ID,Name,customer,x",
        "customer_id,CUSTOMER ID,a,b,c",
        "x,Id,ID,gatewayCustomerId,customer",
        "gatewayCustomerId,userId,a,b,c",
    ],
)
async def test_the_column_of_the_identifiers_is_guessed(command, folder, customers, header):
    names = header.split(",")
    place = next(
        names.index(name) for name in ("id", "Id", "gatewayCustomerId", "customer_id", "Customer ID") if name in names
    )
    row = ["cus_2" if index == place else "x" for index in range(len(names))]
    (folder / "list.csv").write_text(f"{header}\n{','.join(row)}\n")
    (folder / "list.jsonl").write_text(json.dumps(dict(zip(names, row, strict=True))))
    for file in ("list.csv", "list.jsonl"):
        assert "1 listed, 1 known here" in (await command("reconcile", file, "--gateway", "STRIPE")).err


async def test_the_column_of_the_identifiers_may_be_named(command, write, customers):
    file = write("list.csv", {"id": "1", "Customer ID": "cus_1"})
    outcome = await command("reconcile", file, "--gateway", "STRIPE", "--column", "Customer ID", "--report", "r.csv")
    assert "1 listed, 1 known here, 3 missing there, 0 unknown here; differences are in r.csv" in outcome.err


async def test_a_list_is_as_old_as_its_file_unless_it_is_said(command, listing, customers, folder):
    file = listing("cus_1")
    long_ago = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(folder / file, (long_ago, long_ago))
    assert " 0 missing there" in (await command("reconcile", file, "--gateway", "STRIPE")).err
    assert " 3 missing there" in (await command("reconcile", file, "--gateway", "STRIPE", "--exported-at", now())).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list.csv", "--gateway", "STRIPE", "--exported-at", "2999-01-01T00:00:00Z"], "in the future"),
        (["list.csv", "--gateway", "STRIPE", "--exported-at", "yesterday"], "--exported-at: A DateTime must be"),
        (["list.csv", "--gateway", "STRIPE", "--column", "no"], "There is no column no"),
        (["-", "--format", "csv", "--gateway", "STRIPE"], "A pipe has no date"),
        (["none.csv", "--gateway", "STRIPE"], "none.csv does not exist"),
    ],
)
async def test_a_wrong_call_is_one_line(command, listing, arguments, says):
    listing("cus_1")
    outcome = await command("reconcile", *arguments, stdin=b"id\ncus_1\n")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert says in outcome.err


async def test_chunks_follow_one_another(customers, database_url, table):
    async with ConnectionPool.open(database_url, size=2) as database:
        store = TokenStore(database)
        async with store.transaction(()) as transaction:
            customer_list = CustomerList(transaction.raw, "STRIPE", datetime.now(UTC))
            await customer_list.load(["cus_1", "cus_2", "cus_3"])
            reports = [report async for report in apply(store, customer_list, max_tokens=2)]
    assert [(report.verified, report.deactivated) for report in reports] == [(2, 0), (1, 1)]
    assert await table("select gateway_customer_id from customer_gateway_tokens where not is_active order by 1") == [
        ("cus_4",),
        ("cus_5",),
    ]
