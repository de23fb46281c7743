"""The service's usual operations: as one coroutine as in steps, and as under a router's trace, which graphql-core runs.

For every caller, from the primary and from a replica that shows all, lags or is away.
"""

import os
from functools import partial
from itertools import product
from math import inf
from types import SimpleNamespace
from unittest.mock import patch

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphql_api import demo
from graphql_api.domain.caller import ANONYMOUS_ADMIN, READ_SCOPE, UNAUTHENTICATED, Caller
from graphql_api.domain.inputs import Gateways
from graphql_api.engine import Engine, generate
from graphql_api.observability import spans
from graphql_api.schema import build_schema
from graphql_api.schema.context import Context
from graphql_api.service.tokens import Tokens
from graphql_api.storage.connection import Reads
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.reads import TokenReader
from graphql_api.storage.replicas import RecentWrites, ReplicaReads
from graphql_api.storage.tokens import TokenStore
from graphql_api.web.field_trace import FieldTrace
from tests.engine.oracle import described

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "30"))
SCHEMA = build_schema()._schema
ONE, STEPS = Engine(SCHEMA), Engine(SCHEMA)
ENTITIES = "query ($r: [_Any!]!) {{ _entities(representations: $r) {{ __typename ... on User {{ {} }} }} }}"
LOOKUP = (
    "query ($g: String!, $c: String!) {{ customerGatewayTokenByCustomer(gateway: $g, gatewayCustomerId: $c) {{ {} }} }}"
)
QUERIES = [
    *map(
        ENTITIES.format,
        [
            "gatewayTokens { id gateway isActive createdAt }",
            "id gatewayTokens(gateway: null) { gatewayCustomerId }",
            "all: gatewayTokens { name: gateway description user { id } }",
            "gatewayTokens(isActive: true) { id }",
            'gatewayTokens(gateway: "no gateway") { id }',
            'gatewayToken(gateway: "stripe") { id metadata }',
        ],
    ),
    *map(LOOKUP.format, ["id userId createdAt", "description formerGatewayCustomerIds user { gatewayTokens { id } }"]),
]
CALLERS = [UNAUTHENTICATED, Caller("user-1"), Caller("service", frozenset({READ_SCOPE})), ANONYMOUS_ADMIN]
PLACES = ["primary", "replica", "replica that lags", "replica that is away"]
USERS = st.sampled_from(["user-1", "user-2", "user-3", "user-unknown", "", "ü", "u" * 256, "\0", 5])


class Service:
    """What reads the same tokens from a primary and a replica, and notes each statement."""

    def __init__(self, primary, replica, statements, customers):
        self.store, self.replica, self.statements, self.customers = TokenStore(primary), replica, statements, customers

    def reads(self, place, caller):
        if place == "primary":
            return self.store
        self.replica.connections.reopen()
        if place == "replica that is away":
            self.replica.connections.suspend()
        replica = SimpleNamespace(
            reader=TokenReader(self.replica), visible_until=-inf if place == "replica that lags" else inf
        )
        return ReplicaReads(self.store, replica, RecentWrites(), caller)

    async def answer(self, engine, query, variables, caller, place, **how):
        self.statements.clear()
        spans.current.set(("the span of the request",))
        loads = []
        tokens = Tokens(self.store, caller, Gateways(), self.reads(place, caller))
        context = Context(tokens, "id", lambda *load: loads.append(load), lambda *_: None, [])
        result = engine.prepare(query).execute(variables, context, **how)
        if not isinstance(result, tuple):
            result = await result
        errors = sorted([described(error) for error in result.errors or ()], key=repr)
        return (orjson.dumps(result.data), errors), (sorted(loads), sorted(self.statements))


@pytest.fixture(scope="module")
async def service(new_database, migrated_database):
    statements = []

    def note(place, statement, _seconds, error):
        if statement.reads is Reads.BY_KEY:  # what else runs is the pool's
            statements.append((place, statement.name, spans.current.get(), repr(error)))

    url = await new_database(migrated_database)
    opened = partial(ConnectionPool.open, url, size=2)
    async with opened(observe=partial(note, "primary")) as primary, opened(observe=partial(note, "replica")) as replica:
        await demo.fill(TokenStore(primary), users=3)
        found = await TokenStore(primary).of_users(["user-1", "user-2", "user-3"])
        customers = [(each.gateway, each.gateway_customer_id) for tokens in found.values() for each in tokens]
        yield Service(
            primary, replica, statements, [*customers, ("STRIPE", "cus_unknown"), ("no gateway", "c"), ("STRIPE", "\0")]
        )


def every_way(test):
    for query, caller, place in product(QUERIES[:1] + QUERIES[-2:-1], CALLERS[1:], PLACES):
        test = example(query=query, caller=caller, place=place, users=["user-1", "user-2"], customer=0)(test)
    return test


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    query=st.sampled_from(QUERIES),
    caller=st.sampled_from(CALLERS),
    place=st.sampled_from(PLACES),
    users=st.lists(USERS, max_size=4),
    customer=st.integers(0, 1000),
)
@every_way
async def test_usual_operations_answer_alike_every_way(service, query, caller, place, users, customer):
    gateway, identifier = service.customers[customer % len(service.customers)]
    representations = [{"__typename": "User", "id": user} for user in users]
    variables = {"r": representations} if "$r" in query else {"g": gateway, "c": identifier}
    asked = query, variables, caller, place
    with patch.object(generate, "only_awaited", lambda _: None):
        in_steps = await service.answer(STEPS, *asked)
    assert await service.answer(ONE, *asked) == in_steps
    assert "async def answer" in ONE.prepare(query).source
    assert "async def answer" not in STEPS.prepare(query).source
    trace = FieldTrace()
    with trace.recording():
        traced, _ = await service.answer(ONE, *asked, middleware=trace.middleware)
    assert (orjson.loads(traced[0]), traced[1]) == (orjson.loads(in_steps[0][0]), in_steps[0][1])
