"""What a federation gateway asks: entities by their keys, in batches, each at its own place."""

import pytest

USER, TOKEN = "User", "CustomerGatewayToken"
ASK = """
  query($r: [_Any!]!) { _entities(representations: $r) {
    __typename
    ... on User { id gatewayTokens { gateway gatewayCustomerId } stripe: gatewayToken(gateway: "stripe") { id } }
    ... on CustomerGatewayToken { id gatewayCustomerId user { id } }
  } }
"""


@pytest.fixture
async def tokens(graph):
    """u1 has two tokens, one with a former customer; u2 has one."""
    await graph.saved("u1", "STRIPE", "old")
    return {
        "stripe": await graph.saved("u1", "STRIPE", "cus_1", replaces="old"),
        "paypal": await graph.saved("u1", "PAYPAL", "pp_1"),
        "other": await graph.saved("u2", "STRIPE", "cus_2"),
    }


def user(user_id, **rest):
    return {"__typename": USER, "id": user_id, **rest}


def token(**key):
    return {"__typename": TOKEN, **key}


async def test_every_key_finds_its_entity_in_its_place(graph, tokens):
    stripe, paypal, other = (tokens[name]["id"] for name in ("stripe", "paypal", "other"))
    asked = [
        (user("u1"), "u1"),
        (token(id=other), other),
        (token(userId="u1", gateway="PAYPAL"), paypal),
        (token(gateway="STRIPE", gatewayCustomerId="cus_1"), stripe),
        (token(gateway=" stripe ", gatewayCustomerId="cus_2"), other),  # a gateway in any spelling
        (token(userId="u2", gateway="Stripe"), other),
        (token(id=stripe.upper()), stripe),
        (user("nobody"), "nobody"),
        (token(id=stripe, userId="whoever", gateway="X", more={"a": 1}), stripe),  # a gateway may send more
        (user("u2", name="Ada", email=None), "u2"),
        (token(userId="u1", gateway="STRIPE", isActive=True), stripe),
        (token(id=other), other),  # duplicates are fine
        (user("u1"), "u1"),
    ]
    answer = await graph.entities([key for key, _ in asked], of_token="id")
    assert [entity["id"] for entity in answer] == [expected for _, expected in asked]


async def test_a_former_customer_is_no_key(graph, tokens):
    """Whoever stored it as a key would get another entity, or one that is not what it says."""
    keys = [token(gateway="STRIPE", gatewayCustomerId=customer) for customer in ("old", "cus_1", "old")]
    for of_token in ("id", "gatewayCustomerId isActive"):
        found = await graph.entities(keys, of_token=of_token)
        assert [bool(each) for each in found] == [False, True, False]
        assert await graph.entities(keys[:1], of_token=of_token) == [None]
    assert (await graph.customer("STRIPE", "old"))["id"] == tokens["stripe"]["id"]


def other_spellings(token_id):
    """What some libraries take for the same UUID, and RFC 9562 does not write."""
    bare = token_id.replace("-", "")
    full_width = token_id.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    return [bare, f"{{{token_id}}}", f"urn:uuid:{token_id}", f" {token_id}", f"-{token_id}", full_width]


async def test_a_key_that_nothing_has_is_null(graph, tokens):
    keys = [
        token(id="0192d4e5-8c1a-7bbb-8ccc-0123456789ab"),
        token(id="no uuid"),
        token(id=""),
        *(token(id=spelling) for spelling in other_spellings(tokens["stripe"]["id"])),
        token(userId="u9", gateway="STRIPE"),
        token(userId="u1", gateway="not a name"),
        token(userId="u1", gateway=""),
        token(gateway="STRIPE", gatewayCustomerId="cus_9"),
        token(gateway="STRIPE", gatewayCustomerId=""),
        token(gateway="PAYPAL", gatewayCustomerId="cus_1"),
    ]
    assert await graph.entities(keys) == [None] * len(keys)


async def test_a_user_is_there_whoever_they_are_and_has_what_they_have(graph, tokens):
    answer = await graph.ask(ASK, r=[user("u1"), user("nobody"), user(""), user("x" * 300)])
    assert answer["_entities"][0] == {
        "__typename": USER,
        "id": "u1",
        "gatewayTokens": [
            {"gateway": "PAYPAL", "gatewayCustomerId": "pp_1"},
            {"gateway": "STRIPE", "gatewayCustomerId": "cus_1"},
        ],
        "stripe": {"id": tokens["stripe"]["id"]},
    }
    for entity in answer["_entities"][1:]:
        assert (entity["gatewayTokens"], entity["stripe"]) == ([], None)


