"""Many saves in one request work as if they had been made one after another."""

import pytest

from tests.graph import problems, wanted


def shown(payload):
    """What became of each input: customer, version and description, or None."""
    return [
        token and (token["gatewayCustomerId"], token["version"], token["description"])
        for token in payload["gatewayTokens"]
    ]


async def stored(connection):
    return await connection.fetchval("select count(*) from customer_gateway_tokens")


async def test_nothing_to_save_is_no_mistake(graph):
    assert await graph.save_many([]) == {"createdCount": 0, "gatewayTokens": [], "userErrors": []}


async def test_answers_stand_in_the_order_of_the_inputs(graph):
    await graph.saved("u2", "STRIPE", "cus_2")
    payload = await graph.save_many(
        [
            wanted("u3", "STRIPE", "cus_3"),
            wanted("u2", "stripe", "cus_2", description="x"),
            wanted("u1", "STRIPE", "cus_1"),
            wanted("u2", "STRIPE", "cus_2"),
        ]
    )
    assert shown(payload) == [("cus_3", 1, None), ("cus_2", 2, "x"), ("cus_1", 1, None), ("cus_2", 2, "x")]
    assert (payload["createdCount"], problems(payload)) == (2, [])


TAKEN, TWICE = "other's", [wanted("u1", "STRIPE", "cus_1"), wanted("u2", "STRIPE", "cus_1")]
REFUSED = {
    "malformed": (wanted("u9", "?", "cus_9"), ("INVALID", "gateway")),
    "taken": (wanted("u9", "STRIPE", TAKEN), ("CUSTOMER_TAKEN", "gatewayCustomerId")),
    "another customer": (wanted("other", "STRIPE", "cus_9"), ("ALREADY_EXISTS", "gatewayCustomerId")),
    "stale": (wanted("other", "STRIPE", TAKEN, expectedVersion=7), ("STALE", "expectedVersion")),
    "nothing to expect": (wanted("u9", "STRIPE", "cus_9", expectedVersion=1), ("STALE", "expectedVersion")),
    "erased": (wanted("erased", "STRIPE", "cus_9"), ("ERASED", "userId")),
    "a card number": (wanted("u9", "STRIPE", "cus_9", description="4111111111111111"), ("CARD_NUMBER", "description")),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_one_that_is_refused_refuses_all_or_only_itself(graph, connection, kind):
    wrong, (code, field) = REFUSED[kind]
    await graph.saved("other", "STRIPE", TAKEN)
    await graph.erase("erased")
    inputs = [wanted("u1", "STRIPE", "cus_1"), wrong, wanted("u2", "STRIPE", "cus_2")]
    aborted = await graph.save_many(inputs)
    assert aborted["gatewayTokens"] == [None, None, None]
    assert (aborted["createdCount"], problems(aborted)) == (0, [(code, ["inputs", "1", field])])
    assert await stored(connection) == 1
    continued = await graph.save_many(inputs, onError="CONTINUE")
    assert shown(continued) == [("cus_1", 1, None), None, ("cus_2", 1, None)]
    assert (continued["createdCount"], problems(continued)) == (2, [(code, ["inputs", "1", field])])
    assert await stored(connection) == 3


async def test_all_that_is_refused_is_said(graph):
    await graph.saved("other", "STRIPE", TAKEN)
    inputs = [REFUSED["taken"][0], wanted("u1", "STRIPE", "cus_1"), REFUSED["another customer"][0]]
    expected = [
        ("CUSTOMER_TAKEN", ["inputs", "0", "gatewayCustomerId"]),
        ("ALREADY_EXISTS", ["inputs", "2", "gatewayCustomerId"]),
    ]
    for policy in ("ABORT", "CONTINUE"):
        assert problems(await graph.save_many(inputs, onError=policy)) == expected


async def test_who_has_another_customer_learns_when_to_use_it(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    [error] = (await graph.mutate("save", input=wanted("u1", "STRIPE", "cus_2")))["userErrors"]
    assert "If its `isActive` is true, use it." in error["message"]
    inputs = [wanted("u1", "STRIPE", "cus_2"), wanted("u2", "STRIPE", "cus_3"), wanted("u2", "STRIPE", "cus_4")]
    stored_before, of_batch = (await graph.save_many(inputs))["userErrors"]
    assert stored_before["message"].startswith("This user already has the customer cus_1 at STRIPE.")
    assert of_batch["message"].startswith(
        "An earlier item in this batch saves the customer cus_3 for this user at STRIPE."
    )


# What a batch says, and what becomes of each of its inputs: (customer, version, description) or a code.
SEQUENCES = {
    "the same twice": (
        [wanted("u1", "STRIPE", "cus_1"), wanted("u1", "STRIPE", "cus_1")],
        [("cus_1", 1, None), ("cus_1", 1, None)],
        ["CREATED"],
    ),
    "made and changed twice": (
        [wanted("u1", "STRIPE", "cus_1"), *(wanted("u1", "STRIPE", "cus_1", description=text) for text in "ab")],
        [("cus_1", 1, None), ("cus_1", 2, "a"), ("cus_1", 3, "b")],
        ["CREATED", "UPDATED", "UPDATED"],
    ),
    "replaced there and back": (
        [
            wanted("u1", "STRIPE", "cus_1"),
            wanted("u1", "STRIPE", "cus_2", replaces="cus_1"),
            wanted("u1", "STRIPE", "cus_1", replaces="cus_2"),
        ],
        [("cus_1", 1, None), ("cus_2", 2, None), ("cus_1", 3, None)],
        ["CREATED", "REPLACED", "REPLACED"],
    ),
    "two users, one customer": (TWICE, [("cus_1", 1, None), "CUSTOMER_TAKEN"], ["CREATED"]),
    "two users, one former customer": (
        [
            wanted("u1", "STRIPE", "cus_1"),
            wanted("u1", "STRIPE", "cus_2", replaces="cus_1"),
            wanted("u2", "STRIPE", "cus_1"),
        ],
        [("cus_1", 1, None), ("cus_2", 2, None), "CUSTOMER_TAKEN"],
        ["CREATED", "REPLACED"],
    ),
    "one user, two customers": (
        [wanted("u1", "STRIPE", "cus_1"), wanted("u1", "STRIPE", "cus_2")],
        [("cus_1", 1, None), "ALREADY_EXISTS"],
        ["CREATED"],
    ),
    "versions that the batch itself makes": (
        [
            wanted("u1", "STRIPE", "cus_1"),
            wanted("u1", "STRIPE", "cus_1", description="a", expectedVersion=1),
            wanted("u1", "STRIPE", "cus_1", description="b", expectedVersion=1),
            wanted("u1", "STRIPE", "cus_1", description="c", expectedVersion=2),
        ],
        [("cus_1", 1, None), ("cus_1", 2, "a"), "STALE", ("cus_1", 3, "c")],
        ["CREATED", "UPDATED", "UPDATED"],
    ),
    "a refused input claims nothing": (
        [
            wanted("u1", "STRIPE", "cus_1", expectedVersion=1),
            wanted("u2", "STRIPE", "cus_1"),
        ],
        ["STALE", ("cus_1", 1, None)],
        ["CREATED"],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("together", [True, False], ids=["as a batch", "one by one"])
async def test_a_batch_answers_as_its_inputs_do_one_after_another(graph, connection, name, together):
    inputs, expected, history = SEQUENCES[name]
    if together:
        payload = await graph.save_many(inputs, onError="CONTINUE")
        outcomes = shown(payload)
        for code, (_, index, _) in problems(payload):
            outcomes[int(index)] = code
    else:
        outcomes = []
        for each in inputs:
            payload = await graph.mutate("save", input=each)
            [token] = shown({"gatewayTokens": [payload["gatewayToken"]]})
            outcomes.append(problems(payload)[0][0] if payload["userErrors"] else token)
    assert outcomes == expected
    rows = await connection.fetch("select action, version, at from customer_gateway_token_events order by version")
    assert [row["action"] for row in rows] == history
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["at"] for row in rows}) == len(rows)


async def test_a_thousand_go_in_and_one_more_does_not(graph, connection):
    inputs = [wanted(f"u{number}", "STRIPE", f"cus_{number}") for number in range(1001)]
    for policy in ("ABORT", "CONTINUE"):
        payload = await graph.save_many(inputs, onError=policy)
        assert problems(payload) == [("INVALID", ["inputs"])]
        assert payload["createdCount"] == await stored(connection) == 0
    payload = await graph.save_many(inputs[:1000])
    assert payload["createdCount"] == await stored(connection) == 1000
    assert [token["userId"] for token in payload["gatewayTokens"]] == [f"u{number}" for number in range(1000)]


async def test_a_replacement_takes_no_more_statements_than_a_creation(graph, statements):
    counts = []
    for customer, rest in (("cus_1", {}), ("cus_2", {"replaces": "cus_1"})):
        statements.clear()
        await graph.saved("u1", "STRIPE", customer, **rest)
        counts.append(len(statements))
    assert counts == [9, 9]  # with the reading of what the answer shows


async def test_a_batch_takes_as_many_statements_whatever_its_size(graph, statements):
    def batch(size, letter):
        return [wanted(f"{letter}{number}", "STRIPE", f"{letter}{number}") for number in range(size)]

    counts = []
    for size, letter in ((1, "a"), (300, "b")):
        statements.clear()
        await graph.save_many(batch(size, letter))
        counts.append(len(statements))
    assert counts[0] == counts[1]
