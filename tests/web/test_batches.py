"""Several requests in one: an answer each, in their order, within the limits of one."""

import asyncio

import httpx
import pytest

from graphql_api.web import answers
from tests.graph import Graph
from tests.observability.test_metrics import grown

ENTITIES = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on User { gatewayTokens { id } } } }"


async def ask(web, *batch, **headers):
    return await web.post("/graphql", json=list(batch), headers=headers)


async def test_every_request_has_its_answer_in_its_place(web):
    response = await ask(
        web,
        {"query": "{ hello }"},
        {"query": "{"},
        {"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": "u"}},
        {"query": '{ fail(how: "ValueError") }'},
        {"query": "mutation { hello }"},
        {"documentId": "x"},
    )
    assert response.status_code == 200
    answers = response.json()
    assert [answer.get("data") for answer in answers] == [
        {"hello": "hello you"},
        None,
        {"hello": "hello u"},
        {"fail": None},
        {"hello": "hello"},
        None,
    ]
    codes = [answer["errors"][0]["extensions"]["code"] for answer in answers if "errors" in answer]
    assert codes == ["GRAPHQL_PARSE_FAILED", "INTERNAL", "BAD_REQUEST"]


async def test_one_request_in_an_array_is_answered_by_an_array(web):
    assert (await ask(web, {"query": "{ hello }"})).json() == [{"data": {"hello": "hello you"}}]


@pytest.mark.parametrize("batch", [[], [{"query": "{ hello }"}] * 11])
async def test_a_batch_that_is_none_is_refused(web, batch):
    response = await ask(web, *batch)
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("wrong", [1, None, [], {}, {"query": None}, {"query": "{ hello }", "variables": 5}])
async def test_a_malformed_request_of_a_batch_is_refused_in_its_place(web, wrong):
    response = await ask(web, {"query": "{ hello }"}, wrong, {"query": "mutation { hello }"})
    assert response.status_code == 200
    first, refused, last = response.json()
    assert (first, last) == ({"data": {"hello": "hello you"}}, {"data": {"hello": "hello"}})
    assert refused["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_a_batch_is_one_line_in_the_log(web, log):
    await ask(web, {"query": "{ hello }"}, {"query": "{"})
    [line] = log()
    assert (line["outcome"], line["requests"], line["operation"]) == ("GRAPHQL_PARSE_FAILED", 2, None)


async def test_queries_of_a_batch_run_at_the_same_time(graphql, web, waiting):
    asking = asyncio.create_task(ask(web, {"query": "{ wait(seconds: 60) }"}, {"query": "{ hello }"}))
    await asyncio.wait_for(waiting.began.wait(), 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert waiting.cancelled.is_set()


async def test_a_batch_that_takes_too_long_says_so_for_each_of_its_requests(graphql):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(graphql(timeout=0.1)), base_url="http://x") as web:
        response = await ask(web, {"query": "{ wait(seconds: 60) }"}, {"query": "{ hello }"})
    assert [answer["errors"][0]["extensions"]["code"] for answer in response.json()] == ["TIMEOUT"] * 2


async def test_limits_count_over_the_whole_batch(as_service):
    client = as_service("gateway-tokens:read")
    users = [{"__typename": "User", "id": f"u{number}"} for number in range(1500)]
    one = {"query": ENTITIES, "variables": {"r": users}}
    for batch, refused in (([one], [False]), ([one, one], [False, True])):
        answers = (await ask(client.http, *batch)).json()
        assert ["errors" in answer for answer in answers] == refused
    assert answers[1]["errors"][0]["extensions"]["code"] == "DOCUMENT_TOO_COMPLEX"


async def test_errors_count_over_the_whole_batch(client):
    fields = " ".join(f'a{number}: gatewayToken(gateway: "S") {{ id }}' for number in range(3))
    query = f"query ($r: [_Any!]!) {{ _entities(representations: $r) {{ ... on User {{ {fields} }} }} }}"
    users = [{"__typename": "User", "id": f"u{number}"} for number in range(200)]
    wrong = {"query": " ".join(["{", *(f"a{number}" for number in range(20)), "}"])}
    answers = (await ask(client.http, *[{"query": query, "variables": {"r": users}}] * 9, wrong)).json()
    told = [len(answer["errors"]) for answer in answers]
    assert (sum(told), min(told)) == (1000, 1)
    left_out = sum(answer.get("extensions", {}).get("errorsLeftOut", 0) for answer in answers)
    assert sum(told[:9]) + left_out == 9 * 200 * 3
    assert all(answer["data"]["_entities"][199] == {"a0": None, "a1": None, "a2": None} for answer in answers[:9])


async def test_bytes_count_over_the_whole_batch(web, monkeypatch):
    monkeypatch.setattr(answers, "MAX_ANSWER_BYTES", 2500)
    long = {"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": "x" * 1000}}
    found = (await ask(web, long, long, long, {"query": "{ hello }"})).json()
    codes = [answer["errors"][0]["extensions"]["code"] if "errors" in answer else None for answer in found]
    assert sorted(codes, key=str) == ["ANSWER_TOO_LARGE", None, None, None]
    assert found[codes.index("ANSWER_TOO_LARGE")]["data"] is None


async def test_the_next_request_has_its_limits_for_itself(as_service):
    client = as_service("gateway-tokens:read")
    users = [{"__typename": "User", "id": f"u{number}"} for number in range(1500)]
    one = {"query": ENTITIES, "variables": {"r": users}}
    await ask(client.http, one)
    assert "errors" not in await client(ENTITIES, r=users)


async def test_reads_of_a_batch_go_to_the_database_together(as_service, client):
    service = as_service("gateway-tokens:read")
    batch = [
        {"query": ENTITIES, "variables": {"r": [{"__typename": "User", "id": f"u{number}"}]}} for number in range(5)
    ]
    counts = await grown(client, lambda: ask(service.http, *batch))
    assert counts["statement_duration_seconds_count", "of_users_as_json"] == 1


async def test_mutations_of_a_batch_are_made_in_their_order(graph: Graph):
    save = """mutation ($d: String!) { saveCustomerGatewayToken(
      input: {userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1", description: $d}
    ) { gatewayToken { version description } } }"""
    batch = [{"query": save, "variables": {"d": f"d{number}"}} for number in range(5)]
    answers = (await ask(graph.client.http, *batch)).json()
    tokens = [answer["data"]["saveCustomerGatewayToken"]["gatewayToken"] for answer in answers]
    assert tokens == [{"version": number + 1, "description": f"d{number}"} for number in range(5)]
