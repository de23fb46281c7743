"""One token, one change after another: what each mutation does, refuses, and leaves as it is."""

import pytest

from tests.graph import problems, token_of, wanted

NOWHERE = {"id": "0192d4e5-8c1a-7bbb-8ccc-0123456789ab"}


def without_times(token):
    return {name: value for name, value in token.items() if not name.endswith("At") and name != "id"}


async def actions(graph, token):
    return [(line["action"], line["version"]) for line in await graph.history(token)]


async def test_a_new_token_is_as_it_was_sent(graph):
    payload = await graph.create("u1", " stripe", "cus_1", description="a note", metadata={"plan": ["gold", 1.5]})
    token = payload["gatewayToken"]
    assert payload["user"] == {"id": "u1"}
    assert without_times(token) == {
        "userId": "u1",
        "gateway": "STRIPE",
        "gatewayCustomerId": "cus_1",
        "description": "a note",
        "metadata": {"plan": ["gold", 1.5]},
        "isActive": True,
        "version": 1,
        "deactivationReason": None,
        "formerGatewayCustomerIds": [],
    }
    assert token["createdAt"] == token["updatedAt"]
    assert token["deactivatedAt"] is token["lastVerifiedAt"] is None
    [line] = await graph.history(token)
    assert line == {
        "id": f"{token['id']}:1",
        "action": "CREATED",
        "actor": "a-service",
        "at": token["updatedAt"],
        "version": 1,
        "gatewayCustomerId": "cus_1",
        "isActive": True,
        "reason": None,
    }


async def test_a_token_may_begin_inactive(graph):
    token = token_of(await graph.create("u1", "STRIPE", "cus_1", isActive=False))
    assert (token["isActive"], token["deactivationReason"]) == (False, "OTHER")
    assert token["deactivatedAt"] == token["createdAt"]
    assert [line["reason"] for line in await graph.history(token)] == ["OTHER"]


async def test_the_same_create_again_answers_the_stored_token_whatever_else_it_says(graph):
    token = token_of(await graph.create("u1", "STRIPE", "cus_1", description="first"))
    again = await graph.create("u1", "stripe", "cus_1", description="second", isActive=False)
    assert token_of(again) == token
    assert await actions(graph, token) == [("CREATED", 1)]


