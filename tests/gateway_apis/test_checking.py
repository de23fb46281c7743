"""Checks: what each answer does to a token, what stops a check, and how several share the work."""

import asyncio
import itertools
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphql_api.domain.errors import UnavailableError
from graphql_api.gateway_apis import checking
from graphql_api.gateway_apis.client import StoppedError
from graphql_api.storage.checks import CheckStore
from graphql_api.storage.tokens import TokenStore
from tests.gateway_apis import standin
from tests.gateway_apis.conftest import client_of

STATE = "select gateway_customer_id, is_active, deactivation_reason, last_verified_at is not null"
ONE_EACH = f"{STATE} from customer_gateway_tokens order by id"


async def states(table):
    """By customer: whether its token is active, why not, and whether it was verified."""
    return {customer: tuple(state) for customer, *state in await table(ONE_EACH)}


async def changes(table):
    return await table(
        "select gateway_customer_id, action, reason, actor from customer_gateway_token_events"
        " where action <> 'CREATED' order by at"
    )


async def test_what_is_there_is_verified_and_has_no_history_and_what_is_deleted_is_deactivated(
    check, tokens, stripe, table
):
    await tokens(3)
    stripe.customers["cus_2"] = standin.DELETED
    tally, lines = await check(stripe)
    assert str(tally) == (
        "0 deletions read, 3 asked: 2 verified, 0 activated, 1 deactivated, 0 unknown there, 0 unanswered"
    )
    assert await states(table) == {
        "cus_1": (True, None, True),
        "cus_2": (False, "GATEWAY_DELETED", False),
        "cus_3": (True, None, True),
    }
    assert await changes(table) == [("cus_2", "DEACTIVATED", "GATEWAY_DELETED", "check")]
    assert [(line.difference, line.reason, line.user_id, line.customer) for line in lines] == [
        ("MISSING_THERE", "DELETED", "u2", "cus_2")
    ]


async def test_what_is_deleted_and_was_inactive_is_counted(check, tokens, graph, stripe):
    await tokens(2)
    await graph.deactivate(await graph.customer("STRIPE", "cus_1"), reason="FRAUD")
    stripe.customers["cus_1"] = standin.DELETED
    for dry_run in (True, False):
        tally, _ = await check(stripe, dry_run=dry_run)
        assert str(tally) == (
            "0 deletions read, 2 asked: 1 verified, 0 activated, 0 deactivated, 0 unknown there, 0 unanswered, "
            "1 already inactive"
        )


async def test_a_customer_is_verified_at_the_time_of_asking(check, tokens, stripe, table, clock, connection):
    await tokens(2)
    before = await connection.fetchval("select clock_timestamp()")
    stripe.faults.extend([None, (429, 60)])  # the list, and then one customer has to wait
    await check(stripe, rate=10)
    times = sorted(at for (at,) in await table("select last_verified_at from customer_gateway_tokens"))
    assert before.replace(microsecond=0) <= times[0] < before + timedelta(seconds=30) < times[1]


async def test_a_token_that_was_deactivated_by_mistake_of_ours_is_left_alone_and_one_that_returned_is_activated(
    check, tokens, stripe, graph, table
):
    await tokens(2)
    await graph.deactivate(await graph.customer("STRIPE", "cus_1"), reason="FRAUD")
    await check(stripe)
    assert (await states(table))["cus_1"] == (False, "FRAUD", True)


async def test_the_gateways_list_of_deletions_comes_first_and_is_dated_by_it(check, tokens, stripe, graph):
    await tokens(3)
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    for number in range(250):
        stripe.delete(f"cus_other_{number}")
    stripe.delete("cus_2", at)
    tally, _ = await check(stripe, limit=1)
    assert (tally.deletions, tally.gone) == (251, 1)
    assert stripe.asked[:3] == [("GET", "events")] * 3
    gone = await graph.customer("STRIPE", "cus_2")
    assert (gone["deactivationReason"], gone["deactivatedAt"]) == (
        "GATEWAY_DELETED",
        at.isoformat(timespec="microseconds"),
    )


async def test_a_deletion_of_a_customer_that_is_not_saved_yet_counts_once_it_is(check, tokens, stripe, graph):
    await tokens(1)
    stripe.delete("cus_9")
    await check(stripe)
    saved = await graph.saved("u9", "STRIPE", "cus_9")
    assert saved["deactivationReason"] == "GATEWAY_DELETED"


