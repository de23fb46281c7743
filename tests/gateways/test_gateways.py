import asyncio

import pytest

from tests.gateways.graph import access_token

pytestmark = pytest.mark.slow
READER = access_token("billing", "gateway-tokens:read")
WRITER = access_token("checkout", "gateway-tokens:write")

SAVE = """
mutation Save($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) {
    created
    gatewayToken { gateway user { name } }
    user { name gatewayTokens { gatewayCustomerId } }
    userErrors { message }
  }
}
"""
TWO_USERS = "{ users(first: 2) { name gatewayTokens { gatewayCustomerId } } }"


@pytest.fixture(autouse=True)
async def fifty_customers(empty_database, tokens):
    """Each of the first fifty users is a customer at Stripe."""
    save = """
    mutation Save($inputs: [SaveCustomerGatewayTokenInput!]!) {
      saveCustomerGatewayTokens(inputs: $inputs) { createdCount }
    }
    """
    inputs = [{"userId": f"user-{n}", "gateway": "STRIPE", "gatewayCustomerId": f"cus_{n}"} for n in range(1, 51)]
    answer = await tokens.ask(save, token=WRITER, inputs=inputs)
    assert answer == {"data": {"saveCustomerGatewayTokens": {"createdCount": 50}}}


async def test_fifty_users_get_their_tokens_in_one_request_to_us(gateway, tokens):
    query = "{ users(first: 50) { id name gatewayTokens { gatewayCustomerId } } }"

    answer = await gateway.ask(query, token=READER)

    assert "errors" not in answer
    users = answer["data"]["users"]
    assert {user["id"]: user["gatewayTokens"] for user in users} == {
        f"user-{n}": [{"gatewayCustomerId": f"cus_{n}"}] for n in range(1, 51)
    }
    assert users[0]["name"] == "Ada Adams"
    assert tokens.requests == 1


async def test_aliases_fragments_and_variables_pass_through(gateway, tokens):
    query = """
    query Wallet($user: ID!, $other: ID!, $gateway: String!, $withVersion: Boolean!) {
      me: user(id: $user) { ...Wallet }
      you: user(id: $other) { ...Wallet }
    }
    fragment Wallet on User {
      called: name
      stripe: gatewayToken(gateway: $gateway) { ...Customer }
      paypal: gatewayToken(gateway: "PAYPAL") { ...Customer }
    }
    fragment Customer on CustomerGatewayToken {
      customer: gatewayCustomerId
      version @include(if: $withVersion)
      __typename
    }
    """

    answer = await gateway.ask(query, token=READER, user="user-1", other="user-2", gateway="stripe", withVersion=False)

    def wallet(name, customer):
        return {
            "called": name,
            "stripe": {"customer": customer, "__typename": "CustomerGatewayToken"},
            "paypal": None,
        }

    assert answer == {"data": {"me": wallet("Ada Adams", "cus_1"), "you": wallet("Alan Adams", "cus_2")}}


async def test_several_lookups_in_one_query_reach_us_as_one_document(gateway, tokens):
    lookups = " ".join(
        f'a{n}: customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_{n}") {{ userId }}'
        for n in range(1, 31)
    )

    answer = await gateway.ask(f"{{ {lookups} }}", token=READER)

    assert answer == {"data": {f"a{n}": {"userId": f"user-{n}"} for n in range(1, 31)}}
    assert (tokens.requests, tokens.batches) == (1, 0)


async def test_a_batch_of_a_client_reaches_us_request_by_request(gateway, http, tokens):
    query = "query ($id: ID!) { user(id: $id) { gatewayTokens { gatewayCustomerId } } }"
    batch = [{"query": query, "variables": {"id": f"user-{n}"}} for n in (1, 2)]

    response = await http.post(gateway.url, json=batch, headers={"authorization": f"Bearer {READER}"})

    assert response.json() == [
        {"data": {"user": {"gatewayTokens": [{"gatewayCustomerId": f"cus_{n}"}]}}} for n in (1, 2)
    ]
    assert (tokens.requests, tokens.batches) == (2, 0)


async def test_a_mutations_payload_gives_the_stitched_user(gateway):
    new = {"userId": "user-77", "gateway": "stripe", "gatewayCustomerId": "cus_77"}

    answer = await gateway.ask(SAVE, token=WRITER, input=new)

    assert answer == {
        "data": {
            "saveCustomerGatewayToken": {
                "created": True,
                "gatewayToken": {"gateway": "STRIPE", "user": {"name": "Grace Hughes"}},
                "user": {"name": "Grace Hughes", "gatewayTokens": [{"gatewayCustomerId": "cus_77"}]},
                "userErrors": [],
            }
        }
    }


async def test_the_users_of_orders_have_their_tokens(gateway, tokens):
    query = "{ orders(first: 50) { id user { name gatewayTokens { gatewayCustomerId } } } }"

    answer = await gateway.ask(query, token=READER)

    assert answer["data"]["orders"][49] == {
        "id": "order-50",
        "user": {"name": "Tim Evans", "gatewayTokens": [{"gatewayCustomerId": "cus_50"}]},
    }
    assert tokens.requests == 1


