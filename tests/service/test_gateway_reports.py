"""What gateways report, twice, late, early and in any order. `test_life.py` holds the rule against a model."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graph import problems, token_of, wanted
from tests.service.test_races import wait_for_locks
from tests.until import until

UNKNOWN = {"gatewayToken": None, "user": None, "userErrors": []}
GONE = (False, "GATEWAY_DELETED")
REASONS = ["GATEWAY_DELETED", "USER_REQUEST", "MERGED", "FRAUD", "OTHER"]
ACTIVE = (True, None)


def ago(seconds):
    """A moment that lies so many seconds back."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def state(token):
    return token["isActive"], token["deactivationReason"]


async def test_a_deleted_customer_is_deactivated_once(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    gone = await graph.deactivate_customer("stripe", "cus_1")
    inactive = token_of(gone)
    assert gone["user"] == {"id": "u1"}
    assert (*state(inactive), inactive["version"]) == (*GONE, 2)
    assert inactive["deactivatedAt"] <= inactive["updatedAt"]
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", reason="FRAUD")) == inactive
    assert token_of(await graph.deactivate(token, reason="FRAUD")) == inactive
    lines = [(line["action"], line["reason"]) for line in await graph.history(token)]
    assert lines == [("DEACTIVATED", "GATEWAY_DELETED"), ("CREATED", None)]


@pytest.mark.parametrize("stored", REASONS)
async def test_deactivating_an_inactive_token_is_no_change_for_any_reason(graph, stored):
    inactive = token_of(await graph.deactivate(await graph.saved("u1", "STRIPE", "cus_1"), reason=stored))
    for reason in REASONS:
        for payload in (
            await graph.deactivate(inactive, reason=reason),
            await graph.deactivate_customer("STRIPE", "cus_1", reason=reason),
            await graph.deactivate_customer("STRIPE", "cus_1", reason=reason, occurredAt=ago(60)),
            await graph.save("u1", "STRIPE", "cus_1", isActive=False),
            await graph.update(inactive, isActive=False),
        ):
            later = {"deactivatedAt": token_of(payload)["deactivatedAt"]} if stored == reason == GONE[1] else {}
            inactive |= later  # of two deletions, the latest counts
            assert token_of(payload) == inactive
    assert len(await graph.history(inactive)) == 2


async def test_a_reason_of_our_own_counts_from_when_it_happened_and_no_report_lifts_it(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    at = ago(60)
    fraud = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at, reason="FRAUD"))
    assert (fraud["deactivatedAt"], *state(fraud)) == (at, False, "FRAUD")
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1")) == fraud
    verified = token_of(await graph.verify("STRIPE", "cus_1"))
    assert verified == fraud | {"lastVerifiedAt": verified["lastVerifiedAt"]}


@pytest.mark.parametrize("seconds", [0, 10, 100_000])
async def test_a_deletion_counts_however_long_before_the_saving_it_happened(graph, seconds):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = ago(seconds)
    inactive = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at))
    assert (*state(inactive), inactive["deactivatedAt"]) == (*GONE, at)
    assert (await graph.history(token))[0]["reason"] == "GATEWAY_DELETED"


async def test_a_deletion_from_before_the_last_activation_changes_nothing(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = ago(0)
    token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at))
    active = token_of(await graph.activate(token))
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)) == active
    late = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60), reason="FRAUD"))
    assert late == active
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(-1)))["version"] == 4


async def test_an_activation_outdates_a_deletion_that_is_dated_ahead(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    ahead = ago(-200)
    token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ahead))
    active = token_of(await graph.activate(token))
    assert state(active) == ACTIVE
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ahead)) == active


async def test_of_several_deletions_the_latest_counts_without_another_version(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    first = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60)))
    at = ago(30)
    second = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at))
    assert second == first | {"deactivatedAt": at}
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(45))) == second
    assert len(await graph.history(token)) == 2


