"""Many at once: races are decided by the database and answered truthfully."""

import asyncio
import random
from collections import Counter

import pytest

from tests.conftest import WAITING_ON_WORKERS
from tests.graph import problems, token_of, wanted
from tests.until import until


@pytest.fixture
async def graph(service_with):
    """A service that lets everybody in at once, however slow the machine is."""
    return await service_with(max_concurrent_requests=1000, request_timeout=60)


async def at_once(*attempts):
    return await asyncio.gather(*attempts)


async def wait_for_locks(connection, number):
    """Whether so many statements in this database do, or more."""
    await connection.execute("select pg_stat_clear_snapshot()")
    return await connection.fetchval(
        f"select count(*) + {WAITING_ON_WORKERS} >= $1 from pg_stat_activity"  # noqa: S608
        " where datname = current_database() and wait_event_type = 'Lock'",
        number,
    )


def outcomes(payloads):
    """How often each outcome came: the codes of what was refused, or None."""
    return Counter(next((code for code, _ in problems(payload)), None) for payload in payloads)


async def lines(connection):
    rows = await connection.fetch("select token_id, version from customer_gateway_token_events order by 1, 2")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("mutation", ["save", "create"])
async def test_of_a_hundred_identical_saves_one_creates_and_none_fails(graph, connection, mutation):
    for user in ("u1", "u2", "u3"):
        attempt = getattr(graph, mutation)
        payloads = await at_once(*(attempt(user, "STRIPE", f"cus_{user}", description="x") for _ in range(100)))
        assert outcomes(payloads) == {None: 100}
        assert len({str(payload["gatewayToken"]) for payload in payloads}) == 1
        if mutation == "save":
            assert sum(payload["created"] for payload in payloads) == 1
    assert await connection.fetchval("select count(*) from customer_gateway_tokens") == 3
    assert [version for _, version in await lines(connection)] == [1, 1, 1]


async def test_of_two_users_who_claim_a_customer_exactly_one_wins(graph):
    for number in range(20):
        customer = f"cus_{number}"
        payloads = await at_once(*(graph.save(f"u{user}-{number}", "STRIPE", customer) for user in range(2)))
        assert outcomes(payloads) == {None: 1, "CUSTOMER_TAKEN": 1}
        winner = next(payload["gatewayToken"] for payload in payloads if payload["created"])
        assert await graph.customer("STRIPE", customer) == winner


async def test_of_two_customers_of_one_user_at_a_gateway_exactly_one_wins(graph):
    for number in range(20):
        payloads = await at_once(*(graph.save(f"u{number}", "STRIPE", f"cus_{number}_{side}") for side in "ab"))
        assert outcomes(payloads) == {None: 1, "ALREADY_EXISTS": 1}
        assert len({payload["gatewayToken"]["id"] for payload in payloads}) == 1


async def test_a_former_customer_is_never_given_to_another_user_meanwhile(graph):
    for number in range(20):
        user, old, new = f"u{number}", f"old_{number}", f"new_{number}"
        await graph.saved(user, "STRIPE", old)
        replaced, other = await at_once(
            graph.save(user, "STRIPE", new, replaces=old), graph.save(f"other-{number}", "STRIPE", old)
        )
        assert (problems(replaced), outcomes([other])) == ([], {"CUSTOMER_TAKEN": 1})


async def test_of_two_users_who_replace_their_customers_by_the_same_one_exactly_one_wins(graph):
    for number in range(10):
        users = [f"a{number}", f"b{number}"]
        tokens = [await graph.saved(user, "STRIPE", f"cus_{user}") for user in users]
        payloads = await at_once(
            graph.save(users[0], "STRIPE", f"new_{number}", replaces=f"cus_{users[0]}"),
            graph.update(tokens[1], gatewayCustomerId=f"new_{number}"),
        )
        assert outcomes(payloads) == {None: 1, "CUSTOMER_TAKEN": 1}


