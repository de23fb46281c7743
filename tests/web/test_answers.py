"""What an answer is at most: a thousand errors, sixteen mebibytes."""

import orjson
import pytest

from graphql_api.engine import AnswerBounds
from graphql_api.web import answers

USERS = [{"__typename": "User", "id": f"user-{number}"} for number in range(600)]
ALIASED = "query($r: [_Any!]!) { _entities(representations: $r) { ... on User { %s } } }"


@pytest.mark.parametrize("user", [None, "somebody"])
async def test_the_errors_beyond_a_thousand_are_counted_and_their_nulls_remain(client, as_user, user):
    fields = " ".join(f'a{number}: gatewayToken(gateway: "STRIPE") {{ id }}' for number in range(3))
    answer = await (as_user(user) if user else client)(ALIASED % fields, r=USERS)
    assert len(answer["errors"]) == 1000
    assert answer["extensions"] == {"errorsLeftOut": 3 * 600 - 1000}
    assert answer["data"]["_entities"] == [{"a0": None, "a1": None, "a2": None}] * 600


@pytest.mark.parametrize("users", [100, 600])  # a hundred are not worth compiling the document
async def test_a_field_that_leaves_no_data_after_a_thousand_errors_is_not_an_internal_error(client, users):
    fields = " ".join(f'a{number}: gatewayToken(gateway: "STRIPE") {{ id }}' for number in range(12))
    query = (ALIASED % fields)[:-1] + " customerGatewayTokens { totalCount } }"
    answer = await client(query, r=USERS[:users])
    assert answer["data"] is None
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNAUTHENTICATED"}
    assert len(answer["errors"]) <= 1000


async def test_an_answer_without_errors_left_out_says_nothing_of_them(client):
    answer = await client(ALIASED % "gatewayTokens { id }", r=USERS)
    assert len(answer["errors"]) == 600
    assert "extensions" not in answer


@pytest.mark.parametrize("unit", ["x", "\x01", "😀"])
async def test_an_answer_is_measured_in_bytes_as_it_is_sent(web, monkeypatch, unit):
    monkeypatch.setattr(answers, "UNAUTHENTICATED_BOUNDS", AnswerBounds(3000, 2500))
    size = len(orjson.dumps(unit)) - 2
    for most, code in ((2900, None), (3100, "ANSWER_TOO_LARGE")):
        asked = {"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": unit * (most // size)}}
        response = await web.post("/graphql", json=asked)
        assert len(response.content) <= 3000
        assert [error["extensions"]["code"] for error in response.json().get("errors", [])] == ([code] if code else [])


async def test_users_do_not_use_up_the_names_of_operations_in_the_metrics(as_user, as_service):
    await as_user("u1")("query OfAUser { __typename }")
    await as_service("gateway-tokens:read")("query OfAService { __typename }")
    names = (await as_user("u1").http.get("/metrics")).text
    assert 'operation="OfAService"' in names
    assert "OfAUser" not in names