@pytest.mark.parametrize("order", [1, -1])
async def test_a_deletion_reported_by_the_id_of_the_token_is_the_gateways_word_too(graph, connection, order):
    token, at = await graph.saved("u1", "STRIPE", "cus_1"), ago(60)
    reports = [
        lambda: graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at),
        lambda: graph.deactivate(token, reason="GATEWAY_DELETED"),
    ]
    first, second = [token_of(await report()) for report in reports[::order]]
    latest = max(first["deactivatedAt"], second["deactivatedAt"])
    assert second == first | {"deactivatedAt": latest}  # which is no change, as any deactivation of an inactive token
    assert latest > at
    assert len(await graph.history(token)) == 2
    assert state(token_of(await graph.verify("STRIPE", "cus_1", at=ago(30)))) == GONE  # it exists no longer since
    assert problems(await graph.deactivate(token, reason="GATEWAY_DELETED", expectedVersion=1))[0][0] == "STALE"


async def test_a_deletion_reported_by_the_id_of_a_token_is_kept_beside_our_own_reason(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    fraud = token_of(await graph.deactivate(token, reason="FRAUD"))
    assert token_of(await graph.deactivate(token, reason="GATEWAY_DELETED")) == fraud
    await graph.delete(token)
    assert state(await graph.saved("u1", "STRIPE", "cus_1")) == GONE


async def test_a_deletion_that_is_reported_now_comes_after_a_confirmation_that_is_dated_ahead(graph):
    token, ahead = await graph.saved("u1", "STRIPE", "cus_1"), ago(-200)
    for report in (
        lambda: graph.deactivate_customer("STRIPE", "cus_1"),
        lambda: graph.deactivate(token, reason="GATEWAY_DELETED"),
    ):
        await graph.verify("STRIPE", "cus_1", at=ahead)
        assert state(token_of(await report())) == GONE
        assert state(token_of(await graph.verify("STRIPE", "cus_1", at=ahead))) == GONE
        await graph.activate(token)


async def test_a_later_confirmation_makes_a_deleted_customer_active_again(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60))
    assert state(token_of(await graph.verify("STRIPE", "cus_1", at=ago(90)))) == GONE
    at = ago(30)
    active = token_of(await graph.verify("STRIPE", "cus_1", at=at))
    assert (*state(active), active["lastVerifiedAt"], active["deactivatedAt"]) == (*ACTIVE, at, None)
    lines = [(line["action"], line["reason"], line["version"]) for line in await graph.history(token)]
    assert lines[0] == ("ACTIVATED", "VERIFIED", 3)
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(45))) == active


async def test_a_verification_is_no_change(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for seconds in (30, 20, 25, 10):
        verified = token_of(await graph.verify("STRIPE", "cus_1", at=ago(seconds)))
        assert verified == token | {"lastVerifiedAt": verified["lastVerifiedAt"]}
    assert [line["action"] for line in await graph.history(token)] == ["CREATED"]
    update = await graph.update(token, description="x", expectedVersion=1)
    assert token_of(update) == verified | {
        "description": "x",
        "version": 2,
        "updatedAt": update["gatewayToken"]["updatedAt"],
    }


async def test_an_unknown_customer_is_gone_anyway_but_cannot_be_verified(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    assert await graph.deactivate_customer("STRIPE", "cus_9") == UNKNOWN
    assert await graph.deactivate_customer("PAYPAL", "cus_1") == UNKNOWN
    assert problems(await graph.verify("STRIPE", "cus_9")) == [("NOT_FOUND", ["gatewayCustomerId"])]


async def _save(graph):
    return await graph.saved("u1", "STRIPE", "cus_1")


async def _create(graph):
    return token_of(await graph.create("u1", "STRIPE", "cus_1"))


async def _batch(graph):
    return (await graph.save_many([wanted("u1", "STRIPE", "cus_1"), wanted("u2", "STRIPE", "cus_2")]))["gatewayTokens"][
        0
    ]


async def _replacement(graph):
    await graph.saved("u1", "STRIPE", "cus_0")
    return await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_0")


async def _update(graph):
    return token_of(await graph.update(await graph.saved("u1", "STRIPE", "cus_0"), gatewayCustomerId="cus_1"))


@pytest.mark.parametrize("way", [_save, _create, _batch, _replacement, _update])
async def test_what_was_reported_of_an_unknown_customer_counts_once_it_is_saved(graph, connection, way):
    at = ago(60)
    assert await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at) == UNKNOWN
    token = await way(graph)
    assert (*state(token), token["deactivatedAt"]) == (*GONE, at)
    assert (await graph.history(token))[0]["reason"] == "GATEWAY_DELETED"
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 0  # the token says it now
    assert state(token_of(await graph.verify("STRIPE", "cus_1"))) == ACTIVE


async def test_a_confirmation_of_an_unknown_customer_outdates_a_deletion_that_comes_after_it(graph):
    verified_at = ago(30)
    await graph.verify("STRIPE", "cus_1", at=verified_at)
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60))
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert (*state(token), token["lastVerifiedAt"]) == (*ACTIVE, verified_at)


