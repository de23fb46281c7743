"""What the service's own operations cost: its SDL and our reckoning say the same, and honest requests pass."""

import pytest
from graphql import (
    IntValueNode,
    ListValueNode,
    ObjectTypeDefinitionNode,
    get_named_type,
    parse,
)

from graphql_api.engine import Engine
from graphql_api.limits import TOO_COMPLEX, request_checks
from graphql_api.limits.cost import Estimate
from graphql_api.limits.directives import list_sizes, weight
from graphql_api.settings import Settings

EVERYTHING_OF_A_TOKEN = """
  id userId gateway gatewayCustomerId description metadata isActive createdAt updatedAt version deactivatedAt
  deactivationReason lastVerifiedAt formerGatewayCustomerIds user { id }
"""


@pytest.fixture(scope="module")
def sdl(schema):
    return parse(schema._strawberry_schema.as_str())


def said(field, directive):
    """What a directive of the printed SDL says, as plain values."""
    for found in field.directives or ():
        if found.name.value == directive:
            return {argument.name.value: _plain(argument.value) for argument in found.arguments}
    return {}


def _plain(node):
    if isinstance(node, ListValueNode):
        return [value.value for value in node.values]
    return int(node.value) if isinstance(node, IntValueNode) else node.value


def test_the_sdl_and_the_reckoning_say_the_same(schema, sdl):
    compared = 0
    for definition in sdl.definitions:
        if not isinstance(definition, ObjectTypeDefinitionNode):
            continue
        for node in definition.fields:
            field = schema.type_map[definition.name.value].fields[node.name.value]
            sizes, printed = list_sizes(node.name.value, field), said(node, "listSize")
            if node.name.value != "_entities":
                assert sizes.assumed_size == printed.get("assumedSize")
                assert list(sizes.slicing_arguments) == printed.get("slicingArguments", [])
                assert sizes.sized_fields == frozenset(printed.get("sizedFields", []))
            assert weight(field, get_named_type(field.type)) == said(node, "cost").get("weight")
            compared += bool(printed)
    assert compared > 0


USERS = f"... on User {{ gatewayTokens {{ {EVERYTHING_OF_A_TOKEN} }} }}"
TOKENS = f"... on CustomerGatewayToken {{ {EVERYTHING_OF_A_TOKEN} }}"
PAGE = f"edges {{ cursor node {{ {EVERYTHING_OF_A_TOKEN} history {{ nodes {{ action actor at }} }} }} }}"
BATCH = f"""mutation ($i: [SaveCustomerGatewayTokenInput!]!) {{
  saveCustomerGatewayTokens(inputs: $i) {{ gatewayTokens {{ {EVERYTHING_OF_A_TOKEN} }} userErrors {{ code }} }}
}}"""


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (f"query ($r: [_Any!]!) {{ _entities(representations: $r) {{ {USERS} }} }}", {"r": [{}] * 2000}),
        (f"query ($r: [_Any!]!) {{ _entities(representations: $r) {{ {TOKENS} }} }}", {"r": [{}] * 2000}),
        (f"query ($n: Int) {{ customerGatewayTokens(first: $n) {{ {PAGE} }} }}", {"n": 500}),
        (BATCH, {"i": [{}] * 1000}),
    ],
    ids=["users", "tokens", "a page", "a batch"],
)
def test_the_largest_honest_requests_pass(schema, document, variables):
    settings = Settings.model_construct()
    parsed = parse(document)
    check = request_checks(max_representations=settings.max_representations, max_cost=settings.max_cost)

    assert check(schema, parsed, parsed.definitions[0])(variables) == []


def test_what_would_read_a_million_lines_is_refused(schema):
    parsed = parse("{ customerGatewayTokens(first: 500) { nodes { history(first: 500) { nodes { id } } } } }")

    assert Estimate(schema, parsed, parsed.definitions[0]).cost.of({}) > Settings.model_construct().max_cost


async def test_the_engine_asks_before_each_execution(schema):
    engine = Engine(schema, before_execution=[request_checks(max_representations=1, max_cost=1000)])
    operation = engine.prepare("query ($r: [_Any!]!) { _entities(representations: $r) { __typename } }")

    result = operation.execute({"r": [{}] * 2}, None)

    assert not result.executed
    assert [error.extensions for error in result.errors] == [{"code": TOO_COMPLEX}]
