"""Customers that were saved for the wrong user: each is given to the right one, together and all or none."""

import asyncio
from itertools import cycle

import pytest

from tests.graph import problems, token_of
from tests.service.test_gateway_reports import state

PLACE = ["customers", "0"]


def shown(payload):
    assert problems(payload) == []
    return [token and (token["userId"], token["gatewayCustomerId"]) for token in payload["gatewayTokens"]]


async def test_a_token_moves_to_the_right_user_and_its_history_says_why(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1", description="x")
    payload = await graph.reassign(("stripe", "cus_1", "u2"), reason="shifted column")
    [moved] = payload["gatewayTokens"]
    kept = {name: token[name] for name in token if name not in {"userId", "version", "updatedAt"}}
    assert moved == kept | {"userId": "u2", "version": 2, "updatedAt": moved["updatedAt"]}
    newest = (await graph.history(moved))[0]
    assert (newest["action"], newest["reason"]) == ("REASSIGNED", "shifted column")
    assert await graph.tokens("u1") == []
    assert (await graph.saved("u1", "STRIPE", "cus_2"))["userId"] == "u1"  # the place is free
    assert problems(await graph.save("u1", "STRIPE", "cus_1", replaces="cus_2")) == [
        ("CUSTOMER_TAKEN", ["input", "gatewayCustomerId"])
    ]


async def test_two_users_customers_are_swapped_and_three_go_round(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u2", "STRIPE", "cus_2")
    await graph.saved("u3", "STRIPE", "cus_3")
    swap = await graph.reassign(("STRIPE", "cus_1", "u2"), ("STRIPE", "cus_2", "u1"))
    assert shown(swap) == [("u2", "cus_1"), ("u1", "cus_2")]
    ring = [("STRIPE", "cus_2", "u3"), ("STRIPE", "cus_3", "u2"), ("STRIPE", "cus_1", "u1")]
    assert shown(await graph.reassign(*ring)) == [("u3", "cus_2"), ("u2", "cus_3"), ("u1", "cus_1")]
    again = await graph.reassign(*ring)
    assert [token["version"] for token in again["gatewayTokens"]] == [3, 2, 3]  # a repetition changes nothing


async def test_a_user_with_another_customer_there_keeps_it_and_nothing_moves(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u1", "PAYPAL", "pp_1")
    await graph.saved("u2", "STRIPE", "cus_2")
    payload = await graph.reassign(("PAYPAL", "pp_1", "u2"), ("STRIPE", "cus_1", "u2"))
    assert problems(payload) == [("ALREADY_EXISTS", ["customers", "1", "toUserId"])]
    assert payload["gatewayTokens"] == [None, None]
    assert (await graph.customer("PAYPAL", "pp_1"))["userId"] == "u1"
    two = await graph.reassign(("STRIPE", "cus_1", "u3"), ("STRIPE", "cus_2", "u3"))
    assert problems(two) == [("ALREADY_EXISTS", ["customers", "1", "toUserId"])]


async def test_an_unknown_customer_refuses_all(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    payload = await graph.reassign(("STRIPE", "cus_1", "u2"), ("STRIPE", "cus_9", "u2"))
    assert problems(payload) == [("NOT_FOUND", ["customers", "1", "gatewayCustomerId"])]
    assert (await graph.customer("STRIPE", "cus_1"))["userId"] == "u1"


async def test_a_deleted_token_of_the_new_user_gives_way(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    gone = await graph.saved("u2", "STRIPE", "cus_2")
    await graph.deactivate_customer("STRIPE", "cus_2")
    [moved] = (await graph.reassign(("STRIPE", "cus_1", "u2")))["gatewayTokens"]
    assert (moved["userId"], moved["formerGatewayCustomerIds"]) == ("u2", ["cus_2"])
    assert await graph.token(gone["id"]) is None
    back = await graph.saved("u2", "STRIPE", "cus_2", replaces="cus_1")
    assert state(back) == (False, "GATEWAY_DELETED")  # what is known of the customer went with it


@pytest.mark.parametrize("order", [1, -1])
async def test_a_deleted_customer_gives_way_to_the_living_one_of_its_new_user(graph, order):
    dead = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.deactivate_customer("STRIPE", "cus_1")
    alive = await graph.saved("u2", "STRIPE", "cus_2")
    assert shown(await graph.reassign(("STRIPE", "cus_1", "u2"), reason="mix-up")) == [None]
    token = await graph.token(alive["id"])
    assert (token["formerGatewayCustomerIds"], token["version"], token["isActive"]) == (["cus_1"], 2, True)
    assert ((await graph.history(token))[0]["action"], (await graph.history(token))[0]["reason"]) == (
        "REASSIGNED",
        "mix-up",
    )
    assert await graph.token(dead["id"]) is None
    wanted = [("STRIPE", "cus_1", "u3"), ("STRIPE", "cus_2", "u3")][::order]
    assert shown(await graph.reassign(*wanted)) == [None, ("u3", "cus_2")][::order]
    assert [each["formerGatewayCustomerIds"] for each in await graph.tokens("u3")] == [["cus_1"]]


@pytest.mark.parametrize("order", [1, -1])
async def test_of_a_deleted_and_a_living_customer_that_come_together_the_living_one_takes_the_place(graph, order):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u2", "STRIPE", "cus_2")
    await graph.deactivate_customer("STRIPE", "cus_1")
    payload = await graph.reassign(*[("STRIPE", "cus_1", "u3"), ("STRIPE", "cus_2", "u3")][::order])
    assert shown(payload) == [None, ("u3", "cus_2")][::order]
    assert [each["formerGatewayCustomerIds"] for each in await graph.tokens("u3")] == [["cus_1"]]
    assert state(await graph.saved("u3", "STRIPE", "cus_1", replaces="cus_2")) == (False, "GATEWAY_DELETED")


@pytest.fixture
async def deleted(graph):
    """Two users' tokens whose customers the gateway deleted."""
    for number in (1, 2):
        await graph.saved(f"u{number}", "STRIPE", f"cus_{number}")
        await graph.deactivate_customer("STRIPE", f"cus_{number}")
    return [await graph.customer("STRIPE", f"cus_{number}") for number in (1, 2)]


async def test_of_two_deleted_customers_the_one_of_the_new_user_gives_way(graph, deleted, connection):
    moved, lost = deleted
    assert shown(await graph.reassign(("STRIPE", "cus_1", "u2"))) == [("u2", "cus_1")]
    [token] = await graph.tokens("u2")
    assert (token["id"], *state(token), token["formerGatewayCustomerIds"]) == (
        moved["id"],
        False,
        "GATEWAY_DELETED",
        ["cus_2"],
    )
    assert await graph.token(lost["id"]) is None
    last = "select user_id, action from customer_gateway_token_events where token_id = $1 order by version desc limit 1"
    assert tuple(await connection.fetchrow(last, lost["id"])) == ("u2", "REASSIGNED")
    for user in ("u1", "u2"):
        await graph.erase(user)
    assert await connection.fetchval("select count(user_id) from customer_gateway_token_events") == 0


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_deleted_customers_that_come_together_the_first_of_the_list_has_the_place(graph, deleted, order):
    wanted = [("STRIPE", "cus_1", "u3"), ("STRIPE", "cus_2", "u3")][::order]
    assert shown(await graph.reassign(*wanted)) == [("u3", wanted[0][1]), None]
    [token] = await graph.tokens("u3")
    assert (token["gatewayCustomerId"], token["formerGatewayCustomerIds"]) == (wanted[0][1], [wanted[1][1]])


async def test_a_former_customer_that_moves_is_in_the_history_of_both_tokens(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    old = await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    new = await graph.saved("u2", "STRIPE", "cus_3")
    await graph.reassign(("STRIPE", "cus_1", "u2"), reason="mix-up")
    for before, former in ((old, []), (new, ["cus_1"])):
        after = await graph.token(before["id"])
        changed = {"formerGatewayCustomerIds": former, "version": before["version"] + 1}
        assert after == before | changed | {"updatedAt": after["updatedAt"]}
        assert after["updatedAt"] > before["updatedAt"]
        newest = (await graph.history(after))[0]
        assert (newest["action"], newest["reason"], newest["version"]) == ("REASSIGNED", "mix-up", after["version"])


async def test_a_former_customer_moves_alone(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    token = await graph.saved("u2", "STRIPE", "cus_3")
    assert shown(await graph.reassign(("STRIPE", "cus_1", "u2"))) == [None]
    assert (await graph.token(token["id"]))["formerGatewayCustomerIds"] == ["cus_1"]
    assert (await graph.customer("STRIPE", "cus_1"))["id"] == token["id"]
    assert shown(await graph.reassign(("STRIPE", "cus_1", "u9"))) == [None]
    assert (await graph.saved("u9", "STRIPE", "cus_1"))["userId"] == "u9"


async def test_an_erased_user_gets_nothing(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("u2")
    assert problems(await graph.reassign(("STRIPE", "cus_1", "u2"))) == [("ERASED", [*PLACE, "toUserId"])]
    await graph.lift("u2")
    assert shown(await graph.reassign(("STRIPE", "cus_1", "u2"))) == [("u2", "cus_1")]


@pytest.mark.parametrize("erased", ["u1", "u2"])
async def test_erasing_either_user_forgets_them_in_the_history(graph, connection, erased):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.reassign(("STRIPE", "cus_1", "u2"))
    await graph.erase(erased)
    named = "select count(*) from customer_gateway_token_events where user_id = $1"
    assert await connection.fetchval(named, erased) == 0
    assert bool(await graph.customer("STRIPE", "cus_1")) is (erased == "u1")


async def test_what_is_malformed_is_refused_with_its_place(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    payload = await graph.reassign(("1", "", "undefined"))
    assert [field for _, field in problems(payload)] == [
        [*PLACE, name] for name in ("gateway", "gatewayCustomerId", "toUserId")
    ]
    twice = await graph.reassign(("STRIPE", "cus_1", "u2"), ("stripe", "cus_1", "u3"))
    assert problems(twice) == [("INVALID", ["customers", "1", "gatewayCustomerId"])]
    many = await graph.reassign(*[("STRIPE", f"cus_{number}", "u2") for number in range(1001)])
    assert problems(many) == [("INVALID", ["customers"])]
    secret = await graph.reassign(("STRIPE", "cus_1", "u2"), reason="4111 1111 1111 1111")
    assert problems(secret) == [("CARD_NUMBER", ["reason"])]
    long = await graph.reassign(("STRIPE", "cus_1", "u2"), reason="x" * 2001)
    assert [each["message"] for each in long["userErrors"]] == [
        "A reason can have at most 2000 characters; this one has 2001."
    ]
    assert shown(await graph.reassign()) == []


async def test_the_claim_of_the_new_user_ends(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    before = (await graph.claim("u2", "STRIPE"))["claim"]["idempotencyKey"]
    await graph.reassign(("STRIPE", "cus_1", "u2"))
    assert (await graph.claim("u2", "STRIPE"))["gatewayToken"]["gatewayCustomerId"] == "cus_1"
    await graph.delete(await graph.customer("STRIPE", "cus_1"))
    assert (await graph.claim("u2", "STRIPE"))["claim"]["idempotencyKey"] != before


async def test_many_at_once_leave_each_customer_with_one_user_and_each_user_with_one_customer(graph, connection):
    users = [f"u{number}" for number in range(4)]
    for user in users:
        await graph.saved(user, "STRIPE", f"cus_of_{user}")

    async def swap(one, other):
        mine = {token["userId"]: token for user in users for token in await graph.tokens(user)}
        return await graph.reassign(
            ("STRIPE", mine[one]["gatewayCustomerId"], other), ("STRIPE", mine[other]["gatewayCustomerId"], one)
        )

    pairs = [(one, other) for one in users for other in users if one < other]
    await asyncio.gather(*(swap(*pair) for pair in pairs for _ in range(3)), return_exceptions=True)
    rows = await connection.fetch(
        "select t.user_id, t.gateway_customer_id, c.user_id as owner from customer_gateway_tokens t"
        " join gateway_customers c using (gateway_customer_id, gateway)"
    )
    assert sorted(row["user_id"] for row in rows) == users
    assert {row["gateway_customer_id"] for row in rows} == {f"cus_of_{user}" for user in users}
    assert all(row["user_id"] == row["owner"] for row in rows)


async def test_of_two_that_cross_exactly_one_wins(graph, deadlocks):
    """Each swaps a user of its own with one that both name: what the first makes of that one refuses the second."""
    for number in range(15):
        a, b, c = (f"{side}{number}" for side in "abc")
        for user in (a, b, c):
            await graph.saved(user, "STRIPE", f"cus_{user}")
        payloads = await asyncio.gather(
            graph.reassign(("STRIPE", f"cus_{a}", b), ("STRIPE", f"cus_{b}", a)),
            graph.reassign(("STRIPE", f"cus_{c}", b), ("STRIPE", f"cus_{b}", c)),
        )
        assert sorted([problem for problem, _ in problems(payload)] for payload in payloads) == [[], ["ALREADY_EXISTS"]]
        first_won = not problems(payloads[0])
        owners = {user: (await graph.tokens(user))[0]["gatewayCustomerId"] for user in (a, b, c)}
        swapped = (a, b) if first_won else (c, b)
        expected = {user: f"cus_{user}" for user in (a, b, c)}
        expected |= {swapped[0]: f"cus_{swapped[1]}", swapped[1]: f"cus_{swapped[0]}"}
        assert owners == expected
    assert deadlocks == []


async def test_a_save_at_once_is_refused_or_comes_first(graph):
    for number in range(10):
        await graph.saved(f"a{number}", "STRIPE", f"cus_{number}")
        saved, moved = await asyncio.gather(
            graph.save(f"b{number}", "STRIPE", f"other_{number}"),
            graph.reassign(("STRIPE", f"cus_{number}", f"b{number}")),
        )
        [token] = await graph.tokens(f"b{number}")
        if problems(moved):
            assert token_of(saved)["id"] == token["id"]
        else:
            assert problems(saved)[0][0] == "ALREADY_EXISTS"
            assert token["gatewayCustomerId"] == f"cus_{number}"


async def test_a_customer_that_goes_to_and_fro_meanwhile_is_moved_in_the_end(graph, app, connection, monkeypatch):
    """Whenever its owner was read, another user has it before that one is locked."""
    await graph.saved("u1", "STRIPE", "cus_1")
    store, owners = app.state["store"], cycle(("u2", "u1"))
    read = store.customers

    async def outdated(customers):
        found, owner = await read(customers), next(owners)
        async with connection.transaction():  # a distributed table lets no row change its user
            row = dict(await connection.fetchrow("delete from customer_gateway_tokens returning *"), user_id=owner)
            places = ", ".join(f"${number}" for number, _ in enumerate(row, 1))
            await connection.execute(f"insert into customer_gateway_tokens values ({places})", *row.values())  # noqa: S608
        await connection.execute("update gateway_customers set user_id = $1", owner)
        return found

    monkeypatch.setattr(store, "customers", outdated)
    async with asyncio.timeout(5):
        assert shown(await graph.reassign(("STRIPE", "cus_1", "u3"))) == [("u3", "cus_1")]
