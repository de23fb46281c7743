"""The right to be forgotten: what is told once, what is left of nobody, and what keeps the person from coming back."""

import pytest

from tests.graph import problems, token_of


async def texts(connection):
    """Everything that any table holds, as one text, but for the list of customers to delete."""
    tables = await connection.fetch(
        "select tablename from pg_tables where schemaname = 'public' and tablename <> 'gateway_erasures'"
    )
    rows = [await connection.fetch(f"select t::text from {table} t order by 1") for (table,) in tables]  # noqa: S608
    return "\n".join(text for some in rows for (text,) in some)


async def live(graph):
    """A user with a past: replaced, deleted, deactivated and merged tokens, and a claim; and a neighbour."""
    await graph.saved("person", "STRIPE", "person_1", description="person's own", metadata={"of": "person"})
    await graph.saved("person", "STRIPE", "person_2", replaces="person_1")
    await graph.deactivate_customer("STRIPE", "person_2")
    await graph.delete(await graph.saved("person", "PAYPAL", "person_3"))
    await graph.saved("guest", "ADYEN", "person_4", description="person's own")
    await graph.saved("guest", "STRIPE", "person_5")
    await graph.merge("guest", "person", onConflict="KEEP_TARGET")
    await graph.claim("person", "KLARNA")
    await graph.saved("neighbour", "STRIPE", "neighbour_1")


async def test_erasing_tells_every_customer_and_leaves_nothing_of_the_person(graph, connection):
    await live(graph)
    assert "person" in await texts(connection)
    payload = await graph.erase("person")
    assert payload["erased"] == [
        {"gateway": "ADYEN", "gatewayCustomerId": "person_4"},
        {"gateway": "PAYPAL", "gatewayCustomerId": "person_3"},
        {"gateway": "STRIPE", "gatewayCustomerId": "person_1"},
        {"gateway": "STRIPE", "gatewayCustomerId": "person_2"},
        {"gateway": "STRIPE", "gatewayCustomerId": "person_5"},
    ]
    left = await texts(connection)
    assert "person" not in left
    assert "neighbour_1" in left


async def test_what_is_left_says_that_it_happened(graph, connection):
    await live(graph)
    tokens = await graph.tokens("person")
    await graph.erase("person")
    for token in tokens:
        rows = await connection.fetch(
            "select * from customer_gateway_token_events where token_id = $1 order by version", token["id"]
        )
        assert [row["version"] for row in rows] == list(range(1, token["version"] + 2))
        assert rows[-1]["action"] == "ERASED"
        assert {(row["user_id"], row["gateway_customer_id"], row["reason"]) for row in rows} == {(None, "", None)}
        assert {(row["gateway"], row["actor"]) for row in rows} == {(token["gateway"], "a-service")}


async def test_the_lines_of_others_are_as_they_were(graph, connection):
    await live(graph)
    before = await connection.fetch("select * from customer_gateway_token_events where user_id = 'neighbour'")
    await graph.erase("person")
    assert await connection.fetch("select * from customer_gateway_token_events where user_id = 'neighbour'") == before
    assert (await graph.tokens("neighbour"))[0]["gatewayCustomerId"] == "neighbour_1"


async def test_erasing_a_guest_takes_their_name_from_the_token_that_went_to_another(graph, connection):
    await graph.saved("guest", "STRIPE", "cus_1", description="x")
    await graph.merge("guest", "u1")
    payload = await graph.erase("guest")
    assert payload["erased"] == []  # it is the other one's customer now
    assert "guest" not in await texts(connection)
    token = await graph.customer("STRIPE", "cus_1")
    assert (token["userId"], token["version"]) == ("u1", 2)
    assert [line["gatewayCustomerId"] for line in await graph.history(token)] == ["cus_1", ""]


async def _deleted_before(graph):
    await graph.delete(await graph.saved("person_a", "STRIPE", "person_1"))
    await graph.saved("person_a", "PAYPAL", "person_2")
    await graph.merge("person_a", "person")


async def _merged_twice(graph):
    for number, user in enumerate(("person_a", "person_b", "person")):
        await graph.saved(user, "STRIPE", f"person_{number}")
    await graph.merge("person_a", "person_b", onConflict="KEEP_TARGET")
    await graph.merge("person_b", "person", onConflict="KEEP_SOURCE")


