"""Every metric of the service: what is counted, by which labels, and the text that Prometheus reads.

What the parts of the service count by themselves is taken from them now and then; the rest they report. Where several
processes serve, the library adds up what they write into the folder of `PROMETHEUS_MULTIPROC_DIR`.
"""

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
MAX_OPERATIONS = 100
"""Names of operations that a process tells apart; those that come later count as `other`."""
OTHER = "other"

_PREFIX = "gateway_tokens"
_TAKE_EVERY = 5.0
_TAKE_BINS_EVERY = 0.1
_REQUEST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STATEMENT_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)


class ReplicaReading(NamedTuple):
    """Whether a replica healthy, and how many seconds it is behind."""

    is_read_from: bool
    lag: float


class Reading(NamedTuple):
    """What parts of the service count by themselves, as it is now."""

    requests_in_flight: int
    connections_in_use: int
    connections_idle: int
    connections_allowed: int
    waiting_for_connection: int
    connections_lost: int
    statements_too_long: int
    database_is_away: bool
    token_cache_hits: int
    token_cache_misses: int
    engine_fallbacks: Mapping[str, int]
    replicas: Mapping[str, ReplicaReading]
    spans_lost: int


class Metrics:
    """The metrics of one app."""

    def __init__(self, version: str) -> None:
        prometheus_client.disable_created_metrics()
        registry = self._registry = CollectorRegistry()
        self._bins = _AllBins()
        self._of_requests: dict[tuple[str, str, str], Callable[[float], None]] = {}
        self._operations: set[str] = {"", OTHER}
        self._taken: Tally[tuple[Counter | str, ...]] = Tally()
        self._read: Callable[[], Reading] | None = None

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", about, labels, multiprocess_mode="livesum", registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", about, labels, buckets=buckets, registry=registry)

        about = "GraphQL requests by operation, its kind, and `ok` or the first error's code"
        labels = ("operation", "kind", "outcome")
        self._requests = histogram("request_duration_seconds", about, _REQUEST_SECONDS, *labels)
        about = "Duration of SQL statements by their name in the source"
        statements = histogram("statement_duration_seconds", about, _STATEMENT_SECONDS, "statement")
        self._of_statements = _Observers(statements, self._bins)
        about = "Representations per `_entities` request, and parents per batched field"
        self._of_batches = _Observers(histogram("batch_size", about, _BATCH_SIZES, "field"), self._bins)
        self._limits = counter("limits", "Requests refused or ended by a limit, by its variable", "limit")
        self._in_flight = gauge("requests_in_flight", "GraphQL requests that are waiting or running")
        self._connections = gauge("database_connections", "Connections to the database", "state")
        self._allowed = gauge("database_connections_max", "Maximum number of database connections")
        self._waiting = gauge("database_waiting", "Statements waiting for a connection")
        self._lost = counter("database_losses", "Lost database connections")
        self._away = gauge("database_away", "Processes that cannot reach the database")
        self._replica_used = gauge("replica_read_from", "Processes that read from this replica", "replica")
        about = "Seconds that a replica is behind the primary"
        self._replica_lag = Gauge(
            f"{_PREFIX}_replica_lag_seconds", about, ["replica"], multiprocess_mode="livemax", registry=registry
        )
        self._token_cache = counter("token_cache", "Access tokens by cache result", "result")
        self._fallbacks = counter("engine_fallbacks", "Operations run by graphql-core instead, by reason", "reason")
        self._webhooks = counter("webhooks", "Gateway events by the status of the answer", "sender", "status")
        self._spans_lost = counter("spans_lost", "Spans that the trace collector did not accept")
        build = Gauge(f"{_PREFIX}_build_info", "What runs", ["version"], multiprocess_mode="max", registry=registry)
        build.labels(version).set(1)

    def request(self, operation: str, kind: str, outcome: str, seconds: float, *, teaches: bool) -> None:
        """A GraphQL request was answered. Names are learned from those that teach: nobody else can use them up."""
        observe = self._of_requests.get((operation, kind, outcome))
        if observe is None:
            observe = self._of_request(operation, kind, outcome, teaches=teaches)
        observe(seconds)

    def statement(self, name: str, seconds: float) -> None:
        """A statement was run; there are some forty names."""
        self._of_statements[name](seconds)

    def batch(self, field: str, size: int) -> None:
        """A field was asked for so many representations or parents at once."""
        self._of_batches[field](size)

    def limit(self, variable: str) -> None:
        """A request met the limit that this environment variable sets."""
        self._limits.labels(variable).inc()

    def webhook(self, sender: str, status: int) -> None:
        """An event of a gateway was answered."""
        self._webhooks.labels(sender, status).inc()

    def _of_request(self, operation: str, kind: str, outcome: str, *, teaches: bool) -> Callable[[float], None]:
        if operation not in self._operations:
            if not teaches or len(self._operations) - 2 >= MAX_OPERATIONS:
                operation = OTHER
            self._operations.add(operation)
        key = operation, kind, outcome
        if key not in self._of_requests:
            self._of_requests[key] = self._bins.of(self._requests.labels(*key))
        return self._of_requests[key]

    @asynccontextmanager
    async def following(self, read: Callable[[], Reading]) -> AsyncGenerator[None]:
        """Take what is read every few seconds, so that another process that is asked can tell it, and when asked."""
        self._read = read
        taking = asyncio.get_running_loop().create_task(self._keep_taking())
        try:
            yield
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            self._take()
            self._bins.take()
            self._read = None

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        self._take()
        self._bins.take()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        together = CollectorRegistry()
        MultiProcessCollector(together, folder)
        return generate_latest(together)

    async def _keep_taking(self) -> None:
        while True:
            self._take()
            until = monotonic() + _TAKE_EVERY
            while monotonic() < until:
                await asyncio.sleep(_TAKE_BINS_EVERY)
                self._bins.take()

    def _take(self) -> None:
        if self._read is None:
            return
        now = self._read()
        self._in_flight.set(now.requests_in_flight)
        self._connections.labels("in_use").set(now.connections_in_use)
        self._connections.labels("idle").set(now.connections_idle)
        self._allowed.set(now.connections_allowed)
        self._waiting.set(now.waiting_for_connection)
        self._away.set(now.database_is_away)
        self._count(self._lost, now.connections_lost)
        self._count(self._limits, now.statements_too_long, "DATABASE_TIMEOUT")
        for name, replica in now.replicas.items():
            self._replica_used.labels(name).set(replica.is_read_from)
            self._replica_lag.labels(name).set(replica.lag)
        self._count(self._token_cache, now.token_cache_hits, "hit")
        self._count(self._token_cache, now.token_cache_misses, "miss")
        for reason, count in now.engine_fallbacks.items():
            self._count(self._fallbacks, count, reason)
        self._count(self._spans_lost, now.spans_lost)

    def _count(self, counter: Counter, count: int, *labels: str) -> None:
        """Bring the counter to what was counted elsewhere."""
        key = (counter, *labels)
        (counter.labels(*labels) if labels else counter).inc(count - self._taken[key])
        self._taken[key] = count


