"""All rules as one report what they report as many, in the same order."""

from contextlib import suppress

import pytest
import strawberry
from graphql import BREAK, SKIP, ASTValidationRule, GraphQLError, parse, specified_rules, validate
from graphql.validation import MaxIntrospectionDepthRule

from graphql_api.engine import Engine
from graphql_api.engine.executor import VALIDATION_RULES
from graphql_api.engine.validation import combine_rules
from graphql_api.schema import build_schema
from tests import hostile

SCHEMA = build_schema()._schema
RULES = [*specified_rules, *VALIDATION_RULES, MaxIntrospectionDepthRule]
INVALID = [
    "{ nothing }",
    "query A { __typename } query A { __typename }",
    "{ __typename } query B { __typename }",
    "query ($v: Nope) { __typename }",
    "query ($v: User) { __typename }",
    "query ($v: Int, $v: Int) { __typename }",
    "query ($v: ID!) { __typename }",
    "query ($v: Int) { customerGatewayToken(id: $v) { id } }",
    "query { customerGatewayToken(id: $v) { id } }",
    "query A($v: ID!) { ...f } query B { ...f } fragment f on Query { customerGatewayToken(id: $v) { id } }",
    "{ ...f } fragment f on ID { x }",
    "{ ...f }",
    "{ ...f ...f } fragment f on Query { __typename } fragment f on Query { __typename }",
    "{ __typename } fragment f on Query { __typename }",
    "{ ...f } fragment f on Query { ...f }",
    '{ customerGatewayToken(id: "1") { ... on User { id } } }',
    '{ customerGatewayToken(id: "1") }',
    "{ __typename { a } }",
    "{ __typename @nope }",
    "{ __typename @skip(if: true) @skip(if: true) }",
    "{ __typename @skip }",
    "query @skip(if: true) { __typename }",
    '{ customerGatewayToken(id: "1", b: 2) { id } }',
    '{ customerGatewayToken(id: "1", id: "1") { id } }',
    "{ customerGatewayToken(id: []) { id } }",
    "{ customerGatewayToken { id } }",
    '{ a: customerGatewayToken(id: "1") { id } a: customerGatewayToken(id: "2") { id } }',
    'mutation { saveCustomerGatewayToken(input: { userId: "1", userId: "2", none: 1 }) { created } }',
    "mutation { nothing }",
    "subscription { a }",
    "type A { a: Int }",
    "{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
    '{ customerGatewayTokenByCustomer(gateway: "$", gatewayCustomerId: "$v") { id } }',
    "{ nothing(a: $v) { ...f } other } fragment g on Nope { x }",
]


def documents(texts):
    for name, text in texts.items():
        with suppress(GraphQLError):
            yield name, parse(text, max_tokens=5000)


DOCUMENTS = dict(
    documents({**hostile.TOO_COMPLEX, **hostile.LONG, **hostile.WITHIN_THE_TOKENS, **{text: text for text in INVALID}})
)


def told(errors):
    return [error.formatted for error in errors]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_errors_are_the_same(name):
    expected = told(validate(SCHEMA, DOCUMENTS[name], RULES, max_errors=20))
    assert told(validate(SCHEMA, DOCUMENTS[name], [combine_rules(RULES)], max_errors=20)) == expected


@pytest.mark.parametrize("text", INVALID)
def test_the_engine_reports_them(text):
    expected = told(validate(SCHEMA, DOCUMENTS[text], RULES))
    prepared = Engine(SCHEMA, rules=[MaxIntrospectionDepthRule]).prepare(text)
    assert (told(prepared) if isinstance(prepared, list) else []) == expected


@strawberry.type
class Query:
    """What is asked."""

    @strawberry.field
    def a(self, x: int = 0, y: int = 0) -> "Query":
        """The same again."""
        return self


def watching(answers, seen, name):
    """A rule that answers in this way, and notes at which nodes it was asked."""

    def at(what):
        def ask(rule, node, *_):
            seen.append((name, what, node.kind, node.loc.start))
            return answers.get((what, node.kind))

        return ask

    asks = {f"{what}_{kind}": at(what) for what in ("enter", "leave") for kind in ("field", "argument", "document")}
    return type(name, (ASTValidationRule,), asks)


@pytest.mark.parametrize("answer", [SKIP, False, BREAK, True])
@pytest.mark.parametrize("what", ["enter", "leave"])
@pytest.mark.parametrize("kind", ["field", "argument"])
def test_a_rule_rests_below_a_node_or_to_the_end(what, kind, answer):
    document = parse("{ a(x: 1) { a(x: 1, y: 2) { __typename } b: a { __typename } } c: a(y: 1) { __typename } }")
    schema = strawberry.Schema(query=Query)._schema

    def asked(made_of):
        seen = []
        rules = [watching({(what, kind): answer}, seen, "Some"), watching({}, seen, "All")]
        validate(schema, document, made_of(rules))
        return seen

    one_by_one = asked(lambda rules: rules)
    assert asked(lambda rules: [combine_rules(rules)]) == one_by_one
    assert len(one_by_one) > len({entry for entry in one_by_one if entry[0] == "All"})
