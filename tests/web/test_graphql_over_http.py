"""GraphQL over HTTP, as a client sees it."""

import json
from urllib.parse import quote

import pytest

JSON = "application/json; charset=utf-8"
GRAPHQL = "application/graphql-response+json; charset=utf-8"


def query(web, text, accept=None, **rest):
    return web.post("/graphql", json={"query": text, **rest}, headers={"accept": accept} if accept else {})


def code(response):
    return response.json()["errors"][0]["extensions"]["code"]


async def test_a_query_is_answered(web):
    response = await query(web, "query A($n: String!) { hello(name: $n) }", variables={"n": "ä"}, operationName="A")
    assert response.status_code == 200
    assert response.json() == {"data": {"hello": "hello ä"}}
    assert response.headers["content-type"] == JSON
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_query_may_come_by_get(web):
    response = await web.get(
        "/graphql?query=" + quote("query($n: String!) { hello(name: $n) }") + '&variables={"n":"x"}'
    )
    assert response.json() == {"data": {"hello": "hello x"}}


async def test_a_websocket_handshake_is_refused_with_advice(web):
    upgrade = {"connection": "Upgrade", "upgrade": "WebSocket", "sec-websocket-version": "13"}
    response = await web.get("/graphql", headers=upgrade)
    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")
    assert "does not support WebSockets" in response.json()["errors"][0]["message"]
    asked = await web.get("/graphql?query={hello}", headers=upgrade)  # RFC 9110, 7.8: an offer may be ignored
    assert asked.json() == {"data": {"hello": "hello you"}}


@pytest.mark.parametrize(
    ("accept", "media"), [(None, JSON), ("*/*", JSON), ("application/graphql-response+json", GRAPHQL)]
)
async def test_the_answer_has_the_media_type_that_was_asked_for(web, accept, media):
    response = await query(web, "{ hello }", accept)
    assert response.status_code == 200
    assert response.headers["content-type"] == media


NOT_RUN = {
    "syntax": ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
    "an empty document": ({"query": ""}, "GRAPHQL_PARSE_FAILED"),
    "a comment": ({"query": "# hello"}, "GRAPHQL_PARSE_FAILED"),
    "an unknown field": ({"query": "{ nobody }"}, "GRAPHQL_VALIDATION_FAILED"),
    "an unknown operation": ({"query": "query A { hello }", "operationName": "B"}, "GRAPHQL_VALIDATION_FAILED"),
    "two operations and no name": ({"query": "query A { hello } query B { hello }"}, "GRAPHQL_VALIDATION_FAILED"),
    "no operation": ({"query": "fragment A on Query { hello }"}, "GRAPHQL_VALIDATION_FAILED"),
    "a literal of the wrong type": ({"query": "{ hello(name: 1) }"}, "GRAPHQL_VALIDATION_FAILED"),
    "a missing variable": ({"query": "query($n: String!) { hello(name: $n) }"}, "BAD_USER_INPUT"),
    "a variable of the wrong type": (
        {"query": "query($n: String!) { hello(name: $n) }", "variables": {"n": 1}},
        "BAD_USER_INPUT",
    ),
}


@pytest.mark.parametrize(("body", "expected"), NOT_RUN.values(), ids=NOT_RUN)
@pytest.mark.parametrize(("accept", "status"), [("application/json", 200), ("application/graphql-response+json", 400)])
async def test_what_cannot_be_run_says_why_and_has_no_data(web, body, expected, accept, status):
    response = await web.post("/graphql", json=body, headers={"accept": accept})
    assert response.status_code == status
    assert code(response) == expected
    assert "data" not in response.json()


async def test_half_an_answer_comes_with_the_errors_of_the_other_half(web):
    response = await query(web, '{ hello fail(how: "ForbiddenError") }', "application/graphql-response+json")
    assert response.status_code == 200
    assert response.json() == {
        "errors": [
            {
                "message": "You may not.",
                "locations": [{"line": 1, "column": 9}],
                "path": ["fail"],
                "extensions": {"code": "FORBIDDEN", "help": "/help/errors#forbidden"},
            }
        ],
        "data": {"hello": "hello you", "fail": None},
    }


async def test_a_mutation_by_get_is_refused(web):
    for accept in ("application/json", "application/graphql-response+json"):
        response = await web.get("/graphql?query=mutation{hello}", headers={"accept": accept})
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert code(response) == "METHOD_NOT_ALLOWED"


async def test_head_is_get_without_a_body(web):
    for query in ("{ hello }", "mutation { hello }"):
        got = await web.get("/graphql", params={"query": query})
        response = await web.head("/graphql", params={"query": query})
        assert response.status_code == got.status_code
        assert response.headers["content-length"] == got.headers["content-length"]
        assert response.content == b""


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
async def test_other_methods_are_refused(web, method):
    response = await web.request(method, "/graphql", json={"query": "{ hello }"})
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({"content-type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content-type": "multipart/form-data; boundary=x"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content-type": ""}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content-type": "application/json", "content-encoding": "compress"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"content-type": "application/json", "accept": "text/html"}, 406, "NOT_ACCEPTABLE"),
    ],
)
async def test_what_http_alone_refuses_is_said_in_json(web, headers, status, expected):
    response = await web.post("/graphql", content=b'{"query": "{ hello }"}', headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == JSON
    assert code(response) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"{ hello }"', b'{"query": 1}', b"\xff", b"[" * 5000])
async def test_a_body_that_is_no_request_is_refused(web, body):
    for accept in ("application/json", "application/graphql-response+json"):
        headers = {"content-type": "application/json", "accept": accept}
        response = await web.post("/graphql", content=body, headers=headers)
        assert response.status_code == 400
        assert code(response) == "BAD_REQUEST"


async def test_no_number_that_json_does_not_know_is_ever_answered(web):
    response = await query(web, "{ noNumber }")
    assert "NaN" not in response.text
    assert json.loads(response.text)["data"] == {"noNumber": None}


async def test_a_document_too_large_for_the_limit_is_refused(web):
    response = await query(web, "{ hello }" + " " * 10_000)
    assert response.status_code == 413
    assert code(response) == "PAYLOAD_TOO_LARGE"


async def test_a_body_of_exactly_the_limit_is_read(web):
    body = b'{"query": "{ hello }"}'
    response = await web.post(
        "/graphql", content=body + b" " * (10_000 - len(body)), headers={"content-type": "application/json"}
    )
    assert response.status_code == 200


async def test_a_request_id_is_taken_over(web):
    response = await web.post("/graphql", json={"query": "{ hello }"}, headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"


async def test_every_request_gets_an_id(web):
    ids = {(await query(web, text)).headers["x-request-id"] for text in ("{ hello }", "{ hello }", "{", "")}
    assert len(ids) == 4
