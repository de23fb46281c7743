"""Who may do what: every field that has a rule, asked by everybody, by every way that leads to it."""

import re
from types import SimpleNamespace

import pytest

from graphql_api.domain.caller import FIELD_PERMISSIONS, Permission
from graphql_api.schema import build_schema
from tests.until import until

CALLERS = ("nobody", "owner", "other", "wrong scope", "events", "read", "write", "admin")
MAY = {
    Permission.NOTHING: set(CALLERS),
    Permission.OWNER: {"owner", "read", "write", "admin"},
    Permission.READ: {"read", "write", "admin"},
    Permission.WRITE: {"write", "admin"},
    Permission.EVENTS: {"events", "admin"},
    Permission.ADMIN: {"admin"},
}
UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"


def token_entity(key):
    text = f'_entities(representations: [{{__typename: "CustomerGatewayToken", {key}}}])'
    return f"{text} {{ ... on CustomerGatewayToken {{ %s }} }}", ("_entities", 0)


def user_entity(field, *place):
    text = f'_entities(representations: [{{__typename: "User", id: $user}}]) {{ ... on User {{ {field} {{ %s }} }} }}'
    return text, ("_entities", 0, *place)


def customer(customer):
    text = f"customerGatewayTokenByCustomer(gateway: $gateway, gatewayCustomerId: {customer}) {{ %s }}"
    return text, ("customerGatewayTokenByCustomer",)


# The ways to a token: a document, and where in the answer the token is. Those by a key say nothing where it is hidden.
BY_KEY = {
    "id": ("customerGatewayToken(id: $id) { %s }", ("customerGatewayToken",)),
    "customer": customer("$customer"),
    "former customer": customer('"cus_0"'),
    "entity by id": token_entity("id: $id"),
    "entity by user and gateway": token_entity("userId: $user, gateway: $gateway"),
    "entity by gateway and customer": token_entity("gateway: $gateway, gatewayCustomerId: $customer"),
}
BY_USER = {
    "a user's tokens": user_entity("gatewayTokens", "gatewayTokens", 0),
    "a user's inactive tokens": user_entity("gatewayTokens(isActive: false)", "gatewayTokens", 0),
    "a user's token": user_entity("gatewayToken(gateway: $gateway)", "gatewayToken"),
    "the list of a user": (
        "customerGatewayTokens(filter: {userId: $user}) { nodes { %s } }",
        ("customerGatewayTokens", "nodes", 0),
    ),
    "the edges of a user": (
        "customerGatewayTokens(filter: {userId: $user}) { edges { node { %s } } }",
        ("customerGatewayTokens", "edges", 0, "node"),
    ),
}
WAYS = {**BY_KEY, **BY_USER}
LEAVES = {"user": "user { id }", "history": "history { nodes { id action actor } }"}
TOKEN_FIELDS = [
    name.removeprefix("CustomerGatewayToken.") for name in FIELD_PERMISSIONS if name.startswith("CustomerGatewayToken.")
]

MUTATIONS = {
    "claimGatewayCustomer": 'claimGatewayCustomer(userId: "u1", gateway: "PAYPAL") { userErrors { code } }',
    "releaseGatewayCustomerClaim": (
        'releaseGatewayCustomerClaim(userId: "u1", gateway: "PAYPAL", idempotencyKey: "k") { userErrors { code } }'
    ),
    "createCustomerGatewayToken": (
        'createCustomerGatewayToken(input: {userId: "u1", gateway: "PAYPAL", gatewayCustomerId: "p1"})'
        " { userErrors { code } }"
    ),
    "saveCustomerGatewayToken": (
        'saveCustomerGatewayToken(input: {userId: "u1", gateway: "PAYPAL", gatewayCustomerId: "p1"})'
        " { userErrors { code } }"
    ),
    "saveCustomerGatewayTokens": (
        'saveCustomerGatewayTokens(inputs: [{userId: "u1", gateway: "PAYPAL", gatewayCustomerId: "p1"}])'
        " { userErrors { code } }"
    ),
    "updateCustomerGatewayToken": (
        'updateCustomerGatewayToken(input: {id: $id, description: "new"}) { userErrors { code } }'
    ),
    "activateCustomerGatewayToken": "activateCustomerGatewayToken(id: $id) { userErrors { code } }",
    "deactivateCustomerGatewayToken": "deactivateCustomerGatewayToken(id: $id) { userErrors { code } }",
    "deactivateGatewayCustomer": (
        "deactivateGatewayCustomer(gateway: $gateway, gatewayCustomerId: $customer) { userErrors { code } }"
    ),
    "verifyGatewayCustomer": (
        "verifyGatewayCustomer(gateway: $gateway, gatewayCustomerId: $customer) { userErrors { code } }"
    ),
    "deleteCustomerGatewayToken": "deleteCustomerGatewayToken(id: $id) { userErrors { code } }",
    "mergeUserGatewayTokens": ('mergeUserGatewayTokens(fromUserId: "u1", intoUserId: "u2") { userErrors { code } }'),
    "reassignGatewayCustomers": (
        'reassignGatewayCustomers(customers: [{gateway: "STRIPE", gatewayCustomerId: "cus_1", toUserId: "u2"}])'
        " { userErrors { code } }"
    ),
    "eraseUserGatewayTokens": 'eraseUserGatewayTokens(userId: "u1") { userErrors { code } }',
    "confirmGatewayErasures": (
        'confirmGatewayErasures(customers: [{gateway: "STRIPE", gatewayCustomerId: "cus_9"}]) { userErrors { code } }'
    ),
    "liftUserErasure": 'liftUserErasure(userId: "u1") { userErrors { code } }',
}