async def test_a_page_of_deletions_is_written_at_once(check, tokens, stripe, monkeypatch, table):
    await tokens(60)
    transactions, real = [], TokenStore.transaction

    def counted(*arguments, **options):
        transactions.append(options)
        return real(*arguments, **options)

    for number in range(1, 241):
        stripe.delete(f"cus_{number}")
    monkeypatch.setattr(TokenStore, "transaction", counted)
    tally, lines = await check(stripe)
    assert (tally.deletions, tally.gone, len(lines)) == (240, 60, 60)
    assert len(transactions) == 4  # three pages, of which one has tokens
    assert await table("select count(*) from gateway_customer_reports") == [(180,)]


async def test_a_list_of_deletions_says_what_the_same_reports_would_one_by_one(check, graph, stripe, table):
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    for gateway in ("STRIPE", "MIRROR"):
        for number in range(1, 11):
            await graph.save(f"u{number}", gateway, f"cus_{number}")
        await graph.deactivate(await graph.customer(gateway, "cus_2"), reason="FRAUD")
        await graph.verify(gateway, "cus_3")
        await graph.deactivate_customer(gateway, "cus_4", occurredAt=(at + timedelta(minutes=1)).isoformat())
        await graph.saved("u5", gateway, "cus_5_new", replaces="cus_5")
        await graph.delete(await graph.customer(gateway, "cus_6"))
        await graph.deactivate_customer(gateway, "cus_8", occurredAt=(at - timedelta(minutes=1)).isoformat())
        await graph.deactivate(await graph.customer(gateway, "cus_9"), reason="OTHER")
        await graph.activate(await graph.customer(gateway, "cus_9"))
    await graph.erase("u7")
    listed = [*(f"cus_{number}" for number in range(1, 11)), "cus_5_new", "cus_unknown", "4242424242424242"]
    for customer in (*listed, "cus_1"):
        await graph.deactivate_customer("MIRROR", customer, occurredAt=at.isoformat())
        stripe.delete(customer, at)
    stripe.delete("cus_10", at - timedelta(minutes=5))  # of two, the later one counts
    stripe.events.sort(key=lambda event: event["created"], reverse=True)
    await check(stripe, older_than=timedelta(days=1), limit=0)
    stored = {}
    for gateway in ("STRIPE", "MIRROR"):
        stored[gateway] = [
            await table(f"select {columns} from {source} where gateway = '{gateway}' order by 1, 2")  # noqa: S608
            for source, columns in {
                "customer_gateway_tokens": "user_id, is_active, version, deactivation_reason,"
                f" case when deactivated_at in ('{at}', '{at - timedelta(minutes=1)}', '{at + timedelta(minutes=1)}')"
                " then deactivated_at end",
                "customer_gateway_token_events": "gateway_customer_id, version, user_id, is_active, action, reason",
                "gateway_customer_reports": "gateway_customer_id, gone_at, expires_at is null",
                "gateway_erasures": "gateway_customer_id, gone_at",
            }.items()
        ]
    assert stored["STRIPE"] == stored["MIRROR"]
    assert [len(rows) for rows in stored["STRIPE"]] == [8, 21, 4, 1]


async def test_the_list_is_read_on_from_where_the_last_check_ended(check, tokens, stripe, monkeypatch):
    await tokens(1)
    now = datetime.now(UTC)
    for days in (40, 29, 1):
        stripe.delete(f"cus_{days}_days", now - timedelta(days=days))
    assert (await check(stripe))[0].deletions == 2
    assert (await check(stripe))[0].deletions == 0
    stripe.delete("cus_late")
    assert (await check(stripe))[0].deletions == 1
    assert (await check(stripe, since=now - timedelta(days=2)))[0].deletions == 2


async def test_a_list_that_was_not_read_to_its_end_is_read_again(check, tokens, stripe, table):
    await tokens(1)
    for number in range(150):
        stripe.delete(f"cus_other_{number}")
    stripe.delete("cus_1", datetime.now(UTC) - timedelta(days=1))
    stripe.events.append(stripe.events.pop(0))  # it is on the second page
    stripe.faults.extend([None, 500, 500, 500])
    with pytest.raises(StoppedError, match="list of deletions cannot be read: status 500"):
        await check(stripe)
    tally, _ = await check(stripe)
    assert tally.deletions == 151


