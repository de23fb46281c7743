"""One request of a delivery: its body, its signature, where it may go, and what its answer means.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import hashlib
import hmac
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from time import time
from typing import Any, NamedTuple, Protocol, Self

import httpx
import orjson

from graphql_api import __version__, network_errors
from graphql_api.domain.addresses import is_address, is_loopback, is_private
from graphql_api.domain.token import Action
from graphql_api.retry_after import retry_after_seconds

TIMEOUT_SECONDS = 15.0
STREAM_SCHEMES = ("nats://", "tls://")
MAX_RETRY_AFTER_SECONDS = 86_400.0

# Of an answer's body nothing is used; a short one is read, so that the connection can be used again.
_MAX_READ_BYTES, MAX_READ_SECONDS = 16_384, 1.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where entries go.

    Attributes:
        name: what settings, metrics and messages call it
        url: `https://…`, or `nats://host/subject` or `tls://host/subject` for a stream
        keys: what signs requests; several while they are rotated
        credentials: for a stream, a token, or a user and a password with a colon between
    """

    name: str
    url: str
    keys: Sequence[bytes] = ()
    credentials: str = ""

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of a broker."""
        return self.url.startswith(STREAM_SCHEMES)


class DeliveryOutcome(NamedTuple):
    """What became of a request.

    Attributes:
        error: why the entry was not taken, as the end of a sentence about the endpoint; empty if it was
        is_gone: whether the endpoint wants no more entries
        retry_after: seconds for which it wants no request
    """

    error: str = ""
    is_gone: bool = False
    retry_after: float | None = None


class FeedEntry(Protocol):
    """An entry of the feed."""

    def __getitem__(self, name: str, /) -> Any:
        """A column."""
        ...


class ForbiddenAddressError(Exception):
    """The host has an address that nothing is sent to; the message continues a sentence about the endpoint."""


class Sender(Protocol):
    """What sends to one endpoint."""

    async def send(self, entry: FeedEntry) -> DeliveryOutcome:
        """Send an entry of the feed."""
        ...


def event_of(entry: FeedEntry) -> tuple[str, dict[str, Any]]:
    """The id and the event for an entry of the feed, without a person: an erasure need not reach it."""
    event = {
        "type": f"customer_gateway_token.{entry['action'].lower()}",
        "timestamp": entry["at"].astimezone(UTC).isoformat(timespec="microseconds"),
        "data": {
            "__typename": "CustomerGatewayToken",
            "id": str(entry["token_id"]),
            "version": entry["version"],
            "gateway": entry["gateway"],
            "isActive": entry["is_active"] and not Action(entry["action"]).ends_token,
        },
    }
    return message_id(entry), event


def message_id(entry: FeedEntry) -> str:
    """The id of an entry's message, which it keeps whenever it is sent on one timeline of the database.

    A failover or a restore may lose an entry, whose version is then given to another change. So later timelines add
    their number: a receiver that knows the id of the lost entry does not drop the other one.
    """
    number = entry["timelines"]
    return f"evt_{entry['token_id']}_{entry['version']}" + (f"_{number}" if number > 1 else "")


def signed(keys: Sequence[bytes], message_id: str, body: bytes, now: int) -> dict[str, str]:
    """The headers that show who sent the body, and when (in seconds since 1970)."""
    content = f"{message_id}.{now}.".encode() + body
    digests = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }


class HTTPSender:
    """Sends to one endpoint, one request at a time."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        endpoint: Endpoint,
        *,
        allow_private: bool,
        timeout: float,
        read_timeout: float,
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._read_timeout = read_timeout
        self._endpoint = endpoint
        self._url = httpx.URL(endpoint.url)
        self._allow_private = allow_private

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        allow_private: bool,
        timeout: float = TIMEOUT_SECONDS,
        read_timeout: float = MAX_READ_SECONDS,
    ) -> AsyncGenerator[Self]:
        """Open a sender with its own connections, which ignore the environment's proxies.

        Args:
            endpoint: where to send
            allow_private: whether to send to private addresses, and without TLS
            timeout: seconds until an answer without a body
            read_timeout: seconds for which its body is read
        """
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"gateway-tokens/{__version__}",
            "Accept-Encoding": "identity",
        }
        async with httpx.AsyncClient(
            headers=headers,
            verify=httpx.create_ssl_context(),
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
        ) as client:
            yield cls(client, endpoint, allow_private=allow_private, timeout=timeout, read_timeout=read_timeout)

    async def send(self, entry: FeedEntry) -> DeliveryOutcome:
        """Send an entry of the feed."""
        message_id, event = event_of(entry)
        body = orjson.dumps(event)
        headers = signed(self._endpoint.keys, message_id, body, int(time()))
        try:
            async with asyncio.timeout(self._timeout):
                is_plain = self._url.scheme == "http"
                *addresses, last = await looked_up(
                    self._url.raw_host.decode(), allow_private=self._allow_private, is_plain=is_plain
                )
                for address in addresses:
                    with suppress(httpx.ConnectError):
                        return await self._post(address, headers, body)
                return await self._post(last, headers, body)
        except (TimeoutError, httpx.TimeoutException):
            return DeliveryOutcome(f"did not answer within {self._timeout:g} s")
        except ForbiddenAddressError as error:
            return DeliveryOutcome(str(error))
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
            return DeliveryOutcome(f"did not answer: {network_errors.reason(error)}")

    async def _post(self, address: str, headers: Mapping[str, str], body: bytes) -> DeliveryOutcome:
        # Connected is to the address that was checked: asked again, the name might have another one.
        host = self._url.raw_host.decode()
        extensions = {} if host == address or self._url.scheme == "http" else {"sni_hostname": host}
        request = self._client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=body,
            headers={**headers, "Host": self._url.netloc.decode("ascii")},
            extensions=extensions,
        )
        response = await self._client.send(request, stream=True)
        try:
            outcome = _outcome(response)
            with suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(self._read_timeout):
                    await _read(response)
            return outcome
        finally:
            await response.aclose()


async def looked_up(host: str, *, allow_private: bool, is_plain: bool) -> list[str]:
    """The addresses of a host.

    Raises:
        ForbiddenAddressError: nothing is sent to one of them, or not without TLS, which is `is_plain`.
        OSError: it has none.
    """
    addresses = [host]
    if not is_address(host):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = [str(each[4][0]) for each in found]
    for address in addresses if not allow_private else ():
        if is_private(address):
            raise ForbiddenAddressError(f"has a private address, {address}: see EVENT_WEBHOOK_ALLOW_PRIVATE")
        if is_plain and not is_loopback(address):
            raise ForbiddenAddressError("is not on this machine and needs TLS: see EVENT_WEBHOOK_ALLOW_PRIVATE")
    return addresses


async def _read(response: httpx.Response) -> None:
    count = 0
    async for chunk in response.aiter_raw():
        count += len(chunk)
        if count > _MAX_READ_BYTES:
            return


def _outcome(response: httpx.Response) -> DeliveryOutcome:
    if response.is_success:
        return DeliveryOutcome()
    return DeliveryOutcome(
        f"answered {response.status_code}",
        is_gone=response.status_code == HTTPStatus.GONE,
        retry_after=_retry_after(response.headers.get("retry-after")),
    )


def _retry_after(value: str | None) -> float | None:
    seconds = retry_after_seconds(value)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_SECONDS)