async def _there_and_back(graph):
    token = await graph.saved("person", "STRIPE", "person_1")
    await graph.merge("person", "person_a")
    await graph.delete(token)
    await graph.merge("person_a", "person")


@pytest.mark.parametrize("past", [_deleted_before, _merged_twice, _there_and_back])
async def test_erasing_finds_the_past_of_whoever_was_merged_into_the_person(graph, connection, past):
    await past(graph)
    await graph.saved("neighbour", "STRIPE", "neighbour_1")
    await graph.erase("person")
    left = await texts(connection)
    assert "person" not in left
    assert "neighbour_1" in left


async def test_erasing_finds_a_former_customer_in_the_history_of_a_token_that_a_third_user_has(graph, connection):
    await graph.saved("guest", "STRIPE", "person_1")
    await graph.saved("guest", "STRIPE", "cus_2", replaces="person_1")
    await graph.reassign(("STRIPE", "cus_2", "neighbour"), reason="mix-up")
    await graph.merge("guest", "person")
    payload = await graph.erase("person")
    assert payload["erased"] == [{"gateway": "STRIPE", "gatewayCustomerId": "person_1"}]
    assert "person" not in await texts(connection)
    assert (await graph.customer("STRIPE", "cus_2"))["userId"] == "neighbour"


async def test_a_person_who_did_it_themself_is_not_named_either(as_service, graph, connection, app):
    await graph.saved("a-service", "STRIPE", "cus_1")  # the caller's own name
    await graph.saved("u2", "STRIPE", "cus_2")
    await graph.erase("a-service")
    rows = await connection.fetch("select actor, user_id from customer_gateway_token_events order by user_id, version")
    assert [tuple(row) for row in rows] == [("a-service", "u2"), ("", None), ("", None)]


async def test_a_second_erasure_answers_what_is_not_confirmed_yet(graph, connection):
    await live(graph)
    erased = (await graph.erase("person"))["erased"]
    before = await texts(connection)
    assert await graph.erase("person") == {"erased": erased, "userErrors": []}
    assert await texts(connection) == before
    assert await graph.confirm(("adyen", "person_4"), ("PAYPAL", "unknown")) == {"confirmedCount": 1, "userErrors": []}
    assert await graph.confirm(("ADYEN", "person_4")) == {"confirmedCount": 0, "userErrors": []}
    assert (await graph.erase("person"))["erased"] == erased[1:]
    assert await graph.confirm(*(tuple(each.values()) for each in erased)) == {"confirmedCount": 4, "userErrors": []}
    assert await graph.erase("person") == {"erased": [], "userErrors": []}
    assert (await graph.erasures())["nodes"] == []


