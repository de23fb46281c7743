"""What becomes of requests that take long, over a socket: slow bodies, slow operations, clients that go away."""

import asyncio
import gc
import json
import socket
from contextlib import suppress

import httpx
import pytest

from graphql_api.web.connection_registry import ConnectionLimits
from graphql_api.web.request import Request
from tests.web.conftest import connected, listening

SHORT = 0.3  # seconds


def request(body, *headers, length=None):
    length = len(body) if length is None else length
    head = [
        "POST /graphql HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def asking(text, *headers):
    return request(json.dumps({"query": text}).encode(), *headers)


def read(connection):
    """What comes until the connection closes."""
    received = []
    with suppress(ConnectionResetError):
        received.extend(iter(lambda: connection.recv(65536), b""))
    return b"".join(received).decode()


@pytest.fixture
def garbage():
    """What only the garbage collector could free."""
    gc.collect()
    gc.disable()

    def found():
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return gc.garbage

    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def requests_of(log):
    return [line for line in log() if line["event"] == "request"]


async def answers(address):
    async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as http:
        response = await http.post("/graphql", json={"query": "{ hello }"})
        return response.json() == {"data": {"hello": "hello you"}}


@pytest.mark.parametrize(("accept", "status"), [("application/json", 200), ("application/graphql-response+json", 504)])
async def test_a_query_that_takes_too_long_is_ended_and_says_so(graphql, waiting, accept, status):
    async with listening(graphql(timeout=SHORT)) as address, httpx.AsyncClient() as http:
        url = f"http://{address[0]}:{address[1]}/graphql"
        response = await http.post(url, json={"query": "{ wait(seconds: 60) }"}, headers={"accept": accept})
        assert response.status_code == status
        assert response.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"
        await asyncio.wait_for(waiting.cancelled.wait(), 5)
        assert await answers(address)


async def test_the_task_of_a_query_that_was_ended_is_as_if_it_had_not_been_cancelled(graphql):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(graphql(timeout=SHORT))) as http:
        await http.post("http://x/graphql", json={"query": "{ wait(seconds: 60) }"})
    assert asyncio.current_task().cancelling() == 0


async def test_a_mutation_that_takes_too_long_says_so_and_goes_on_to_its_end(graphql, waiting):
    async with listening(graphql(timeout=SHORT)) as address, httpx.AsyncClient() as http:
        url = f"http://{address[0]}:{address[1]}/graphql"
        response = await http.post(url, json={"query": f"mutation {{ wait(seconds: {3 * SHORT}) }}"})
        assert response.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"
        assert not waiting.done.is_set()
        await asyncio.wait_for(waiting.done.wait(), 5)