@pytest.mark.parametrize("since_before_the_place", [True, False])
async def test_a_gap_that_since_leaves_is_read_by_the_next_check(check, tokens, stripe, pool, since_before_the_place):
    await tokens(1)
    now = datetime.now(UTC)
    await CheckStore(pool).deletions_read("STRIPE", now - timedelta(days=3))
    stripe.delete("cus_x", now - timedelta(days=2))
    await check(stripe, since=now - timedelta(days=4 if since_before_the_place else 1))
    assert (await check(stripe))[0].deletions == (0 if since_before_the_place else 1)


async def test_a_place_of_a_clock_that_was_ahead_hides_no_deletion(check, tokens, stripe, pool):
    await tokens(1)
    now = datetime.now(UTC)
    await CheckStore(pool).deletions_read("STRIPE", now + timedelta(days=1))
    stripe.delete("cus_1", now - timedelta(days=2))
    tally, _ = await check(stripe)
    assert (tally.deletions, tally.gone) == (1, 1)


async def test_an_unknown_customer_is_reported_and_never_deactivated(check, tokens, stripe, table):
    await tokens(3)
    del stripe.customers["cus_2"]
    tally, lines = await check(stripe)
    assert (tally.verified, tally.unknown) == (2, 1)
    assert (await states(table))["cus_2"] == (True, None, False)
    assert [(line.reason, line.customer) for line in lines] == [("UNKNOWN", "cus_2")]


async def test_an_id_that_would_name_another_path_is_not_asked_for(check, graph, tokens, stripe):
    await tokens(1)
    for number, odd in enumerate(["..", ".", "a/b", "a?b", "a#b", "%2e%2e", "a\\b"]):
        await graph.save(f"odd{number}", "STRIPE", odd)
    tally, _ = await check(stripe)
    assert (tally.verified, tally.unknown) == (1, 7)
    assert set(stripe.count()) == {"events", "cus_1"}


@pytest.mark.parametrize("fault", [500, 502, 503, 404, 302, "timeout", "cut", "html"])
async def test_an_outage_is_tried_again_and_changes_nothing(check, tokens, stripe, table, clock, fault):
    await tokens(1)
    before = await table("select * from customer_gateway_tokens")
    stripe.faults.extend([None, fault, fault, fault])
    tally, lines = await check(stripe)
    assert (tally.verified, tally.unanswered, lines[0].difference) == (0, 1, "UNANSWERED")
    assert await table("select * from customer_gateway_tokens") == before
    assert [seconds for seconds in clock.slept if seconds >= 1] == [1, 4]
    stripe.faults.extend([None, fault, fault])
    assert (await check(stripe))[0].verified == 1


async def test_ten_outages_in_a_row_stop_the_check_and_what_was_answered_stays(check, tokens, stripe, table):
    await tokens(60)
    stripe.faults.extend([None] * 21 + [500] * 1000)
    lines = []
    with pytest.raises(StoppedError, match="did not answer 10 requests in a row; the last one got status 500"):
        await check(stripe, lines=lines)
    assert len([line for line in lines if line.difference == "UNANSWERED"]) >= 10
    assert len(stripe.asked) < 21 + 3 * (10 + checking.CONCURRENCY)
    assert [state[2] for state in (await states(table)).values()].count(True) == 20
    stripe.faults.clear()
    assert (await check(stripe, older_than=timedelta(hours=1)))[0].verified == 40


async def test_outages_that_answers_interrupt_stop_nothing(check, tokens, stripe):
    await tokens(60)
    stripe.faults.extend([None, *[500] * 6])
    tally, _ = await check(stripe)
    assert tally.verified + tally.unanswered == 60


async def test_a_gateway_that_is_asked_too_often_gets_half_as_many_requests_after_what_it_asks_to_wait(
    check, tokens, stripe, clock
):
    await tokens(3)
    stripe.faults.extend([None, None, (429, 30)])
    tally, _ = await check(stripe, rate=10)
    assert tally.verified == 3
    assert clock.now - 1000 == pytest.approx(30 + 3 * 0.1, abs=0.3)
    assert sorted(stripe.count().values()) == [1, 1, 1, 2]


