"""One line for each request: who asked what, and how it went, and nothing that was sent."""

from tests.web.conftest import token

CARD = "4111111111111111"


async def lines_of(web, log, **request):
    await web.post("/graphql", **request)
    return log()


async def test_a_request_is_one_line(web, log):
    headers = {"authorization": token("u1"), "x-request-id": "abc"}
    [line] = await lines_of(web, log, json={"query": "query Hello { hello }"}, headers=headers)
    assert line.pop("ms") < 1000
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": "abc",
        "method": "POST",
        "path": "/graphql",
        "status": 200,
        "operation": "Hello",
        "kind": "query",
        "caller": "u1",
        "outcome": "ok",
    }


async def test_a_request_that_is_refused_is_one_line_that_says_why(web, log):
    for request, status, outcome in (
        ({"content": b"{"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"json": []}, 400, "BAD_REQUEST"),
        ({"json": {"query": "{"}}, 200, "GRAPHQL_PARSE_FAILED"),
    ):
        line = (await lines_of(web, log, **request))[-1]
        assert (line["status"], line["outcome"], line["operation"]) == (status, outcome, None)
    assert len(log()) == 3


async def test_nothing_that_was_sent_is_logged_but_the_operations_name(web, log):
    secret = token("u1")
    body = {
        "query": 'query Hello($n: String!) { hello(name: $n) a: hello(name: "literal-value") }',
        "variables": {"n": "variable-value"},
        "extensions": {"e": "extension-value"},
    }
    await web.post(
        "/graphql?q=query-string-value", json=body, headers={"authorization": secret, "cookie": "cookie-value"}
    )
    assert "-value" not in str(log())
    assert secret[7:] not in str(log())


async def test_no_card_number_gets_into_the_log_by_any_door(web, log):
    headers = {"x-request-id": CARD, "user-agent": CARD, "authorization": token("u1")}
    for name in ("query", "mutation"):
        await lines_of(web, log, json={"query": f"{name} _{CARD} {{ hello }}"}, headers=headers)
    await lines_of(web, log, json={"query": f"{{ _{CARD}: hello }}", "operationName": CARD}, headers=headers)
    await lines_of(web, log, json={"query": f'{{ _{CARD}: fail(how: "{CARD}") }}'}, headers=headers)
    assert len([line for line in log() if line["event"] == "request"]) == 4
    assert CARD not in str(log())
