"""Bodies that come slowly keep no others out, and take no more memory together than they may."""

import asyncio

import pytest

from graphql_api.domain.errors import UnavailableError
from graphql_api.web.uploads import Uploads
from tests.asgi import Client
from tests.web.conftest import BODY, listening

HEAD = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def test_clients_that_send_slowly_do_not_keep_others_from_sending(graphql):
    async with listening(graphql(max_concurrent=3)) as address:
        slow = [await asyncio.open_connection(*address) for _ in range(20)]
        for _, writer in slow:
            writer.write(HEAD % 1000 + b"{")
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*address)
        for piece in (HEAD % len(BODY), BODY[:5], BODY[5:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # each is a packet of its own
        assert b"hello you" in await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        for _, each in [*slow, (reader, writer)]:
            each.close()


async def test_an_upload_that_others_crowd_out_may_come_again(graphql):
    size = 9_999
    async with listening(graphql(max_body_bytes=10_000, max_concurrent=3)) as address:
        peers = [await asyncio.open_connection(*address) for _ in range(5)]
        for _, writer in peers:
            writer.write(HEAD % size + BODY)
            writer.write(b" " * (size - len(BODY) - 1))
            await writer.drain()
            await asyncio.sleep(0.02)  # they begin in this order
        for _, writer in peers:
            writer.write(b" ")
        received = [await asyncio.wait_for(reader.readuntil(b"}"), 5) for reader, _ in peers]
        for _, writer in peers:
            writer.close()
    assert [answer.startswith(b"HTTP/1.1 503 ") for answer in received] == [True, True, False, False, False]
    assert all(b"\r\nretry-after: 1\r\n" in answer for answer in received[:2])
    assert all(b"hello you" in answer for answer in received[2:])


class Body:
    """A body whose pieces come when the test says so."""

    def __init__(self, uploads, max_bytes=100):
        self._pieces = asyncio.Queue()
        self.received = asyncio.create_task(uploads.receive(self._pieces.get, max_bytes))

    async def send(self, piece):
        self._pieces.put_nowait(piece)
        for _ in range(3):
            await asyncio.sleep(0)


async def test_events_of_gateways_share_the_room(service, monkeypatch):
    client = Client(await service(stripe_webhook_secret="whsec_dGVzdC1zZWNyZXQ", max_body_bytes=100))

    async def receive(_read, _most):
        raise UnavailableError("The service is receiving too much data at once.")

    monkeypatch.setattr(Uploads, "receive", lambda _self, *given: receive(*given))
    answer = await client.http.post("/webhooks/stripe", content=b"{}")
    assert answer.status_code == 503
    assert answer.json() == {"error": "The service is receiving too much data at once. Send the event again."}


async def test_a_body_is_what_was_sent():
    body = Body(Uploads(100))
    for piece in (b"a", b"bc", b""):
        await body.send(piece)
    assert await body.received == b"abc"


async def test_a_body_that_is_too_long_is_not_read_to_its_end():
    body = Body(Uploads(1000), max_bytes=10)
    await body.send(b"a" * 8)
    await body.send(b"b" * 8)
    assert len(await body.received) == 16


async def test_the_oldest_make_room():
    uploads = Uploads(10)
    first, second, third = [Body(uploads) for _ in range(3)]
    await first.send(b"aaaa")
    await second.send(b"bbbb")
    await third.send(b"ccccc")
    await second.send(b"")
    assert await second.received == b"bbbb"
    await first.send(b"a")
    with pytest.raises(UnavailableError):
        await first.received
    await third.send(b"ddddd")  # there is room again
    await third.send(b"")
    assert await third.received == b"cccccddddd"