async def test_five_times_too_often_in_a_row_stops_the_check(check, tokens, stripe, table):
    await tokens(1)
    stripe.faults.extend([None, *[(429, 1)] * 5])
    with pytest.raises(
        StoppedError, match=r"answered 5 times in a row that requests come too often\. Use a lower --rate"
    ):
        await check(stripe)
    assert await table("select throttled from gateway_checks") == [(5,)]
    stripe.faults.extend([None, *[(429, 1)] * 4])
    assert (await check(stripe))[0].verified == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_stops_the_check_at_the_first_request_and_nothing_changes(
    check, tokens, stripe, table, status
):
    await tokens(3)
    stripe.delete("cus_1")
    before = await table("select * from customer_gateway_tokens")
    stripe.faults.append(status)
    with pytest.raises(StoppedError, match=f"Stripe refuses the key .status {status}.. It needs Customers: Read"):
        await check(stripe)
    assert (len(stripe.asked), await table("select * from customer_gateway_tokens")) == (1, before)


async def test_a_key_that_is_revoked_meanwhile_stops_the_check(check, tokens, stripe, table):
    await tokens(3)
    stripe.faults.extend([None, None, 401])
    with pytest.raises(StoppedError, match="refuses the key"):
        await check(stripe)
    assert all(is_active for is_active, *_ in (await states(table)).values())


@pytest.mark.parametrize("moment", ["customer", "message", "event"])
async def test_the_wrong_mode_stops_the_check(check, tokens, stripe, table, moment):
    await tokens(3)
    if moment == "event":
        stripe.delete("cus_9")
    if moment != "message":
        stripe.mode = standin.TEST
        stripe.customers = dict.fromkeys(stripe.customers, standin.TEST)
        stripe.events = [{**event, "livemode": False} for event in stripe.events]
    else:
        stripe.customers["cus_1"] = standin.TEST
    with pytest.raises(StoppedError, match="answers for the other mode"):
        await check(stripe)
    assert all(is_active for is_active, *_ in (await states(table)).values())


@pytest.mark.parametrize("count", [1, 200])
async def test_another_accounts_key_changes_nothing_and_is_told(check, tokens, stripe, table, count):
    await tokens(count)
    stripe.customers.clear()
    before = await table("select * from customer_gateway_tokens")
    with pytest.raises(
        StoppedError, match=f"knows none of {min(count, 50)} customers: this looks like another account"
    ):
        await check(stripe)
    assert len(stripe.asked) == 1 + min(count, 50)
    assert await table("select * from customer_gateway_tokens") == before


async def test_many_unknown_customers_stop_nothing_where_the_account_knows_another(check, tokens, stripe, graph):
    await tokens(1)
    await check(stripe)
    await tokens(120)
    for number in range(2, 110):
        del stripe.customers[f"cus_{number}"]
    tally, _ = await check(stripe)
    assert (tally.unknown, tally.verified) == (108, 12)


async def test_what_was_checked_longest_ago_comes_first_and_what_was_answered_is_not_due_for_a_while(
    check, tokens, stripe, connection
):
    await tokens(9)
    del stripe.customers["cus_5"]
    await connection.execute(
        "update customer_gateway_tokens set last_verified_at = now() - interval '50 h' where user_id = 'u1'"
    )
    await connection.execute(
        "update customer_gateway_tokens set last_verified_at = now() - interval '90 h' where user_id in ('u2', 'u3')"
    )
    day = timedelta(hours=24)
    await check(stripe, limit=6, older_than=day)
    assert set(stripe.count()) == {"events", *(f"cus_{number}" for number in range(4, 10))}
    await check(stripe, limit=2, older_than=day)
    await check(stripe, older_than=day)
    assert [customer for _, customer in stripe.asked if customer != "events"][-1] == "cus_1"
    await check(stripe, older_than=day)
    assert set(stripe.count().values()) == {1, 4}  # the list each time, each customer once