@pytest.mark.parametrize("is_active", [None, False])
async def test_the_state_of_an_identifier_stays_with_it_when_it_is_replaced(graph, is_active):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.verify("STRIPE", "cus_1", at=ago(90))
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60))
    wish = {} if is_active is None else {"isActive": is_active}
    token = await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1", **wish)
    assert state(token) == (ACTIVE if is_active is None else (False, "OTHER"))
    assert token["lastVerifiedAt"] is None
    back = await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_2")
    assert state(back) == (GONE if is_active is None else (False, "OTHER"))


@pytest.mark.parametrize("wish", [{}, {"isActive": False}, {"isActive": True}])
async def test_an_update_that_replaces_the_identifier_leaves_its_state_behind(graph, wish):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.verify("STRIPE", "cus_1", at=ago(90))
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60))
    new = token_of(await graph.update(token, gatewayCustomerId="cus_2", **wish))
    assert (*state(new), new["lastVerifiedAt"]) == (*(ACTIVE if wish.get("isActive", True) else (False, "OTHER")), None)


@pytest.mark.parametrize("reason", ["FRAUD", "USER_REQUEST", "OTHER", "MERGED"])
async def test_a_reason_of_our_own_stays_when_the_identifier_is_replaced_and_when_the_gateway_confirms(graph, reason):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate(token, reason=reason)
    assert state(token_of(await graph.verify("STRIPE", "cus_1"))) == (False, reason)
    assert state(token_of(await graph.deactivate_customer("STRIPE", "cus_1"))) == (False, reason)
    assert state(await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")) == (False, reason)
    assert state(token_of(await graph.verify("STRIPE", "cus_2"))) == (False, reason)
    assert state(token_of(await graph.update(token, gatewayCustomerId="cus_3"))) == (False, reason)


async def test_a_deleted_token_that_is_saved_again_is_still_gone(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate_customer("STRIPE", "cus_1")
    await graph.delete(token)
    assert state(await graph.saved("u1", "STRIPE", "cus_1")) == GONE
    assert state(await graph.saved("u1", "STRIPE", "cus_1", isActive=True)) == ACTIVE  # that is our decision


async def test_by_a_former_customer_the_token_is_found_but_neither_verified_nor_deactivated(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    token = await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1")) == token
    assert token_of(await graph.verify("STRIPE", "cus_1")) == token
    assert await graph.token(token["id"]) == token


async def test_after_a_deleted_token_its_customers_are_unknown_until_the_user_is_back(graph):
    await graph.delete(await graph.saved("u1", "STRIPE", "cus_1"))
    assert await graph.deactivate_customer("STRIPE", "cus_1") == UNKNOWN
    assert problems(await graph.verify("STRIPE", "cus_1")) == [("NOT_FOUND", ["gatewayCustomerId"])]
    token = await graph.saved("u1", "STRIPE", "cus_2")
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1")) == token


@pytest.mark.parametrize("at", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999998Z", None])
async def test_a_time_of_the_future_is_refused(graph, at):
    token, at = await graph.saved("u1", "STRIPE", "cus_1"), at or ago(-400)
    assert problems(await graph.verify("STRIPE", "cus_1", at=at)) == [("INVALID", ["at"])]
    for reason in ("GATEWAY_DELETED", "FRAUD"):
        refused = await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at, reason=reason)
        assert problems(refused) == [("INVALID", ["occurredAt"])]
    assert await graph.token(token["id"]) == token


async def test_clocks_may_differ_a_little_and_the_beginning_of_time_is_a_time(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    for at in ("0001-01-01T00:00:00.000001Z", ago(-280)):
        assert problems(await graph.verify("STRIPE", "cus_1", at=at)) == []
        assert problems(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)) == []


async def test_reports_on_unknown_customers_are_forgotten_after_90_days(graph, connection):
    for number in range(3):
        await graph.deactivate_customer("STRIPE", f"cus_{number}")
    expiry = "select min(expires_at) - now() > '89 days' from gateway_customer_reports"
    assert await connection.fetchval(expiry) is True
    await connection.execute("update gateway_customer_reports set expires_at = now() - interval '1 s'")
    assert state(await graph.saved("u1", "STRIPE", "cus_1")) == ACTIVE
    await graph.deactivate_customer("STRIPE", "cus_9")
    known = "select array_agg(gateway_customer_id) from gateway_customer_reports"
    assert await connection.fetchval(known) == ["cus_9"]
    await graph.saved("u9", "STRIPE", "cus_9")
    await graph.saved("u9", "STRIPE", "cus_8", replaces="cus_9")
    assert await connection.fetchval(known) == ["cus_9"]  # a former one's is kept
    assert await connection.fetchval("select expires_at from gateway_customer_reports") is None


async def test_reports_on_customers_of_erased_users_are_kept_until_their_deletion_is_confirmed(graph, connection):
    at = ago(60)
    token = await graph.saved("u9", "STRIPE", "cus_9")
    await graph.deactivate_customer("STRIPE", "cus_9", occurredAt=at)
    await graph.erase("u9")
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 0  # they are in the list
    token = await graph.saved("u1", "STRIPE", "cus_9")
    assert (*state(token), token["deactivatedAt"]) == (*GONE, at)
    await graph.erase("u1")
    await graph.verify("STRIPE", "cus_9", at=ago(90))  # of an unknown customer
    assert state(await graph.saved("u2", "STRIPE", "cus_9")) == GONE
    await graph.erase("u2")
    await graph.confirm(("STRIPE", "cus_9"))
    for table in ("gateway_customer_reports", "gateway_erasures"):
        assert await connection.fetchval(f"select count(*) from {table}") == 0  # noqa: S608
    assert state(await graph.saved("u3", "STRIPE", "cus_9")) == ACTIVE


async def test_what_is_reported_after_an_erasure_is_kept_with_the_customer_that_is_to_be_deleted(graph, connection):
    at = ago(60)
    await graph.saved("u1", "STRIPE", "cus_0")
    await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_0")
    await graph.erase("u1")
    listed = (await graph.erasures())["nodes"]
    for customer in ("cus_0", "cus_1"):
        await graph.deactivate_customer("STRIPE", customer, occurredAt=ago(90))
        await graph.deactivate_customer("STRIPE", customer, occurredAt=at)
        await graph.verify("STRIPE", customer, at=ago(75))
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 0
    assert (await graph.erasures())["nodes"] == listed
    token = await graph.saved("u2", "STRIPE", "cus_1")
    assert (*state(token), token["deactivatedAt"]) == (*GONE, at)
    await graph.saved("u2", "STRIPE", "cus_2", replaces="cus_1")
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(30))  # it is a user's again, and kept apart
    assert await connection.fetchval("select expires_at from gateway_customer_reports") is None
    assert await graph.confirm(("STRIPE", "cus_0"), ("STRIPE", "cus_1")) == {"confirmedCount": 1, "userErrors": []}
    assert state(await graph.saved("u3", "STRIPE", "cus_0")) == ACTIVE  # confirmed, and so forgotten


@pytest.mark.parametrize("customer", ["cus_0", "cus_1"])
async def test_a_report_during_an_erasure_is_kept_with_the_customer_that_is_to_be_deleted(graph, connection, customer):
    await graph.saved("u1", "STRIPE", "cus_0")
    await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_0")
    async with connection.transaction():
        await connection.execute("lock table erased_users in share mode")  # which an erasure writes last
        erasure = asyncio.ensure_future(graph.erase("u1"))
        await until(lambda: wait_for_locks(connection, 1), "the erasure waits")
        report = asyncio.ensure_future(graph.deactivate_customer("STRIPE", customer))
        await until(lambda: report.done() or wait_for_locks(connection, 2), "the report is done, or waits")
    await asyncio.gather(erasure, report)
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 0
    assert state(await graph.saved("u2", "STRIPE", customer)) == GONE


async def test_a_report_beside_our_own_reason_does_not_expire(graph, connection):
    await graph.deactivate_customer("STRIPE", "cus_1")
    await graph.saved("u1", "STRIPE", "cus_1", isActive=False)
    assert await connection.fetchval("select expires_at from gateway_customer_reports") is None
    await graph.delete(await graph.customer("STRIPE", "cus_1"))
    assert state(await graph.saved("u1", "STRIPE", "cus_1")) == GONE


async def test_so_many_reports_on_unknown_customers_are_kept_deletions_longest(service_with, connection):
    graph = await service_with(max_unknown_customers=3)
    await graph.saved("u1", "STRIPE", "cus_0")
    await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_0")
    await graph.deactivate_customer("STRIPE", "cus_0")  # somebody's, and so not counted
    for number in range(2, 5):
        await graph.deactivate_customer("STRIPE", f"cus_{number}")
    await graph.verify("STRIPE", "cus_5")
    known = "select array_agg(gateway_customer_id order by 1) from gateway_customer_reports"
    assert await connection.fetchval(known) == ["cus_0", "cus_2", "cus_3", "cus_4"]
    await graph.deactivate_customer("STRIPE", "cus_6")
    assert await connection.fetchval(known) == ["cus_0", "cus_3", "cus_4", "cus_6"]


async def _saved_again(graph, token):
    await graph.delete(token)
    return await graph.saved("u1", "STRIPE", "cus_1")


async def _replaced_and_back(graph, token):
    await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    await graph.delete(token)
    await graph.saved("u1", "STRIPE", "cus_3")
    return await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_3")


async def _merged_and_saved(graph, token):
    await graph.merge("u1", "u2")
    await graph.delete(token)
    return await graph.saved("u2", "STRIPE", "cus_1")


async def _erased_and_saved(graph, _token):
    await graph.erase("u1")
    return await graph.saved("u2", "STRIPE", "cus_1")


@pytest.mark.parametrize("way", [_saved_again, _replaced_and_back, _merged_and_saved, _erased_and_saved])
async def test_our_activation_outdates_earlier_deletions_whatever_happens_to_the_token(graph, way):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = ago(60)
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)
    await graph.activate(token)
    again = await way(graph, token)
    assert state(again) == ACTIVE
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)) == again
    assert state(token_of(await graph.deactivate_customer("STRIPE", "cus_1"))) == GONE


