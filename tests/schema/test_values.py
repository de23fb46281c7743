"""Values through the front door: what goes in comes out, and nothing that is wrong with one is a mistake of ours."""

import json
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.graph import FIELDS, problems, token_of

THROUGH_THE_FRONT_DOOR = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Any character at all, with a taste for those that databases and drivers stumble over.
NASTY = "\0\ud800\udfff\x7f\x1b\u200b\ufeff\uffff\U0010ffff %'\"\\"
# By way of JSON, where two surrogates that make a pair are one character.
texts = st.lists(st.characters() | st.sampled_from(NASTY), max_size=12).map(
    lambda some: json.loads(json.dumps("".join(some)))
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
SAVE = f"""
  mutation($input: SaveCustomerGatewayTokenInput!) {{
    saveCustomerGatewayToken(input: $input) {{ gatewayToken {{ {FIELDS} }} userErrors {{ code message field }} }}
  }}
"""


async def send(graph, query, **variables):
    """The answer to a request whose JSON is ASCII, so that it can hold what is no text at all."""
    body = json.dumps({"query": query, "variables": variables})
    response = await graph.client.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400}
    answer = response.json()
    codes = {error["extensions"]["code"] for error in answer.get("errors", [])}
    assert codes <= {"BAD_USER_INPUT", "BAD_REQUEST"}, answer
    return answer


