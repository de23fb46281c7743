"""One line for each request: who asked what, and how it went, and nothing that was sent."""

import asyncio
import io
import json

import structlog

from graphql_api.observability import logs
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


async def test_a_request_leaves_at_most_eight_kibibytes_whatever_is_long_in_it(web, log):
    name = "n" * 120
    fields = " ".join(f'{"a" * 100}{number}: fail(how: "ForbiddenError")' for number in range(50))
    headers = {"authorization": token("u" * 255), "x-request-id": "i" * 5000}
    await web.post("/graphql", json={"query": f"query {name} {{ {fields} }}"}, headers=headers)
    assert len(str(log())) < 8 * 1024


async def test_so_does_a_batch(web, log):
    fields = " ".join(f'{"a" * 100}{number}: fail(how: "ForbiddenError")' for number in range(5))
    caller = {"authorization": token("😀" * 255), "x-request-id": "i" * 128}
    await web.post("/graphql", json=[{"query": f"{{ {fields} }}"}] * 10, headers=caller)
    assert [line["event"] for line in log()].count("denied") == 2
    assert len(json.dumps(log(), ensure_ascii=False).encode()) < 8 * 1024


async def test_no_card_number_of_a_caller_gets_into_the_log(web, log):
    await web.post(
        "/graphql", json={"query": '{ fail(how: "ForbiddenError") }'}, headers={"authorization": token(CARD)}
    )
    assert log()
    assert CARD not in str(log())


async def test_lines_of_one_turn_are_written_together_and_in_order():
    written = []

    class Stream(io.BytesIO):
        def write(self, data):
            written.append(data)
            return len(data)

    logs.configure("info", "json", Stream())
    for number in range(3):
        logs.access.write(str(number), {"event": "request"})
    assert written == []
    structlog.get_logger().error("an error")
    logs.access.write("3", {"event": "request"})
    await asyncio.sleep(0)
    logs.configure("info", "json")
    assert [data.count(b"\n") for data in written] == [3, 1, 1]
    events = [json.loads(line) for line in b"".join(written).splitlines()]
    assert [event.get("request_id", event["event"]) for event in events] == ["0", "1", "2", "an error", "3"]