async def test_activating_an_active_token_is_a_decision_and_no_change(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    saved = await graph.saved("u1", "STRIPE", "cus_1", isActive=True)  # which is no decision
    assert token_of(await graph.activate(token, expectedVersion=1)) == saved == token
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(60))) == token
    assert [line["action"] for line in await graph.history(token)] == ["CREATED"]
    other = await graph.saved("u2", "STRIPE", "cus_2", isActive=True)
    await graph.saved("u2", "STRIPE", "cus_2", isActive=True)
    assert state(token_of(await graph.deactivate_customer("STRIPE", "cus_2", occurredAt=ago(60)))) == GONE
    assert token_of(await graph.activate(other))["version"] == 3


async def test_activating_outdates_a_deletion_dated_ahead_beside_our_own_reason(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1", isActive=False)
    ahead = ago(-200)
    for activate in (graph.activate(token), graph.save("u1", "STRIPE", "cus_1", isActive=True)):
        await graph.deactivate(token, reason="FRAUD")
        await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ahead)
        active = token_of(await activate)
        assert state(active) == ACTIVE
        assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ahead)) == active
    assert state(token_of(await graph.deactivate_customer("STRIPE", "cus_1"))) == GONE  # now, and so not earlier


async def test_a_deletion_in_the_second_of_our_activation_counts_unless_it_was_known(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.activate(token)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    # As if we had activated it half a minute ago, in the middle of a second.
    await connection.execute("update customer_gateway_tokens set activated_at = $1", at + timedelta(milliseconds=500))
    for earlier in (at - timedelta(seconds=1), at + timedelta(milliseconds=499)):
        await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=earlier.isoformat())
        assert (await graph.token(token["id"]))["isActive"]
    gone = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at.isoformat()))
    assert state(gone) == GONE
    second = datetime.now(UTC).replace(microsecond=0).isoformat()
    await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=second)
    active = token_of(await graph.activate(token))
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=second)) == active
    assert state(token_of(await graph.deactivate_customer("STRIPE", "cus_1"))) == GONE


