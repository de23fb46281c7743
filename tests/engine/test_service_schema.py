"""Operations that hypothesis-graphql makes up for the service's own schema: the same answers on equal databases."""

import json
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from graphql import IntValueNode, SelectionSetNode, StringValueNode, Visitor, parse, parse_value, print_ast, visit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import from_schema

from graphql_api import demo
from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE, EVENTS_SCOPE, READ_SCOPE
from graphql_api.domain.filter import TokenFilter
from graphql_api.schema import build_schema
from graphql_api.settings import Settings
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "60"))
USERS = 30
SCHEMA = build_schema()._schema
LIMITS = ["depth", "aliases", "tokens", "directives", "selections", "root_fields", "repeated_fields", "cost"]
NO_LIMITS = {f"max_{limit}": 10**9 for limit in LIMITS}

# --- operations

USUAL = ["user-1", "user-2", "user-7", "STRIPE", "paypal", "ADYEN", "cus_new"]
ODD = ["user-unknown", "no gateway", "", "4111111111111111"]
MOMENTS = ["2025-01-06T09:00:10Z", "2025-01-06T09:05:00+02:00", "2030-01-01T00:00:00Z", "2025-01-06", "never"]
JSON = ["null", "{}", '{plan: "gold", seats: 3}', "[1, 2.5, null]", '"text"']
REPRESENTATIONS = [
    '{__typename: "User", id: "user-1"}',
    '{__typename: "User", id: "user-2", name: "ignored"}',
    '{__typename: "User", id: 5}',
    '{__typename: "CustomerGatewayToken", userId: "user-1", gateway: "STRIPE"}',
    '{__typename: "CustomerGatewayToken", userId: "user-2", gateway: "paypal"}',
    '{__typename: "CustomerGatewayToken", id: "00000000-0000-0000-0000-000000000000"}',
    '{__typename: "CustomerGatewayToken", gateway: "STRIPE", gatewayCustomerId: "nobody"}',
    '{__typename: "Nothing"}',
    "5",
]
NEVER = parse("{ __typename @include(if: false) }").definitions[0].selection_set.selections[0].directives
SCALARS = {
    "DateTime": st.sampled_from([f'"{moment}"' for moment in MOMENTS]).map(parse_value),
    "JSON": st.sampled_from(JSON).map(parse_value),
    "_Any": st.sampled_from(REPRESENTATIONS).map(parse_value),
}


class Meaningful(Visitor):
    """Replaces most of what was made up by what means something to the service."""

    def __init__(self, draw, words):
        super().__init__()
        self.draw = draw
        self.words = words

    def enter_string_value(self, node, *_):
        if node.value in MOMENTS or not self.draw(st.integers(0, 9)):
            return None
        return StringValueNode(value=self.draw(st.sampled_from(self.words)))

    def enter_int_value(self, node, *_):
        return (
            IntValueNode(value=self.draw(st.sampled_from(["1", "2", "5", "50"]))) if self.draw(st.booleans()) else None
        )

    def leave_selection_set(self, node, *_):
        """Now and then a condition leaves nothing of it, which an operation may not write down as such."""
        if self.draw(st.integers(0, 3)):
            return None
        return SelectionSetNode(selections=tuple([conditional(each) for each in node.selections]))

    def enter_object_value(self, node, *_):
        return False if any(field.name.value == "__typename" for field in node.fields) else None


def conditional(selection):
    return replace(selection, directives=(*(selection.directives or ()), *NEVER))


@st.composite
def operations(draw, words):
    query = draw(from_schema(SCHEMA, custom_scalars=SCALARS, allow_x00=False))
    return print_ast(visit(parse(query), Meaningful(draw, words)))


# --- the service, twice


