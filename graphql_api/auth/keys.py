"""The sources of keys, and how they stay current: a secret, a file, or a key server.

Keys stay until there are newer ones. An answer that is missing, late, malformed or empty changes nothing. A key that a
valid answer no longer contains is dropped.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx
import structlog

from graphql_api import network_errors
from graphql_api.auth.keyring import Keyring
from graphql_api.auth.unknown_keys import UnknownKeys
from graphql_api.observability.supervision import supervise

MAX_BYTES = 256 * 1024  # of a key server's answer

_log = structlog.get_logger(__name__)


class KeyTiming(NamedTuple):
    """When keys are fetched, and how long that may take, in seconds."""

    fetch_timeout_seconds: float = 3.0
    refresh_seconds: float = 60.0  # from one fetch to the next if no token asks for one
    retry_seconds: float = 2.0  # if the last fetch failed
    poll_seconds: float = 1.0  # between looks at a file


DEFAULT_TIMING = KeyTiming()


class Keys:
    """The current keys. `ring` is None until there are any."""

    def __init__(self, ring: Keyring | None = None) -> None:
        self.ring = ring
        self.problem: str | None = None  # why the last look brought nothing
        self.on_change: Callable[[], None] = lambda: None

    async def look_for(self, key_id: str) -> None:
        """Try to get the key with this id. Sources that are always current do nothing."""

    async def take(self, key_set: bytes) -> None:
        """Replace the keys by those of this set.

        Raises:
            ValueError: it has none; the keys stay unchanged.
        """
        ring = await asyncio.to_thread(Keyring.of_json, key_set)
        if ring != self.ring:
            self.ring = ring
            self.on_change()


class FileKeys(Keys):
    """The keys of a file, which is read again when it changes."""

    def __init__(self, path: Path, timing: KeyTiming = DEFAULT_TIMING) -> None:
        """Read the file.

        Raises:
            OSError: it cannot be read.
            ValueError: it contains no keys.
        """
        super().__init__()
        self._path = path
        self._timing = timing
        self._seen = _state(path)
        self.ring = Keyring.of_json(path.read_bytes())

    async def look(self) -> None:
        """Read the file if it has changed.

        Raises:
            OSError: it cannot be read.
            ValueError: it contains no keys.
        """
        key_set = await asyncio.to_thread(self._read_if_changed)
        if key_set is not None:
            await self.take(key_set)

    async def keep_current(self) -> None:
        """Watch the file until cancelled."""
        while True:
            await asyncio.sleep(self._timing.poll_seconds)
            try:
                await self.look()
            except (OSError, ValueError) as error:
                _log.warning("access token key file rejected", reason=type(error).__name__)

    def _read_if_changed(self) -> bytes | None:
        state = _state(self._path)
        if state == self._seen:
            return None
        self._seen = state
        return self._path.read_bytes()


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


class RemoteKeys(Keys):
    """The keys of a key server, fetched regularly, and when a token names an unknown key."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        timing: KeyTiming = DEFAULT_TIMING,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self._client = client
        self._url = url
        self._timing = timing
        self._clock = clock
        self._unknown = UnknownKeys()
        self._fetching: asyncio.Task[None] | None = None
        self._due = clock()

    async def look_for(self, key_id: str) -> None:
        """Fetch the keys if that may bring this one. Concurrent callers share one fetch."""
        if self._fetching is not None:
            await self.refresh()
        if not self._has(key_id) and (self._fetching is not None or self._unknown.worth_a_fetch(key_id, self._clock())):
            await self.refresh()
        if self._has(key_id):
            self._unknown.found()

    async def refresh(self) -> None:
        """Fetch the keys, or wait for the running fetch. Cancelling a waiter does not cancel the fetch."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def keep_current(self) -> None:
        """Fetch at intervals until cancelled."""
        while True:
            await asyncio.sleep(min(self._timing.retry_seconds, max(0.0, self._due - self._clock())))
            if self._clock() >= self._due:
                await self.refresh()

    async def close(self) -> None:
        """Cancel the running fetch, if any."""
        if self._fetching is not None:
            await _cancelled(self._fetching)

    def _has(self, key_id: str) -> bool:
        return self.ring is not None and self.ring.knows(key_id)

    async def _fetch(self) -> None:
        problem = None
        try:
            await self.take(await self._answer())
        except Exception as error:  # noqa: BLE001 - whatever a key server does, good keys stay
            problem = self._words(error)
        finally:
            self._due = self._clock() + (self._timing.retry_seconds if problem else self._timing.refresh_seconds)
            self._fetching = None
        if problem != self.problem:
            self.problem = problem
            event = "access token keys are " + ("not fetched" if problem else "fetched again")
            _log.warning(event, setting="AUTH_JWKS_URL", reason=problem)

    async def _answer(self) -> bytes:
        timeout = asyncio.timeout(self._timing.fetch_timeout_seconds)
        async with timeout, self._client.stream("GET", self._url) as response:
            if response.status_code != HTTPStatus.OK:
                raise ValueError(f"it answered {response.status_code}")
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_BYTES:
                    raise ValueError(f"its answer is longer than {MAX_BYTES} bytes")
            return bytes(answer)

    def _words(self, error: Exception) -> str:
        match error:
            case TimeoutError() | httpx.TimeoutException():
                return f"it did not answer within {self._timing.fetch_timeout_seconds:g} s"
            case httpx.TransportError():
                return network_errors.reason(error)
            case ValueError():
                return str(error)
            case _:
                return type(error).__name__


@asynccontextmanager
async def watched_file(keys: FileKeys) -> AsyncGenerator[Keys]:
    """The keys of a file, until the context ends."""
    async with _meanwhile(supervise("access token keys", keys.keep_current)):
        yield keys


@asynccontextmanager
async def remote_keys(url: str, timing: KeyTiming = DEFAULT_TIMING) -> AsyncGenerator[Keys]:
    """The keys of a key server, which may be down at startup, until the context ends."""
    # No redirects: the operator decides where keys come from. No compression: the limit counts bytes read.
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(
        headers=headers, timeout=timing.fetch_timeout_seconds, follow_redirects=False
    ) as client:
        keys = RemoteKeys(client, url, timing)
        try:
            await keys.refresh()
            async with _meanwhile(supervise("access token keys", keys.keep_current)):
                yield keys
        finally:
            await keys.close()


@asynccontextmanager
async def _meanwhile(work: Awaitable[None]) -> AsyncGenerator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        await _cancelled(task)


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
