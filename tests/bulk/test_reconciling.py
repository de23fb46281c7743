"""`gateway-tokens reconcile`: our tokens beside a gateway's own list of its customers."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from graphql_api.bulk.reconciling import apply
from graphql_api.storage.customer_lists import CustomerList, ListedCustomer
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore


def now(**ahead):
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


@pytest.fixture
def differences(folder):
    """The lines of a report, without ids."""

    def read(name):
        first, *lines = (folder / name).read_text().splitlines()
        assert first == "difference,reason,userId,gateway,gatewayCustomerId,id"
        return [(*line.split(",")[:3], line.split(",")[4]) for line in lines]

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


async def test_what_differs_is_reported_in_both_directions_and_nothing_changes(
    command, listing, customers, differences, everything
):
    before = await everything()
    outcome = await command("reconcile", listing("cus_1", "cus_2", "cus_5", "cus_9", "cus_7"), "--gateway", "stripe")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        "reconcile list.csv with STRIPE: 5 listed, 3 known here, 2 missing there, 1 inactive here, 2 missing here;"
        " differences are in list.csv.report.csv\n"
    )
    assert differences("list.csv.report.csv") == [
        ("MISSING_THERE", "NOT_LISTED", "u3", "cus_3"),
        ("MISSING_THERE", "NOT_LISTED", "u4", "cus_4"),
        ("INACTIVE_HERE", "USER_REQUEST", "u5", "cus_5"),
        ("MISSING_HERE", "UNKNOWN", "", "cus_7"),
        ("MISSING_HERE", "UNKNOWN", "", "cus_9"),
    ]
    assert await everything() == before


async def test_what_is_missing_here_can_be_imported_once_its_users_are_known(
    command, listing, customers, folder, graph
):
    await command("reconcile", listing("cus_1", "cus_2", "cus_3", "cus_4", "cus_7"), "--gateway", "stripe")
    report = folder / "list.csv.report.csv"
    report.write_text(report.read_text().replace("UNKNOWN,,STRIPE,cus_7", "UNKNOWN,u7,STRIPE,cus_7"))
    assert (await command("import", report.name)).err == f"import {report.name}: 1 created\n"
    assert (await graph.customer("STRIPE", "cus_7"))["userId"] == "u7"


async def test_applied_it_deactivates_what_is_missing_and_verifies_what_is_there(
    command, listing, customers, graph, table
):
    at = now()
    file = listing("cus_1", "cus_2", "cus_3", "cus_5")
    arguments = ["reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", at, "--max-missing", "25"]
    outcome = await command(*arguments)
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == ("reconcile list.csv with STRIPE: 1 deactivated, 0 activated, 4 verified")
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
    assert lines == [("cus_4", "DEACTIVATED", "GATEWAY_DELETED", 2)]
    again = await command(*arguments)
    assert again.err.splitlines()[-1] == "reconcile list.csv with STRIPE: 0 deactivated, 0 activated, 0 verified"


async def test_applied_a_full_list_makes_active_again_what_was_deactivated_wrongly(
    command, listing, customers, graph, differences
):
    await graph.deactivate_customer("STRIPE", "cus_1")
    at = now()
    file = listing("cus_1", "cus_2", "cus_3", "cus_4", "cus_5")
    outcome = await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", at)
    assert outcome.err.splitlines()[-1] == "reconcile list.csv with STRIPE: 0 deactivated, 1 activated, 4 verified"
    assert differences("list.csv.report.csv") == [
        ("INACTIVE_HERE", "GATEWAY_DELETED", "u1", "cus_1"),
        ("INACTIVE_HERE", "USER_REQUEST", "u5", "cus_5"),
    ]
    token = await graph.customer("STRIPE", "cus_1")
    assert (token["isActive"], token["deactivationReason"], token["lastVerifiedAt"]) == (True, None, at)
    newest = (await graph.history(token))[0]
    assert (newest["action"], newest["reason"], newest["actor"]) == ("ACTIVATED", "VERIFIED", "reconcile")


async def reconciled(command, file, at):
    outcome = await command(
        "reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", at, "--max-missing", 100
    )
    return outcome.err.splitlines()[-1].partition(": ")[2]


@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
async def test_what_a_list_says_of_an_inactive_token_counts_against_reports_in_any_order(
    command, listing, customers, graph, late
):
    """The list is the gateway's latest word, whether an older report comes before it or after it."""
    names = [f"cus_{number}" for number in range(1, 6)]
    for name in names:
        await graph.deactivate_customer("STRIPE", name, occurredAt=now(seconds=-100))
    at = now()
    reports = [("STRIPE", name, {"at": now(seconds=-50)}) for name in names]
    if not late:
        for gateway, name, when in reports:
            await graph.verify(gateway, name, **when)
    said = await reconciled(command, listing("cus_9"), at)
    assert said == f"{0 if late else 4} deactivated, 0 activated, 0 verified"
    assert await reconciled(command, listing("cus_9"), at) == "0 deactivated, 0 activated, 0 verified"
    if late:
        for gateway, name, when in reports:
            await graph.verify(gateway, name, **when)
    for name in names[:4]:
        token = await graph.customer("STRIPE", name)
        assert (token["isActive"], token["deactivatedAt"]) == (False, at)