async def test_a_neighbour_gets_the_fields_of_tokens_that_it_requires(gateway, tokens):
    answer = await gateway.ask("{ users(first: 50) { gatewayTokens { invoices } } }", token=READER)

    assert "errors" not in answer
    links = [[token["invoices"] for token in user["gatewayTokens"]] for user in answer["data"]["users"]]
    assert links == [[f"https://invoices.example/STRIPE/cus_{n}"] for n in range(1, 51)]
    assert tokens.requests <= 2  # some planners fetch the tokens and the required fields one after the other


async def test_a_neighbours_reference_by_a_former_id_is_null_whatever_else_is_asked(gateway, request):
    if "grafbase" in request.node.name:
        pytest.skip("its planner panics at a reference by one of several keys")
    saved = {"userId": "user-88", "gateway": "STRIPE", "gatewayCustomerId": "cus_88_old"}
    for more in ({}, {"gatewayCustomerId": "cus_88", "replaces": "cus_88_old"}):
        save = (
            "mutation ($input: SaveCustomerGatewayTokenInput!) { saveCustomerGatewayToken(input: $input) { created } }"
        )
        assert "errors" not in await gateway.ask(save, token=WRITER, input=saved | more)
    for fields in ("isActive", "gatewayCustomerId isActive", "userId isActive"):
        charges = {}
        for customer in ("cus_88", "cus_88_old"):
            query = f'{{ charge(customer: "{customer}") {{ customer {{ {fields} }} }} }}'
            charges[customer] = (await gateway.ask(query, token=READER))["data"]["charge"]["customer"]
        assert charges["cus_88"]["isActive"] is True
        assert charges["cus_88_old"] is None


CODINGS = {"apollo": "gzip", "hive": "br", "hive_rust": "br", "grafbase": "zstd"}


async def test_a_router_gets_long_answers_compressed(gateway, tokens, request):
    await gateway.ask("{ users(first: 50) { gatewayTokens { id gatewayCustomerId } } }", token=READER)

    assert tokens.codings == {CODINGS[request.node.callspec.params["gateway"]]}


async def test_a_webhook_handler_finds_the_name_behind_a_gateways_customer(gateway):
    query = """
    { customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_3") { user { name } } }
    """

    answer = await gateway.ask(query, token=READER)

    assert answer == {"data": {"customerGatewayTokenByCustomer": {"user": {"name": "Barbara Adams"}}}}


async def test_a_user_whom_the_user_service_no_longer_knows_does_not_take_the_token_down(gateway):
    gone = {"userId": "user-gone", "gateway": "STRIPE", "gatewayCustomerId": "cus_gone"}
    await gateway.ask(SAVE, token=WRITER, input=gone)
    query = """
    { customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_gone") { userId user { name } } }
    """

    answer = await gateway.ask(query, token=READER)

    assert answer["data"] == {"customerGatewayTokenByCustomer": {"userId": "user-gone", "user": None}}


async def test_while_our_service_is_down_the_users_names_still_come(gateway, tokens):
    async with tokens.stopped():
        answer = await gateway.ask(TWO_USERS, token=READER)

    assert answer["data"]["users"] == [
        {"name": "Ada Adams", "gatewayTokens": None},
        {"name": "Alan Adams", "gatewayTokens": None},
    ]
    assert answer["errors"]
    again = await gateway.ask(TWO_USERS, token=READER)
    assert again["data"]["users"][1]["gatewayTokens"] == [{"gatewayCustomerId": "cus_2"}]


async def test_a_user_sees_only_their_own_tokens(gateway):
    answer = await gateway.ask(TWO_USERS, token=access_token("user-1"))

    assert answer["data"]["users"] == [
        {"name": "Ada Adams", "gatewayTokens": [{"gatewayCustomerId": "cus_1"}]},
        {"name": "Alan Adams", "gatewayTokens": None},
    ]
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}


async def test_two_users_who_ask_the_same_at_once_get_each_their_own_answer(gateway):
    users = ["user-1", "user-2"] * 10

    answers = await asyncio.gather(*(gateway.ask(TWO_USERS, token=access_token(user)) for user in users))

    for user, answer in zip(users, answers, strict=True):
        first, second = (found["gatewayTokens"] for found in answer["data"]["users"])
        if user == "user-1":
            assert (first, second) == ([{"gatewayCustomerId": "cus_1"}], None)
        else:
            assert (first, second) == (None, [{"gatewayCustomerId": "cus_2"}])


async def test_without_an_access_token_the_names_come_and_the_tokens_do_not(gateway):
    answer = await gateway.ask(TWO_USERS)

    assert answer["data"]["users"][0] == {"name": "Ada Adams", "gatewayTokens": None}
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNAUTHENTICATED"}


async def test_who_goes_past_the_gateway_is_turned_away(tokens, http):
    answer = await http.post(tokens.url, json={"query": "{ __typename }"})

    assert answer.status_code == 401
