"""Every failed connection has a reason in plain words: no name of a library's class, no address."""

import asyncio
import socket
import ssl

import aiohttp
import httpx
import pytest

from graphql_api.network_errors import reason


async def by_aiohttp(url):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
        await session.get(url)


async def by_httpx(url):
    async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
        await client.get(url)


@pytest.fixture
async def closing():
    """A port that closes each connection at once."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def unused():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.mark.parametrize("ask", [by_aiohttp, by_httpx])
async def test_a_failure_is_said_in_plain_words(ask, closing, unused):
    for url, expected in (
        (f"http://127.0.0.1:{unused}/", "connection refused"),
        ("http://nowhere.invalid/", "its host name has no address"),
        (f"http://127.0.0.1:{closing}/", "the connection was closed without a valid answer"),
    ):
        with pytest.raises((aiohttp.ClientError, httpx.HTTPError)) as caught:
            await ask(url)
        assert reason(caught.value) == expected


def test_what_is_wrong_with_tls_is_said():
    invalid = ssl.SSLCertVerificationError(1, "certificate verify failed")
    invalid.verify_message = "self-signed certificate"
    assert reason(invalid) == "its certificate is not valid: self-signed certificate"
    assert reason(ssl.SSLError(1, "wrong version number")) == "it does not speak TLS there"
    assert reason(TimeoutError()) == "it took too long"


def test_a_failure_at_several_addresses_has_the_reason_of_the_first_one():
    refused = ConnectionRefusedError(111, "Connect call failed ('::1', 1, 0, 0)")
    unreachable = OSError(101, "Connect call failed ('127.0.0.1', 1)")
    assert reason(OSError(f"Multiple exceptions: {refused}, {unreachable}")) == "connection refused"
    assert reason(ExceptionGroup("all", [refused, unreachable])) == "connection refused"
    assert reason(ConnectionError("the server rejected SSL upgrade")) == "the server rejected SSL upgrade"
