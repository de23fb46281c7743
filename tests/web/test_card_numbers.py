"""A payment card number, sent through every input of the schema: it must come out nowhere."""

import re

import asyncpg
import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    get_named_type,
    is_leaf_type,
)

from graphql_api.observability import logs
from graphql_api.schema import build_schema
from tests.asgi import Client

SCHEMA = build_schema()._schema
# As sent, and as it may be quoted.
CARDS = ("4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444")
# A user's id is opaque and kept as it is: the User Service may well number its users.
OPAQUE = {"userId", "fromUserId", "intoUserId", "toUserId"}
EXAMPLES = {
    "userId": "u1",
    "fromUserId": "u1",
    "intoUserId": "u2",
    "toUserId": "u3",
    "idempotencyKey": "a key",
    "id": "00000000-0000-7000-8000-000000000000",
    "gateway": "STRIPE",
    "gatewayCustomerId": "cus_1",
    "replaces": "cus_0",
    "description": "a note",
    "metadata": {"a": 1},
    "isActive": True,
    "expectedVersion": 1,
    "leaseSeconds": 30,
    "dryRun": True,
    "representations": [{"__typename": "CustomerGatewayToken", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"}],
}


def example(name, kind):
    """A value that an input takes; None where it may be left out."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    if not isinstance(kind, GraphQLNonNull):
        return None
    kind = kind.of_type
    if isinstance(kind, GraphQLList):
        return [example(name, kind.of_type)]
    if isinstance(kind, GraphQLInputObjectType):
        return {field: value for field, of in kind.fields.items() if (value := example(field, of.type)) is not None}
    assert isinstance(kind, GraphQLEnumType)
    return next(iter(kind.values))


def poisoned(name, kind, card):
    """The values that an input takes with a card number in one place of them."""
    kind = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    if name in OPAQUE:
        return
    if isinstance(kind, GraphQLList):
        for value in poisoned(name, kind.of_type, card):
            yield [value]
    elif isinstance(kind, GraphQLInputObjectType):
        whole = example(name, GraphQLNonNull(kind))
        for field, of in kind.fields.items():
            for value in poisoned(field, of.type, card):
                yield {**whole, field: value}
    elif kind.name in {"JSON", "_Any"}:
        yield from ({"a": card}, {card: 1}, {"a": [{"b": f"card {card}"}]}, card)
        yield from (
            {"__typename": "CustomerGatewayToken", "gateway": "STRIPE", "gatewayCustomerId": card},
            {"__typename": card},
        )
        if card.isdigit():
            yield {"a": int(card)}
    else:
        yield from (card, f"card {card}")
        if card.isdigit():
            yield int(card)


def selection(kind, depth=2):
    """Everything below a field, a few levels deep."""
    kind = get_named_type(kind)
    if is_leaf_type(kind):
        return ""
    if kind.name == "_Entity":
        return f"{{ __typename ... on CustomerGatewayToken {selection(SCHEMA.type_map['CustomerGatewayToken'])} }}"
    below = {
        name: selection(field.type, depth - 1)
        for name, field in kind.fields.items()
        if (depth or is_leaf_type(get_named_type(field.type))) and not any(map(required, field.args.values()))
    }
    return f"{{ {' '.join(f'{name} {inner}' for name, inner in below.items())} }}"


def required(argument):
    return isinstance(argument.type, GraphQLNonNull)


def attacks(card):
    """Every document with one argument, and every value of it with the card number somewhere."""
    for kind, root in (("query", SCHEMA.query_type), ("mutation", SCHEMA.mutation_type)):
        for name, field in root.fields.items():
            for poisoned_name, argument in field.args.items():
                for value in poisoned(poisoned_name, argument.type, card):
                    values = {each: example(each, of.type) for each, of in field.args.items()}
                    given = {each: it for each, it in {**values, poisoned_name: value}.items() if it is not None}
                    declared = ", ".join(f"${each}: {field.args[each].type}" for each in given)
                    passed = ", ".join(f"{each}: ${each}" for each in given)
                    yield f"{kind}({declared}) {{ {name}({passed}) {selection(field.type)} }}", given


@pytest.fixture
async def stored(empty_database):
    """Everything that the tables hold, as text."""
    connection = await asyncpg.connect(empty_database)

    async def text():
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
        rows = [await connection.fetch(f"select row::text from {table} row") for (table,) in tables]  # noqa: S608
        return "\n".join(str(row[0]) for table in rows for row in table)

    yield text
    await connection.close()


@pytest.mark.parametrize("card", CARDS)
async def test_a_card_number_sent_through_any_input_comes_out_nowhere(service, stored, capsys, card):
    client = Client(await service())
    attacked = 0
    for query, variables in attacks(card):
        response = await client.http.post("/graphql", json={"query": query, "variables": variables})
        assert response.status_code == 200
        assert not {"INTERNAL", "GRAPHQL_VALIDATION_FAILED"} & set(re.findall("[A-Z_]+", response.text))
        assert card not in response.text, (query, variables)
        attacked += 1
    assert attacked > 100
    logs.access.flush()
    assert card not in capsys.readouterr().err
    assert card not in await stored()


async def test_a_card_number_in_an_alias_is_not_in_the_path_of_an_error(service):
    answer = await Client(await service())("{ _4111111111111111: customerGatewayTokens(first: 0) { totalCount } }")
    assert answer["errors"][0]["path"] == ["_…"]


async def test_text_that_is_no_card_number_is_stored_and_found(service, stored):
    client = Client(await service())
    for query, variables in attacks("4111111111111112"):
        await client(query, **variables)
    assert "4111111111111112" in await stored()
