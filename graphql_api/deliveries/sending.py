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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from time import time
from typing import Any, NamedTuple, Protocol, Self

import httpx
import orjson

from graphql_api import __version__
from graphql_api.domain.token import Action

TIMEOUT_SECONDS = 15.0
MAX_RETRY_AFTER_SECONDS = 86_400.0

# Of an answer's body nothing is used; a short one is read, so that the connection can be used again.
_MAX_READ_BYTES, MAX_READ_SECONDS = 16_384, 1.0
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where entries go, and the keys that sign them; several while they are rotated."""

    name: str
    url: str
    keys: Sequence[bytes]


class Outcome(NamedTuple):
    """What became of a request.

    Attributes:
        error: why the entry was not taken; empty if it was
        is_gone: whether the endpoint wants no more entries
        retry_after: seconds for which it wants no request
    """

    error: str = ""
    is_gone: bool = False
    retry_after: float | None = None


class Line(Protocol):
    """An entry of the feed."""

    def __getitem__(self, name: str, /) -> Any:
        """A column."""
        ...


class _ForbiddenAddressError(Exception):
    """The host has an address that nothing is sent to."""


def message_of(line: Line) -> tuple[str, bytes]:
    """The id and the body for an entry of the feed, without a person: an erasure need not reach it."""
    body = {
        "type": f"customer_gateway_token.{line['action'].lower()}",
        "timestamp": line["at"].astimezone(UTC).isoformat(timespec="microseconds"),
        "data": {
            "__typename": "CustomerGatewayToken",
            "id": str(line["token_id"]),
            "version": line["version"],
            "gateway": line["gateway"],
            "isActive": line["is_active"] and not Action(line["action"]).ends_token,
        },
    }
    return f"evt_{line['token_id']}_{line['version']}", orjson.dumps(body)


def signed(keys: Sequence[bytes], message_id: str, body: bytes, now: int) -> dict[str, str]:
    """The headers that show who sent the body, and when (in seconds since 1970)."""
    content = f"{message_id}.{now}.".encode() + body
    digests = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }


def is_private(address: str) -> bool:
    """Whether an address is not one of the internet, nor this machine's own."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = _embedded(ip)
    return not ip.is_loopback and (not ip.is_global or ip.is_multicast)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    ip = ip_address(address.partition("%")[0])
    return ((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip).is_loopback


def _embedded(ip: IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which a packet for this one goes."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


class Sender:
    """Sends to one endpoint, one request at a time."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        endpoint: Endpoint,
        *,
        allow_private: bool,
        timeout: float = TIMEOUT_SECONDS,
        read_timeout: float = MAX_READ_SECONDS,
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

    async def send(self, line: Line) -> Outcome:
        """Send an entry of the feed."""
        message_id, body = message_of(line)
        headers = signed(self._endpoint.keys, message_id, body, int(time()))
        try:
            async with asyncio.timeout(self._timeout):
                *addresses, last = await self._addresses()
                for address in addresses:
                    with suppress(httpx.ConnectError):
                        return await self._post(address, headers, body)
                return await self._post(last, headers, body)
        except (TimeoutError, httpx.TimeoutException):
            return Outcome(f"did not answer within {self._timeout:g} s")
        except _ForbiddenAddressError as error:
            return Outcome(str(error))
        except socket.gaierror:
            return Outcome("its host has no address")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
            return Outcome(f"the connection failed ({type(error).__name__})")

    async def _post(self, address: str, headers: Mapping[str, str], body: bytes) -> Outcome:
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

    async def _addresses(self) -> list[str]:
        """The addresses of the endpoint's host, of which none may be forbidden."""
        host, is_plain = self._url.raw_host.decode(), self._url.scheme == "http"
        addresses = [host] if _is_address(host) else await _looked_up(host)
        for address in addresses if not self._allow_private else ():
            if is_private(address):
                raise _ForbiddenAddressError(f"its address {address} is private: see EVENT_WEBHOOK_ALLOW_PRIVATE")
            if is_plain and not is_loopback(address):
                raise _ForbiddenAddressError("its address is not this machine's: use https")
        return addresses


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _looked_up(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


async def _read(response: httpx.Response) -> None:
    count = 0
    async for chunk in response.aiter_raw():
        count += len(chunk)
        if count > _MAX_READ_BYTES:
            return


def _outcome(response: httpx.Response) -> Outcome:
    if response.is_success:
        return Outcome()
    return Outcome(
        f"answered {response.status_code}",
        is_gone=response.status_code == HTTPStatus.GONE,
        retry_after=_retry_after(response.headers.get("retry-after")),
    )


def _retry_after(value: str | None) -> float | None:
    """The seconds that a `Retry-After` asks for (RFC 9110, 10.2.3); None if it cannot be understood."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
