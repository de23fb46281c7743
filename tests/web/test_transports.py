"""An answer is the same whether the connection itself asks for it or a server that speaks ASGI."""

import asyncio
import json

import pytest

from tests.web.conftest import listening, token

JSON = {"Content-Type": "application/json", "X-Request-Id": "an-id"}
CALLER = JSON | {"Authorization": token("u1")}


def post(query, headers=JSON, **parameters):
    return "POST", "/graphql", headers, json.dumps({"query": query, **parameters}).encode()


REQUESTS = {
    "a query": post("{ hello }"),
    "a caller": post("{ caller }", CALLER),
    "variables": post("query ($n: String!) { hello(name: $n) }", variables={"n": "ä😀"}),
    "a large answer": post("query ($n: String!) { hello(name: $n) }", variables={"n": "a" * 9000}),
    "a mutation": post("mutation { hello }"),
    "a query that waits": post("{ wait(seconds: 0.001) }"),
    "GET": ("GET", "/graphql?query=%7Bhello%7D", JSON, b""),
    "a mutation by GET": ("GET", "/graphql?query=mutation%7Bhello%7D", JSON, b""),
    "PUT": ("PUT", "/graphql", JSON, b"{}"),
    "HEAD": ("HEAD", "/graphql", JSON, b""),
    "HEAD with a query": ("HEAD", "/graphql?query=%7Bhello%7D", JSON, b""),
    "HEAD that is refused sooner": ("HEAD", "/graphql", JSON | {"Accept": "text/html"}, b""),
    "GraphQL's media type": post("{ hello }", JSON | {"Accept": "application/graphql-response+json"}),
    "a media type that is not spoken": post("{ hello }", JSON | {"Accept": "text/html"}),
    "an error of a field": post('{ hello fail(how: "ValueError") }'),
    "a refusal": post('{ failLater(how: "ForbiddenError") }', CALLER),
    "null for the whole": post("{ nothing }"),
    "no GraphQL": post("{"),
    "no such field": post("{ nonsense }"),
    "a wrong variable": post("query ($n: String!) { hello(name: $n) }", variables={"n": 1}),
    "no JSON": ("POST", "/graphql", JSON, b"{"),
    "a batch": ("POST", "/graphql", JSON, b"[]"),
    "a form": ("POST", "/graphql", JSON | {"Content-Type": "text/plain"}, b"{}"),
    "a body that is too large": post("#" * 20_000),
    "a token that is not good": post("{ hello }", JSON | {"Authorization": "Bearer nonsense"}),
    "a secret of nobody's": post("{ hello }", JSON | {"Router-Authorization": "nonsense"}),
    "a client that closes": post("{ hello }", JSON | {"Connection": "close"}),
    "HTTP/1.0": post("{ hello }", JSON | {"HTTP": "1.0"}),
    "a body in pieces": post("{ hello }", JSON | {"Transfer-Encoding": "chunked"}),
}


def written(method, path, headers, body):
    headers = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **headers}
    version = headers.pop("HTTP", "1.1")
    if "Transfer-Encoding" in headers:
        del headers["Content-Length"]
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answered(address, request):
    """The answer's bytes without the time, and whether the connection is open afterwards."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(written(*request))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"date: ")]
    size = next(int(line.split()[1]) for line in lines if line.startswith(b"content-length: "))
    body = b"" if request[0] == "HEAD" else await reader.readexactly(size)
    writer.write(written(*post("{ hello }")))
    try:
        is_open = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5) == b"HTTP/1.1 200 OK\r\n"
    except (asyncio.IncompleteReadError, ConnectionError):
        is_open = False
    writer.close()
    return lines, body, is_open


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_request_is_answered_alike_by_both(graphql, name):
    app = graphql(router_secrets=["s"] if "secret" in name else ())

    async def by_asgi(scope, receive, send):
        await app(scope, receive, send)

    async with listening(app) as one, listening(by_asgi) as other:
        assert await answered(one, REQUESTS[name]) == await answered(other, REQUESTS[name])


async def test_a_body_that_comes_late_is_waited_for(graphql):
    async with listening(graphql()) as address:
        reader, writer = await asyncio.open_connection(*address)
        request = written(*post("{ hello }"))
        for part in (request[:-20], request[-20:-10], request[-10:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)  # that they arrive one by one
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK")


async def test_requests_that_come_together_are_answered_in_order(graphql):
    async with listening(graphql()) as address:
        reader, writer = await asyncio.open_connection(*address)
        slow = post("{ wait(seconds: 0.05) }")
        writer.write(written(*slow) + written(*post("{ hello }")) + written(*post("{", JSON | {"Connection": "close"})))
        answers = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answers.index(b"waited") < answers.index(b"hello you") < answers.index(b"GRAPHQL_PARSE_FAILED")