async def test_a_second_customer_of_a_user_at_a_gateway_is_refused_with_the_one_that_is_there(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for attempt in (graph.create, graph.save):
        payload = await attempt("u1", "STRIPE", "cus_2")
        assert problems(payload) == [("ALREADY_EXISTS", ["input", "gatewayCustomerId"])]
        assert payload["gatewayToken"] == token
        assert payload["user"] == {"id": "u1"}


async def test_a_customer_of_somebody_else_is_refused_and_not_shown(graph):
    other = await graph.saved("u1", "STRIPE", "cus_1")
    mine = await graph.saved("u3", "STRIPE", "cus_3")
    attempts = [
        (await graph.create("u2", "STRIPE", "cus_1"), ["input", "gatewayCustomerId"]),
        (await graph.save("u2", "STRIPE", "cus_1"), ["input", "gatewayCustomerId"]),
        (await graph.save("u3", "STRIPE", "cus_1", replaces="cus_3"), ["input", "gatewayCustomerId"]),
        (await graph.update(mine, gatewayCustomerId="cus_1"), ["input", "gatewayCustomerId"]),
    ]
    for payload, field in attempts:
        assert problems(payload) == [("CUSTOMER_TAKEN", field)]
        assert payload["gatewayToken"] is payload["user"] is None
    assert await graph.token(other["id"]) == other
    assert token_of(await graph.save("u2", "PAYPAL", "cus_1"))  # another gateway's customer is another one


async def test_a_save_changes_what_it_names_and_keeps_the_rest(graph):
    first = await graph.save("u1", "STRIPE", "cus_1", description="a", metadata={"a": 1})
    assert first["created"] is True
    kept = await graph.save("u1", "STRIPE", "cus_1")
    assert (kept["created"], kept["gatewayToken"]) == (False, first["gatewayToken"])
    changed = token_of(await graph.save("u1", "STRIPE", "cus_1", description="b"))
    assert (changed["description"], changed["metadata"], changed["version"]) == ("b", {"a": 1}, 2)
    cleared = token_of(await graph.save("u1", "STRIPE", "cus_1", description=None, metadata=None))
    assert (cleared["description"], cleared["metadata"], cleared["version"]) == (None, None, 3)
    assert await actions(graph, cleared) == [("UPDATED", 3), ("UPDATED", 2), ("CREATED", 1)]


@pytest.mark.parametrize("by", ["save", "update"])
async def test_every_edit_is_told_apart_in_the_history(graph, by):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    edits = [
        ({"metadata": {"a": True}}, "UPDATED", None),
        ({"isActive": False, "description": "x"}, "DEACTIVATED", "OTHER"),
        ({"isActive": True}, "ACTIVATED", None),
        ({"gatewayCustomerId": "cus_2", "replaces": "cus_1", "description": None}, "REPLACED", None),
    ]
    for version, (edit, action, reason) in enumerate(edits, 2):
        if by == "update":
            change = {name: value for name, value in edit.items() if name != "replaces"}
            changed = token_of(await graph.update(token, **change))
        else:
            changed = token_of(await graph.mutate("save", input=wanted("u1", "STRIPE", "cus_1") | edit))
        newest = (await graph.history(token))[0]
        assert (newest["action"], newest["reason"], newest["version"]) == (action, reason, version)
        assert newest["at"] == changed["updatedAt"]
        assert (newest["gatewayCustomerId"], newest["isActive"]) == (changed["gatewayCustomerId"], changed["isActive"])


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"description": "a"},
        {"metadata": {"b": [1, {"c": None}], "a": True}},
        {"isActive": True},
        {"gatewayCustomerId": "cus_1"},
        {"description": "a", "metadata": {"a": True, "b": [1.0, {"c": None}]}, "isActive": True},
    ],
)
async def test_the_same_values_again_are_no_change(graph, edit):
    token = await graph.saved("u1", "STRIPE", "cus_1", description="a", metadata={"a": True, "b": [1, {"c": None}]})
    assert token_of(await graph.update(token, **edit)) == token
    assert token_of(await graph.mutate("save", input=wanted("u1", "STRIPE", "cus_1") | edit)) == token
    assert await actions(graph, token) == [("CREATED", 1)]


