"""What gateways report, twice, late and in any order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graph import problems, token_of

UNKNOWN = {"gatewayToken": None, "user": None, "userErrors": []}


def after(token, seconds):
    """A moment that lies so many seconds after the token's making."""
    return (datetime.fromisoformat(token["createdAt"]) + timedelta(seconds=seconds)).isoformat()


async def test_a_deleted_customer_is_deactivated_once(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    gone = await graph.deactivate_customer("stripe", "cus_1")
    inactive = token_of(gone)
    assert gone["user"] == {"id": "u1"}
    assert (inactive["isActive"], inactive["deactivationReason"], inactive["version"]) == (False, "GATEWAY_DELETED", 2)
    assert inactive["deactivatedAt"] <= inactive["updatedAt"]
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", reason="FRAUD")) == inactive
    lines = [(line["action"], line["reason"]) for line in await graph.history(token)]
    assert lines == [("DEACTIVATED", "GATEWAY_DELETED"), ("CREATED", None)]


async def test_a_deletion_counts_from_when_the_gateway_says_it_happened(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = after(token, 60)
    inactive = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at, reason="FRAUD"))
    assert (inactive["deactivatedAt"], inactive["deactivationReason"]) == (at, "FRAUD")
    assert inactive["updatedAt"] < at


async def test_a_deletion_from_before_the_token_was_made_changes_nothing(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=after(token, -0.000001))) == token
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=after(token, 0)))["isActive"] is False


async def test_a_deletion_from_before_the_last_activation_changes_nothing(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = after(token, 0)
    token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at))
    active = token_of(await graph.activate(token))
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)) == active
    later = datetime.now(UTC) + timedelta(seconds=1)
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=later.isoformat()))["version"] == 4


async def test_of_several_deletions_the_earliest_counts_without_another_version(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    first = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=after(token, 60)))
    second = token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=after(token, 30), reason="OTHER"))
    assert second == first | {"deactivatedAt": after(token, 30), "deactivationReason": "OTHER"}
    assert token_of(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=after(token, 45))) == second
    assert len(await graph.history(token)) == 2


async def test_an_unknown_customer_is_gone_anyway_but_cannot_be_verified(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    assert await graph.deactivate_customer("STRIPE", "cus_9") == UNKNOWN
    assert await graph.deactivate_customer("PAYPAL", "cus_1") == UNKNOWN
    assert problems(await graph.verify("STRIPE", "cus_9")) == [("NOT_FOUND", ["gatewayCustomerId"])]


async def test_a_verification_that_is_newer_is_a_change(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    first = token_of(await graph.verify("STRIPE", "cus_1", at=after(token, 10)))
    assert (first["lastVerifiedAt"], first["version"]) == (after(token, 10), 2)
    for seconds in (10, 9, -1000):
        assert token_of(await graph.verify("stripe", "cus_1", at=after(token, seconds))) == first
    second = token_of(await graph.verify("STRIPE", "cus_1", at=after(token, 11)))
    assert (second["lastVerifiedAt"], second["version"]) == (after(token, 11), 3)
    now = token_of(await graph.verify("STRIPE", "cus_1", at=None))
    assert now == second  # now is earlier than in eleven seconds
    assert [line["action"] for line in await graph.history(token)] == ["VERIFIED", "VERIFIED", "CREATED"]


async def test_an_inactive_token_may_be_verified_and_stays_inactive(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1", isActive=False)
    verified = token_of(await graph.verify("STRIPE", "cus_1"))
    assert (verified["isActive"], verified["version"]) == (False, 2)
    assert verified["deactivatedAt"] == token["deactivatedAt"]


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


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00.000001Z", "9999-12-31T23:59:59.999998Z"])
async def test_the_ends_of_time_are_times(graph, at):
    await graph.saved("u1", "STRIPE", "cus_1")
    assert problems(await graph.verify("STRIPE", "cus_1", at=at)) == []
    assert problems(await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at)) == []


reports = st.one_of(
    st.tuples(st.just("verify"), st.integers(-2, 6), st.none()),
    st.tuples(
        st.just("deactivate"),
        st.integers(-2, 6),
        st.sampled_from(["GATEWAY_DELETED", "FRAUD", "USER_REQUEST", "OTHER"]),
    ),
)
orders = st.lists(reports, min_size=1, max_size=6).flatmap(
    # Each report once or twice, in two orders.
    lambda some: st.tuples(*(st.permutations([*some, *some[:2]]) for _ in range(2)))
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(orders)
async def test_any_order_of_reports_ends_in_the_same_state(graph, connection, both):
    ends = []
    for order in both:
        await connection.execute("truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events")
        token = await graph.saved("u1", "STRIPE", "cus_1")
        for kind, seconds, reason in order:
            at = after(token, seconds)
            if kind == "verify":
                await graph.verify("STRIPE", "cus_1", at=at)
            else:
                await graph.deactivate_customer("STRIPE", "cus_1", occurredAt=at, reason=reason)
        ends.append(state(await graph.token(token["id"])))
    assert ends[0] == ends[1]
    assert ends[0] == expected(both[0])


def state(token):
    """What reports may change, with times told from the token's making on."""
    made = datetime.fromisoformat(token["createdAt"])

    def seconds(name):
        return token[name] and (datetime.fromisoformat(token[name]) - made).total_seconds()

    return token["isActive"], seconds("deactivatedAt"), token["deactivationReason"], seconds("lastVerifiedAt")


def expected(some):
    verified = max((seconds for kind, seconds, _ in some if kind == "verify"), default=None)
    gone = min(((seconds, reason) for kind, seconds, reason in some if kind != "verify" and seconds >= 0), default=None)
    return (True, None, None, verified) if gone is None else (False, *gone, verified)