async def test_a_list_is_believed_about_a_replaced_customer_of_a_token_that_is_inactive_for_our_own_reason(
    command, listing, customers, graph
):
    at = now()
    await reconciled(command, listing("cus_1", "cus_2", "cus_3", "cus_4"), at)
    await graph.save("u5", "STRIPE", "cus_5b", replaces="cus_5")
    await graph.activate(await graph.customer("STRIPE", "cus_5b"))
    await graph.save("u5", "STRIPE", "cus_5", replaces="cus_5b")
    token = await graph.customer("STRIPE", "cus_5")
    assert (token["isActive"], token["deactivationReason"], token["deactivatedAt"]) == (False, "GATEWAY_DELETED", at)


@pytest.mark.parametrize("saved_first", [True, False], ids=["saved", "unsaved"])
@pytest.mark.parametrize(
    ("listed", "active"), [("id\ncus_7\n", True), ("id,deleted\ncus_7,true\n", False)], ids=["listed", "deleted"]
)
async def test_what_a_list_says_of_a_customer_without_a_token_counts_once_it_is_saved(
    command, folder, customers, graph, saved_first, listed, active
):
    await graph.deactivate_customer("STRIPE", "cus_7", occurredAt=now(seconds=-100))
    (folder / "list.csv").write_text(listed)
    if saved_first:
        await graph.save("u7", "STRIPE", "cus_7")
    at = now()
    await reconciled(command, "list.csv", at)
    if not saved_first:
        await graph.save("u7", "STRIPE", "cus_7")
    token = await graph.customer("STRIPE", "cus_7")
    assert (token["isActive"], token["deactivatedAt"]) == (active, None if active else at)


