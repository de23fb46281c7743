"""Several requests in one: an answer each, in their order, within the limits of one."""

import asyncio

import httpx
import pytest
from graphql import get_introspection_query

from graphql_api.engine import AnswerBounds
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
    assert response.status_code == 200
    assert [answer["errors"][0]["extensions"]["code"] for answer in response.json()] == ["TIMEOUT"] * 2
    assert "REQUEST_TIMEOUT" in response.text


async def test_a_mutation_that_waits_for_a_lock_leaves_no_place_to_those_behind_it_in_a_batch(graphql, waiting):
    transport = httpx.ASGITransport(graphql(max_concurrent=1, limits={"max_wait_seconds": 0.1}))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as web:
        first = asyncio.create_task(ask(web, {"query": "mutation { wait(seconds: 0.5) }"}))
        await waiting.began.wait()
        refused = await ask(web, {"query": "mutation { hello }"})
        assert refused.status_code == 503
        assert (await first).json() == [{"data": {"wait": "waited"}}]

        given_up = {"query": "mutation { giveUpPlace }"}
        waiting.began.clear()
        batch = asyncio.create_task(ask(web, given_up, {"query": "mutation { wait(seconds: 0.5) }"}))
        await waiting.began.wait()
        assert (await ask(web, {"query": "mutation { hello }"})).status_code == 503
        assert (await batch).json()[1] == {"data": {"wait": "waited"}}
        assert (await ask(web, given_up, {"query": "mutation { hello }"})).json()[1] == {"data": {"hello": "hello"}}


async def test_each_mutation_of_a_batch_waits_for_a_place_for_as_long_as_any_other(graphql, waiting):
    transport = httpx.ASGITransport(graphql(max_concurrent=1, limits={"max_wait_seconds": 0.1}))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as web:
        hello = {"query": "mutation { hello }"}
        batch = [{"query": "mutation { giveUpPlace wait(seconds: 0.5) }"}, hello, hello]
        answering = asyncio.create_task(ask(web, *batch))
        await waiting.began.wait()
        waiting.began.clear()
        other = asyncio.create_task(ask(web, {"query": "mutation { wait(seconds: 2) }"}))
        await waiting.began.wait()
        first, *refused = (await answering).json()
        assert not other.done()
        assert (await other).json() == [{"data": {"wait": "waited"}}]
    assert first == {"data": {"giveUpPlace": "given up", "wait": "waited"}}
    assert [code_of(answer) for answer in refused] == ["UNAVAILABLE"] * 2


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


@pytest.fixture
def bounded(monkeypatch):
    """Bounds the bytes of answers to callers without an access token."""
    return lambda size: monkeypatch.setattr(answers, "UNAUTHENTICATED_BOUNDS", AnswerBounds(size, 2500))


async def test_bytes_count_over_the_whole_batch(web, bounded):
    bounded(2500)
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


def code_of(answer):
    return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None


UNUSED = "query (%s) { __typename }"


def of_tokens(number, name="a"):
    """A valid document with this many tokens, most of them comments."""
    return "{ __typename\n" + f"#{name}\n" * (number - 3) + "}"


@pytest.mark.parametrize("caller", ["nobody", "user", "service"])
@pytest.mark.parametrize("known", [False, True])
async def test_tokens_of_documents_count_over_the_whole_batch(client, as_user, as_service, caller, known):
    web = {"nobody": client, "user": as_user("u1"), "service": as_service("gateway-tokens:read")}[caller].http
    documents = [of_tokens(500, f"{caller}{known}{number}") for number in range(5)]
    if known:
        for document in documents:
            await ask(web, {"query": document})
    answered = (await ask(web, *({"query": document} for document in documents))).json()
    told = [code_of(answer) for answer in answered]
    assert told == ([None] * 5 if caller == "service" else [None] * 4 + ["DOCUMENT_TOO_COMPLEX"])
    if caller != "service":
        assert "(MAX_TOKENS)" in answered[4]["errors"][0]["message"]


async def test_tokens_of_documents_that_are_wrong_count_too(client):
    unused = [UNUSED % " ".join(f"$v{number}x{n}: Int" for n in range(190)) for number in range(4)]
    told = [code_of(answer) for answer in (await ask(client.http, *({"query": query} for query in unused))).json()]
    assert told == ["GRAPHQL_VALIDATION_FAILED"] * 2 + ["DOCUMENT_TOO_COMPLEX"] * 2