MALFORMED = [
    5,
    "User",
    True,
    [],
    {},
    {"id": "u1"},
    {"__typename": None, "id": "u1"},
    {"__typename": 5, "id": "u1"},
    {"__typename": "Order", "id": "1"},
    {"__typename": "__Schema"},
    {"__typename": USER},
    user(None),
    user(5),
    user(["u1"]),
    {"__typename": USER, "userId": "u1"},
    token(),
    token(id=5),
    token(id=None),
    token(gateway="STRIPE"),
    token(userId="u1"),
    token(gatewayCustomerId="cus_1"),
    token(userId="u1", gatewayCustomerId="cus_1"),
    token(userId=1, gateway="STRIPE"),
    token(gateway=None, gatewayCustomerId="cus_1"),
    token(gateway="STRIPE", gatewayCustomerId={"a": 1}),
    user("u1\0"),
    token(id="\0"),
    token(userId="\0", gateway="STRIPE"),
    token(userId="u1", gateway="STRIPE\0"),
    token(gateway="STRIPE", gatewayCustomerId="cus_1\0"),
]


@pytest.mark.parametrize("wrong", MALFORMED, ids=str)
async def test_a_malformed_representation_is_an_error_at_its_place_and_leaves_the_others_standing(graph, tokens, wrong):
    answer = await graph.client(ASK, r=[user("u1"), wrong, token(id=tokens["other"]["id"])])
    first, second, third = answer["data"]["_entities"]
    assert (first["id"], second, third["id"]) == ("u1", None, tokens["other"]["id"])
    [error] = answer["errors"]
    assert error["path"] == ["_entities", 1]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert "epresentation" in error["message"] or "__typename" in error["message"]
    if isinstance(wrong, dict) and wrong.get("__typename") == "Order":
        assert error["message"].endswith(", not 'Order'.")


@pytest.mark.parametrize(
    "incomplete", [{"id": None}, {"id": 5}, {"id": ["x"]}, {"userId": None, "gatewayCustomerId": "cus_1"}], ids=str
)
async def test_the_first_key_that_is_complete_is_taken(graph, incomplete):
    saved = await graph.saved("u1", "STRIPE", "cus_1")
    whole = {"userId": "u1", "gateway": "STRIPE"}
    answer = await graph.client(ASK, r=[{"__typename": TOKEN, **whole, **incomplete}])
    assert "errors" not in answer
    assert [found["id"] for found in answer["data"]["_entities"]] == [saved["id"]]


async def test_nothing_at_all_is_refused_as_a_variable(graph):
    answer = await graph.client(ASK, r=[None])
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert await graph.entities([]) == []


async def test_many_malformed_representations_are_an_error_each(graph):
    answer = await graph.client(ASK, r=MALFORMED)
    assert answer["data"]["_entities"] == [None] * len(MALFORMED)
    assert sorted(error["path"][1] for error in answer["errors"]) == list(range(len(MALFORMED)))


FIFTY = range(50)


@pytest.mark.parametrize(
    ("representation", "selection"),
    [
        (lambda n, _: user(f"u{n}"), "... on User { gatewayTokens { id gatewayCustomerId } }"),
        (lambda n, _: user(f"u{n}"), "... on User { gatewayTokens { id metadata } }"),
        (lambda n, _: user(f"u{n}"), '... on User { gatewayTokens(gateway: "STRIPE", isActive: true) { id } }'),
        (lambda n, _: user(f"u{n}"), '... on User { gatewayToken(gateway: "STRIPE") { id } }'),
        (lambda n, ids: token(id=ids[n]), "... on CustomerGatewayToken { id }"),
        (lambda n, _: token(userId=f"u{n}", gateway="stripe"), "... on CustomerGatewayToken { id }"),
        (lambda n, _: token(gateway="STRIPE", gatewayCustomerId=f"cus_{n}"), "... on CustomerGatewayToken { id }"),
    ],
)
@pytest.mark.parametrize("engine", ["compiled", "graphql-core"])
async def test_fifty_entities_are_one_statement(service_with, statements, engine, representation, selection):
    graph = await service_with(engine=engine)
    saved = await graph.save_many(
        [{"userId": f"u{n}", "gateway": "STRIPE", "gatewayCustomerId": f"old_{n}"} for n in FIFTY]
    )
    ids = [each["id"] for each in saved["gatewayTokens"]]
    await graph.save_many(
        [
            {"userId": f"u{n}", "gateway": "STRIPE", "gatewayCustomerId": f"cus_{n}", "replaces": f"old_{n}"}
            for n in FIFTY
        ]
    )
    statements.clear()
    answer = await graph.ask(
        f"query($r: [_Any!]!) {{ _entities(representations: $r) {{ {selection} }} }}",
        r=[representation(n, ids) for n in FIFTY],
    )
    assert None not in answer["_entities"]
    assert [str(entity).count("'id'") for entity in answer["_entities"]] == [1] * 50
    assert len(statements) == 1