@pytest.mark.parametrize("known", ["nothing", "verified later", "verified then", "activated later", "activated before"])
async def test_a_customer_that_is_listed_as_deleted_is_so_whenever_it_was_saved(
    command, folder, customers, differences, graph, known
):
    """Creating a token does not outdate a deletion; what is known of later does."""
    (folder / "list.csv").write_text("id,deleted\ncus_6,true\ncus_7,true\n")
    if known == "activated before":
        await graph.save("u6", "STRIPE", "cus_6", isActive=False)
        await graph.activate(await graph.customer("STRIPE", "cus_6"))
    at = now()
    await graph.save("u6", "STRIPE", "cus_6")
    await graph.save("u7", "STRIPE", "cus_7x")
    await graph.save("u7", "STRIPE", "cus_7", replaces="cus_7x")
    if known.startswith("verified"):
        await graph.verify("STRIPE", "cus_6", at=now() if known == "verified later" else at)
    if known == "activated later":
        await graph.deactivate(await graph.customer("STRIPE", "cus_6"))
        await graph.activate(await graph.customer("STRIPE", "cus_6"))
    await command("reconcile", "list.csv", "--gateway", "STRIPE", "--exported-at", at)
    gone = ["cus_7"] if known.endswith("later") else ["cus_6", "cus_7"]
    said = [(customer, reason) for _, reason, _, customer in differences("list.csv.report.csv")]
    assert [customer for customer, reason in said if reason == "DELETED"] == gone
    assert (await reconciled(command, "list.csv", at)).startswith(f"{len(said)} deactivated, 0 activated, 0 verified")
    for customer in ("cus_6", "cus_7"):
        token = await graph.customer("STRIPE", customer)
        assert (token["isActive"], token["deactivatedAt"]) == ((False, at) if customer in gone else (True, None))
    await command("reconcile", "list.csv", "--gateway", "STRIPE", "--exported-at", at)
    assert differences("list.csv.report.csv") == []


async def test_a_deletion_in_the_second_of_an_activation_is_reported_as_it_is_applied(
    command, folder, customers, differences, graph
):
    """Gateways date by whole seconds, so it happened after the activation."""
    await graph.deactivate(await graph.customer("STRIPE", "cus_1"))
    activated = await graph.activate(await graph.customer("STRIPE", "cus_1"))
    at = datetime.fromisoformat(activated["gatewayToken"]["updatedAt"]).replace(microsecond=0).isoformat()
    (folder / "list.csv").write_text("id,deleted\ncus_1,true\ncus_2,\ncus_3,\ncus_4,\n")
    await command("reconcile", "list.csv", "--gateway", "STRIPE", "--exported-at", at)
    assert ("MISSING_THERE", "DELETED", "u1", "cus_1") in differences("list.csv.report.csv")
    assert (await reconciled(command, "list.csv", at)).startswith("1 deactivated")


async def test_a_customer_that_is_saved_while_a_list_is_applied_is_as_the_list_says(
    command, folder, customers, graph, monkeypatch
):
    async def unsaved_and_then_saved(customer_list, after, size):
        if rows := await unsaved(customer_list, after, size):
            saved = asyncio.run_coroutine_threadsafe(graph.save("u7", "STRIPE", "cus_7"), loop)
            await asyncio.wrap_future(saved)
        return rows

    loop, unsaved, at = asyncio.get_running_loop(), CustomerList.unsaved, now()
    monkeypatch.setattr(CustomerList, "unsaved", unsaved_and_then_saved)
    (folder / "list.csv").write_text("id,deleted\ncus_7,true\n")
    await reconciled(command, "list.csv", at)
    token = await graph.customer("STRIPE", "cus_7")
    assert (token["isActive"], token["deactivatedAt"]) == (False, at)


async def test_a_reconcile_that_loses_its_database_says_how_far_it_came_and_how_to_continue(
    command, listing, customers, graph, monkeypatch
):
    """Its list lies in a temporary table, which goes with its connection."""

    async def changes_and_then_nothing(customer_list, after, size):
        rows = await changes(customer_list, after, size)
        await customer_list._raw.close()
        return rows

    changes = CustomerList.changes
    monkeypatch.setattr(CustomerList, "changes", changes_and_then_nothing)
    at = now()
    arguments = ["reconcile", listing("cus_1", "cus_2", "cus_3"), "--gateway", "STRIPE", "--exported-at", at]
    lost = await command(*arguments, "--apply", "--max-missing", "100")
    assert lost.status == 1
    assert lost.err.splitlines()[-1] == (
        "gateway-tokens: reconcile list.csv with STRIPE stopped, because the database was lost"
        " (1 deactivated, 0 activated, 3 verified): run the same command again to continue"
    )
    monkeypatch.undo()
    assert (await graph.customer("STRIPE", "cus_4"))["isActive"] is False