async def test_a_dry_run_asks_everything_and_changes_nothing(check, tokens, stripe, connection, table):
    await tokens(70)
    stripe.delete("cus_1")
    stripe.customers["cus_2"] = standin.DELETED
    del stripe.customers["cus_3"]
    selects = [
        "select * from customer_gateway_tokens",
        "select * from gateway_customer_reports",
        "select * from gateway_checks",
        "select * from gateway_customer_checks",
    ]
    before = [await table(select) for select in selects]
    tally, lines = await check(stripe, dry_run=True)
    assert str(tally) == (
        "1 deletions read, 69 asked: 67 verified, 0 activated, 2 deactivated, 1 unknown there, 0 unanswered"
    )
    assert sorted(line.customer for line in lines) == ["cus_1", "cus_2", "cus_3"]
    assert [await table(select) for select in selects] == before


async def test_several_checks_share_the_work_and_ask_for_no_customer_twice(check, tokens, stripe):
    await tokens(400)
    tallies = await asyncio.gather(*(check(stripe, older_than=timedelta(hours=1)) for _ in range(4)))
    counts = stripe.count()
    assert counts.pop("events") == 4
    assert set(counts.values()) == {1}
    assert sum(tally.verified for tally, _ in tallies) == len(counts) == 400


async def test_a_token_whose_customer_is_replaced_meanwhile_is_not_verified(check, tokens, stripe, graph, table):
    await tokens(1)
    stripe.customers["cus_new"] = standin.LIVE
    answer = stripe.answer

    def replacing(method, path, query):
        if path.endswith("cus_1"):
            replaced.append(asyncio.ensure_future(graph.save("u1", "STRIPE", "cus_new", replaces="cus_1")))
        return answer(method, path, query)

    replaced = []
    stripe.answer = replacing
    real, stripe.handle = stripe.handle, None

    async def handle(request):
        response = await real(request)
        await asyncio.gather(*replaced)
        return response

    stripe.handle = handle
    await check(stripe)
    assert await states(table) == {"cus_new": (True, None, False)}


async def test_a_token_that_is_deleted_leaves_no_trace_in_the_checks(check, tokens, stripe, graph, table):
    await tokens(2)
    await check(stripe)
    assert len(await table("select * from gateway_customer_checks")) == 2
    await graph.delete(await graph.customer("STRIPE", "cus_1"))
    await check(stripe)
    assert len(await table("select * from gateway_customer_checks")) == 1


async def test_what_checks_found_is_counted_and_the_end_of_a_whole_one_is_remembered(
    check, tokens, stripe, pool, connection
):
    await tokens(4)
    stripe.customers["cus_2"] = standin.DELETED
    del stripe.customers["cus_3"]
    began = await connection.fetchval("select clock_timestamp()")
    await check(stripe)
    (summary,) = await CheckStore(pool).summaries()
    assert (summary.gateway, *summary.counts) == ("STRIPE", 2, 1, 1, 0, 0)
    assert summary.finished_at > began
    assert summary.oldest_at > began
    stripe.faults.extend([500] * 100)
    with pytest.raises(StoppedError):
        await check(stripe)
    assert (await CheckStore(pool).summaries())[0].finished_at == summary.finished_at


async def test_a_database_that_is_away_for_a_moment_stops_nothing(check, tokens, stripe, monkeypatch, clock, table):
    await tokens(3)
    stripe.customers["cus_2"] = standin.DELETED
    del stripe.customers["cus_3"]
    failing = {"due": 2, "lease": 1, "settle": 3}

    def flaky(name, real):
        async def call(self, *arguments):
            if failing[name]:
                failing[name] -= 1
                raise UnavailableError("The database is away.")
            return await real(self, *arguments)

        return call

    for name in failing:
        monkeypatch.setattr(CheckStore, name, flaky(name, getattr(CheckStore, name)))
    tally, lines = await check(stripe)
    assert (tally.asked, tally.verified, tally.gone, tally.unknown) == (3, 1, 1, 1)
    assert [line.customer for line in lines] == ["cus_2", "cus_3"]
    assert len(await changes(table)) == 1
    assert sum(clock.slept) >= 12


# --- whatever the gateway answers

