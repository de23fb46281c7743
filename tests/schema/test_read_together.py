"""What concurrent requests ask of single users is read together, and never across what callers may read."""

import asyncio
import json

import pytest

from tests.schema.test_entities import user

READ = "gateway-tokens:read"
SELECTIONS = {
    "plain fields, as JSON": "gatewayTokens { gateway gatewayCustomerId createdAt }",
    "rows": "gatewayTokens { gateway gatewayCustomerId formerGatewayCustomerIds }",
    "under other names": "all: gatewayTokens { c: gatewayCustomerId kind: __typename }",
    "filtered": 'gatewayTokens(gateway: "stripe") { gatewayCustomerId }',
    "at one gateway": 'gatewayToken(gateway: "stripe") { gatewayCustomerId createdAt }',
}
USERS = [f"u{number}" for number in range(12)]


def asking(selection):
    return f"query($r: [_Any!]!) {{ _entities(representations: $r) {{ ... on User {{ id {selection} }} }} }}"


@pytest.fixture
async def saved(graph):
    """A customer of each user but the last."""
    for each in USERS[:-1]:
        await graph.saved(each, "STRIPE", f"cus_{each}")


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
async def test_requests_at_once_get_what_each_would_get_alone(as_service, as_user, client, saved, selection):
    callers = [as_service(READ), as_service(READ), as_user("u1"), as_user("u2"), client]
    query = asking(selection)

    async def ask(caller, each):
        answer = await caller(query, r=[user(each)])
        for error in answer.get("errors", ()):
            error["extensions"].pop("requestId", None)
        return answer

    asked = [(caller, each) for each in USERS for caller in callers]
    alone = [await ask(*each) for each in asked]
    together = await asyncio.gather(*(ask(*each) for each in asked))

    assert together == alone
    seen = {
        (index % len(callers), each)
        for index, (_, each) in enumerate(asked)
        if f"cus_{each}" in json.dumps(alone[index])
    }
    allowed = {(0, each) for each in USERS[:-1]} | {(1, each) for each in USERS[:-1]} | {(2, "u1"), (3, "u2")}
    if "formerGatewayCustomerIds" not in selection:  # which users may not read: their whole token goes
        assert seen == allowed
    assert seen <= allowed


@pytest.mark.parametrize("kind", ["plain fields, as JSON", "filtered", "at one gateway"])
async def test_what_many_ask_at_once_are_few_statements(as_service, saved, statements, kind):
    callers = [as_service(READ) for _ in range(3)]
    query = asking(SELECTIONS[kind])
    await callers[0](query, r=[user("u1")])
    statements.clear()
    answers = await asyncio.gather(
        *(caller(query, r=[user(each)]) for caller in callers for each in USERS for _ in range(2))
    )
    assert len(answers) == 72
    assert len(statements) <= 12


async def test_tokens_that_many_ask_for_at_once_are_few_statements(as_service, as_user, graph, statements):
    token_ids = [(await graph.saved(each, "STRIPE", f"cus_{each}"))["id"] for each in USERS]
    query = "query($id: ID!) { customerGatewayToken(id: $id) { id userId } }"

    async def ask_for_all(caller):
        statements.clear()
        answers = await asyncio.gather(*(caller(query, id=each) for each in token_ids))
        return [answer["data"]["customerGatewayToken"] for answer in answers], len(statements)

    everything = [{"id": each, "userId": owner} for each, owner in zip(token_ids, USERS, strict=True)]
    found, count = await ask_for_all(as_service(READ))
    assert found == everything
    assert count <= 2

    found, count = await ask_for_all(as_user("u1"))
    assert found == [each if each["userId"] == "u1" else None for each in everything]
    assert count == len(USERS)  # what may be seen is not the same for all: it is not mixed