SAVED = """
mutation {
  a: createCustomerGatewayToken(input: {userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_0"}) {
    userErrors { message }
  }
  b: saveCustomerGatewayToken(input: {
    userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1", replaces: "cus_0", description: "d", metadata: {a: 1}
  }) { userErrors { message } }
  c: verifyGatewayCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1") { userErrors { message } }
  d: deactivateGatewayCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1") { gatewayToken { id } }
}
"""


@pytest.fixture
def callers(client, as_user, as_service):
    return {
        "nobody": client,
        "owner": as_user("u1"),
        "other": as_user("u2"),
        "wrong scope": as_service("gateway-tokens:list", "GATEWAY-TOKENS:ADMIN", "gateway-tokens:", "admin"),
        "events": as_service("gateway-tokens:events"),
        "read": as_service("gateway-tokens:read"),
        "write": as_service("gateway-tokens:write"),
        "admin": as_service("gateway-tokens:admin"),
    }


@pytest.fixture
async def variables(callers):
    """A token in which every field has a value, by what names it."""
    answer = await callers["write"](SAVED)
    assert "errors" not in answer
    return {"id": answer["data"]["d"]["gatewayToken"]["id"], "user": "u1", "gateway": "STRIPE", "customer": "cus_1"}


async def ask(caller, text, variables, kind="query"):
    """The answer to a document that uses some of the variables, and the codes of its errors."""
    types = {"id": "ID!", "user": "ID!", "gateway": "String!", "customer": "String!"}
    used = {name: value for name, value in variables.items() if f"${name}" in text}
    declared = ", ".join(f"${name}: {types[name]}" for name in used)
    answer = await caller(f"{kind}{f'({declared})' if used else ''} {{ {text} }}", **used)
    errors = answer.get("errors", [])
    return SimpleNamespace(
        data=answer["data"],
        codes=[error["extensions"]["code"] for error in errors],
        paths=[error["path"] for error in errors],
    )


def at(data, path):
    for step in path:
        if data is None or (isinstance(step, int) and len(data) <= step):
            return None
        data = data[step]
    return data


def refusal(caller):
    return "UNAUTHENTICATED" if caller == "nobody" else "FORBIDDEN"


def test_every_field_has_a_rule_and_every_rule_a_field():
    types = build_schema()._schema.type_map
    fields = {
        f"{name}.{field}"
        for name in ("Query", "Mutation", "User", "CustomerGatewayToken")
        for field in types[name].fields
    }
    assert fields == FIELD_PERMISSIONS.keys()


def test_every_mutation_is_tried():
    assert {f"Mutation.{name}" for name in MUTATIONS} == {
        name for name in FIELD_PERMISSIONS if name.startswith("Mutation.")
    }


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_token_is_read_by_those_who_may_field_by_field(callers, variables, caller, way):
    document, place = WAYS[way]
    for field in TOKEN_FIELDS:
        answer = await ask(callers[caller], document % LEAVES.get(field, field), variables)
        token = at(answer.data, place)
        if caller not in MAY[Permission.OWNER]:
            silent = way in BY_KEY and caller != "nobody"
            assert (token, answer.codes) == (None, [] if silent else [refusal(caller)])
        elif caller in MAY[FIELD_PERMISSIONS[f"CustomerGatewayToken.{field}"]]:
            assert answer.codes == []
            assert token[field] is not None
        else:
            assert (token, answer.codes) == ({field: None}, ["FORBIDDEN"])
            assert answer.paths == [[*place, field]]


