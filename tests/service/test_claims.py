"""Claim before create: one acquirer at a time, and the same key for all until a customer is saved."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.graph import problems, wanted


@pytest.fixture
async def graph(service_with):
    """A service that lets everybody in at once, however slow the machine is."""
    return await service_with(max_concurrent_requests=1000, request_timeout=60)


def key(payload):
    return payload["claim"]["idempotencyKey"]


async def expire(connection):
    await connection.execute("update gateway_customer_claims set expires_at = now() - interval '1 s'")


async def test_of_two_hundred_callers_one_acquires_and_all_see_the_same_key(graph):
    payloads = await asyncio.gather(*(graph.claim("u1", "STRIPE") for _ in range(200)))
    assert [problems(payload) for payload in payloads] == [[]] * 200
    assert sum(payload["claim"]["acquired"] for payload in payloads) == 1
    assert len({key(payload) for payload in payloads}) == 1
    assert len({payload["claim"]["expiresAt"] for payload in payloads}) == 1


async def test_callers_at_once_are_answered_together_each_in_their_own_words(graph, connection):
    await graph.saved("there", "STRIPE", "cus_1")
    await graph.erase("gone")
    before = await connection.fetchval("select last_value from gateway_customer_claims_generation_seq")
    users = ["u1", "u2", "there", "gone"] * 50
    payloads = await asyncio.gather(*(graph.claim(user, "STRIPE") for user in users))
    for user, answer in (("u1", None), ("u2", None), ("there", None), ("gone", "ERASED")):
        mine = [payload for payload, each in zip(payloads, users, strict=True) if each == user]
        assert {code for payload in mine for code, _ in problems(payload) or [(None, None)]} == {answer}
        assert len({payload["claim"] and key(payload) for payload in mine}) == 1
        assert sum(bool(payload["claim"] and payload["claim"]["acquired"]) for payload in mine) == (user[0] == "u")
    assert {payload["gatewayToken"] and payload["gatewayToken"]["userId"] for payload in payloads} == {None, "there"}
    # Each that was asked for alone takes a number, given or not.
    assert await connection.fetchval("select last_value from gateway_customer_claims_generation_seq") - before < 50


async def test_of_many_callers_one_takes_an_expired_lease_over_and_the_key_stays(graph, connection):
    first = await graph.claim("u1", "STRIPE")
    await expire(connection)
    payloads = await asyncio.gather(*(graph.claim("u1", "STRIPE") for _ in range(20)))
    assert sum(payload["claim"]["acquired"] for payload in payloads) == 1
    assert {key(payload) for payload in payloads} == {key(first)}
    assert {payload["claim"]["expiresAt"] > first["claim"]["expiresAt"] for payload in payloads} == {True}


@pytest.mark.parametrize(("seconds", "told"), [(1, {}), (1, {"leaseSeconds": 1}), (300, {"leaseSeconds": 300})])
async def test_a_lease_lasts_as_long_as_it_was_asked_for(graph, seconds, told):
    before = datetime.now(UTC)
    payload = await graph.claim("u1", "STRIPE", **told)
    after = datetime.now(UTC)
    lasts = timedelta(seconds=seconds if told else 30)
    expires = datetime.fromisoformat(payload["claim"]["expiresAt"])
    second = timedelta(seconds=1)  # the database's clock is read by PostgreSQL, this one here
    assert before + lasts - second <= expires <= after + lasts + second


@pytest.mark.parametrize("seconds", [0, -1, 301, 2**31 - 1])
async def test_a_lease_that_is_too_short_or_too_long_is_refused(graph, seconds):
    payload = await graph.claim("u1", "STRIPE", leaseSeconds=seconds)
    assert problems(payload) == [("INVALID", ["leaseSeconds"])]
    assert payload["claim"] is None


async def test_a_claim_of_what_is_there_answers_the_token(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    payload = await graph.claim("u1", "stripe")
    assert (payload["gatewayToken"], payload["claim"]) == (token, None)
    assert await connection.fetchval("select count(*) from gateway_customer_claims") == 0


async def _by_merge(graph, customer):
    await graph.saved("guest", "STRIPE", customer)
    await graph.merge("guest", "u1")


SAVES = {
    "create": lambda graph, customer: graph.create("u1", "STRIPE", customer),
    "save": lambda graph, customer: graph.save("u1", "STRIPE", customer),
    "batch": lambda graph, customer: graph.save_many([wanted("u1", "STRIPE", customer), wanted("u2", "STRIPE", "x")]),
    "merge": _by_merge,
}


@pytest.mark.parametrize("by", SAVES)
async def test_a_key_is_never_given_again_once_a_customer_was_saved(graph, by):
    keys = set()
    for number in range(3):
        claim = await graph.claim("u1", "STRIPE")
        assert claim["claim"]["acquired"] is True
        keys.add(key(claim))
        await SAVES[by](graph, f"cus_{number}")
        there = await graph.claim("u1", "STRIPE")
        assert there["gatewayToken"]["gatewayCustomerId"] == f"cus_{number}"
        await graph.delete(there["gatewayToken"])
    assert len(keys) == 3


async def test_a_key_is_of_one_user_at_one_gateway(graph):
    keys = [key(await graph.claim(user, gateway)) for user in ("u1", "u2") for gateway in ("STRIPE", "PAYPAL")]
    assert len(set(keys)) == 4
    assert key(await graph.claim("u1", " stripe ")) == keys[0]


async def test_what_a_key_does_not_depend_on_changes_nothing(graph, connection):
    first = await graph.claim("u1", "STRIPE", leaseSeconds=5)
    await expire(connection)
    assert key(await graph.claim("u1", "STRIPE", leaseSeconds=300)) == key(first)


async def test_a_refused_save_leaves_the_claim_as_it_is(graph):
    await graph.saved("u2", "STRIPE", "cus_2")
    first = await graph.claim("u1", "STRIPE")
    assert problems(await graph.save("u1", "STRIPE", "cus_2"))
    again = await graph.claim("u1", "STRIPE")
    assert again["claim"] == first["claim"] | {"acquired": False}


async def test_an_erased_user_has_nothing_to_claim(graph):
    await graph.claim("u1", "STRIPE")
    await graph.erase("u1")
    payload = await graph.claim("u1", "STRIPE")
    assert problems(payload) == [("ERASED", ["userId"])]
    assert payload["claim"] is payload["gatewayToken"] is None
