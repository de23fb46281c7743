"""What the usual operations leave to graphql-core: nothing, since its executor costs more than a whole save."""

from graphql_api.engine import Operation
from tests.schema.test_entities import user

LOOKUP = 'query { customerGatewayTokenByCustomer(gateway: "stripe", gatewayCustomerId: "cus_1") { id userId } }'
USERS = "query($r: [_Any!]!) { _entities(representations: $r) { ... on User { gatewayTokens { gatewayCustomerId } } } }"


async def test_usual_operations_make_no_executor_of_graphql_core(graph, monkeypatch):
    monkeypatch.setattr(Operation, "core_executor", None)
    saved = await graph.save("u1", "STRIPE", "cus_1")
    assert (await graph.save("u2", "STRIPE", "cus_1"))["userErrors"]
    found = (await graph.ask(LOOKUP))["customerGatewayTokenByCustomer"]
    assert found == {"id": saved["gatewayToken"]["id"], "userId": "u1"}
    [entity] = (await graph.ask(USERS, r=[user("u1")]))["_entities"]
    assert entity == {"gatewayTokens": [{"gatewayCustomerId": "cus_1"}]}