async def test_closing_waits_for_mutations_whose_callers_were_answered(graphql, waiting):
    app = graphql(timeout=SHORT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        await http.post("http://x/graphql", json={"query": f"mutation {{ wait(seconds: {3 * SHORT}) }}"})
    await app.close()
    assert waiting.done.is_set()


async def test_a_query_that_took_a_while_leaves_nothing_for_the_garbage_collector(graphql, garbage):
    async with listening(graphql()) as address, httpx.AsyncClient() as http:
        url = f"http://{address[0]}:{address[1]}/graphql"
        await http.post(url, json={"query": f"{{ wait(seconds: {SHORT}) }}"})
        assert not [each for each in garbage() if isinstance(each, Request)]


async def test_a_query_whose_client_has_gone_is_ended(graphql, waiting, log):
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(asking("{ wait(seconds: 60) }"))
            await asyncio.wait_for(waiting.began.wait(), 5)
        await asyncio.wait_for(waiting.cancelled.wait(), 5)
        assert await answers(address)
    assert requests_of(log)[0]["outcome"] == "CLIENT_HAS_GONE"


async def test_a_query_by_get_whose_client_has_gone_is_ended(graphql, waiting):
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(b"GET /graphql?query={wait(seconds:60)} HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(waiting.began.wait(), 5)
        await asyncio.wait_for(waiting.cancelled.wait(), 5)


async def test_a_client_that_will_send_nothing_more_counts_as_gone(graphql, waiting):
    """So do proxies see it: a client that gave up cannot be told from one that only closed its side."""
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(asking("{ wait(seconds: 60) }"))
            await asyncio.wait_for(waiting.began.wait(), 5)
            connection.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(waiting.cancelled.wait(), 5)
            assert await asyncio.to_thread(read, connection) == ""


async def test_a_request_that_the_server_itself_cancels_is_cancelled(graphql, waiting):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(graphql())) as http:
        request = asyncio.create_task(http.post("http://x/graphql", json={"query": "{ wait(seconds: 60) }"}))
        await asyncio.wait_for(waiting.began.wait(), 5)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert waiting.cancelled.is_set()


async def test_a_mutation_whose_client_has_gone_goes_on_to_its_end(graphql, waiting):
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(asking(f"mutation {{ wait(seconds: {SHORT}) }}"))
            await asyncio.wait_for(waiting.began.wait(), 5)
        await asyncio.wait_for(waiting.done.wait(), 5)
        assert not waiting.cancelled.is_set()


async def test_a_body_that_does_not_come_is_not_waited_for_long(graphql):
    app = graphql(limits={"max_body_seconds": SHORT})
    async with listening(app, ConnectionLimits(max_linger_seconds=SHORT)) as address:
        with connected(address) as connection:
            connection.sendall(request(b'{"query": ', length=100))
            answer = await asyncio.to_thread(read, connection)
        assert answer.startswith("HTTP/1.1 408 ")
        assert "connection: close" in answer
        assert '"code":"TIMEOUT"' in answer
        assert await answers(address)


async def test_a_client_that_goes_away_while_it_sends_is_forgotten(graphql, log):
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(request(b'{"query": ', length=100))
        assert await answers(address)
    assert sorted(line["outcome"] for line in requests_of(log)) == ["CLIENT_HAS_GONE", "ok"]


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(graphql):
    limits = ConnectionLimits(max_linger_seconds=SHORT)
    async with listening(graphql(max_body_bytes=1000), limits) as address:
        with connected(address) as connection:
            connection.sendall(request(b"", length=10**12))
            answer = await asyncio.to_thread(read, connection)
    assert answer.startswith("HTTP/1.1 413 ")
    assert '"code":"PAYLOAD_TOO_LARGE"' in answer


async def test_a_body_in_chunks_is_cut_off_at_the_limit(graphql):
    limits = ConnectionLimits(max_linger_bytes=100_000)
    async with listening(graphql(max_body_bytes=1000), limits) as address:
        with connected(address) as connection:
            connection.sendall(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
            sending = asyncio.create_task(asyncio.to_thread(send_for_ever, connection))
            answer = await asyncio.to_thread(read, connection)
            sent = await sending
        assert answer.startswith("HTTP/1.1 413 ")
        assert sent < 50_000_000
        assert await answers(address)


def send_for_ever(connection):
    sent = 0
    try:
        while sent < 10**9:
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
            sent += 0x10000
    except OSError:
        pass
    return sent


async def test_a_client_that_sends_too_much_before_it_listens_hears_the_refusal(graphql):
    async with listening(graphql(max_body_bytes=1000)) as address, httpx.AsyncClient() as http:
        for content in (b" " * 5_000_000, chunks(b" " * 100_000, 50)):
            headers = {"content-type": "application/json"}
            response = await http.post(f"http://{address[0]}:{address[1]}/graphql", content=content, headers=headers)
            assert response.status_code == 413
        assert await answers(address)


async def chunks(chunk, count):
    for _ in range(count):
        yield chunk


async def test_one_connection_takes_one_request_after_another(graphql):
    async with listening(graphql()) as address:
        with connected(address) as connection:
            connection.sendall(asking("{ hello }") + asking("{ hello }") + asking("{ hello }", "Connection: close"))
            received = await asyncio.to_thread(read, connection)
    assert received.count("HTTP/1.1 200") == 3


async def test_those_who_wait_do_not_keep_others_waiting(graphql, waiting):
    async with listening(graphql()) as address, httpx.AsyncClient() as http:
        url = f"http://{address[0]}:{address[1]}/graphql"
        slow = [asyncio.create_task(http.post(url, json={"query": "{ wait(seconds: 60) }"})) for _ in range(50)]
        await asyncio.wait_for(waiting.began.wait(), 5)
        assert await answers(address)
        assert not any(request.done() for request in slow)
        for request in slow:
            request.cancel()
        await asyncio.wait(slow)