_ANSWERS = [None, None, None, None, 500, 404, 302, "timeout", "cut", "html", (429, 1)]
_STOPS = [(429, 400), 401, 403]
# The list is asked for first: it is mostly read, so that customers are asked for. What fails once is asked for again.
_FAULTS = st.builds(
    lambda first, others: [first, *itertools.chain.from_iterable(others)],
    st.sampled_from([None] * 12 + _ANSWERS[4:] + _STOPS),
    st.lists(
        st.sampled_from([[each] * times for each in _ANSWERS for times in (1, 3)] + [[each] for each in _STOPS]),
        max_size=14,
    ),
)
# One that is deleted soon after it was verified is not asked for: only the list tells.
_CUSTOMERS = st.sampled_from([standin.LIVE, standin.LIVE, standin.DELETED, "listed", "listed alone", "unknown"])


HALF_AN_HOUR_LATER = """
  update customer_gateway_tokens set last_verified_at = last_verified_at - interval '30 min';
  update gateway_customer_checks set asked_at = asked_at - interval '30 min';
  update gateway_checks set deletions_read_at = deletions_read_at - interval '30 min'
"""


class Killed(BaseException):
    """A check ends here, as if its process had been killed."""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    customers=st.lists(_CUSTOMERS, min_size=1, max_size=12),
    runs=st.lists(st.tuples(_FAULTS, st.none() | st.integers(0, 30)), min_size=1, max_size=4),
)
@example(customers=[standin.DELETED], runs=[([None, 500, 500, 500], None)])
@example(customers=[standin.LIVE, standin.DELETED], runs=[([], 2)])
@example(customers=["listed alone", standin.LIVE], runs=[([500, 500, 500], None), ([None, 401], None)])
async def test_no_customer_that_is_there_is_deactivated_and_each_deleted_one_is_at_last(
    check, graph, connection, customers, runs
):
    await connection.execute(
        "truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events,"
        " gateway_customer_reports, gateway_checks, gateway_customer_checks"
    )
    stripe = standin.Stripe()
    names = [f"cus_{number}" for number in range(len(customers))]
    inputs = [{"userId": name, "gateway": "STRIPE", "gatewayCustomerId": name} for name in names]
    verified = [name for name, state in zip(names, customers, strict=True) if state == "listed alone"]
    if verified:
        await graph.save_many([each for each in inputs if each["userId"] in verified])
        stripe.customers = dict.fromkeys(verified, standin.LIVE)
        await check(stripe, overlap=timedelta(0))
        await connection.execute(HALF_AN_HOUR_LATER)
    await graph.save_many(inputs)
    for name, state in zip(names, customers, strict=True):
        if state == "listed alone":
            stripe.delete(name, datetime.now(UTC) - timedelta(minutes=20))
        elif state == "listed":
            stripe.delete(name, datetime.now(UTC) + timedelta(seconds=1))
        elif state != "unknown":
            stripe.customers[name] = state
    real = stripe.handle
    deleted = {name for name, state in stripe.customers.items() if state == standin.DELETED}
    for faults, killed_after in runs:
        stripe.faults.clear()
        stripe.faults.extend(faults)
        stripe.handle = _killing(real, killed_after)
        with suppress(StoppedError, Killed):
            await check(stripe, older_than=timedelta(hours=1), overlap=timedelta(0))
        inactive = await connection.fetch("select gateway_customer_id from customer_gateway_tokens where not is_active")
        assert {row[0] for row in inactive} <= deleted
    stripe.faults.clear()
    stripe.handle = real
    # What a check that was killed had taken is free again after a while.
    await connection.execute("update gateway_customer_checks set leased_until = null")
    # Of tokens that are inactive and customers that are unknown alone, it looks like another account.
    with nullcontext() if standin.LIVE in stripe.customers.values() else suppress(StoppedError):
        await check(stripe, older_than=timedelta(hours=1), overlap=timedelta(0))
    rows = await connection.fetch(
        "select gateway_customer_id, is_active, last_verified_at from customer_gateway_tokens"
    )
    assert {row[0] for row in rows if not row[1]} == deleted
    assert {row[0] for row in rows if row[2]} >= {name for name, state in stripe.customers.items() if state == "live"}
    lines = await connection.fetchval("select count(*) from customer_gateway_token_events where action <> 'CREATED'")
    assert lines == len(deleted)


def _killing(handle, after):
    left = after

    async def killing(request):
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Killed
        return await handle(request)

    return killing