async def test_of_an_activation_and_reports_at_once_none_is_lost(graph):
    """A decision on an active token has no version that a report at the same time could miss."""
    for number in range(20):
        token = await graph.saved(f"u{number}", "STRIPE", f"cus_{number}")
        await asyncio.gather(
            graph.activate(token), *(graph.verify("STRIPE", f"cus_{number}", at=ago(60 + n)) for n in range(3))
        )
        await graph.deactivate_customer("STRIPE", f"cus_{number}", occurredAt=ago(30))
        assert (await graph.token(token["id"]))["isActive"]


async def test_of_a_save_and_a_deletion_at_once_none_is_lost(graph, connection):
    for number in range(40):
        customer = f"cus_{number}"
        await asyncio.gather(
            graph.save(f"u{number}", "STRIPE", customer), graph.deactivate_customer("STRIPE", customer)
        )
    assert await connection.fetchval("select count(*) from customer_gateway_tokens where is_active") == 0


async def test_of_a_replacement_and_reports_at_once_none_is_lost(graph):
    for number in range(20):
        await graph.saved("u1", "STRIPE", f"cus_{number}", **({"replaces": f"cus_{number - 1}"} if number else {}))
        await asyncio.gather(
            graph.save("u1", "STRIPE", f"cus_{number + 1}", replaces=f"cus_{number}"),
            graph.deactivate_customer("STRIPE", f"cus_{number}"),
            graph.deactivate_customer("STRIPE", f"cus_{number + 1}"),
            graph.verify("STRIPE", f"cus_{number}", at=ago(60)),
        )
        assert state(await graph.customer("STRIPE", f"cus_{number + 1}")) == GONE
        back = await graph.saved("u1", "STRIPE", f"cus_{number}", replaces=f"cus_{number + 1}")
        assert state(back) == GONE
        await graph.saved("u1", "STRIPE", f"cus_{number + 1}", replaces=f"cus_{number}", isActive=True)


