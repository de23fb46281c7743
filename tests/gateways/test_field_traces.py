"""Apollo's inline traces: asked for by a router, and read by Apollo's own code."""

import json
import subprocess

import pytest

from tests.gateways.graph import ROUTER_SECRET, TESTS, access_token
from tests.node import install

pytestmark = pytest.mark.slow
ADMIN = access_token("admin", "gateway-tokens:admin")
TRACED = {"apollo-federation-include-trace": "ftv1"}
SAVE = """mutation { saveCustomerGatewayToken(input: {userId: "user-1", gateway: "STRIPE", gatewayCustomerId: "cus_1"})
  { created gatewayToken { id gateway history { nodes { action } } } userErrors { message } } }"""


def decoded(trace):
    """The trace as Apollo's gateway understands it."""
    command = ["node", install(TESTS) / "trace.mjs"]
    return json.loads(subprocess.run(command, input=trace, capture_output=True, text=True, check=True).stdout)


def nodes(node, *path):
    """Where a field is in the answer → the type that it belongs to, and its own."""
    found = {}
    for child in node["child"]:
        place = (*path, child.get("responseName", child.get("index")))
        if "responseName" in child:
            found[place] = (child["parentType"], child["type"])
        found |= nodes(child, *place)
    return found


@pytest.fixture(autouse=True)
async def saved(empty_database, tokens):
    await tokens.ask(SAVE, token=ADMIN)


@pytest.fixture
def traced(tokens, http):
    """Asks our service as a router does that wants a trace."""

    async def ask(query, token=ADMIN, **variables):
        headers = {"router-authorization": ROUTER_SECRET, "authorization": f"Bearer {token}", **TRACED}
        return (await http.post(tokens.url, json={"query": query, "variables": variables}, headers=headers)).json()

    return ask


async def test_a_trace_has_the_time_of_each_resolver_where_its_field_is(traced, tokens):
    query = """query ($r: [_Any!]!) { _entities(representations: $r) {
      ... on User { id gatewayTokens { gateway former: formerGatewayCustomerIds } } } }"""
    users = [{"__typename": "User", "id": f"user-{number}"} for number in (1, 2)]
    answer = await traced(query, r=users)
    trace = decoded(answer.pop("extensions")["ftv1"])
    assert answer == await tokens.ask(query, token=ADMIN, r=users)
    assert nodes(trace["root"]) == {
        ("_entities",): ("Query", "[_Entity]!"),
        ("_entities", 0, "gatewayTokens"): ("User", "[CustomerGatewayToken!]"),
        ("_entities", 0, "gatewayTokens", 0, "former"): ("CustomerGatewayToken", "[String!]"),
        ("_entities", 1, "gatewayTokens"): ("User", "[CustomerGatewayToken!]"),
    }
    (entities,) = trace["root"]["child"]
    assert 0 < entities["startTime"] <= entities["endTime"] <= trace["durationNs"]


async def test_a_traced_mutation_does_what_it_says(traced):
    answer = await traced(SAVE.replace("cus_1", "cus_2").replace("user-1", "user-2"))
    payload = answer["data"]["saveCustomerGatewayToken"]
    assert payload["created"]
    assert payload["gatewayToken"]["history"]["nodes"] == [{"action": "CREATED"}]
    root = nodes(decoded(answer["extensions"]["ftv1"])["root"])
    assert ("saveCustomerGatewayToken", "gatewayToken", "history") in root


async def test_an_error_is_in_the_trace_without_its_text(traced):
    query = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on User { gatewayTokens { id } } } }"
    answer = await traced(query, access_token("user-2"), r=[{"__typename": "User", "id": "user-1"}])
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    (entities,) = decoded(answer["extensions"]["ftv1"])["root"]["child"]
    (failed,) = entities["child"][0]["child"]
    (told,) = failed["error"]
    assert told["message"] == "<masked>"
    assert told["location"] == [{"line": 1, "column": 71}]
    assert error["message"] not in json.dumps(failed)


async def test_apollos_gateway_takes_our_trace_into_its_own(apollo, http):
    query = "{ users(first: 2) { name gatewayTokens { gateway } } }"
    headers = {"authorization": f"Bearer {ADMIN}", **TRACED}
    answer = (await http.post(apollo, json={"query": query}, headers=headers)).json()
    assert "errors" not in answer
    plan = json.dumps(decoded(answer["extensions"]["ftv1"])["queryPlan"])
    assert '"serviceName": "tokens", "traceParsingFailed": false' in plan
    assert '"responseName": "gatewayTokens"' in plan