async def test_customers_to_delete_are_listed_oldest_first_without_whose_they_were(graph, connection):
    for user, gateways in (("u2", ("STRIPE", "PAYPAL")), ("u1", ("STRIPE",)), ("u3", ("ADYEN",))):
        for gateway in gateways:
            await graph.saved(user, gateway, f"cus_of_{gateway}_{user[::-1]}")
        await graph.erase(user)
    listed = ["cus_of_PAYPAL_2u", "cus_of_STRIPE_2u", "cus_of_STRIPE_1u", "cus_of_ADYEN_3u"]
    whole = await graph.erasures()
    assert [node["gatewayCustomerId"] for node in whole["nodes"]] == listed
    assert [node["erasedAt"] for node in whole["nodes"]] == sorted(node["erasedAt"] for node in whole["nodes"])
    found, after = [], {}
    while True:
        page = await graph.erasures(first=1, **after)
        found += [node["gatewayCustomerId"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = {"after": page["pageInfo"]["endCursor"]}
    assert found == listed
    stripes = await graph.erasures(gateway="stripe")
    assert [node["gatewayCustomerId"] for node in stripes["nodes"]] == listed[1:3]
    for row in await connection.fetch("select t::text from gateway_erasures t"):
        assert not {"u1", "u2", "u3"} & set(row[0].strip("()").split(","))


async def test_a_page_of_customers_to_delete_has_one_before_it_only_while_something_is_there(graph):
    for gateway in ("PAYPAL", "STRIPE"):
        await graph.saved("u1", gateway, f"cus_{gateway}")
    await graph.erase("u1")
    paypal, stripe = (edge["cursor"] for edge in (await graph.erasures())["edges"])

    async def has_previous(**arguments):
        return (await graph.erasures(**arguments))["pageInfo"]["hasPreviousPage"]

    assert not await has_previous()
    assert await has_previous(after=paypal)
    assert await has_previous(after=stripe)  # an empty page
    assert not await has_previous(after=paypal, gateway="STRIPE")
    assert await has_previous(after=paypal, gateway="paypal")
    await graph.confirm(("PAYPAL", "cus_PAYPAL"))
    assert not await has_previous(after=paypal)
    assert await has_previous(after=stripe)


async def test_a_customer_that_is_saved_again_leaves_the_list_and_comes_back_with_its_next_erasure(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("u1")
    await graph.saved("u2", "STRIPE", "cus_1")
    assert (await graph.erasures())["nodes"] == (await graph.erase("u1"))["erased"] == []
    assert await graph.confirm(("STRIPE", "cus_1")) == {"confirmedCount": 0, "userErrors": []}
    erased = [{"gateway": "STRIPE", "gatewayCustomerId": "cus_1"}]
    assert (await graph.erase("u2"))["erased"] == erased
    assert (await graph.erase("u1"))["erased"] == []


async def test_at_most_a_thousand_well_formed_customers_are_confirmed_at_once(graph):
    assert problems(await graph.confirm(*[("STRIPE", "cus_1")] * 1001)) == [("INVALID", ["customers"])]
    payload = await graph.confirm(("STRIPE", "cus_1"), ("no gateway", "cus_1"))
    assert problems(payload) == [("INVALID", ["customers", "1", "gateway"])]


@pytest.mark.parametrize("mutation", ["create", "save"])
async def test_a_late_save_is_refused_until_the_erasure_is_lifted(graph, connection, mutation):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("u1")
    before = await texts(connection)
    attempt = getattr(graph, mutation)
    assert problems(await attempt("u1", "STRIPE", "cus_1")) == [("ERASED", ["input", "userId"])]
    assert await texts(connection) == before
    assert await graph.lift("u1") == {"user": {"id": "u1"}, "userErrors": []}
    assert token_of(await attempt("u1", "STRIPE", "cus_1"))["version"] == 1
    assert await graph.lift("u1") == {"user": {"id": "u1"}, "userErrors": []}  # the same again


async def test_a_user_who_never_had_a_token_may_be_erased_beforehand(graph):
    assert await graph.erase("u1") == {"erased": [], "userErrors": []}
    assert problems(await graph.save("u1", "STRIPE", "cus_1")) == [("ERASED", ["input", "userId"])]
    assert token_of(await graph.save("u2", "STRIPE", "cus_1"))


async def test_late_events_for_an_erased_customer_are_those_of_an_unknown_one(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("u1")
    assert await graph.deactivate_customer("STRIPE", "cus_1") == {"gatewayToken": None, "user": None, "userErrors": []}
    assert problems(await graph.verify("STRIPE", "cus_1")) == [("NOT_FOUND", ["gatewayCustomerId"])]
    assert problems(await graph.update(token, description="x")) == [("NOT_FOUND", ["input", "id"])]
    assert await graph.delete(token) == {"deletedId": token["id"], "user": None, "userErrors": []}


async def test_the_customer_of_an_erased_user_may_become_anothers(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    await graph.erase("u1")
    assert token_of(await graph.save("u2", "STRIPE", "cus_1"))["userId"] == "u2"


async def test_who_was_erased_cannot_be_guessed_from_the_tables_without_the_key(graph, connection):
    await graph.erase("u1")
    [stored] = await connection.fetch("select user_hash, sha256('u1') as plain from erased_users")
    assert len(stored["user_hash"]) == 32
    assert stored["user_hash"] != stored["plain"]


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_a_former_id_that_was_another_users_by_mistake_leaves_their_history_too(graph, connection, is_deleted):
    token = await graph.saved("neighbour", "STRIPE", "person_1")
    if is_deleted:
        await graph.delete(token)
    else:
        await graph.saved("neighbour", "STRIPE", "neighbour_1", replaces="person_1")
    await graph.reassign(("STRIPE", "person_1", "person"))
    assert "person_1" in await texts(connection)
    await graph.erase("person")
    assert "person" not in await texts(connection)