async def test_of_reports_and_edits_at_once_none_is_lost(graph):
    """A verification has no version that a change at the same time could miss."""
    token = await graph.saved("u1", "STRIPE", "cus_1")
    newest = ago(1)
    for _ in range(5):
        await asyncio.gather(
            *(graph.verify("STRIPE", "cus_1", at=ago(seconds)) for seconds in range(2, 12)),
            *(graph.update(token, description=str(number)) for number in range(10)),
            graph.verify("STRIPE", "cus_1", at=newest),
            *(graph.deactivate_customer("STRIPE", "cus_1", occurredAt=ago(seconds)) for seconds in range(20, 25)),
        )
        now = await graph.token(token["id"])
        assert (*state(now), now["lastVerifiedAt"]) == (*ACTIVE, newest)
        newest = ago(0)


reports = st.tuples(st.sampled_from(["verify", "delete"]), st.integers(1, 9))
lives = st.lists(reports, min_size=1, max_size=6).flatmap(
    # Each report once or twice, in two orders, and the save between two of them.
    lambda some: st.tuples(
        *(st.tuples(st.permutations([*some, *some[:2]]), st.integers(0, len(some))) for _ in range(2))
    )
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lives)
async def test_any_order_of_reports_before_and_after_the_save_ends_in_the_same_state(graph, connection, both):
    base = datetime.now(UTC) - timedelta(hours=1)
    for order, place in both:
        await connection.execute(
            "truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events,"
            " gateway_customer_reports"
        )
        for index, (kind, seconds) in enumerate(order):
            if index == place:
                await graph.saved("u1", "STRIPE", "cus_1")
            at = (base + timedelta(seconds=seconds)).isoformat()
            if kind == "verify":
                await graph.verify("STRIPE", "cus_1", at=at)
            else:
                await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)
        token = await graph.customer("STRIPE", "cus_1")
        gone, exists = (max((s for kind, s in order if kind == what), default=None) for what in ("delete", "verify"))
        is_gone = gone is not None and (exists is None or gone >= exists)
        times = [
            token[name] and round((datetime.fromisoformat(token[name]) - base).total_seconds())
            for name in ("deactivatedAt", "lastVerifiedAt")
        ]
        assert (*state(token), *times) == (*(GONE if is_gone else ACTIVE), gone if is_gone else None, exists)