@asynccontextmanager
async def two_services(new_database, migrated_database):
    """Two services on equal databases, compiled and not, as an admin sees them, and the tokens' ids."""
    async with AsyncExitStack() as stack:
        clients = []
        for engine in ("compiled", "graphql-core"):
            url = await new_database(migrated_database)
            async with ConnectionPool.open(url, size=1, timeout=5) as database:
                await demo.fill(TokenStore(database), users=USERS)
                ids = [str(token.id) for token in (await TokenStore(database).page(TokenFilter(), size=60)).tokens]
            app = create_app(Settings(database_url=url, auth_secret=AUTH_SECRET, engine=engine, **NO_LIMITS))
            running = await stack.enter_async_context(opened(app))
            clients.append(Client(running, mint(AUTH_SECRET, "tests", [ADMIN_SCOPE])))
        yield clients, ids


@pytest.fixture(scope="session")
async def services(new_database, migrated_database):
    """Two services whose tokens stay as they are."""
    async with two_services(new_database, migrated_database) as services:
        yield services


@pytest.fixture
async def services_to_change(new_database, migrated_database):
    async with two_services(new_database, migrated_database) as services:
        yield services


MADE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # ids
    r"|20(?!25-0)\d\d-\d\d-\d\dT[0-9:.]+\+00:00"  # moments after the demo's
)
MADE_KEYS = {"idempotencyKey", "cursor", "startCursor", "endCursor", "requestId"}


def masked(value, ids):
    """The answer without what is new in each database: ids, moments and what is made of them."""
    if isinstance(value, dict):
        return {key: "made" if key in MADE_KEYS and each else masked(each, ids) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each, ids) for each in value]
    return MADE.sub(lambda found: found[0] if found[0] in ids else "made", value) if isinstance(value, str) else value


def comparable(answer, ids):
    errors = sorted(json.dumps(error, sort_keys=True) for error in masked(answer.get("errors", []), ids))
    return json.dumps(masked(answer.get("data"), ids)), errors


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_the_service_answers_the_same_with_either_engine(services_to_change, data):
    clients, ids = services_to_change
    query = data.draw(operations([*USUAL, *USUAL, *ids[:9], *ODD]))
    compiled, by_core = [comparable(await client(query), ids) for client in clients]
    assert compiled == by_core


LEFT_OUT = ["id @include(if: false)", "id @skip(if: true) ... on CustomerGatewayToken { gateway @include(if: false) }"]


@pytest.mark.parametrize("selected", LEFT_OUT)
@pytest.mark.parametrize("inner", ["%s", "user { gatewayTokens { %s } }"])
async def test_tokens_of_which_a_condition_leaves_nothing_are_empty_objects(services, selected, inner):
    clients, ids = services
    user = '{__typename: "User", id: "user-1"}'
    query = f"{{ _entities(representations: [{user}]) {{ ... on User {{ gatewayTokens {{ {inner % selected} }} }} }} }}"
    compiled, by_core = [comparable(await client(query), ids) for client in clients]
    assert compiled == by_core
    assert "{}" in compiled[0]


OF_USERS = """query ($users: [_Any!]!) {
  _entities(representations: $users) { ... on User { gatewayTokens { id isActive createdAt __typename } } } }"""
IDS = ["user-1", "user-2", "user-unknown", "", "x" * 256, "\0", "ü", 5]


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scopes=st.sampled_from([None, [], [READ_SCOPE], [EVENTS_SCOPE]]), ids=st.lists(st.sampled_from(IDS), max_size=60)
)
async def test_users_are_answered_the_same_with_either_engine_whoever_asks(services, scopes, ids):
    clients, known = services
    headers = {} if scopes is None else {"authorization": f"Bearer {mint(AUTH_SECRET, 'user-1', scopes)}"}
    users = [{"__typename": "User", "id": each} for each in ids]
    asked = {"query": OF_USERS, "variables": {"users": users}}
    answers = [await client.http.post("/graphql", json=asked, headers=headers) for client in clients]
    compiled, by_core = [comparable(answer.json(), known) for answer in answers]
    assert compiled == by_core