async def test_it_keeps_to_its_rate(pool, stripe, tokens, clock):
    async with client_of(stripe, clock, rate=25) as client:
        for _ in range(500):
            await client.customer("cus_1")
    assert clock.now - 1000 == pytest.approx(500 / 25, rel=0.05)


async def test_the_place_in_the_list_and_unknown_customers_wait_for_the_right_account(check, tokens, stripe):
    await tokens(4)
    customers = dict(stripe.customers)
    stripe.customers.clear()
    with pytest.raises(StoppedError, match="another account"):
        await check(stripe, older_than=timedelta(hours=24))
    stripe.customers.update(customers)
    stripe.delete("cus_1", datetime.now(UTC) - timedelta(days=3))
    tally, _ = await check(stripe, older_than=timedelta(hours=24))
    assert (tally.deletions, tally.gone, tally.asked) == (1, 1, 3)


@pytest.mark.parametrize("other", [{"account": "acct_other"}, {"context": "acct_other"}])
async def test_an_event_of_another_account_deactivates_nothing(check, tokens, stripe, other):
    await tokens(1)
    stripe.delete("cus_1")
    stripe.customers["cus_1"] = standin.LIVE
    stripe.events[0].update(other)
    tally, _ = await check(stripe)
    assert (tally.deletions, tally.gone, tally.verified) == (0, 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"created": -1},
        {"created": True},
        {"created": None},
        {"created": 1_700_000_000.5},
        {"data": {"object": {"id": "cus_1", "object": "discount"}}},
        {"data": {"object": {"id": "cus_\0", "object": "customer"}}},
        {"type": "customer.created"},
        {"id": 5},
        {"id": "rk_live_1", "created": -1},
    ],
)
async def test_an_event_that_is_none_stops_the_check_and_is_named(check, tokens, stripe, change):
    await tokens(1)
    stripe.delete("cus_1")
    stripe.events[0].update(change)
    stripe._events = lambda _: {"object": "list", "data": stripe.events, "has_more": False}
    named = "without a valid id" if "id" in change else stripe.events[0]["id"]
    with pytest.raises(StoppedError, match=f"the malformed event {named}$"):
        await check(stripe)


@pytest.mark.parametrize("created", [4_070_908_800, 10**18, 10**30])
async def test_a_deletion_of_the_future_is_dated_at_its_reading(check, tokens, stripe, graph, created):
    await tokens(1)
    stripe.delete("cus_1")
    stripe.events[0]["created"] = created
    assert (await check(stripe))[0].gone == 1
    at = datetime.fromisoformat((await graph.customer("STRIPE", "cus_1"))["deactivatedAt"])
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=5)


def _unending(_query):
    number = next(count_of_events)
    return _page_with(f"evt_{number}")


def _in_a_circle(query):
    return _page_with("evt_b" if query.get("starting_after") == "evt_a" else "evt_a")


def _the_same_again(_query):
    return _page_with("evt_a")


count_of_events = itertools.count()


def _page_with(name):
    data = {"object": {"id": "cus_other", "object": "customer"}}
    created = int(datetime.now(UTC).timestamp())
    event = {"id": name, "type": "customer.deleted", "created": created, "livemode": True, "data": data}
    return {"object": "list", "data": [event], "has_more": True}


def _empty_with_more(_query):
    return {"object": "list", "data": [], "has_more": True}


@pytest.mark.parametrize(
    ("pages", "says", "requests"),
    [
        (_unending, "list of deletions has no end", 21),
        (_in_a_circle, "list of deletions has no end", 3),
        (_the_same_again, "list of deletions has no end", 2),
        (_empty_with_more, "list of deletions cannot be read: a page without events before the end of the list", 3),
    ],
)
async def test_a_list_without_an_end_stops_the_check_and_is_read_again(
    check, tokens, stripe, table, pages, says, requests
):
    await tokens(1)
    real, stripe._events = stripe._events, pages
    with pytest.raises(StoppedError, match=says):
        await check(stripe, max_pages=20)
    assert stripe.count() == {"events": requests}
    assert await table("select * from gateway_checks where deletions_read_at is not null") == []
    stripe._events = real
    stripe.delete("cus_1", datetime.now(UTC) - timedelta(days=9))
    assert (await check(stripe))[0].deletions == 1