@pytest.mark.parametrize("after_chunks", [0, 1])
async def test_a_reconcile_that_is_interrupted_says_how_far_it_came(
    command, listing, customers, graph, monkeypatch, after_chunks
):
    async def changes_and_then_interrupted(customer_list, after, size):
        chunks.append(after)
        if len(chunks) > after_chunks:
            raise asyncio.CancelledError
        return await changes(customer_list, after, size)

    chunks, changes = [], CustomerList.changes
    monkeypatch.setattr(CustomerList, "changes", changes_and_then_interrupted)
    arguments = ["reconcile", listing("cus_1", "cus_2", "cus_3"), "--gateway", "STRIPE", "--exported-at", now()]
    stopped = await command(*arguments, "--apply", "--max-missing", "100")
    how_far = f"{after_chunks} deactivated, 0 activated, {3 * after_chunks} verified"
    assert stopped.err.splitlines()[-1] == (
        f"gateway-tokens: reconcile list.csv with STRIPE was interrupted ({how_far}; later customers may have been"
        " changed): run the same command again to continue"
    )
    assert (await graph.customer("STRIPE", "cus_4"))["isActive"] is not bool(after_chunks)


async def test_what_is_younger_than_the_list_is_not_missing_in_it(command, listing, customers, graph, differences):
    active = await graph.customer("STRIPE", "cus_1")
    await graph.deactivate(active)
    at = now()
    await graph.save("u6", "STRIPE", "cus_6")
    await graph.save("u2", "STRIPE", "cus_2b", replaces="cus_2")
    await graph.activate(active)
    await command("reconcile", listing("cus_3"), "--gateway", "STRIPE", "--exported-at", at)
    assert differences("list.csv.report.csv") == [("MISSING_THERE", "NOT_LISTED", "u4", "cus_4")]


async def test_a_former_identifier_is_neither_missing_here_nor_verified(
    command, listing, customers, graph, differences
):
    await graph.save("u2", "STRIPE", "cus_2b", replaces="cus_2")
    await graph.delete(await graph.customer("STRIPE", "cus_3"))
    file = listing("cus_1", "cus_2", "cus_3", "cus_4", "cus_2b")
    assert (await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", now())).status == 0
    assert differences("list.csv.report.csv") == []
    verified = await graph.customer("STRIPE", "cus_2b")
    assert (bool(verified["lastVerifiedAt"]), verified["version"]) == (True, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "id,deleted\ncus_1,true\ncus_2,false\ncus_3,\ncus_4,0\n"),
        ("list.csv", "Deleted;Customer ID\nTRUE;cus_1\n;cus_2\n;cus_3\n;cus_4\n"),
        ("list.json", json.dumps([{"id": f"cus_{n}", "deleted": n == 1} for n in range(1, 5)])),
        (
            "list.json",
            json.dumps({"object": "list", "data": [{"id": "cus_1", "object": "customer", "deleted": True}]})
            + "".join(json.dumps({"id": f"cus_{n}"}) for n in range(2, 5)),
        ),
    ],
)
async def test_a_list_that_says_deleted_is_believed(command, folder, customers, differences, graph, name, content):
    (folder / name).write_text(content)
    arguments = ["reconcile", name, "--gateway", "STRIPE", "--apply", "--exported-at", now(), "--max-missing", "25"]
    assert "1 deactivated, 0 activated, 3 verified" in (await command(*arguments)).err
    assert differences(f"{name}.report.csv") == [("MISSING_THERE", "DELETED", "u1", "cus_1")]
    assert (await graph.customer("STRIPE", "cus_1"))["deactivationReason"] == "GATEWAY_DELETED"


