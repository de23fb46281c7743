"""Messages of NATS JetStream: each entry of the feed is one, which its stream stores once and acknowledges.

It is one more kind of endpoint. A message names an entity first, as routers with event streams want it.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from nats.aio.client import Client
from nats.errors import Error, NoServersError
from nats.js.errors import APIError, NoStreamResponseError

from graphql_api import network_errors
from graphql_api.deliveries import sending
from graphql_api.deliveries.sending import DeliveryOutcome, Endpoint, FeedEntry, ForbiddenAddressError, event_of

_PORT = 4222
_CONNECT_SECONDS = 5
_CLOSE_SECONDS = 1.0


class _NoTlsError(Exception):
    """The server does not offer TLS, which was asked for."""


class _Context(ssl.SSLContext):
    """Knows whether it was used: the client speaks without TLS to a server that does not ask for it."""

    was_used = False

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin to speak TLS."""
        self.was_used = True
        return super().wrap_bio(*arguments, **options)


class JetStreamSender:
    """Publishes to one stream, one message at a time."""

    def __init__(self, endpoint: Endpoint, *, allow_private: bool, timeout: float) -> None:
        self._timeout = timeout
        parts = urlsplit(endpoint.url)
        self._host, self._port = parts.hostname or "", parts.port or _PORT
        self._tls = parts.scheme == "tls"
        self._prefix = parts.path.removeprefix("/")
        self._credentials = endpoint.credentials
        self._allow_private = allow_private
        self._client: Client | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, endpoint: Endpoint, *, allow_private: bool, timeout: float = sending.TIMEOUT_SECONDS
    ) -> AsyncGenerator[Self]:
        """A sender whose connection is its own, closed at the end.

        Args:
            endpoint: the stream
            allow_private: whether to publish to private addresses, and without TLS
            timeout: seconds within which the stream has to answer
        """
        sender = cls(endpoint, allow_private=allow_private, timeout=timeout)
        try:
            yield sender
        finally:
            await sender._close()

    async def send(self, entry: FeedEntry) -> DeliveryOutcome:
        """Publish an entry of the feed, and wait until its stream has stored it."""
        outcome = await self._publish(entry)
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the client's `wait_for` may lose it before Python 3.12: gh-86296
            raise asyncio.CancelledError
        return outcome

    async def _publish(self, entry: FeedEntry) -> DeliveryOutcome:
        message_id, event = event_of(entry)
        data = event.pop("data")
        subject = f"{self._prefix}.{data['id']}"
        try:
            async with asyncio.timeout(self._timeout):
                client = await self._connected()
                await client.jetstream().publish(
                    subject,
                    orjson.dumps({**data, **event}),
                    timeout=self._timeout,
                    headers={"Nats-Msg-Id": message_id},
                )
        except TimeoutError:
            outcome = DeliveryOutcome(f"did not answer within {self._timeout:g} s")
        except NoStreamResponseError:
            return DeliveryOutcome(f"has no stream for the subject {self._prefix}.*")
        except APIError as error:
            return DeliveryOutcome(f"answered {error.code}: {error.description}")
        except ForbiddenAddressError as error:
            outcome = DeliveryOutcome(str(error))
        except _NoTlsError:
            outcome = DeliveryOutcome("does not offer TLS: its address begins with tls://")
        except (Error, OSError, UnicodeError) as error:
            says = str(error) if isinstance(error, Error) else network_errors.reason(error)
            outcome = DeliveryOutcome(f"did not answer: {says or type(error).__name__}"[:500])
        else:
            return DeliveryOutcome()
        await self._close()
        return outcome

    async def _connected(self) -> Client:
        """The connection, opened again if it was lost, to an address that was checked."""
        if self._client is not None and self._client.is_connected:
            return self._client
        await self._close()
        addresses = await sending.looked_up(self._host, allow_private=self._allow_private, is_plain=not self._tls)
        self._client = await self._connect(addresses)
        return self._client

    async def _connect(self, addresses: list[str]) -> Client:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT) if self._tls else None
        if context is not None:
            context.load_default_certs()
        user, separator, password = self._credentials.partition(":")
        causes: list[Exception] = []

        async def note(error: Exception) -> None:
            causes.append(error)

        def secret(text: str) -> Any:
            """Is asked for once the server said whether it wants TLS."""

            def told() -> str:
                if context is not None and not context.was_used:
                    raise _NoTlsError
                return text

            return told if text else None

        options: dict[str, Any] = {"tls": context, "tls_hostname": self._host} if context is not None else {}
        client = Client()
        try:
            await client.connect(
                [
                    f"nats://[{each}]:{self._port}" if ":" in each else f"nats://{each}:{self._port}"
                    for each in addresses
                ],
                name="gateway-tokens",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_SECONDS,
                error_cb=note,
                user=secret(user) if separator else None,
                password=secret(password) if separator else None,
                token=None if separator else secret(user),
                **options,
            )
        except NoServersError as error:
            await _close(client)
            raise (causes or [error])[-1] from None
        except BaseException:
            await _close(client)
            raise
        if context is not None and not context.was_used:
            await _close(client)
            raise _NoTlsError
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


async def _close(client: Client) -> None:
    """Close a connection, which may be broken: the client may wait for its end for ever."""
    with suppress(TimeoutError, Error, OSError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