async def test_all_kinds_of_keys_together_are_a_statement_each(graph, tokens, statements):
    statements.clear()
    await graph.ask(
        "query($r: [_Any!]!) { _entities(representations: $r) {"
        " ... on User { gatewayTokens { id } } ... on CustomerGatewayToken { id } } }",
        r=[
            *(user(f"u{n}") for n in FIFTY),
            *(token(id=each["id"]) for each in tokens.values()),
            *(token(userId=f"u{n}", gateway="STRIPE") for n in FIFTY),
            *(token(gateway="STRIPE", gatewayCustomerId=f"cus_{n}") for n in FIFTY),
        ],
    )
    assert len(statements) == 4


async def test_a_user_sees_only_their_own_in_a_batch(graph, as_user, tokens):
    answer = await as_user("u2")(
        ASK,
        r=[
            user("u1"),
            token(id=tokens["stripe"]["id"]),
            user("u2"),
            token(id=tokens["other"]["id"]),
            token(gateway="STRIPE", gatewayCustomerId="old"),
        ],
    )
    u1, foreign, u2, own, former = answer["data"]["_entities"]
    assert (u1["id"], u1["gatewayTokens"], u1["stripe"]) == ("u1", None, None)
    assert foreign is former is None
    assert (u2["gatewayTokens"], own["id"]) == (
        [{"gateway": "STRIPE", "gatewayCustomerId": "cus_2"}],
        tokens["other"]["id"],
    )
    assert {(tuple(error["path"]), error["extensions"]["code"]) for error in answer["errors"]} == {
        (("_entities", 0, "gatewayTokens"), "FORBIDDEN"),
        (("_entities", 0, "stripe"), "FORBIDDEN"),
    }


@pytest.mark.parametrize("gateway", ["", "not a name", "\0", "1"])
async def test_a_malformed_gateway_in_an_argument_is_an_error_there(graph, tokens, gateway):
    answer = await graph.client(
        "query($g: String!) {"
        ' _entities(representations: [{__typename: "User", id: "u1"}]) {'
        " ... on User { id gatewayTokens(gateway: $g) { id } gatewayToken(gateway: $g) { id } } }"
        ' customerGatewayTokenByCustomer(gateway: $g, gatewayCustomerId: "cus_1") { id } }',
        g=gateway,
    )
    assert answer["data"] == {
        "_entities": [{"id": "u1", "gatewayTokens": None, "gatewayToken": None}],
        "customerGatewayTokenByCustomer": None,
    }
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"BAD_USER_INPUT"}
    assert len(answer["errors"]) == 3


async def test_arguments_choose_among_a_users_tokens(graph, tokens):
    await graph.deactivate(tokens["paypal"])
    [found] = await graph.entities(
        [user("u1")],
        "active: gatewayTokens(isActive: true) { gateway } inactive: gatewayTokens(isActive: false) { gateway }"
        ' stripe: gatewayTokens(gateway: "stripe") { gateway } none: gatewayTokens(gateway: "X") { gateway }'
        " all: gatewayTokens(gateway: null, isActive: null) { gateway }"
        ' both: gatewayTokens(gateway: "PAYPAL", isActive: true) { gateway }',
    )
    names = {key: [each["gateway"] for each in some] for key, some in found.items()}
    assert names == {
        "active": ["STRIPE"],
        "inactive": ["PAYPAL"],
        "stripe": ["STRIPE"],
        "none": [],
        "all": ["PAYPAL", "STRIPE"],
        "both": [],
    }