TIMES = ["2021-11-22", "2021-11-22 17:28:02", "2021-11-22T17:28:02.5+01:00", "2021-11-22 17:28:02 UTC", 1600000000]
NO_TIMES = [
    None,
    "",
    " ",
    "0",
    0,
    "NULL",
    "null",
    "\\N",
    "None",
    "NaN",
    "nan",
    "-",
    False,
    "FALSE",
    "0000-00-00 00:00:00",
]
UNREADABLE = ["N", "nein", "n/a", "?", True, "yes", "7", "deleted", "1970-01-01", "9999-12-31 23:59:59", "infinity"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
async def test_only_a_past_time_says_when_a_customer_was_deleted(command, write, differences, reasons, graph, ending):
    said = {f"cus_{n:02}": at for n, at in enumerate([*TIMES, *NO_TIMES, *UNREADABLE], 10)}
    for name in said:
        await graph.save(f"u-{name}", "STRIPE", name)
    file = write(f"list.{ending}", *({"id": name, "Deleted At": at} for name, at in said.items()))
    refused = await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--exported-at", now())
    assert f"add --allow-unreadable {len(UNREADABLE)}." in refused.err
    assert reasons(f"{file}.rejects.{ending}") == [
        (line, "deletedAt", "INVALID")
        for line, at in enumerate(said.values(), 1 if ending == "jsonl" else 2)
        if at in UNREADABLE
    ]
    assert {said[name]: why for _, why, _, name in differences(f"{file}.report.csv")} == {
        **dict.fromkeys(TIMES, "DELETED"),
        **dict.fromkeys(UNREADABLE, "NOT_LISTED"),
    }


@pytest.mark.parametrize(
    ("lines", "says", "way_out"),
    [
        ("id\n", "4 of 4 active tokens (100.0 %) are missing there: 4 not listed, 0 ", ["--max-missing", "100"]),
        ("id\ncus_1\n", "3 of 4 active tokens (75.0 %) are missing there: 3 not listed", ["--max-missing", "75"]),
        (
            "id,deleted\ncus_1,no\ncus_2,no\ncus_3,yes\n",
            "2 of 4 active tokens (50.0 %) are missing there: 1 not listed, 1 listed as deleted.",
            ["--max-missing", "50"],
        ),
        ("id\ncus_1\ncus_2\ncus_3\n", "--max-missing 10 allows no more.", ["--max-missing", "25"]),
        ("id\ncus_1\ncus_2\ncus_3\ncus_4\nx y\n", "add --allow-unreadable 1", ["--allow-unreadable", "1"]),
        ("id,x\ncus_1,\ncus_2,\ncus_3,\ncus_4\n", "add --allow-unreadable 1", None),
    ],
)
async def test_a_list_that_looks_incomplete_is_applied_only_by_the_switch_of_its_guard(
    command, folder, customers, everything, lines, says, way_out
):
    (folder / "list.csv").write_text(lines)
    before = await everything()
    arguments = ["reconcile", "list.csv", "--gateway", "STRIPE", "--apply", "--exported-at", now()]
    other = ["--allow-unreadable", "9"] if way_out and way_out[0] == "--max-missing" else ["--max-missing", "100"]
    for refused in (await command(*arguments), await command(*arguments, *other)):
        assert refused.status == 1
        assert refused.err.splitlines()[-1].startswith("gateway-tokens: ")
        assert says in refused.err.splitlines()[-1]
        assert refused.err.endswith(" Nothing was changed.\n")
        assert await everything() == before
    if way_out:
        await command(*arguments, *way_out)
        assert "Nothing was changed" not in (await command(*arguments, *way_out)).err


async def test_a_line_whose_identifier_breaks_a_rule_is_named_and_quotes_no_card_number(
    command, folder, customers, reasons
):
    (folder / "list.jsonl").write_text(
        '{"id": "cus_1"}\n{"id": null}\n{"id": ""}\n{"email": "x"}\n[\n{"id": "a\\u0000"}\n{"id": "cus_2 "}\n'
        '{"id": 4111111111111111}\n{"id": "\'cus_3"}\n{"id": "5E+12"}\n'
    )
    outcome = await command("reconcile", "list.jsonl", "--gateway", "STRIPE")
    assert "1 listed, 1 known here" in outcome.err
    assert [(line, code) for line, _, code in reasons("list.jsonl.rejects.jsonl")] == [
        *((line, "INVALID") for line in range(2, 8)),
        (8, "CARD_NUMBER"),
        (9, "INVALID"),
        (10, "INVALID"),
    ]
    assert all("4111" not in path.read_text() for path in folder.glob("list.jsonl.*"))


async def test_rows_of_empty_cells_are_none(command, folder, customers):
    (folder / "list.csv").write_text("id,email\ncus_1,a\n,\n\ncus_2,\n,,,\n")
    outcome = await command("reconcile", "list.csv", "--gateway", "STRIPE")
    assert "2 listed, 2 known here" in outcome.err
    assert "rejected" not in outcome.err


@pytest.mark.parametrize(
    "header", ["id", "ID", "Customer ID", "customer_id", "CUSTOMER", "gatewayCustomerId", "Shopper Reference"]
)
async def test_the_column_of_the_identifiers_is_known_by_its_meaning(command, folder, customers, header):
    (folder / "list.csv").write_text(f"Email,{header},x\na,cus_1,b\n")
    (folder / "list.jsonl").write_text(json.dumps({"Email": "a", header: "cus_1"}))
    for file in ("list.csv", "list.jsonl"):
        assert "1 listed, 1 known here" in (await command("reconcile", file, "--gateway", "STRIPE")).err


async def test_two_columns_that_may_hold_the_identifiers_are_a_question(command, folder, customers):
    (folder / "list.csv").write_text("id,Customer ID\nch_1,cus_1\n")
    asked = await command("reconcile", "list.csv", "--gateway", "STRIPE")
    assert (asked.status, asked.err) == (
        2,
        "gateway-tokens: The columns 'id' and 'Customer ID' may both be id. Say which with --column id=COLUMN.\n",
    )
    for column in ("Customer ID", "id=Customer ID", "id=customer_id"):
        outcome = await command("reconcile", "list.csv", "--gateway", "STRIPE", "--column", column, "--report", "r.csv")
        assert "1 listed, 1 known here, 3 missing there, 0 inactive here, 0 missing here;" in outcome.err
        assert "differences are in r.csv" in outcome.err


async def test_a_list_is_as_old_as_its_file_to_compare_and_has_to_be_dated_to_be_applied(
    command, listing, customers, folder, everything
):
    file = listing("cus_1")
    long_ago = (datetime.now(UTC) - timedelta(days=1)).timestamp()
    os.utime(folder / file, (long_ago, long_ago))
    assert " 0 missing there" in (await command("reconcile", file, "--gateway", "STRIPE")).err
    assert " 3 missing there" in (await command("reconcile", file, "--gateway", "STRIPE", "--exported-at", now())).err
    before = await everything()
    refused = await command("reconcile", file, "--gateway", "STRIPE", "--apply", "--max-missing", "100")
    assert (refused.status, "--apply needs --exported-at TIME" in refused.err) == (2, True)
    assert await everything() == before


async def test_a_gateway_without_tokens_is_taken_for_a_slip(command, listing, customers):
    outcome = await command("reconcile", listing("cus_1"), "--gateway", "STRIP")
    assert (outcome.status, outcome.err) == (
        2,
        "gateway-tokens: There are no tokens at STRIP, only at STRIPE, STRIPE_EU.\n",
    )


async def test_identifiers_of_payment_methods_are_reported_unless_a_form_is_asked_for(
    command, listing, customers, graph, monkeypatch
):
    await graph.save("u6", "STRIPE", "pm_1")
    await graph.save("u7", "STRIPE", "tok_1")
    await graph.save("u8", "STRIPE", "pmx")
    await graph.save("u1", "PAYPAL", "pm_2")
    file = listing("cus_1")
    outcome = await command("reconcile", file, "--gateway", "STRIPE")
    assert "customer ids look like payment methods or tokens (pm_…, tok_…, card_…, src_…): 2 at STRIPE." in outcome.err
    monkeypatch.setenv("CUSTOMER_IDS", "STRIPE:cus_*")
    assert "payment methods" not in (await command("reconcile", file, "--gateway", "STRIPE")).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list.csv", "--gateway", "STRIPE", "--exported-at", "2999-01-01T00:00:00Z"], "is in the future"),
        (
            ["list.csv", "--gateway", "STRIPE", "--exported-at", "yesterday"],
            "--exported-at 'yesterday': A time",
        ),
        (["list.csv", "--gateway", "STRIPE", "--column", "no"], "The file has no column 'no'"),
        (["list.csv", "--gateway", "STRIPE", "--column", "4111111111111111"], "The file has no column '…'"),
        (["list.csv", "--gateway", "STRIPE", "--check", "--apply"], "cannot be used together"),
        (["none.csv", "--gateway", "STRIPE"], "none.csv does not exist"),
    ],
)
async def test_a_wrong_call_is_one_line(command, customers, listing, arguments, says):
    listing("cus_1")
    outcome = await command("reconcile", *arguments)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert says in outcome.err


