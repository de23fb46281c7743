"""`gateway-tokens check` and `purge` as commands: settings, what they say, and that no key is ever shown."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from graphql_api.storage.connector import described
from tests.gateway_apis import standin
from tests.gateway_apis.standin import KEY, serving
from tests.until import until

SUMMARY = (
    "check of STRIPE: 1 deletions read, 3 asked: 2 verified, 0 activated, 2 deactivated, 0 unknown there, 0 unanswered"
)
CHECK = ("check", "--gateway", "STRIPE", "--rate", "10000")


@pytest.fixture
def address(stripe, monkeypatch, folder):
    """A server that answers as the stand-in does, and settings that lead there."""
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    for name in ("TEST_GATEWAYS", "STRIPE_ACCOUNTS", "MOLLIE_API_KEY", "LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    with serving(stripe) as url:
        monkeypatch.setenv("STRIPE_API_BASE", url)
        yield url


async def test_a_check_says_what_it_found_and_writes_a_report(command, address, tokens, stripe, folder):
    await tokens(4)
    stripe.delete("cus_1")
    stripe.customers["cus_2"] = standin.DELETED
    outcome = await command(*CHECK, "--report", "report.csv")
    assert (outcome.status, outcome.out, outcome.err) == (
        0,
        "",
        f"{SUMMARY}; details are in report.csv\n",
    )
    first, *lines = (folder / "report.csv").read_text().splitlines()
    assert first == "difference,reason,userId,gateway,gatewayCustomerId,id"
    assert [line.rpartition(",")[0] for line in lines] == [
        "MISSING_THERE,DELETED,u1,STRIPE,cus_1",
        "MISSING_THERE,DELETED,u2,STRIPE,cus_2",
    ]
    again = await command(*CHECK)
    assert (again.status, "0 asked" in again.err) == (0, True)


async def test_what_is_unknown_or_unanswered_is_status_1(command, address, tokens, stripe):
    await tokens(3)
    del stripe.customers["cus_2"]
    outcome = await command(*CHECK)
    assert (outcome.status, "1 unknown there" in outcome.err) == (1, True)
    stripe.customers["cus_2"] = standin.LIVE
    assert (await command(*CHECK, "--older-than", "0h")).status == 0
    stripe.faults.extend([None, 500, 500, 500])
    outcome = await command(*CHECK, "--older-than", "0h", "--limit", "1", "--since", "30d")
    says = "1 asked: 0 verified, 0 activated, 0 deactivated, 0 unknown there, 1 unanswered\n"
    assert (outcome.status, says in outcome.err) == (1, True)


async def test_what_is_unknown_is_reported_until_it_is_solved_though_it_is_not_asked_for_again(
    command, address, tokens, stripe, graph, folder
):
    await tokens(8)
    for number in range(2, 9):
        del stripe.customers[f"cus_{number}"]
    assert "7 unknown there, 0 unanswered\n" in (await command(*CHECK)).err
    await graph.verify("STRIPE", "cus_3")
    await graph.deactivate_customer("STRIPE", "cus_4")
    await graph.saved("u5", "STRIPE", "cus_5_new", replaces="cus_5")
    await graph.delete(await graph.customer("STRIPE", "cus_6"))
    await graph.activate(await graph.customer("STRIPE", "cus_7"))
    await graph.deactivate(await graph.customer("STRIPE", "cus_8"), reason="FRAUD")
    outcome = await command(*CHECK, "--report", "report.csv")
    says = "0 asked: 0 verified, 0 activated, 0 deactivated, 0 unknown there, 0 unanswered, 2 unknown since an earlier"
    assert (outcome.status, says in outcome.err) == (1, True), outcome.err
    _, *lines = (folder / "report.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "MISSING_THERE,UNKNOWN,u2,STRIPE,cus_2",
        "MISSING_THERE,UNKNOWN,u8,STRIPE,cus_8",
    ]
    stripe.customers.update(dict.fromkeys(("cus_2", "cus_3", "cus_5_new", "cus_7", "cus_8"), standin.LIVE))
    outcome = await command(*CHECK, "--older-than", "0h")
    assert (outcome.status, "unknown since" in outcome.err) == (0, False)
    assert (await command(*CHECK)).status == 0


async def test_a_list_of_unknown_customers_fills_no_more_than_it_may(
    command, address, tokens, stripe, connection, monkeypatch
):
    monkeypatch.setenv("MAX_UNKNOWN_CUSTOMERS", "3")
    await tokens(1)
    for number in range(10):
        stripe.delete(f"other_{number}")
    assert (await command(*CHECK)).status == 0
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 3


async def test_a_check_that_stops_says_why_and_how_far_it_came(command, address, tokens, stripe, folder):
    await tokens(3)
    stripe.faults.extend([None, None, 401])
    outcome = await command(*CHECK, "--report", "report.csv")
    assert outcome.status == 1
    assert outcome.err.startswith("gateway-tokens: check of STRIPE stopped (0 deletions read, ")
    assert "Stripe refuses the key (status 401). It needs Customers: Read" in outcome.err
    assert outcome.err.endswith("The next run continues there.\n")
    assert (folder / "report.csv").exists()


@pytest.mark.parametrize("fault", [401, 403, 500, "html", "cut", None])
async def test_no_key_is_ever_shown(command, address, tokens, stripe, folder, fault, monkeypatch, connection):
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    await tokens(2)
    stripe.faults.extend([fault] * 200)
    outcome = await command(*CHECK, "--report", "report.csv")
    assert stripe.authorized_by == {f"Bearer {KEY}"}
    stored = await connection.fetch("select * from gateway_checks")
    assert KEY[8:] not in "".join([outcome.out, outcome.err, (folder / "report.csv").read_text(), str(stored)])


async def test_the_summary_is_a_line_of_the_log_for_programs(command, address, tokens, stripe, monkeypatch):
    monkeypatch.setenv("LOG_FORMAT", "json")
    await tokens(2)
    lines = (await command(*CHECK)).err.splitlines()
    (line,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert (line["event"], line["gateway"], line["ended"]) == ("check", "STRIPE", "complete")
    assert (line["asked"], line["verified"], line["gone"]) == (2, 2, 0)
    stripe.faults.append(401)
    lines = (await command(*CHECK)).err.splitlines()
    (line,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert line["ended"].startswith("Stripe refuses the key")


@pytest.mark.parametrize(
    ("variables", "arguments", "says"),
    [
        (
            {"STRIPE_API_KEY": ""},
            (),
            "There is no API key for STRIPE. Set STRIPE_API_KEY=rk_live_…\n",
        ),
        (
            {"STRIPE_API_KEY": "STRIPE_EU:rk_live_abcdefgh"},
            (),
            "There is no API key for STRIPE, only for STRIPE_EU. Set STRIPE_API_KEY=rk_live_…\n",
        ),
        (
            {"STRIPE_API_KEY": "rk_test_abcdefgh"},
            (),
            "STRIPE_API_KEY has a test key for STRIPE, which is in live mode; use a live key, or add STRIPE to TEST_",
        ),
        ({"TEST_GATEWAYS": "STRIPE"}, (), "STRIPE_API_KEY has a live key for STRIPE, which is in test mode"),
        (
            {"STRIPE_API_KEY": "whsec_abcdefgh"},
            (),
            "STRIPE_API_KEY must contain restricted API keys: rk_live_",
        ),
        (
            {"STRIPE_API_KEY": "rk_live_abcdefgh,rk_live_other123"},
            (),
            "must have one key for each gateway; STRIPE has two",
        ),
        ({"GATEWAYS": "PAYPAL"}, (), "STRIPE_API_KEY names STRIPE, which is not in GATEWAYS"),
        ({"STRIPE_API_BASE": "http://api.example"}, (), "STRIPE_API_BASE must be a URL such as https://host; http://"),
        ({"STRIPE_API_BASE": "ftp://x"}, (), "STRIPE_API_BASE must be a URL such as https://host; it does not begin"),
        ({"STRIPE_ACCOUNTS": "STRIPE:acct_1,STRIPE:acct_2"}, (), "STRIPE_ACCOUNTS: STRIPE has 2 accounts"),
        ({"MOLLIE_API_KEY": "STRIPE:live_abcdefgh"}, (), "STRIPE has keys for Stripe and another API"),
        ({}, ("--gateway", "S T"), "'S T' is not a valid gateway name. A name is a letter"),
        ({}, ("--gateway", "STRYPE"), "There is no API key for STRYPE, only for STRIPE. Did you mean STRIPE?\n"),
        ({}, ("--gateway", "ADYEN"), "if ADYEN is the name of a Stripe account, set STRIPE_API_KEY=ADYEN:rk_live_…\n"),
        ({}, ("--gateway", "MOLLIE"), "There is no API key for MOLLIE, only for STRIPE. Set MOLLIE_API_KEY=live_…\n"),
        ({}, ("--gateway", "MOLLIE_TEST"), "Set MOLLIE_API_KEY=MOLLIE_TEST:test_…\n"),
        ({}, ("--gateway", "STRIPE_EU"), "Set STRIPE_API_KEY=STRIPE_EU:rk_live_…\n"),
        (
            {},
            ("--gateway", "PAYPAL"),
            (
                "only for STRIPE. Only Stripe and Mollie have an API here; if PAYPAL is the name of a Stripe account, "
                "set STRIPE_API_KEY=PAYPAL:rk_live_…\n"
            ),
        ),
        ({}, ("--since", "soon"), "--since must be a time such as 2026-11-30T08:00:00Z, or a duration such as 30d"),
        ({}, ("--since", "2999-01-01T00:00:00Z"), "--since is in the future"),
        ({}, ("--older-than", "7"), "--older-than must be a duration such as 12h or 7d, not '7'."),
        ({}, ("--rate", "0"), "Invalid value for '--rate'"),
        ({}, ("--report", "no/such/folder.csv"), "no/such/folder.csv cannot be opened: No such file or directory"),
    ],
)
async def test_a_check_that_cannot_be_made_is_one_line_and_status_2(
    command, address, tokens, monkeypatch, variables, arguments, says
):
    await tokens(1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = await command(*CHECK, *arguments)
    assert (outcome.status, says in outcome.err) == (2, True), outcome.err
    assert len(outcome.err.splitlines()) == 1


async def test_a_gateway_without_tokens_is_told_those_that_have_some(command, address, tokens, monkeypatch):
    await tokens(1, gateway="STRIPE_EU")
    outcome = await command(*CHECK)
    assert (outcome.status, outcome.err) == (2, "gateway-tokens: There are no tokens at STRIPE, only at STRIPE_EU.\n")


async def test_a_connected_account_is_named_in_each_request(command, address, tokens, stripe, monkeypatch):
    monkeypatch.setenv("STRIPE_ACCOUNTS", "STRIPE:acct_1")
    await tokens(1)
    seen = []
    real = stripe.respond

    def respond(method, path, headers):
        seen.append(headers.get("stripe-account"))
        return real(method, path, headers)

    stripe.respond = respond
    await command(*CHECK)
    assert seen == ["acct_1", "acct_1"]


@pytest.mark.parametrize("variables", [{}, {"no_proxy": "127.0.0.1"}])
async def test_a_proxy_is_used_unless_it_is_not_for_that_host(command, address, tokens, stripe, monkeypatch, variables):
    await tokens(1)
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:1" if not variables else address)
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"http_proxy": address if not variables else "http://127.0.0.1:1", **variables}.items():
        monkeypatch.setenv(name, value)
    outcome = await command(*CHECK)
    assert (outcome.status, "1 asked: 1 verified" in outcome.err) == (0, True), outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
async def test_a_check_that_is_ended_goes_on_where_it_was(process, address, tokens, stripe, connection, ending):
    await tokens(150)
    running = await process("check", "--gateway", "STRIPE", "--rate", "100")
    await until(lambda: len(stripe.asked) > 60, "customers are asked for")
    running.send_signal(ending)
    _, err = await running.communicate()
    if ending == signal.SIGINT:
        assert b"check of STRIPE was interrupted" in err
        assert running.returncode == 130
    else:
        await connection.execute("update gateway_customer_checks set leased_until = leased_until - interval '1 h'")
    assert await connection.fetchval("select count(*) from customer_gateway_tokens where last_verified_at is null") > 0
    following = await process("check", "--gateway", "STRIPE", "--rate", "200")
    _, err = await following.communicate()
    assert following.returncode == 0, err.decode()
    assert await connection.fetchval("select count(*) from customer_gateway_tokens where last_verified_at is null") == 0
    again = [count for customer, count in stripe.count().items() if count > 1 and customer != "events"]
    assert len(again) <= 50  # what was asked for and not written down yet: one batch


@pytest.mark.slow
async def test_a_check_that_is_killed_at_any_moment_loses_no_deletion(process, address, tokens, stripe, connection):
    """The list has four pages; then customers are asked for."""
    await tokens(40)
    now, random = datetime.now(UTC), Random()
    listed = random.sample(range(1, 41), 8)
    for number in listed:
        stripe.delete(f"cus_{number}", now - timedelta(days=random.uniform(1, 29)))
    for number in range(340):
        stripe.delete(f"other_{number}", now - timedelta(hours=random.uniform(0, 20)))
    stripe.events.sort(key=lambda event: event["created"], reverse=True)
    unlisted = f"cus_{next(number for number in range(1, 41) if number not in listed)}"
    stripe.customers[unlisted] = standin.DELETED
    moments, is_killed = [random.randint(1, 3), random.randint(5, 35)], True
    for moment in moments:
        asked = len(stripe.asked)
        running = await process("check", "--gateway", "STRIPE", "--rate", "200")
        ends = asyncio.ensure_future(running.communicate())
        await until(lambda: len(stripe.asked) >= asked + moment or ends.done(), "customers are asked about")  # noqa: B023
        with suppress(ProcessLookupError):
            running.kill()
        await ends
        is_killed &= running.returncode == -signal.SIGKILL
        await connection.execute("update gateway_customer_checks set leased_until = leased_until - interval '1 h'")
    stripe.asked.clear()
    following = await process("check", "--gateway", "STRIPE", "--rate", "1000")
    _, err = await following.communicate()
    assert following.returncode == 0, (moments, err.decode())
    assert stripe.count()["events"] == 4 or not is_killed  # what was killed did not come to the end of the list
    rows = await connection.fetch("select gateway_customer_id, is_active, deactivated_at from customer_gateway_tokens")
    assert {row[0] for row in rows if not row[1]} == {*(f"cus_{number}" for number in listed), unlisted}, moments
    times = {each["data"]["object"]["id"]: each["created"] for each in stripe.events}
    assert {row[0]: row[2].timestamp() for row in rows if row[0] in times} == {
        name: at for name, at in times.items() if name.startswith("cus_")
    }


# --- purge


@pytest.fixture
async def erased(tokens, graph):
    """Three users are erased, and one stays, whose customer was confirmed."""
    await tokens(4)
    for user in ("u1", "u2", "u3"):
        await graph.erase(user)
    await graph.verify("STRIPE", "cus_4")


async def test_a_purge_says_what_it_deleted_and_keeps_what_must_be_kept(
    command, address, erased, stripe, graph, folder
):
    (folder / "hold.txt").write_text("# a legal hold\n\ncus_2\n")
    del stripe.customers["cus_3"]
    outcome = await command("purge", "--gateway", "stripe", "--yes", "--skip-file", "hold.txt", "--report", "left.csv")
    assert outcome.status == 1
    assert outcome.err.splitlines() == [
        "purge of STRIPE: --skip-file has 1 customers; on the list, and kept: 1",
        "purge of STRIPE: 1 deleted, 0 deleted before, 1 unknown there, 0 failed, 1 skipped; details are in left.csv",
    ]
    assert (folder / "left.csv").read_text() == (
        "outcome,reason,gateway,gatewayCustomerId\n"
        "DELETED,,STRIPE,cus_1\nSKIPPED,,STRIPE,cus_2\nUNKNOWN,,STRIPE,cus_3\n"
    )
    assert stripe.count("DELETE") == {"cus_1": 1, "cus_3": 1}
    left = [node["gatewayCustomerId"] for node in (await graph.erasures())["nodes"]]
    assert left == ["cus_2", "cus_3"]


@pytest.mark.parametrize(
    "line",
    ["\ufeffcus_2", "cus_2\u200b", "\u00adcus_2", "cus_2\0", '"cus_2"', "cus_2,", "\u3164"]
    + [f"cus_2{blank}" for blank in "\ufe0f\u2800\u034f\U000e0100"],
)
async def test_a_line_that_may_not_name_what_is_meant_stops_a_purge_before_it_deletes_anything(
    command, address, erased, stripe, folder, line
):
    (folder / "hold.txt").write_text(f"cus_1\n{line}\n", encoding="utf-8")
    outcome = await command("purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt")
    assert (outcome.status, stripe.count("DELETE")) == (2, {})
    assert "hold.txt, line 2: write one customer id on each line" in outcome.err


async def test_a_purge_says_how_many_of_the_customers_are_kept_before_it_deletes_any(
    command, address, erased, stripe, folder, monkeypatch
):
    (folder / "hold.txt").write_text("cus_1\ncus_9\n")
    monkeypatch.setenv("STRIPE_API_KEY", "rk_live_refused")
    outcome = await command("purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt")
    says = "purge of STRIPE: --skip-file has 2 customers; on the list, and kept: 1"
    assert (outcome.status, outcome.err.splitlines()[0]) == (1, says)


async def test_an_id_to_be_kept_in_another_case_stops_a_purge_before_it_deletes_anything(
    command, address, erased, stripe, folder
):
    (folder / "hold.txt").write_text("cus_1\nCUS_2\n")
    arguments = ["purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt"]
    refused = await command(*arguments)
    assert (refused.status, stripe.asked) == (2, [])
    assert "CUS_2 is not on the list of customers to be deleted, but cus_2 is." in refused.err
    (folder / "hold.txt").write_text("cus_1\nCUS_2\ncus_2\n")
    await command(*arguments)
    assert stripe.count("DELETE") == {"cus_3": 1}


async def test_a_dry_run_of_a_purge_says_that_nothing_is_deleted_yet(command, address, erased, stripe, folder):
    outcome = await command("purge", "--gateway", "STRIPE", "--dry-run", "--report", "list.csv")
    assert (outcome.status, outcome.err) == (
        0,
        "dry run of purge of STRIPE: 3 would be deleted, 0 skipped; details are in list.csv\n",
    )
    assert (folder / "list.csv").read_text().splitlines()[1] == "WOULD_DELETE,,STRIPE,cus_1"
    assert stripe.count("DELETE") == {}


async def test_a_dry_run_of_a_purge_of_nothing_says_that_nothing_would_be_deleted(command, address):
    outcome = await command("purge", "--gateway", "STRIPE", "--dry-run")
    assert (outcome.status, outcome.err) == (0, "dry run of purge of STRIPE: 0 would be deleted, 0 skipped\n")


async def test_each_deletion_that_fails_has_its_reason(command, address, erased, stripe, folder):
    stripe.faults.extend([None, 500, 500, 500])
    outcome = await command("purge", "--gateway", "STRIPE", "--yes", "--report", "left.csv")
    assert outcome.status == 1
    assert outcome.err.splitlines()[0] == "purge of STRIPE: cus_1 failed: status 500"
    assert (folder / "left.csv").read_text().splitlines()[1] == "FAILED,status 500,STRIPE,cus_1"


async def test_a_report_never_overwrites_what_must_be_kept(command, address, folder, erased, stripe):
    (folder / "hold.txt").write_text("cus_1\n")
    outcome = await command(
        "purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt", "--report", "./hold.txt"
    )
    assert outcome.status == 2
    assert "would overwrite" in outcome.err
    assert (folder / "hold.txt").read_text() == "cus_1\n"


async def test_a_purge_needs_a_yes(command, address, erased, stripe):
    outcome = await command("purge", "--gateway", "STRIPE")
    assert (outcome.status, "Pass --yes to confirm, or --dry-run" in outcome.err, stripe.asked) == (2, True, [])


@pytest.mark.parametrize(
    ("answer", "deleted", "status", "said"),
    [
        ("y\n", 3, 0, b"3 deleted"),
        ("n\n", 0, 1, b"gateway-tokens: nothing was deleted\n"),
        ("\n", 0, 1, b"gateway-tokens: nothing was deleted\n"),
        ("maybe\n\4", 0, 130, b"gateway-tokens: interrupted\n"),
    ],
)
async def test_on_a_terminal_a_purge_asks_first(address, erased, stripe, answer, deleted, status, said):
    leader, follower = os.openpty()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", "purge", "--gateway", "STRIPE"),
        stdin=follower,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    os.write(leader, answer.encode())
    out, err = await running.communicate()
    os.close(leader)
    os.close(follower)
    database = described(os.environ["DATABASE_URL"])
    question = f"Delete 3 customers of erased users at STRIPE, as the database {database} lists them?"
    assert f"{question} This cannot be undone.".encode() in out + err
    assert said in out + err
    assert b"Traceback" not in err
    assert (sum(stripe.count("DELETE").values()), running.returncode) == (deleted, status)


@pytest.mark.parametrize("content", ['"cus_1"\n', "cus_1,cus_2\n", "STRIPE;cus_1", "# cus_1\n", ""])
async def test_a_file_of_customers_to_keep_has_their_ids_alone(command, address, erased, stripe, folder, content):
    (folder / "hold.txt").write_text(content)
    outcome = await command("purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt")
    assert (outcome.status, "one customer id on each line" in outcome.err, stripe.asked) == (2, True, [])


async def test_a_file_of_customers_to_keep_must_be_there(command, address, erased, stripe):
    outcome = await command("purge", "--gateway", "STRIPE", "--yes", "--skip-file", "hold.txt")
    assert (outcome.status, "hold.txt does not exist" in outcome.err, stripe.asked) == (2, True, [])


@pytest.mark.slow
async def test_a_purge_that_is_killed_at_any_moment_deletes_all_at_last_and_nothing_else(
    process, address, tokens, stripe, graph
):
    await tokens(24)
    for number in range(1, 21):
        await graph.erase(f"u{number}")
    for number in range(18, 21):
        await graph.saved(f"v{number}", "STRIPE", f"cus_{number}")  # saved again, for another user
    await graph.verify("STRIPE", "cus_24")
    moments = [Random().randint(1, 8) for _ in range(3)]
    for moment in moments:
        asked = len(stripe.asked)
        running = await process("purge", "--gateway", "STRIPE", "--yes")
        ends = asyncio.ensure_future(running.communicate())
        await until(lambda: len(stripe.asked) >= asked + moment or ends.done(), "customers are deleted")  # noqa: B023
        with suppress(ProcessLookupError):
            running.kill()
        await ends
    running = await process("purge", "--gateway", "STRIPE", "--yes")
    _, err = await running.communicate()
    assert running.returncode == 0, (moments, err.decode())
    deleted = {customer for customer, state in stripe.customers.items() if state == standin.DELETED}
    assert deleted == {f"cus_{number}" for number in range(1, 18)}, moments
    assert (await graph.erasures())["nodes"] == []
    assert sum(stripe.count("DELETE").values()) <= 17 + len(moments), moments  # what was under way is repeated
