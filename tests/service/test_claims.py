"""Claim before create: one acquirer at a time, and the same key for all until a customer is saved."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from graphql_api.storage import statements
from graphql_api.storage.connection import Connection
from tests.graph import problems, wanted
from tests.until import until


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


async def test_a_deleted_customer_is_claimed_like_a_first_one_by_one_of_many(graph):
    await graph.saved("u1", "STRIPE", "cus_a")
    await graph.deactivate_customer("STRIPE", "cus_a")
    payloads = await asyncio.gather(*(graph.claim("u1", "STRIPE") for _ in range(3)))
    assert [payload["gatewayToken"] for payload in payloads] == [None] * 3
    assert {payload["claim"]["replaces"] for payload in payloads} == {"cus_a"}
    assert sum(payload["claim"]["acquired"] for payload in payloads) == 1
    assert len({key(payload) for payload in payloads}) == 1
    saved = await graph.saved("u1", "STRIPE", "cus_b", replaces="cus_a")
    assert (saved["isActive"], saved["formerGatewayCustomerIds"]) == (True, ["cus_a"])
    await graph.deactivate_customer("STRIPE", "cus_b")
    again = await graph.claim("u1", "STRIPE")
    assert (again["claim"]["replaces"], again["claim"]["acquired"]) == ("cus_b", True)
    assert key(again) != key(payloads[0])


@pytest.mark.parametrize("reason", ["USER_REQUEST", "FRAUD", "OTHER", "MERGED"])
async def test_a_customer_that_is_inactive_for_a_reason_of_our_own_is_there(graph, reason):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate(token, reason=reason)
    payload = await graph.claim("u1", "STRIPE")
    assert (payload["gatewayToken"]["deactivationReason"], payload["claim"]) == (reason, None)


async def test_a_released_claim_has_another_key(graph):
    first = await graph.claim("u1", "STRIPE")
    assert (await graph.release("u1", "stripe", key(first)))["released"] is True
    second = await graph.claim("u1", "STRIPE")
    assert (key(second) != key(first), second["claim"]["acquired"]) == (True, True)
    for spent in (key(first), "", "nonsense"):
        assert await graph.release("u1", "STRIPE", spent) == {"released": False, "userErrors": []}
    assert key(await graph.claim("u1", "STRIPE")) == key(second)
    await graph.saved("u1", "STRIPE", "cus_1")
    assert (await graph.release("u1", "STRIPE", key(second)))["released"] is False


async def test_of_many_who_release_one_key_one_does(graph):
    first = key(await graph.claim("u1", "STRIPE"))
    released = await asyncio.gather(*(graph.release("u1", "STRIPE", first) for _ in range(10)))
    assert sum(payload["released"] for payload in released) == 1


async def test_a_release_beside_a_save_leaves_no_claim_and_its_key_is_spent(graph, connection):
    for number in range(15):
        user = f"u{number}"
        spent = key(await graph.claim(user, "STRIPE"))
        saving = asyncio.create_task(graph.save(user, "STRIPE", f"cus_{number}"))
        for _ in range(10 * number):  # at another moment of the save each time
            await asyncio.sleep(0)
        released, saved = await graph.release(user, "STRIPE", spent), await saving
        assert (problems(released), problems(saved)) == ([], [])
        assert await connection.fetchval("select count(*) from gateway_customer_claims") == 0
        there = await graph.claim(user, "STRIPE")
        assert (there["gatewayToken"], there["claim"]) == (saved["gatewayToken"], None)
        await graph.delete(there["gatewayToken"])
        assert key(await graph.claim(user, "STRIPE")) != spent
        await connection.execute("delete from gateway_customer_claims")


@pytest.fixture
def held(monkeypatch):
    """Holds back a statement: answers when it is about to run, and what lets it."""
    fetch = Connection.fetch

    def hold(statement):
        is_due, may_run = asyncio.Event(), asyncio.Event()

        async def late(self, each, *arguments):
            if each is statement:
                is_due.set()
                await may_run.wait()
            return await fetch(self, each, *arguments)

        monkeypatch.setattr(Connection, "fetch", late)
        return is_due, may_run

    return hold


async def test_a_release_that_comes_late_leaves_the_next_claim(graph, held):
    spent = key(await graph.claim("u1", "STRIPE"))
    is_due, may_run = held(statements.RELEASE_CLAIM)
    releasing = asyncio.create_task(graph.release("u1", "STRIPE", spent))
    await is_due.wait()
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate_customer("STRIPE", "cus_1")
    following = await graph.claim("u1", "STRIPE")
    may_run.set()
    assert (await releasing)["released"] is False
    assert (await graph.claim("u1", "STRIPE"))["claim"] == following["claim"] | {"acquired": False}


async def test_a_release_while_a_save_ends_the_claim_did_not_release_it(graph, connection, held):
    spent = key(await graph.claim("u1", "STRIPE"))
    is_due, may_run = held(statements.RECORD)
    saving = asyncio.create_task(graph.save("u1", "STRIPE", "cus_1"))
    await is_due.wait()  # the claim has ended, but for the commit
    releasing = asyncio.create_task(graph.release("u1", "STRIPE", spent))
    waits = "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    await until(lambda: connection.fetchval(waits), "the release waits for the save")
    may_run.set()
    assert (problems(await saving), (await releasing)["released"]) == ([], False)


async def test_claims_beside_a_release_have_the_old_key_or_the_next_one(graph):
    for number in range(15):
        old = key(await graph.claim(f"u{number}", "STRIPE"))
        released, *claims = await asyncio.gather(
            graph.release(f"u{number}", "STRIPE", old), *(graph.claim(f"u{number}", "STRIPE") for _ in range(3))
        )
        assert released["released"] is True
        new = key(await graph.claim(f"u{number}", "STRIPE"))
        assert new != old
        assert {key(claim) for claim in claims} <= {old, new}
        assert sum(claim["claim"]["acquired"] for claim in claims) == (new in {key(claim) for claim in claims})


async def test_what_cannot_be_a_claim_is_refused_with_its_place(graph):
    payload = await graph.release("", "1", "\0")
    assert [field for _, field in problems(payload)] == [["userId"], ["gateway"], ["idempotencyKey"]]


async def test_no_two_databases_have_a_key_in_common(service_with, connection):
    stored = await connection.fetchval("select key from erasure_key")
    mine = key(await (await service_with()).claim("u1", "STRIPE"))
    await connection.execute("update erasure_key set key = $1", b"the secret of another database")
    try:
        assert key(await (await service_with()).claim("u1", "STRIPE")) != mine
    finally:
        await connection.execute("update erasure_key set key = $1", stored)
    assert key(await (await service_with()).claim("u1", "STRIPE")) == mine
