"""A load generator with a fixed number of connections, each of which sends its next request after the last answer."""

import asyncio
import time
from dataclasses import dataclass, field

import httptools

_OK = 200


@dataclass
class Run:
    """What one timed run saw."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class _Connection(asyncio.Protocol):
    """One connection; `requests` are whole HTTP requests, sent in turn."""

    def __init__(self, requests: list[bytes], start: int, until: float, run: Run) -> None:
        self._requests, self._next, self._until, self._run = requests, start, until, run
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self._run.failed += 1
            self.done.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._run.latencies.append(time.perf_counter() - self._sent)
        if self._parser.get_status_code() != _OK or b'"errors"' in self._body:
            self._run.failed += 1
        if time.perf_counter() < self._until:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


async def load(port: int, requests: list[bytes], *, seconds: float, connections: int, offset: int = 0) -> Run:
    """Load the server on this port of this machine."""
    loop, run = asyncio.get_running_loop(), Run(seconds)
    until = time.perf_counter() + seconds
    starts = [offset + number * len(requests) // connections for number in range(connections)]
    pairs = [
        await loop.create_connection(lambda start=start: _Connection(requests, start, until, run), "127.0.0.1", port)
        for start in starts
    ]
    await asyncio.gather(*(protocol.done for _, protocol in pairs))
    return run
