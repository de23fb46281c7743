"""Routers that cache answers, or documents: no user is answered with what is another one's."""

import pytest

from tests.gateways.conftest import apollo_gateway, grafbase_gateway, hive_gateway
from tests.gateways.graph import Endpoint, access_token, compose
from tests.until import until

pytestmark = pytest.mark.slow
SAVE = """
mutation Save($inputs: [SaveCustomerGatewayTokenInput!]!) {
  saveCustomerGatewayTokens(inputs: $inputs) { createdCount }
}
"""
LIST = '{ user(id: "user-1") { id gatewayTokens { gatewayCustomerId } } }'
OWN = {"user-1": [{"gatewayCustomerId": "cus_1"}], "user-2": None}
TWO_LOOKUPS = """{
  one: customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1") { userId }
  two: customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_2") { userId }
}"""
FOUND = {"user-1": [{"userId": "user-1"}, None], "user-2": [None, {"userId": "user-2"}]}


@pytest.fixture(autouse=True)
async def two_customers(empty_database, tokens):
    writer = access_token("checkout", "gateway-tokens:write")
    inputs = [{"userId": f"user-{n}", "gateway": "STRIPE", "gatewayCustomerId": f"cus_{n}"} for n in (1, 2)]
    await tokens.ask(SAVE, token=writer, inputs=inputs)


async def answered(address, http):
    """What each of two users is answered who ask the same, one after the other, through a router that may cache."""
    router = Endpoint(f"{address}/graphql", http)
    lists, lookups = {}, {}
    for user in OWN:
        lists[user] = (await router.ask(LIST, token=access_token(user)))["data"]["user"]["gatewayTokens"]
        lookups[user] = [*(await router.ask(TWO_LOOKUPS, token=access_token(user)))["data"].values()]
    return lists, lookups


async def test_hive_gateways_cache_keeps_no_tokens(composed_by_guild, http):
    async with hive_gateway(composed_by_guild, RESPONSE_CACHE="on") as address:
        assert await answered(address, http) == (OWN, FOUND)


async def test_without_our_directives_it_would_answer_one_users_tokens_to_another(subgraphs, http, tmp_path):
    bare = [{**each, "sdl": each["sdl"].replace("@cacheControl(maxAge: 0, scope: PRIVATE)", "")} for each in subgraphs]
    [composed] = compose("guild", bare)
    supergraph = tmp_path / "supergraph.graphql"
    supergraph.write_text(composed["supergraph"])
    async with hive_gateway(supergraph, RESPONSE_CACHE="on") as address:
        lists, _ = await answered(address, http)
        assert lists["user-2"] == OWN["user-1"]


async def test_apollos_cache_keeps_no_tokens(composed, http):
    async with apollo_gateway(composed, RESPONSE_CACHE="on") as address:
        assert await answered(address, http) == (OWN, FOUND)


async def test_without_our_header_it_would_answer_one_users_tokens_to_another(composed, http, tokens, monkeypatch):
    monkeypatch.setattr(tokens, "cache_control", b"public, max-age=60")
    async with apollo_gateway(composed, RESPONSE_CACHE="on") as address:
        _, lookups = await answered(address, http)
        assert lookups["user-2"] == FOUND["user-1"]


GRAFBASE_CACHE = "[entity_caching]\nenabled = true"


async def test_grafbases_cache_keeps_no_tokens(subgraphs, http, tokens, tmp_path):
    async with grafbase_gateway(subgraphs, tmp_path, GRAFBASE_CACHE) as address:
        for _ in range(2):
            tokens.requests = 0
            assert await answered(address, http) == (OWN, FOUND)
            assert tokens.requests == 4


async def test_without_our_header_it_would_keep_them_for_those_who_send_the_same_headers(
    subgraphs, http, tokens, tmp_path, monkeypatch
):
    monkeypatch.setattr(tokens, "cache_control", b"public, max-age=60")
    async with grafbase_gateway(subgraphs, tmp_path, GRAFBASE_CACHE) as address:

        async def are_kept():
            tokens.requests = 0
            assert await answered(address, http) == (OWN, FOUND)
            return tokens.requests == 1  # an answer with an error is not kept

        await until(are_kept, "it has kept the answers")


async def test_apollo_gateway_sends_hashes_of_persisted_queries(composed, http, tokens):
    async with apollo_gateway(composed, APQ="on") as address:
        asked = []
        for user in ("user-1", "user-2"):
            tokens.requests = 0
            answer = await Endpoint(f"{address}/graphql", http).ask(LIST, token=access_token(user))
            assert answer["data"]["user"]["gatewayTokens"] == OWN[user]
            asked.append(tokens.requests)
        assert asked == [2, 1]


async def test_hive_gateway_loses_its_headers_when_it_sends_a_document_after_its_hash(composed_by_guild, http):
    """A mistake of the router that docs/federation.md warns of: once this test fails, the warning can go."""
    async with hive_gateway(composed_by_guild, APQ="on") as address:
        answer = await Endpoint(f"{address}/graphql", http).ask(LIST, token=access_token("user-1"))
        assert answer["data"]["user"]["gatewayTokens"] is None
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