async def test_a_different_kind_of_equal_value_is_a_change(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1", metadata={"a": True})
    assert token_of(await graph.update(token, metadata={"a": 1}))["metadata"] == {"a": 1}


async def test_versions_and_times_grow_with_every_change(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for number in range(2, 12):
        changed = token_of(await graph.update(token, description=str(number)))
        assert changed["version"] == number
        assert changed["updatedAt"] > token["updatedAt"]
        assert changed["createdAt"] == token["createdAt"]
        token = changed


async def test_a_time_grows_even_where_the_clock_went_back(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await connection.execute("update customer_gateway_tokens set updated_at = '2999-01-01T00:00Z'")
    assert token_of(await graph.update(token, description="x"))["updatedAt"] == "2999-01-01T00:00:00.000001+00:00"
    assert token_of(await graph.deactivate(token))["deactivatedAt"] == "2999-01-01T00:00:00.000002+00:00"


async def test_a_replaced_customer_is_a_former_one(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    token_of(await graph.verify("STRIPE", "cus_1"))
    second = await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    assert (second["id"], second["formerGatewayCustomerIds"]) == (token["id"], ["cus_1"])
    assert second["lastVerifiedAt"] is None  # what was verified was the other one
    assert await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1") == second  # the same again
    third = token_of(await graph.update(second, gatewayCustomerId="cus_3"))
    assert third["formerGatewayCustomerIds"] == ["cus_1", "cus_2"]
    for customer in ("cus_1", "cus_2", "cus_3"):
        assert await graph.customer("stripe", customer) == third
    back = token_of(await graph.update(third, gatewayCustomerId="cus_1"))
    assert (back["gatewayCustomerId"], back["formerGatewayCustomerIds"]) == ("cus_1", ["cus_2", "cus_3"])
    assert (await graph.history(back))[0]["action"] == "REPLACED"


async def test_replaces_names_the_stored_customer_or_nothing(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1", replaces="whatever")  # ignored where nothing is stored
    for replaces in ("cus_9", None, "CUS_1", ""):
        payload = await graph.save("u1", "STRIPE", "cus_2", replaces=replaces)
        assert problems(payload) == [("ALREADY_EXISTS", ["input", "gatewayCustomerId"])]
        named = "" if replaces is None else f", but `replaces` is {replaces!r}"
        assert f"the customer cus_1 at STRIPE{named}. " in payload["userErrors"][0]["message"]
    assert await graph.token(token["id"]) == token


async def test_a_former_customer_stays_reserved_for_its_user(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    assert problems(await graph.save("u2", "STRIPE", "cus_1")) == [("CUSTOMER_TAKEN", ["input", "gatewayCustomerId"])]
    late = await graph.save("u1", "STRIPE", "cus_1")  # a save that was on its way for long
    assert problems(late) == [("ALREADY_EXISTS", ["input", "gatewayCustomerId"])]
    assert (await graph.saved("u1", "STRIPE", "cus_1", replaces="cus_2"))["id"] == token["id"]


async def test_the_customers_of_a_deleted_token_stay_reserved_for_its_user(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    assert problems(await graph.delete(token)) == []
    for customer in ("cus_1", "cus_2"):
        assert problems(await graph.save("u2", "STRIPE", customer)) == [
            ("CUSTOMER_TAKEN", ["input", "gatewayCustomerId"])
        ]
        assert await graph.customer("STRIPE", customer) is None
    again = await graph.save("u1", "STRIPE", "cus_1")
    assert again["created"] is True
    assert again["gatewayToken"]["id"] != token["id"]
    assert (await graph.customer("STRIPE", "cus_2"))["id"] == again["gatewayToken"]["id"]


async def test_activation_and_deactivation(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert token_of(await graph.activate(token)) == token
    inactive = token_of(await graph.deactivate(token, reason="FRAUD"))
    assert (inactive["isActive"], inactive["deactivationReason"], inactive["version"]) == (False, "FRAUD", 2)
    assert inactive["deactivatedAt"] == inactive["updatedAt"]
    assert token_of(await graph.deactivate(token, reason="USER_REQUEST")) == inactive
    active = token_of(await graph.activate(token))
    assert (active["isActive"], active["deactivationReason"], active["deactivatedAt"]) == (True, None, None)
    lines = [(line["action"], line["reason"], line["isActive"]) for line in await graph.history(token)]
    assert lines == [("ACTIVATED", None, True), ("DEACTIVATED", "FRAUD", False), ("CREATED", None, True)]


async def test_a_deletion_may_be_repeated_and_leaves_its_history(graph, connection):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for spelling in (token["id"], token["id"].upper(), token["id"]):
        payload = await graph.mutate("delete", id=spelling)
        assert payload == {"deletedId": token["id"], "user": {"id": "u1"}, "userErrors": []}
    assert await graph.token(token["id"]) is None
    lines = await connection.fetch(
        "select action, version, user_id from customer_gateway_token_events order by version"
    )
    assert [tuple(line) for line in lines] == [("CREATED", 1, "u1"), ("DELETED", 2, "u1")]


async def test_a_token_that_never_was_is_not_found(graph):
    for token in (NOWHERE, {"id": "no uuid"}, {"id": ""}, {"id": f"urn:uuid:{NOWHERE['id']}"}):
        for attempt in (graph.activate, graph.deactivate, graph.delete):
            assert problems(await attempt(token)) == [("NOT_FOUND", ["id"])]
        assert problems(await graph.update(token, description="x")) == [("NOT_FOUND", ["input", "id"])]
        assert await graph.token(token["id"]) is None


async def test_an_id_that_is_malformed_text_is_invalid(graph):
    token = {"id": "\0"}
    for attempt in (graph.activate, graph.deactivate, graph.delete):
        assert problems(await attempt(token)) == [("INVALID", ["id"])]
    assert problems(await graph.update(token, description="x")) == [("INVALID", ["input", "id"])]


async def test_a_change_of_what_was_deleted_is_not_found(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.delete(token)
    assert problems(await graph.update(token, description="x")) == [("NOT_FOUND", ["input", "id"])]
    assert problems(await graph.activate(token)) == [("NOT_FOUND", ["id"])]


@pytest.mark.parametrize("expected", [0, 2, -1, 2**31 - 1])
async def test_a_change_of_another_version_than_expected_is_stale(graph, expected):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    attempts = [
        (await graph.update(token, description="x", expectedVersion=expected), ["input", "expectedVersion"]),
        (await graph.save("u1", "STRIPE", "cus_1", expectedVersion=expected), ["input", "expectedVersion"]),
        (await graph.activate(token, expectedVersion=expected), ["expectedVersion"]),
        (await graph.deactivate(token, expectedVersion=expected), ["expectedVersion"]),
    ]
    for payload, field in attempts:
        assert problems(payload) == [("STALE", field)]
        assert payload["gatewayToken"] == token
    deletion = await graph.delete(token, expectedVersion=expected)
    assert (problems(deletion), deletion["deletedId"]) == ([("STALE", ["expectedVersion"])], None)
    assert await graph.token(token["id"]) == token


async def test_a_change_of_the_expected_version_is_made(graph):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert token_of(await graph.update(token, description="x", expectedVersion=1))["version"] == 2
    assert token_of(await graph.deactivate(token, expectedVersion=2))["version"] == 3
    assert token_of(await graph.activate(token, expectedVersion=3))["version"] == 4
    assert token_of(await graph.save("u1", "STRIPE", "cus_1", description="y", expectedVersion=4))["version"] == 5
    assert token_of(await graph.update(token, description="z", expectedVersion=None))["version"] == 6
    assert problems(await graph.delete(token, expectedVersion=6)) == []


async def test_a_token_that_is_not_there_has_no_version_to_expect(graph):
    payload = await graph.save("u1", "STRIPE", "cus_1", expectedVersion=1)
    assert problems(payload) == [("STALE", ["input", "expectedVersion"])]
    assert (payload["created"], payload["gatewayToken"]) == (False, None)
    assert await graph.tokens("u1") == []


EVERYTHING_WRONG = [
    ("INVALID", "userId"),
    ("INVALID", "gateway"),
    ("INVALID", "isActive"),
    ("INVALID", "gatewayCustomerId"),
    ("CARD_NUMBER", "description"),
    ("INVALID", "metadata"),
    ("INVALID", "replaces"),
]


async def test_all_that_is_wrong_with_an_input_is_said_at_once(graph):
    wrong = wanted("", "?", "a b", description="4111 1111 1111 1111", metadata=[], isActive=None, replaces="\0")
    payload = await graph.mutate("save", input=wrong)
    assert sorted(problems(payload)) == sorted((code, ["input", field]) for code, field in EVERYTHING_WRONG)
    assert (payload["gatewayToken"], payload["user"], payload["created"]) == (None, None, False)
    batch = await graph.save_many([wanted("u1", "STRIPE", "cus_1"), wrong])
    assert sorted(problems(batch)) == sorted((code, ["inputs", "1", field]) for code, field in EVERYTHING_WRONG)
    created = await graph.create("", "?", "a b", description="4111 1111 1111 1111", metadata=[])
    assert sorted(problems(created)) == sorted(
        (code, ["input", field]) for code, field in EVERYTHING_WRONG if field not in {"isActive", "replaces"}
    )


async def test_all_that_is_wrong_with_a_change_is_said_at_once(graph):
    change = {"gatewayCustomerId": None, "description": "x" * 2001, "metadata": {"a": "\0"}, "isActive": None}
    expected = [("INVALID", ["input", field]) for field in change]
    assert sorted(problems(await graph.update(NOWHERE, **change))) == sorted(expected)


async def test_all_that_is_wrong_with_the_arguments_of_other_mutations_is_said_at_once(graph):
    refused = [
        (await graph.claim("", "1", leaseSeconds=0), ["userId", "gateway", "leaseSeconds"]),
        (await graph.merge("", "\0"), ["fromUserId", "intoUserId"]),
        (await graph.erase("x" * 256), ["userId"]),
        (await graph.lift(""), ["userId"]),
        (await graph.deactivate_customer("1", ""), ["gateway", "gatewayCustomerId"]),
        (await graph.verify("", "a b"), ["gateway", "gatewayCustomerId"]),
    ]
    for payload, fields in refused:
        assert problems(payload) == [("INVALID", [field]) for field in fields]


async def test_a_gateway_that_is_not_allowed_is_refused_by_name(service_with):
    graph = await service_with(gateways="STRIPE,PAYPAL")
    assert problems(await graph.save("u1", "ADYEN", "x")) == [("INVALID", ["input", "gateway"])]
    assert token_of(await graph.save("u1", "paypal", "x"))["gateway"] == "PAYPAL"


CARD = "4111111111111111"


async def test_numeric_ids_that_look_like_card_numbers_are_saved_at_the_gateways_that_are_named(service_with):
    graph = await service_with(numeric_customer_ids="adyen, BRAINTREE")
    assert problems(await graph.save("u1", "STRIPE", CARD)) == [("CARD_NUMBER", ["input", "gatewayCustomerId"])]
    assert problems(await graph.save("u1", "ADYEN", f"x-{CARD}")) == [("CARD_NUMBER", ["input", "gatewayCustomerId"])]
    saved = token_of(await graph.save("u1", "ADYEN", CARD))
    assert saved["gatewayCustomerId"] == CARD
    other = token_of(await graph.save("u1", "STRIPE", "cus_1"))
    assert problems(await graph.update(other, gatewayCustomerId=CARD)) == [
        ("CARD_NUMBER", ["input", "gatewayCustomerId"])
    ]
    assert token_of(await graph.update(saved, gatewayCustomerId="5555555555554444"))["version"] == 2


async def test_a_customer_id_has_the_form_that_its_gateway_asks_for(service_with):
    graph = await service_with(customer_ids="stripe:cus_*")
    [error] = (await graph.save("u1", "STRIPE", "pm_1"))["userErrors"]
    assert error["message"] == "Customer ids at STRIPE must match cus_* (CUSTOMER_IDS)."
    saved = token_of(await graph.save("u1", "STRIPE", "cus_1"))
    assert problems(await graph.update(saved, gatewayCustomerId="pm_1")) == [
        ("INVALID", ["input", "gatewayCustomerId"])
    ]
    assert token_of(await graph.save("u1", "ADYEN", "pm_1"))["gatewayCustomerId"] == "pm_1"


@pytest.mark.parametrize(
    ("rules", "stored"), [({"customer_ids": "STRIPE:cus_*"}, "pm_1"), ({"gateways": "STRIPE"}, CARD)]
)
async def test_todays_rules_of_ids_apply_to_new_ids_only(service_with, rules, stored):
    before = await service_with(numeric_customer_ids="STRIPE")
    token_of(await before.save("u1", "STRIPE", stored))
    graph = await service_with(**rules)
    assert token_of(await graph.save("u1", "STRIPE", stored, description="again"))["version"] == 2
    assert (await graph.save_many([wanted("u1", "STRIPE", stored)]))["userErrors"] == []
    same = await graph.customer("STRIPE", stored)
    assert token_of(await graph.update(same, gatewayCustomerId=stored, description="more"))["version"] == 3
    assert token_of(await graph.verify("STRIPE", stored))["version"] == 3
    assert token_of(await graph.deactivate_customer("STRIPE", stored))["version"] == 4
    for user, customer in (("u2", stored), ("u1", f"{stored[:-1]}9")):
        [(code, path)] = problems(await graph.save(user, "STRIPE", customer))
        assert (code in {"INVALID", "CARD_NUMBER", "ALREADY_EXISTS"}, path) == (True, ["input", "gatewayCustomerId"])
    replaced = token_of(await graph.save("u1", "STRIPE", "cus_1", replaces=stored))
    assert replaced["gatewayCustomerId"] == "cus_1"
    assert token_of(await graph.verify("STRIPE", stored))["version"] == 5


@pytest.mark.parametrize(("customer", "code"), [("pm_1", "INVALID"), (CARD, "CARD_NUMBER")])
async def test_nothing_is_kept_of_an_id_that_no_customer_can_have(service_with, connection, customer, code):
    graph = await service_with(customer_ids="STRIPE:cus_*,ADYEN:*")
    gateway = "STRIPE" if code == "INVALID" else "ADYEN"
    assert problems(await graph.deactivate_customer(gateway, customer)) == [(code, ["gatewayCustomerId"])]
    assert problems(await graph.verify(gateway, customer)) == [(code, ["gatewayCustomerId"])]
    assert await connection.fetchval("select count(*) from gateway_customer_reports") == 0