def is_text(value):
    """Whether there is no NUL and no lone surrogate anywhere in a value."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\\u0000" not in text


@THROUGH_THE_FRONT_DOOR
@given(texts, texts, texts, texts)
@example("u1", "STRIPE", "cus_1", "")
async def test_any_text_is_kept_as_sent_or_refused_with_its_place(graph, user, gateway, customer, description):
    wish = {"userId": user, "gateway": gateway, "gatewayCustomerId": customer, "description": description}
    await graph.client(  # examples meet what is left of others, which is not what this is about
        'mutation { eraseUserGatewayTokens(userId: "u1") { userErrors { code } }'
        ' liftUserErasure(userId: "u1") { user { id } } }'
    )
    answer = await send(graph, SAVE, input=wish)
    if not answer.get("data"):
        assert not is_text(wish)
        return
    payload = answer["data"]["saveCustomerGatewayToken"]
    if payload["gatewayToken"] and not payload["userErrors"]:
        token = payload["gatewayToken"]
        assert {name: token[name] for name in wish} == wish | {"gateway": gateway.strip().upper()}
        assert await graph.token(token["id"]) == token
    else:
        assert {error["code"] for error in payload["userErrors"]} <= {"INVALID", "ALREADY_EXISTS", "CUSTOMER_TAKEN"}
        assert all(error["field"][0] == "input" for error in payload["userErrors"])


def with_doubles(value):
    """The value with its numbers as most readers of JSON have them."""
    return json.loads(json.dumps(value), parse_int=float)


@THROUGH_THE_FRONT_DOOR
@given(st.dictionaries(texts, json_values, max_size=4))
@example({"a": 1e18, "b": 5e-324, "c": -0.0, "d": 2**64 - 1, "e": -(2**63), "f": 1e-308})
@example({"a": 6.656962598120811e16})
@example({"a": 2**64})
async def test_any_json_is_kept_as_sent_or_refused(graph, value):
    await graph.saved("u1", "STRIPE", "cus_1")
    answer = await send(
        graph, SAVE, input={"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1", "metadata": value}
    )
    if not answer.get("data"):
        assert not is_text(value)
        return
    payload = answer["data"]["saveCustomerGatewayToken"]
    if payload["userErrors"]:
        assert {code for code, _ in problems(payload)} <= {"INVALID", "CARD_NUMBER"}
        return
    again = await graph.token(payload["gatewayToken"]["id"])
    for token in (payload["gatewayToken"], again):
        assert with_doubles(token["metadata"]) == with_doubles(value)
    assert again["version"] == payload["gatewayToken"]["version"]
    assert token_of(await graph.save("u1", "STRIPE", "cus_1", metadata=value))["version"] == again["version"]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 123456789012345678901234567890])
async def test_an_integer_that_would_be_rounded_is_refused(graph, number):
    wish = {"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}
    saved = await send(graph, SAVE, input={**wish, "metadata": {"a": number}})
    assert problems(saved["data"]["saveCustomerGatewayToken"]) == [("INVALID", ["input", "metadata"])]
    assert "data" not in await send(graph, SAVE, input={**wish, "userId": number})


@pytest.mark.parametrize("number", [1e20, -6.02214076e23, 1e308])
async def test_a_large_double_is_kept(graph, number):
    assert (await graph.saved("u1", "STRIPE", "cus_1", metadata={"a": number}))["metadata"] == {"a": number}


@pytest.mark.parametrize("number", [1e300, -1e300, 1e-300])
async def test_numbers_in_metadata_are_as_long_as_the_database_writes_them(graph, number):
    await graph.saved("u1", "STRIPE", "cus_1", metadata={"a": [number] * 54})
    refused = await graph.save("u1", "STRIPE", "cus_1", metadata={"a": [number] * 55})
    assert problems(refused) == [("INVALID", ["input", "metadata"])]


@pytest.mark.parametrize("number", [7, 2**64 - 1, -(2**63)])
async def test_an_integer_of_64_bits_may_be_an_id(graph, number):
    assert (await graph.saved(number, "STRIPE", "cus_1"))["userId"] == str(number)


@pytest.mark.parametrize("value", [1.0, 1.5, True, [1]])
async def test_what_is_neither_text_nor_integer_is_no_id(graph, value):
    answer = await send(graph, "query($id: ID!) { customerGatewayToken(id: $id) { id } }", id=value)
    assert "data" not in answer


@THROUGH_THE_FRONT_DOOR
@given(texts, texts)
async def test_any_text_may_be_looked_up(graph, one, other):
    answer = await send(
        graph,
        """
        query($a: String!, $b: String!, $id: ID!, $r: [_Any!]!) {
          a: customerGatewayToken(id: $id) { id }
          b: customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: $b) { id }
          c: customerGatewayTokenByCustomer(gateway: $a, gatewayCustomerId: $b) { id }
          e: _entities(representations: $r) { ... on User { gatewayTokens { id } } ... on CustomerGatewayToken { id } }
        }
        """,
        a=one,
        b=other,
        id=one,
        r=[
            {"__typename": "User", "id": one},
            {"__typename": "CustomerGatewayToken", "id": one},
            {"__typename": "CustomerGatewayToken", "userId": one, "gateway": other},
            {"__typename": "CustomerGatewayToken", "gateway": one, "gatewayCustomerId": other},
            {"__typename": "CustomerGatewayToken", "gateway": "STRIPE", "gatewayCustomerId": other},
        ],
    )
    if answer.get("data") and "\0" not in one + other:
        assert answer["data"]["e"] == [{"gatewayTokens": []}, None, None, None, None]
    await send(
        graph,
        "query($f: CustomerGatewayTokenFilter, $c: String) {"
        " customerGatewayTokens(filter: $f, after: $c) { totalCount } }",
        f={"userId": one, "gatewayCustomerId": other},
        c=other,
    )


OF_ONE_TEXT = [
    "mutation($a: ID!) { activateCustomerGatewayToken(id: $a) { userErrors { code } } }",
    "mutation($a: ID!) { deleteCustomerGatewayToken(id: $a) { deletedId userErrors { code } } }",
    "mutation($a: ID!) { eraseUserGatewayTokens(userId: $a) { userErrors { code } } }",
    "mutation($a: ID!) { liftUserErasure(userId: $a) { userErrors { code } } }",
]
OF_TWO_TEXTS = [
    f"mutation($a: {kind}!, $b: {other}!) {{ {mutation} {{ userErrors {{ code }} }} }}"
    for kind, other, mutation in (
        ("ID", "ID", "mergeUserGatewayTokens(fromUserId: $a, intoUserId: $b)"),
        ("ID", "String", "claimGatewayCustomer(userId: $a, gateway: $b)"),
        ("String", "String", "deactivateGatewayCustomer(gateway: $a, gatewayCustomerId: $b)"),
        ("String", "String", "verifyGatewayCustomer(gateway: $a, gatewayCustomerId: $b)"),
    )
]


@THROUGH_THE_FRONT_DOOR
@given(texts, texts)
async def test_any_text_may_be_given_to_any_mutation(graph, one, other):
    for query in OF_ONE_TEXT:
        await send(graph, query, a=one)
    for query in OF_TWO_TEXTS:
        await send(graph, query, a=one, b=other)
    await send(graph, SAVE, input={"userId": "u1", "gateway": "X", "gatewayCustomerId": one or "x", "replaces": other})


def literal(text):
    """A piece of a document that saves a token with this metadata."""
    return (
        "mutation { saveCustomerGatewayToken(input:"
        f' {{userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1", metadata: {text}}})'
        " { gatewayToken { metadata } userErrors { code message field } } }"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{a: 1, b: [true, null, 1.5], c: {d: "e"}}', {"a": 1, "b": [True, None, 1.5], "c": {"d": "e"}}),
        ("{a: ENUM}", {"a": "ENUM"}),
        ("null", None),
        ("{}", {}),
        ('{a: """block"""}', {"a": "block"}),
        ("{a: 1e3}", {"a": 1000.0}),
    ],
)
async def test_metadata_may_stand_in_the_document_itself(graph, text, value):
    answer = (await graph.ask(literal(text)))["saveCustomerGatewayToken"]
    assert token_of(answer)["metadata"] == value


@pytest.mark.parametrize("text", ["{a: 1e400}", "{a: 99999999999999999999999999}", "[1]", '"x"', "1", '{a: "\\u0000"}'])
async def test_metadata_in_the_document_that_is_wrong_is_refused(graph, text):
    answer = (await graph.ask(literal(text)))["saveCustomerGatewayToken"]
    assert problems(answer) == [("INVALID", ["input", "metadata"])]


@pytest.mark.parametrize("text", ["{a: " + "9" * 5000 + "}", '{a: "\\ud800"}'])
async def test_a_document_that_holds_what_is_no_value_is_no_mistake_of_ours(graph, text):
    answer = await graph.client(literal(text))
    assert {error["extensions"]["code"] for error in answer.get("errors", [])} <= {
        "BAD_USER_INPUT",
        "GRAPHQL_PARSE_FAILED",
        "GRAPHQL_VALIDATION_FAILED",
    }


async def test_limits_hold_to_the_last_character(graph):
    fits = {"userId": "é" * 255, "gateway": "A" * 50, "gatewayCustomerId": "é" * 255, "description": "é" * 2000}
    saved = token_of(await graph.mutate("save", input=fits | {"metadata": {"k": "x" * (16384 - 8)}}))
    assert {name: saved[name] for name in fits} == fits
    for name, longest in fits.items():
        payload = await graph.mutate("save", input=fits | {name: longest + longest[0]})
        assert problems(payload) == [("INVALID", ["input", name])]
    payload = await graph.mutate("save", input=fits | {"metadata": {"k": "x" * (16384 - 7)}})
    assert problems(payload) == [("INVALID", ["input", "metadata"])]


@pytest.mark.parametrize("field", ["gatewayCustomerId", "description", "metadata"])
async def test_a_card_number_is_refused_by_every_way_in(graph, field):
    value = {"metadata": {"x": "4111 1111 1111 1111"}}.get(field, "4111-1111-1111-1111")
    token = await graph.saved("u1", "STRIPE", "cus_1")
    wish = {"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1", field: value}
    for name in ("create", "save"):
        assert problems(await graph.mutate(name, input=wish)) == [("CARD_NUMBER", ["input", field])]
    assert problems(await graph.save_many([wish])) == [("CARD_NUMBER", ["inputs", "0", field])]
    assert problems(await graph.update(token, **{field: value})) == [("CARD_NUMBER", ["input", field])]
    for attempt in (graph.deactivate_customer, graph.verify):
        assert problems(await attempt("STRIPE", "4111111111111111")) == [("CARD_NUMBER", ["gatewayCustomerId"])]


@pytest.mark.parametrize(
    "customer",
    ["1732296482842", "541815603606036480", "0192d4e5-8c1a-7bbb-8ccc-0123456789ab", "+4915112345678", "cus_4242"],
)
async def test_what_only_looks_like_a_card_number_is_kept(graph, customer):
    token = await graph.saved("u1", "STRIPE", customer, description=customer, metadata={customer: customer})
    assert token["gatewayCustomerId"] == customer


TIMES = [
    ("2026-11-22T17:28:02Z", "2026-11-22T17:28:02.000000+00:00"),
    ("2026-11-22T17:28:02.842449+00:00", "2026-11-22T17:28:02.842449+00:00"),
    ("2026-11-22T23:58:02.5+05:30", "2026-11-22T18:28:02.500000+00:00"),
]
NO_TIMES = ["2026-11-22T17:28:02", "2026-11-22", "yesterday", "", "2026-13-01T00:00:00Z", 1732296482, True, {}, []]


@pytest.mark.parametrize(("sent", "answered"), TIMES)
async def test_a_time_is_answered_in_utc_with_microseconds(graph, sent, answered):
    await graph.saved("u1", "STRIPE", "cus_1")
    assert token_of(await graph.verify("STRIPE", "cus_1", at=sent))["lastVerifiedAt"] == answered
    [token] = await graph.tokens("u1")
    assert token["lastVerifiedAt"] == answered
    plain = await graph.entities([{"__typename": "User", "id": "u1"}], "gatewayTokens { lastVerifiedAt }")
    assert plain == [{"gatewayTokens": [{"lastVerifiedAt": answered}]}]  # written by PostgreSQL itself


@pytest.mark.parametrize("sent", NO_TIMES)
async def test_what_is_no_time_is_malformed_input(graph, sent):
    answer = await graph.client(
        'mutation($at: DateTime) { verifyGatewayCustomer(gateway: "X", gatewayCustomerId: "x", at: $at) {'
        " userErrors { code } } }",
        at=sent,
    )
    assert "data" not in answer
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]


async def test_a_time_in_the_document_is_read_as_one_in_the_variables(graph):
    await graph.saved("u1", "STRIPE", "cus_1")
    query = (
        'mutation {{ verifyGatewayCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1", at: {}) {{'
        " gatewayToken {{ lastVerifiedAt }} }} }}"
    )
    good = await graph.ask(query.format('"2026-11-22T17:28:02Z"'))
    assert good["verifyGatewayCustomer"]["gatewayToken"]["lastVerifiedAt"] == "2026-11-22T17:28:02.000000+00:00"
    for bad in ('"2026-11-22T17:28:02"', "5", "true"):
        answer = await graph.client(query.format(bad))
        assert {error["extensions"]["code"] for error in answer["errors"]} <= {
            "BAD_USER_INPUT",
            "GRAPHQL_VALIDATION_FAILED",
        }


def test_the_texts_are_of_every_kind():
    """The strategy above would prove little if it made only letters."""
    found = set()

    @settings(max_examples=300, database=None)
    @given(texts)
    def collect(text):
        found.update(text)

    collect()
    assert set(NASTY) <= found
    assert found & set(string.ascii_letters)


@pytest.mark.parametrize("user", ["undefined", "null", "NaN", "[object Object]", "u ", "\\u200bu"])
async def test_what_a_program_sends_by_mistake_is_no_user_to_write_for(graph, user):
    wish = f'{{userId: "{user}", gateway: "STRIPE", gatewayCustomerId: "cus_1"}}'
    writes = {
        f"saveCustomerGatewayToken(input: {wish})": ["input", "userId"],
        f"createCustomerGatewayToken(input: {wish})": ["input", "userId"],
        f"saveCustomerGatewayTokens(inputs: [{wish}])": ["inputs", "0", "userId"],
        f'claimGatewayCustomer(userId: "{user}", gateway: "STRIPE")': ["userId"],
        f'mergeUserGatewayTokens(fromUserId: "u1", intoUserId: "{user}")': ["intoUserId"],
    }
    for write, field in writes.items():
        name = write.partition("(")[0]
        answer = await graph.client(f"mutation {{ {write} {{ userErrors {{ code field }} }} }}")
        assert answer["data"][name]["userErrors"] == [{"code": "INVALID", "field": field}], write
    for write in (f'eraseUserGatewayTokens(userId: "{user}")', f'liftUserErasure(userId: "{user}")'):
        name = write.partition("(")[0]
        answer = await graph.client(f"mutation {{ {write} {{ userErrors {{ code field }} }} }}")
        assert answer["data"][name]["userErrors"] == []


@pytest.mark.parametrize("number", [123, 9007199254740993, 1.5, 4111111111111111])
async def test_a_number_for_a_customer_id_is_refused_with_what_to_do(graph, number):
    wish = {"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": number}
    by_variable = await send(graph, SAVE, input=wish)
    query = f'{{ customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: {number}) {{ id }} }}'
    by_literal = await send_document(graph, query)
    for answer in (by_variable, by_literal):
        [error] = answer["errors"]
        assert error["message"].endswith(". Send it as a string, in quotes.")
        assert "4111" not in error["message"]


async def send_document(graph, query):
    return (await graph.client.http.post("/graphql", json={"query": query})).json()