class _AllBins:
    """What was observed and not yet taken over into the library, which takes ten times as long for each value."""

    def __init__(self) -> None:
        self._all: list[_Bins] = []

    def of(self, histogram: Histogram) -> Callable[[float], None]:
        """What observes for a histogram whose labels have values."""
        bins = _Bins(histogram)
        self._all.append(bins)
        return bins.values.append

    def take(self) -> None:
        for bins in self._all:
            if bins.values:
                bins.take()


class _Bins:
    """The values that a histogram is to be given."""

    def __init__(self, histogram: Any) -> None:
        self._bounds: tuple[float, ...] = histogram._upper_bounds  # noqa: SLF001 - the library can only add them one by one
        self._buckets: list[Any] = histogram._buckets  # noqa: SLF001
        self._total: Any = histogram._sum  # noqa: SLF001
        self.values: list[float] = []

    def take(self) -> None:
        """Give the histogram what there is."""
        bounds = self._bounds
        for index, count in Tally([bisect_left(bounds, value) for value in self.values]).items():
            self._buckets[index].inc(count)
        self._total.inc(sum(self.values))
        self.values.clear()


class _Observers(dict[str, Callable[[float], None]]):
    """What observes for each value of a histogram's one label; the library looks it up more slowly."""

    def __init__(self, histogram: Histogram, bins: _AllBins) -> None:
        super().__init__()
        self._histogram = histogram
        self._bins = bins

    def __missing__(self, label: str) -> Callable[[float], None]:
        observe = self[label] = self._bins.of(self._histogram.labels(label))
        return observe


def _forget_the_dead(folder: Path) -> None:
    """What is true of processes only while they live ends with them; what they counted stays."""
    for file in folder.glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another process was faster
                mark_process_dead(process, str(folder))