@pytest.mark.parametrize("more", ["true", "cut"])
async def test_a_list_that_says_it_is_incomplete_is_never_applied(command, folder, customers, everything, more):
    text = '{"object": "list", "data": [{"id": "cus_1"}, {"id": "cus_2"}, {"id": "cus_3"}], "has_more": true}'
    (folder / "list.json").write_text(text if more == "true" else text[:60])
    before = await everything()
    guards = ["--max-missing", "100", "--allow-unreadable", "9"]
    outcome = await command("reconcile", "list.json", "--gateway", "STRIPE", "--apply", "--exported-at", now(), *guards)
    assert (outcome.status, await everything()) == (2, before)
    assert ("one page of a list" if more == "true" else "is incomplete") in outcome.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--report", "list.csv"], "--report list.csv would overwrite list.csv"),
        (["--rejects", "list.csv"], "--rejects list.csv would overwrite list.csv"),
        (["--report", "same.csv", "--rejects", "same.csv"], "--rejects same.csv would overwrite same.csv"),
        (["--report", "list.csv.rejects.csv"], "--rejects list.csv.rejects.csv would overwrite list.csv.rejects.csv"),
    ],
)
async def test_no_file_is_written_over_another(command, customers, listing, folder, arguments, says):
    before = (folder / listing("cus_1")).read_bytes()
    outcome = await command("reconcile", "list.csv", "--gateway", "STRIPE", *arguments)
    assert outcome.status == 2
    assert says in outcome.err
    assert (folder / "list.csv").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["list.csv"]


async def test_a_pipe_can_be_compared(command, customers):
    outcome = await command("reconcile", "-", "--gateway", "STRIPE", stdin=b"id\ncus_1\n")
    assert "1 listed, 1 known here, 3 missing there" in outcome.err


async def test_chunks_follow_one_another(customers, database_url, table):
    async with ConnectionPool.open(database_url, size=2) as database:
        store = TokenStore(database)
        async with store.transaction(()) as transaction:
            customer_list = CustomerList(transaction.raw, "STRIPE", datetime.now(UTC))
            await customer_list.load([ListedCustomer(f"cus_{n}", is_deleted=False) for n in (1, 2, 3)])
            reports = [report async for report in apply(store, customer_list, max_tokens=2)]
    assert [(report.verified, report.deactivated) for report in reports] == [(2, 0), (1, 1), (0, 0)]
    assert await table("select gateway_customer_id from customer_gateway_tokens where not is_active order by 1") == [
        ("cus_4",),
        ("cus_5",),
    ]