async def test_with_an_expected_version_exactly_one_of_a_hundred_changes_wins(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    payloads = await at_once(
        *(graph.update(token, description=f"x{number}", expectedVersion=1) for number in range(60)),
        *(graph.save("u1", "STRIPE", "cus_1", description=f"y{number}", expectedVersion=1) for number in range(20)),
        *(graph.deactivate(token, expectedVersion=1) for _ in range(10)),
        *(graph.update(token, gatewayCustomerId=f"cus_1{number}", expectedVersion=1) for number in range(10)),
    )
    assert outcomes(payloads) == {None: 1, "STALE": 99}
    now = await graph.token(token["id"])
    assert now["version"] == 2
    assert all(payload["gatewayToken"] == now for payload in payloads)
    assert [version for _, version in await lines(connection)] == [1, 2]


async def test_of_a_hundred_changes_without_one_each_is_made_and_none_is_lost(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    payloads = await at_once(*(graph.update(token, description=f"x{number}") for number in range(100)))
    assert sorted(payload["gatewayToken"]["version"] for payload in payloads) == list(range(2, 102))
    assert len({payload["gatewayToken"]["updatedAt"] for payload in payloads}) == 100
    by_version = {payload["gatewayToken"]["version"]: payload["gatewayToken"] for payload in payloads}
    assert await graph.token(token["id"]) == by_version[101]


async def test_changes_that_wait_for_a_locked_token_hold_up_no_other(service_with, connection):
    graph = await service_with(request_timeout=60, database_timeout=60)
    locked, other = [await graph.saved(f"u{number}", "STRIPE", f"cus_{number}") for number in range(2)]
    async with asyncio.timeout(30), connection.transaction():
        await connection.execute("select 1 from customer_gateway_tokens where user_id = 'u0' for update")
        waiting = []
        for number in range(3):
            waiting.append(asyncio.create_task(graph.update(locked, description=f"{number}")))
            await until(lambda: wait_for_locks(connection, 1), "it waits for the lock")
            assert problems(await graph.update(other, description=f"{number}")) == []
        assert not any(attempt.done() for attempt in waiting)
    assert outcomes(await asyncio.gather(*waiting)) == {None: 3}
    assert [len(await graph.history(token)) for token in (locked, other)] == [4, 4]


async def test_different_fields_changed_at_once_are_all_kept(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await at_once(
        graph.update(token, description="x"),
        graph.update(token, metadata={"a": 1}),
        graph.deactivate(token, reason="FRAUD"),
        graph.update(token, gatewayCustomerId="cus_2"),
    )
    now = await graph.token(token["id"])
    assert (now["description"], now["metadata"], now["deactivationReason"]) == ("x", {"a": 1}, "FRAUD")
    assert (now["gatewayCustomerId"], now["formerGatewayCustomerIds"]) == ("cus_2", ["cus_1"])
    assert now["version"] == len(await graph.history(token)) == 5


async def test_batches_in_any_order_do_not_stand_in_each_others_way(graph, deadlocks):
    """The same users with customers of each batch's own: nothing but their tokens' places is in dispute."""
    chance = random.Random(1)
    users = [f"u{number}" for number in range(150)]
    batches = []
    for batch in range(8):
        chance.shuffle(users)
        inputs = [wanted(user, "STRIPE", f"{user}_{batch}") for user in users]
        batches.append(graph.save_many(inputs, onError="CONTINUE"))
    payloads = await at_once(*batches)
    assert sum(payload["createdCount"] for payload in payloads) == 150
    assert deadlocks == []


async def test_batches_that_save_the_same_do_not_stand_in_each_others_way(graph, deadlocks):
    chance = random.Random(2)
    inputs = [wanted(f"u{number}", "STRIPE", f"cus_{number}", description="x") for number in range(200)]
    payloads = await at_once(*(graph.save_many(chance.sample(inputs, len(inputs))) for _ in range(8)))
    assert sum(payload["createdCount"] for payload in payloads) == 200
    assert outcomes(payloads) == {None: 8}
    changes = [
        graph.save_many([each | {"description": str(number)} for each in chance.sample(inputs, len(inputs))])
        for number in range(8)
    ]
    assert outcomes(await at_once(*changes)) == {None: 8}
    assert deadlocks == []


async def test_crossed_customers_do_not_deadlock(graph, deadlocks):
    """Two users, each of whom wants two customers in the other's order."""
    for number in range(15):
        a, b = f"a{number}", f"b{number}"
        one = graph.save_many([wanted(a, "X", f"1_{number}"), wanted(a, "Y", f"2_{number}")], onError="CONTINUE")
        other = graph.save_many([wanted(b, "Y", f"2_{number}"), wanted(b, "X", f"1_{number}")], onError="CONTINUE")
        payloads = await at_once(one, other)
        assert sum(payload["createdCount"] for payload in payloads) == 2
        assert sum(outcomes(payloads).values()) == 2
    assert deadlocks == []


async def test_customers_that_two_users_swap_do_not_deadlock(graph, deadlocks):
    for number in range(10):
        tokens = [await graph.saved(f"{side}{number}", "X", f"{side}_{number}") for side in "ab"]
        payloads = await at_once(
            graph.update(tokens[0], gatewayCustomerId=f"b_{number}"),
            graph.update(tokens[1], gatewayCustomerId=f"a_{number}"),
        )
        assert outcomes(payloads) == {"CUSTOMER_TAKEN": 2}
    assert deadlocks == []


async def test_a_deletion_and_a_change_at_once_end_in_one_of_two_ways(graph, connection):
    for number in range(15):
        token = await graph.saved(f"u{number}", "STRIPE", f"cus_{number}")
        deleted, changed = await at_once(graph.delete(token), graph.update(token, description="x"))
        assert problems(deleted) == []
        assert outcomes([changed]) in ({None: 1}, {"NOT_FOUND": 1})
        versions = [version for token_id, version in await lines(connection) if str(token_id) == token["id"]]
        assert versions == list(range(1, 3 if changed["userErrors"] else 4))
    assert await connection.fetchval("select count(*) from customer_gateway_tokens") == 0


@pytest.mark.parametrize("mutation", ["save", "update", "save_many"])
async def test_an_erased_user_is_never_brought_back_by_a_save_that_was_on_its_way(graph, connection, mutation):
    for number in range(15):
        user = f"u{number}"
        token = await graph.saved(user, "STRIPE", f"cus_{number}")
        attempts = {
            "save": lambda user=user, number=number: graph.save(user, "PAYPAL", f"pp_{number}"),
            "update": lambda token=token, number=number: graph.update(token, gatewayCustomerId=f"new_{number}"),
            "save_many": lambda user=user, number=number: graph.save_many(
                [wanted(user, "PAYPAL", f"pp_{number}"), wanted(user, "STRIPE", f"cus_{number}", description="x")]
            ),
        }
        payloads = await at_once(*(attempts[mutation]() for _ in range(4)), graph.erase(user))
        assert set(outcomes(payloads[:4])) <= {None, "ERASED", "NOT_FOUND"}
        assert problems(payloads[4]) == []
        assert await graph.tokens(user) == []
        for table in ("customer_gateway_tokens", "gateway_customers", "gateway_customer_claims", "departed_tokens"):
            assert await connection.fetchval(f"select count(*) from {table} where user_id = $1", user) == 0  # noqa: S608


async def test_a_save_that_meets_a_merge_is_before_it_or_after_it(graph, connection):
    for number in range(15):
        guest, user = f"g{number}", f"u{number}"
        token = await graph.saved(guest, "STRIPE", f"cus_{number}")
        saved, merged, changed = await at_once(
            graph.save(guest, "PAYPAL", f"pp_{number}"), graph.merge(guest, user), graph.update(token, description="x")
        )
        assert (problems(saved), problems(merged), problems(changed)) == ([], [], [])
        assert len(await graph.tokens(guest)) + len(await graph.tokens(user)) == 2
        mine = await graph.customer("STRIPE", f"cus_{number}")
        assert (mine["userId"], mine["description"], mine["version"]) == (user, "x", 3)
        owners = await connection.fetch(
            "select t.user_id = c.user_id from customer_gateway_tokens t"
            " join gateway_customers c using (gateway, gateway_customer_id)"
        )
        assert {row[0] for row in owners} == {True}


async def test_merges_of_two_users_into_each_other_end_with_one_of_them(graph, deadlocks):
    for number in range(15):
        a, b = f"a{number}", f"b{number}"
        await graph.saved(a, "STRIPE", f"cus_{a}")
        await graph.saved(b, "PAYPAL", f"cus_{b}")
        payloads = await at_once(graph.merge(a, b), graph.merge(b, a))
        assert outcomes(payloads) == {None: 2}
        assert sorted([len(await graph.tokens(a)), len(await graph.tokens(b))]) == [0, 2]
    assert deadlocks == []


async def test_claims_and_saves_at_once_never_leave_a_claim_behind(graph, connection):
    for number in range(15):
        user = f"u{number}"
        *claims, saved = await at_once(
            *(graph.claim(user, "STRIPE") for _ in range(3)), graph.save(user, "STRIPE", f"cus_{number}")
        )
        token = token_of(saved)
        assert all(claim["claim"] or claim["gatewayToken"] == token for claim in claims)
    assert await connection.fetchval("select count(*) from gateway_customer_claims") == 0