@pytest.mark.parametrize("caller", CALLERS)
async def test_what_is_internal_is_refused_while_the_rest_of_the_token_is_answered(callers, variables, caller):
    every = " ".join(LEAVES.get(field, field) for field in TOKEN_FIELDS)
    answer = await ask(callers[caller], BY_KEY["id"][0] % every, variables)
    token = answer.data["customerGatewayToken"]
    if caller in MAY[Permission.OWNER]:
        refused = {
            field for field in TOKEN_FIELDS if caller not in MAY[FIELD_PERMISSIONS[f"CustomerGatewayToken.{field}"]]
        }
        assert answer.codes == ["FORBIDDEN"] * len(refused)
        assert {field for field, value in token.items() if value is None} == refused
    else:
        assert token is None


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("way", BY_KEY)
async def test_to_whom_a_token_is_hidden_it_is_as_if_it_were_not_there(callers, variables, caller, way):
    if caller in MAY[Permission.OWNER]:
        return
    text = BY_KEY[way][0] % "id userId metadata"
    unknown = {"id": UNKNOWN_ID, "user": "u9", "gateway": "STRIPE", "customer": "cus_9"}
    there = await ask(callers[caller], text, variables)
    assert there == await ask(callers[caller], text.replace("cus_0", "cus_8"), unknown)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("way", BY_USER)
async def test_to_whom_a_users_tokens_are_hidden_it_is_hidden_whether_there_are_any(callers, variables, caller, way):
    if caller in MAY[Permission.OWNER]:
        return
    text = BY_USER[way][0] % "id"
    assert await ask(callers[caller], text, variables) == await ask(callers[caller], text, {**variables, "user": "u9"})


@pytest.mark.parametrize("caller", CALLERS)
async def test_across_users_only_admins_list(callers, variables, caller):
    for text in ("nodes { id }", "totalCount", "pageInfo { hasNextPage }", "edges { cursor }"):
        answer = await ask(callers[caller], f"customerGatewayTokens {{ {text} }}", variables)
        assert answer.codes == ([] if caller in MAY[Permission.ADMIN] else [refusal(caller)])
        assert (answer.data is None) == (caller not in MAY[Permission.ADMIN])


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_users_tokens_are_counted_by_those_who_may_read_them(callers, variables, caller):
    answer = await ask(callers[caller], "customerGatewayTokens(filter: {userId: $user}) { totalCount }", variables)
    assert answer.codes == ([] if caller in MAY[Permission.OWNER] else [refusal(caller)])


@pytest.mark.parametrize("caller", CALLERS)
async def test_customers_to_delete_are_listed_for_admins(callers, variables, caller):
    answer = await ask(callers[caller], "gatewayErasures { nodes { gateway } }", variables)
    assert answer.codes == ([] if caller in MAY[Permission.ADMIN] else [refusal(caller)])


@pytest.mark.parametrize("caller", CALLERS)
async def test_the_change_feed_and_its_tokens_are_read_by_those_who_may(callers, variables, caller):
    async def is_settled():  # what transactions of other tests hold back comes later
        answer = await ask(callers[caller], "customerGatewayTokenEvents { nodes { userId } }", variables)
        return answer.data is None or len(answer.data["customerGatewayTokenEvents"]["nodes"]) == 3

    await until(is_settled, "all entries are in the feed")
    for field in TOKEN_FIELDS:
        text = f"customerGatewayTokenEvents {{ nodes {{ userId token {{ {LEAVES.get(field, field)} }} }} }}"
        answer = await ask(callers[caller], text, variables)
        internal = FIELD_PERMISSIONS[f"CustomerGatewayToken.{field}"] is Permission.READ
        if caller not in MAY[Permission.EVENTS]:
            assert (answer.data, answer.codes) == (None, [refusal(caller)])
            continue
        entries = answer.data["customerGatewayTokenEvents"]["nodes"]
        assert len(entries) == 3
        assert {entry["userId"] for entry in entries} == {"u1"}
        if caller == "events" and internal:
            assert [entry["token"] for entry in entries] == [{field: None}] * 3
            assert answer.codes == ["FORBIDDEN"] * 3
        else:
            assert all(entry["token"][field] is not None for entry in entries)
            assert answer.codes == []


@pytest.mark.parametrize("caller", ["events"])
async def test_who_reads_the_feed_reads_nothing_else(callers, variables, caller):
    tokens = "customerGatewayTokenEvents { nodes { token { user { id gatewayTokens { id } } } } }"
    answer = await ask(callers[caller], tokens, variables)
    users = [entry["token"]["user"] for entry in answer.data["customerGatewayTokenEvents"]["nodes"]]
    assert users == [{"id": "u1", "gatewayTokens": None}] * 3
    assert set(answer.codes) == {"FORBIDDEN"}
    # In one request with the feed, too.
    both = f"customerGatewayTokenEvents {{ nodes {{ id }} }} {BY_KEY['id'][0] % 'id'}"
    assert (await ask(callers[caller], both, variables)).data["customerGatewayToken"] is None


