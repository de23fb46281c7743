"""The running service asked whatever its schema allows: generated operations with generated values."""

import graphql
import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import queries
from schemathesis.graphql import nodes

from graphql_api.schema import build_schema

OURS = ("Traceback", "graphql_api", "site-packages", ".py", "asyncpg", "sqlalchemy", "select ", "127.0.0.1", "postgres")
EXPECTED = {"BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED", "DOCUMENT_TOO_COMPLEX"}
SECONDS = 10  # as REQUEST_TIMEOUT


def a_field(name, value):
    return graphql.ObjectFieldNode(name=graphql.NameNode(value=name), value=value)


def objects(values):
    fields = st.dictionaries(st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), values, max_size=3)
    return fields.map(lambda found: nodes.Object([a_field(name, value) for name, value in found.items()]))


texts = st.text().map(nodes.String)
anything = st.recursive(
    st.none().map(lambda _: nodes.Null) | st.booleans().map(nodes.Boolean) | st.integers().map(nodes.Int) | texts,
    lambda inner: st.lists(inner, max_size=3).map(nodes.List) | objects(inner),
    max_leaves=5,
)
representations = st.fixed_dictionaries(
    {"__typename": st.sampled_from(["User", "CustomerGatewayToken", "Order"])},
    optional={name: st.text() | st.sampled_from(["u1", "STRIPE", "cus_1"]) for name in ("id", "userId", "gateway")},
).map(lambda found: nodes.Object([a_field(name, nodes.String(value)) for name, value in found.items()]))

SCALARS = {
    "JSON": anything,
    "_Any": representations | anything,
    "DateTime": st.datetimes().map(lambda at: nodes.String(f"{at.isoformat()}Z")) | texts,
}
for name, strategy in SCALARS.items():
    schemathesis.graphql.scalar(name, strategy)

SCHEMA = build_schema()
published = schemathesis.graphql.from_dict(SCHEMA.introspect())
generating = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def is_answered_without_giving_anything_away(response):
    assert response.status_code == 200, response.text
    errors = response.json().get("errors", ())
    assert {error["extensions"]["code"] for error in errors} <= EXPECTED
    for error in errors:
        assert not any(text in error["message"] for text in OURS)


@published.parametrize()
@generating
def test_whatever_the_schema_allows_is_answered(case, running):
    is_answered_without_giving_anything_away(case.call(base_url=running.url, timeout=SECONDS))


@given(queries(SCHEMA._schema, fields=["_service", "_entities"], custom_scalars=SCALARS))
@generating
def test_whatever_a_gateway_may_ask_is_answered(running, query):
    response = httpx.post(running.url, json={"query": query}, timeout=SECONDS)
    is_answered_without_giving_anything_away(response)