@pytest.mark.parametrize("caller", ["nobody", "user", "service"])
async def test_aliases_count_over_the_whole_batch(client, as_user, as_service, caller):
    web = {"nobody": client, "user": as_user("u1"), "service": as_service("gateway-tokens:read")}[caller].http
    fifteen = {"query": "{ " + " ".join(f"a{n}: __typename" for n in range(15)) + " }"}
    answered = (await ask(web, fifteen, fifteen, fifteen, {"query": "{ __typename }"})).json()
    over = None if caller == "service" else "DOCUMENT_TOO_COMPLEX"
    assert [code_of(answer) for answer in answered] == [None, None, over, over]


async def test_whoever_comes_through_the_router_has_room_in_a_batch(service_with):
    graph = await service_with(router_secret="known to the router")
    fifteen = {"query": "{ " + " ".join(f"a{n}: __typename" for n in range(15)) + " }"}
    batch = [fifteen] * 5 + [{"query": of_tokens(600, n)} for n in range(5)]
    answered = await ask(graph.client.http, *batch, **{"router-authorization": "known to the router"})
    assert [code_of(answer) for answer in answered.json()] == [None] * 10


async def test_a_batch_describes_the_schema_once(service_with):
    service = (await service_with(introspection="true")).client.http
    for token, told in ((service.headers.pop("authorization"), ["DOCUMENT_TOO_COMPLEX"] * 2), (None, [None] * 2)):
        batch = [{"query": get_introspection_query()}] * 3
        assert [code_of(answer) for answer in (await ask(service, *batch)).json()] == [None, *told]
        service.headers["authorization"] = str(token)


async def test_an_answer_without_an_access_token_is_bounded(client, as_user, bounded):
    bounded(1000)
    schema = {"query": "{ _service { sdl } }"}
    for asking, code in ((client, "ANSWER_TOO_LARGE"), (as_user("u1"), None)):
        for response in (await asking.http.post("/graphql", json=schema), await ask(asking.http, schema)):
            answer = response.json()
            assert code_of(answer[0] if isinstance(answer, list) else answer) == code


async def test_full_introspection_fits_without_an_access_token(service_with):
    web = (await service_with(introspection="true")).client.http
    del web.headers["authorization"]
    response = await web.post("/graphql", json={"query": get_introspection_query()})
    assert "errors" not in response.json()
    kinds = " ".join(f"a{number}: type {{ kind ofType {{ kind }} }}" for number in range(29))
    response = await web.post("/graphql", json={"query": f"{{ __schema {{ types {{ fields {{ {kinds} }} }} }} }}"})
    assert code_of(response.json()) == "ANSWER_TOO_LARGE"


async def test_users_read_their_own_tokens_however_long_the_ids_are(graph, as_user):
    user, customer = "😀" * 255, "😀" * 240
    tokens = [{"userId": user, "gateway": f"G{n}", "gatewayCustomerId": f"{customer}{n}"} for n in range(200)]
    for first in range(0, 200, 50):
        await graph.save_many(tokens[first : first + 50])
    fields = "userId gatewayCustomerId user { id }"
    both = f"nodes {{ {fields} }} edges {{ node {{ {fields} }} }}"
    page = f"customerGatewayTokens(filter: {{ userId: $u }}, first: 500) {{ {both} }}"
    response = await ask(as_user(user).http, {"query": f"query ($u: ID!) {{ {page} }}", "variables": {"u": user}})
    [answer] = response.json()
    assert "errors" not in answer
    assert len(answer["data"]["customerGatewayTokens"]["edges"]) == 200
    assert len(response.content) > 1024 * 1024


async def test_lists_inside_lists_multiply_less_for_callers_without_a_scope(graph, as_user, as_service):
    await graph.save_many([{"userId": "u1", "gateway": f"G{n}", "gatewayCustomerId": f"c{n}"} for n in range(25)])
    nested = "gatewayTokens { user { gatewayTokens { user { id } } } }"  # 25 tokens and users, and as many in each
    query = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on User { %s } } }"
    request = {"variables": {"r": [{"__typename": "User", "id": "u1"}]}}
    once, twice = [{**request, "query": query % fields} for fields in (nested, f"{nested} a: {nested}")]
    user, service = as_user("u1"), as_service("gateway-tokens:read")
    for asking, codes in ((user, [None, "ANSWER_TOO_LARGE"]), (service, [None, None])):
        told = [code_of((await asking.http.post("/graphql", json=each)).json()) for each in (once, twice)]
        assert told == codes
    for asking, answered in ((user, 1), (service, 5)):
        told = [code_of(answer) for answer in (await ask(asking.http, *[once] * 5)).json()]
        assert (told.count(None), told.count("ANSWER_TOO_LARGE")) == (answered, 5 - answered)