@pytest.mark.parametrize("caller", CALLERS)
async def test_everybody_may_see_the_schema_and_that_a_user_may_be(callers, variables, caller):
    user = '_entities(representations: [{__typename: "User", id: $user}]) { ... on User { id } }'
    answer = await ask(callers[caller], f"__typename _service {{ sdl }} {user}", variables)
    assert answer.codes == []
    assert answer.data["_entities"] == [{"id": "u1"}]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_tokens_are_changed_by_those_who_may(callers, variables, caller, mutation):
    before = await ask(callers["admin"], EVERYTHING, variables)
    answer = await ask(callers[caller], MUTATIONS[mutation], variables, "mutation")
    if caller in MAY[FIELD_PERMISSIONS[f"Mutation.{mutation}"]]:
        assert answer.codes == []
        assert answer.data[mutation] is not None
    else:
        assert (answer.data, answer.codes) == (None, [refusal(caller)])
        assert before == await ask(callers["admin"], EVERYTHING, variables)


# Fields with rights, all their values malformed, and who may use them.
MALFORMED = {
    'customerGatewayTokens(first: 0, after: "?", filter: {gateway: "?"}) { totalCount }': Permission.ADMIN,
    'customerGatewayTokens(last: 0, filter: {userId: $user, gateway: "?"}) { totalCount }': Permission.OWNER,
    'customerGatewayTokenEvents(first: 0, after: "?", filter: {gateways: "?"}) { nodes { id } }': Permission.EVENTS,
    'gatewayErasures(first: 0, after: "?", gateway: "?") { nodes { gateway } }': Permission.ADMIN,
    BY_USER["a user's token"][0].replace("$gateway", '"?"') % "id": Permission.OWNER,
    BY_USER["a user's tokens"][0].replace("Tokens ", 'Tokens(gateway: "?") ') % "id": Permission.OWNER,
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("text", MALFORMED)
async def test_rights_are_checked_before_values(callers, variables, caller, text):
    answer = await ask(callers[caller], text, variables)
    assert answer.codes == ["BAD_USER_INPUT" if caller in MAY[MALFORMED[text]] else refusal(caller)]


async def test_a_refusal_does_not_tell_a_caller_without_rights_which_gateways_exist(callers, variables):
    for way in (*BY_KEY, *BY_USER):
        answer = await ask(callers["nobody"], WAYS[way][0] % "id", {**variables, "gateway": "?"})
        assert set(answer.codes) == {"UNAUTHENTICATED"}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_rights_to_change_are_checked_before_values(callers, variables, caller, mutation):
    malformed = re.sub(r'"\w*"|\$\w+', r'"\\u0000"', MUTATIONS[mutation])
    answer = await ask(callers[caller], malformed, variables, "mutation")
    if caller not in MAY[FIELD_PERMISSIONS[f"Mutation.{mutation}"]]:
        assert (answer.data, answer.codes) == (None, [refusal(caller)])
    else:
        assert answer.codes == ["BAD_USER_INPUT"] or answer.data[mutation]["userErrors"]


async def test_a_value_is_refused_for_those_users_whose_tokens_may_be_read(callers, variables):
    for field in ('gatewayToken(gateway: "?")', 'gatewayTokens(gateway: "?")'):
        users = '[{__typename: "User", id: "u1"}, {__typename: "User", id: "u2"}]'
        text = f"_entities(representations: {users}) {{ ... on User {{ {field} {{ id }} }} }}"
        assert (await ask(callers["owner"], text, variables)).codes == ["BAD_USER_INPUT", "FORBIDDEN"]


EVERYTHING = "customerGatewayTokens { nodes { id version userId gatewayCustomerId history { nodes { id } } } }"


async def test_in_a_gateways_request_a_refusal_touches_only_its_own_entity(callers, variables):
    text = """_entities(representations: [
        {__typename: "User", id: "u1"}, {__typename: "User", id: "u2"}, {__typename: "CustomerGatewayToken", id: $id}
    ]) { ... on User { id gatewayTokens { id } } ... on CustomerGatewayToken { id description } }"""
    own = {"id": variables["id"]}
    owner = await ask(callers["owner"], text, variables)
    assert owner.data["_entities"] == [
        {"id": "u1", "gatewayTokens": [own]},
        {"id": "u2", "gatewayTokens": None},
        {**own, "description": None},
    ]
    assert sorted(owner.paths) == [["_entities", 1, "gatewayTokens"], ["_entities", 2, "description"]]
    nobody = await ask(callers["nobody"], text, variables)
    assert nobody.data["_entities"] == [{"id": "u1", "gatewayTokens": None}, {"id": "u2", "gatewayTokens": None}, None]
    assert set(nobody.codes) == {"UNAUTHENTICATED"}
