"""What an attacker would send to the running service: what it gets, and that the next honest request is answered."""

import asyncio
import json
from contextlib import suppress

import httpx
import pytest

from tests import hostile

JSON = {"content-type": "application/json"}
SECONDS = 5  # however busy the machine is
MEGABYTES = 20
TOKEN = "customerGatewayToken(id: $x) { id }"
SAVE = "mutation($x: SaveCustomerGatewayTokenInput!) { saveCustomerGatewayToken(input: $x) { userErrors { code } } }"


def asking(query, **variables):
    return json.dumps({"query": query, "variables": variables}).encode()


def entities(representations):
    query = "query($x: [_Any!]!) { _entities(representations: $x) { ... on User { gatewayTokens { id } } } }"
    return asking(query, x=representations)


def saving(**values):
    return asking(SAVE, x={"userId": "u1", "gateway": "STRIPE", "gatewayCustomerId": "cus_1", **values})


def nested(levels, inner="1"):
    start = f'{{"query": "query($x: ID!) {{ {TOKEN} }}", "variables": {{"x": '
    return f"{start}{'[' * levels}{inner}{']' * levels}}}}}".encode()


# A body, the status that it gets, and the code of its first error.
REQUESTS = {
    "no body": (b"", 400, "BAD_REQUEST"),
    "a batch of a thousand": (b"[" + b",".join([asking("{ __typename }")] * 1000) + b"]", 400, "BAD_REQUEST"),
    "variables nested 100,000 deep": (nested(100_000), 400, "BAD_REQUEST"),
    "variables nested as deep as may be": (nested(1000), 200, "BAD_USER_INPUT"),
    "an integer of 100,000 digits": (nested(0, "9" * 100_000), 400, "BAD_REQUEST"),
    "an integer of 300 digits": (nested(0, "9" * 300), 200, "BAD_USER_INPUT"),
    "a number with a huge exponent": (nested(0, "1e400"), 400, "BAD_REQUEST"),
    "a number with a tiny exponent": (nested(0, "1e-400"), 200, "BAD_USER_INPUT"),
    "NaN": (nested(0, "NaN"), 400, "BAD_REQUEST"),
    "a string of a megabyte": (nested(0, f'"{"x" * 1_000_000}"'), 200, None),
    "more than a megabyte": (nested(0, f'"{"x" * 1_100_000}"'), 413, "PAYLOAD_TOO_LARGE"),
    "ten megabytes": (b" " * 10_000_000, 413, "PAYLOAD_TOO_LARGE"),
    "other than UTF-8": (b'{"query": "{ \xff }"}', 400, "BAD_REQUEST"),
    "a lone surrogate": (rb'{"query": "{ __typename }", "operationName": "\ud800"}', 400, "BAD_REQUEST"),
    "a NUL in an id": (asking(f"query($x: ID!) {{ {TOKEN} }}", x="\0"), 200, "BAD_USER_INPUT"),
    "a NUL in a user's id": (saving(userId="\0"), 200, None),
    "a hundred thousand names": (json.dumps({f"a{n}": n for n in range(60_000)}).encode(), 400, "BAD_REQUEST"),
    "variables that are not asked for": (asking("{ __typename }", **{f"a{n}": n for n in range(50_000)}), 200, None),
    "too many representations": (entities([{"__typename": "User", "id": "u1"}] * 2001), 200, "DOCUMENT_TOO_COMPLEX"),
    "a hundred thousand representations": (entities([1] * 100_000), 200, "DOCUMENT_TOO_COMPLEX"),
    "representations of everything else": (
        entities([1, "x", [], {}, {"__typename": 1}, {"__typename": "User"}, {"__typename": "User", "id": {}}] * 285),
        200,
        "BAD_USER_INPUT",
    ),
    "errors without number, all after sixty thousand lines": (
        b'{"query": "' + rb"\n" * 60_000 + entities([1] * 2000)[len(b'{"query": "') :],
        200,
        "BAD_USER_INPUT",
    ),
    "null for a representation": (entities([None]), 200, "BAD_USER_INPUT"),
    "a list of lists for an object": (saving(metadata=[[[[]]]] * 1000), 200, None),
    "metadata nested 900 deep": (saving(metadata={"a": json.loads("[" * 900 + "]" * 900)}), 200, None),
    "metadata of half a megabyte": (saving(metadata={"a": "x" * 500_000}), 200, None),
    "a description of a megabyte": (saving(description="x" * 1_000_000), 200, None),
    "SQL": (saving(gateway="'; drop table customer_gateway_tokens; --"), 200, None),
    "a timestamp of the year 0": (
        asking('{ customerGatewayTokens(filter: {createdAfter: "0000-01-01T00:00:00Z"}) { totalCount } }'),
        200,
        "GRAPHQL_VALIDATION_FAILED",
    ),
    "a page before all pages": (
        asking('{ customerGatewayTokens(first: -1, after: "\\u0000") { totalCount } }'),
        200,
        "BAD_USER_INPUT",
    ),
    "a page of two billion": (
        asking("{ customerGatewayTokens(first: 2147483647) { totalCount } }"),
        200,
        "BAD_USER_INPUT",
    ),
    "an operation that is not there": (
        json.dumps({"query": "query A { __typename }", "operationName": "B" * 128}).encode(),
        200,
        "GRAPHQL_VALIDATION_FAILED",
    ),
    "a subscription": (asking("subscription { __typename }"), 200, "GRAPHQL_VALIDATION_FAILED"),
}
HEADERS = {
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, 415),
    "text": ({"content-type": "text/plain"}, 415),
    "no gzip": ({**JSON, "content-encoding": "gzip"}, 400),
    "an accepted type of 60,000 bytes": ({**JSON, "accept": "a/b," * 15_000}, 406),
    "an id of 60,000 bytes": ({**JSON, "x-request-id": "x" * 60_000}, 200),
    "a token of 60,000 bytes, where none is asked for": ({**JSON, "authorization": "Bearer " + "x" * 60_000}, 200),
}
DOCUMENTS = {
    **{
        f"{name} (too complex)": (text, {"DOCUMENT_TOO_COMPLEX", "GRAPHQL_PARSE_FAILED"})
        for name, text in hostile.TOO_COMPLEX.items()
    },
    **{
        f"{name} (unreadable)": (text, {"DOCUMENT_TOO_COMPLEX", "GRAPHQL_PARSE_FAILED"})
        for name, text in hostile.UNREADABLE.items()
    },
    **{name: (text, None) for name, text in {**hostile.LONG, **hostile.WITHIN_THE_TOKENS}.items()},
}
REFUSALS = {"DOCUMENT_TOO_COMPLEX", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"}


@pytest.fixture(scope="module")
async def http(running):
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
async def memory_before(running, http):
    """What the service takes before anything hostile was sent."""
    for _ in range(20):
        await http.post(running.url, json={"query": "{ customerGatewayTokens { totalCount } }"})
    return running.process.memory_info().rss


@pytest.fixture(autouse=True)
async def answers_afterwards(running, http):
    """Whatever was sent, an honest request is answered at once."""
    yield
    response = await http.post(running.url, json={"query": "{ customerGatewayTokens { totalCount } }"}, timeout=1)
    assert response.json()["data"]


def codes(response):
    return [error["extensions"]["code"] for error in response.json().get("errors", ())]


@pytest.mark.parametrize(("body", "status", "code"), REQUESTS.values(), ids=REQUESTS)
async def test_a_hostile_request_gets_what_it_deserves(running, http, body, status, code):
    response = await http.post(running.url, content=body, headers=JSON)
    assert response.status_code == status
    assert codes(response)[:1] == ([code] if code else [])


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS)
async def test_hostile_headers_get_what_they_deserve(running, http, headers, status):
    response = await http.post(running.url, content=asking("{ __typename }"), headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(("document", "expected"), DOCUMENTS.values(), ids=DOCUMENTS)
async def test_a_hostile_document_is_refused_or_answered(running, http, document, expected):
    response = await http.post(running.url, content=asking(document), headers=JSON)
    assert response.status_code == 200
    if expected:
        assert set(codes(response)) <= expected
        assert "data" not in response.json()
    else:
        assert set(codes(response)) <= REFUSALS


async def test_hundreds_of_clients_that_never_finish_keep_nobody_waiting(running, http):
    address = httpx.URL(running.url)
    async with asyncio.TaskGroup() as group:
        opening = [group.create_task(asyncio.open_connection(address.host, address.port)) for _ in range(300)]
    writers = [task.result()[1] for task in opening]
    for writer in writers:
        writer.write(
            b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
    response = await http.post(running.url, content=asking("{ customerGatewayTokens { totalCount } }"), headers=JSON)
    assert response.status_code == 200
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_after_all_of_it_the_memory_is_what_it_was(running, memory_before):
    assert running.process.memory_info().rss - memory_before < MEGABYTES * 1024 * 1024


async def test_nothing_of_it_was_unexpected(running, http):
    log = [json.loads(line) for line in running.log().splitlines()]
    assert len(log) > 100
    assert [
        line for line in log if line["event"] not in {"started", "request"} or line.get("outcome") == "INTERNAL"
    ] == []
