"""All metrics of the service: names, labels, and the text format for Prometheus.

Most values are reported here; some are read from the parts that count them. With several workers, each shares its
values with the others, so that any of them can answer for all.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import orjson
import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from graphql_api.observability.shared_memory import SharedMemory
from graphql_api.observability.supervision import deaths, supervise

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
MAX_OPERATIONS = 100
"""Names of operations that a process tells apart; those that come later count as `other`."""
OTHER = "other"

_PREFIX = "gateway_tokens"
_SHOW_SECONDS = 0.5  # how often a worker shares its values
_REQUEST_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STATEMENT_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)

_EVENT_GAUGES = (
    ("event_feed_lag_seconds", "Age in seconds of the oldest change that the change feed does not return yet"),
    (
        "event_delivery_lag_seconds",
        "Age in seconds of the oldest change that the endpoint has not accepted yet",
        "endpoint",
    ),
    ("event_endpoint_disabled", "Whether the endpoint is disabled", "endpoint"),
)

_log = structlog.get_logger()


class ReplicaReading(NamedTuple):
    """Whether a replica is healthy, and how many seconds it is behind."""

    is_read_from: bool
    lag: float


class Reading(NamedTuple):
    """The current values that parts of the service count themselves."""

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


Labels = tuple[str, ...]
Values = list[float]
"""One figure; of a histogram, how many observations are in each bucket, and their sum."""


class _Family:
    """A metric: its values by its labels' values."""

    def __init__(self, name: str, about: str, labels: Sequence[str], *, combine: Callable[..., float] = sum) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self.combine = combine  # the values of several workers
        self.is_shared = True
        self.values: defaultdict[Labels, Values] = defaultdict(lambda: [0.0])
        self.is_counter = False

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = [value]

    def metric(self, values: Mapping[Labels, Values]) -> Metric:
        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        for labels, (value,) in values.items():
            family.add_metric(labels, value)
        return family


class _Counter(_Family):
    def __init__(self, name: str, about: str, labels: Sequence[str], *, combine: Callable[..., float] = sum) -> None:
        super().__init__(name, about, labels, combine=combine)
        self.is_counter = True
        if not labels:
            self.values[()] = [0.0]

    def add(self, *labels: str) -> None:
        self.values[labels][0] += 1

    def metric(self, values: Mapping[Labels, Values]) -> Metric:
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for labels, (value,) in values.items():
            family.add_metric(labels, value)
        return family


class _Histogram(_Family):
    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        super().__init__(name, about, labels)
        self.is_counter = True
        self.bounds = bounds
        self.values = defaultdict(lambda: [0.0] * (len(bounds) + 2))

    def metric(self, values: Mapping[Labels, Values]) -> Metric:
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        for labels, (*counts, total) in values.items():
            buckets: list[tuple[str, float]] = []
            so_far = 0.0
            for name, count in zip(names, counts, strict=True):
                so_far += count
                buckets.append((name, so_far))
            family.add_metric(labels, buckets, total)
        return family


class _ByLabel(dict[str, Values]):
    """The values of a histogram with one label."""

    def __init__(self, histogram: _Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def __missing__(self, label: str) -> Values:
        values = self[label] = self._histogram.values[label,]
        return values


F = TypeVar("F", bound=_Family)


class Metrics(Collector):
    """The metrics of one app, in shared memory if it has several workers."""

    def __init__(self, version: str, shared: SharedMemory | None = None) -> None:
        self._families: dict[str, _Family] = {}
        self._shared = shared
        self._slot: int | None = None
        self._base: dict[str, dict[Labels, Values]] = {}
        self._of_requests: dict[tuple[str, str, str], Values] = {}
        self._operations: set[str] = {"", OTHER}
        self._read: Callable[[], Reading] | None = None
        self._process = ProcessCollector(registry=None)
        self._registry = CollectorRegistry()

        def gauge(name: str, about: str, *labels: str, combine: Callable[..., float] = sum) -> _Family:
            return self._add(_Family(f"{_PREFIX}_{name}", about, labels, combine=combine))

        def counter(name: str, about: str, *labels: str) -> _Counter:
            return self._add(_Counter(f"{_PREFIX}_{name}", about, labels))

        def histogram(name: str, about: str, bounds: Sequence[float], *labels: str) -> _Histogram:
            return self._add(_Histogram(f"{_PREFIX}_{name}", about, labels, bounds))

        about = "GraphQL requests by operation, its kind, and `ok` or the first error's code"
        labels = ("operation", "kind", "outcome")
        self._requests = histogram("request_duration_seconds", about, _REQUEST_SECONDS, *labels)
        about = "Duration of SQL statements by their name in the source"
        self._of_statements = _ByLabel(histogram("statement_duration_seconds", about, _STATEMENT_SECONDS, "statement"))
        about = "Representations per `_entities` request, and parents per batched field"
        self._of_batches = _ByLabel(histogram("batch_size", about, _BATCH_SIZES, "field"))
        self._limits = counter("limits", "Requests refused or ended by a limit, by its variable", "limit")
        self._user_errors = counter("user_errors", "User errors of mutations", "mutation", "code")
        self._in_flight = gauge("requests_in_flight", "GraphQL requests that are waiting or running")
        self._connections = gauge("database_connections", "Connections to the database", "state")
        self._allowed = gauge("database_connections_max", "Maximum number of database connections")
        self._waiting = gauge("database_waiting", "Statements waiting for a connection")
        self._lost = counter("database_losses", "How often database connections were lost; several at once count once")
        self._away = gauge("database_away", "Processes that cannot reach the database")
        self._replica_used = gauge("replica_read_from", "Processes that read from this replica", "replica")
        about = "Seconds that a replica is behind the primary"
        self._replica_lag = gauge("replica_lag_seconds", about, "replica", combine=max)
        self._token_cache = counter("token_cache", "Access tokens by cache result", "result")
        self._fallbacks = counter("engine_fallbacks", "Operations run by graphql-core instead, by reason", "reason")
        self._webhooks = counter("webhooks", "Gateway events by the status of the answer", "sender", "status")
        about = "Gateway events about another account or mode, or without their content, by reason"
        self._webhooks_ignored = counter("webhooks_ignored", about, "sender", "reason")
        # The worker that is asked reads them from the database; what others read before that is out of date.
        feed_lag, delivery_lag, disabled = of_events = [gauge(*words) for words in _EVENT_GAUGES]
        self._event_feed_lag, self._event_delivery_lag, self._event_endpoint_disabled = feed_lag, delivery_lag, disabled
        for family in of_events:
            family.is_shared = False
        about = "Answers of gateways to checks, and requests that were throttled"
        self._checks = self._add(_Counter(f"{_PREFIX}_checks", about, ("gateway", "answer"), combine=max))
        about = "When a check of this gateway was last completed"
        self._check_finished = gauge("check_finished_timestamp_seconds", about, "gateway", combine=max)
        about = "When the customer that has waited longest was last checked, as of the end of the last check"
        self._check_oldest = gauge("check_oldest_timestamp_seconds", about, "gateway", combine=max)
        self._task_deaths = counter("background_task_deaths", "Background tasks that died and were restarted", "task")
        self._spans_lost = counter("spans_lost", "Spans that the trace collector did not accept")
        gauge("build_info", "The version that runs", "version", combine=max).set(1, version)
        self._of_process = {
            family.name: self._add(
                _Counter(family.name, family.documentation, ())
                if family.type == "counter"
                else _Family(family.name, family.documentation, (), combine=_PROCESS_COMBINE.get(family.name, sum))
            )
            for family in self._process.collect()
        }
        self._registry.register(self)

    def request(self, operation: str, kind: str, outcome: str, seconds: float, *, teaches: bool) -> None:
        """Record a GraphQL request. Only one with `teaches` can add an operation name: their number is limited."""
        values = self._of_requests.get((operation, kind, outcome))
        if values is None:
            values = self._of_request(operation, kind, outcome, teaches=teaches)
        values[bisect_left(_REQUEST_SECONDS, seconds)] += 1
        values[-1] += seconds

    def statement(self, name: str, seconds: float) -> None:
        """Record a statement. There are about forty names."""
        values = self._of_statements[name]
        values[bisect_left(_STATEMENT_SECONDS, seconds)] += 1
        values[-1] += seconds

    def batch(self, field: str, size: int) -> None:
        """Record how many representations or parents a field was asked for at once."""
        values = self._of_batches[field]
        values[bisect_left(_BATCH_SIZES, size)] += 1
        values[-1] += size

    def limit(self, variable: str) -> None:
        """Count a request that exceeded the limit of this environment variable."""
        self._limits.add(variable)

    def user_error(self, mutation: str, code: str) -> None:
        """Count a user error of a mutation."""
        self._user_errors.add(mutation, code)

    def webhook(self, sender: str, status: int) -> None:
        """Count an answer to a gateway's event."""
        self._webhooks.add(sender, str(status))

    def event_feed(self, lag: float) -> None:
        """Set how many seconds the change feed is behind."""
        self._event_feed_lag.set(lag)

    def event_endpoints(self, endpoints: Iterable[tuple[str, float, bool]]) -> None:
        """Set all webhook endpoints: name, how many seconds it is behind the feed, and whether it is disabled."""
        self._event_delivery_lag.values.clear()
        self._event_endpoint_disabled.values.clear()
        for name, lag, is_disabled in endpoints:
            self._event_delivery_lag.set(lag, name)
            self._event_endpoint_disabled.set(is_disabled, name)

    def check(
        self, gateway: str, answers: Mapping[str, int], *, finished_at: float | None, oldest_at: float | None
    ) -> None:
        """Set the sums over all checks of a gateway; times are in seconds since 1970."""
        for answer, count in answers.items():
            self._checks.set(count, gateway, answer)
        if finished_at is not None:
            self._check_finished.set(finished_at, gateway)
        if oldest_at is not None:
            self._check_oldest.set(oldest_at, gateway)

    @asynccontextmanager
    async def collecting(self, read: Callable[[], Reading]) -> AsyncGenerator[None]:
        """Add a source that is read whenever the metrics are requested from any worker."""
        self._read = read
        if self._shared is None:
            yield
        else:
            showing = asyncio.get_running_loop().create_task(supervise("shared metrics", self._keep_showing))
            try:
                yield
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
                self._show()
        self._take()
        self._read = None

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The values of all workers, for prometheus-client."""
        together = self._own()
        for slot, message in self._shared.others(self._slot) if self._shared else ():
            told = _unpacked(message)
            is_alive = self._shared is not None and self._shared.is_alive(slot)
            self._add_up(together, told if is_alive else self._counters(told))
        for name, family in self._families.items():
            yield family.metric(together.get(name, {}))

    def _add(self, family: F) -> F:
        self._families[family.name] = family
        return family

    def webhook_ignored(self, sender: str, reason: str) -> None:
        """Count a gateway's event that does not concern this service."""
        self._webhooks_ignored.add(sender, reason)

    def _of_request(self, operation: str, kind: str, outcome: str, *, teaches: bool) -> Values:
        if operation not in self._operations:
            if not teaches or len(self._operations) - 2 >= MAX_OPERATIONS:
                operation = OTHER
            self._operations.add(operation)
        key = operation, kind, outcome
        if key not in self._of_requests:
            self._of_requests[key] = self._requests.values[key]
        return self._of_requests[key]

    def _own(self) -> dict[str, dict[Labels, Values]]:
        """The values of this worker and of its predecessors in the slot."""
        self._take()
        own = {
            name: {labels: [*values] for labels, values in each.values.items()} for name, each in self._families.items()
        }
        self._add_up(own, self._base)
        return own

    def _shown(self) -> list[tuple[str, list[tuple[Labels, Values]]]]:
        """The values that other workers add to theirs."""
        return [(name, [*own.items()]) for name, own in self._own().items() if self._families[name].is_shared]

    def _counters(self, told: dict[str, dict[Labels, Values]]) -> dict[str, dict[Labels, Values]]:
        """The values that outlive a worker: counters, but no gauges."""
        return {name: values for name, values in told.items() if self._families[name].is_counter}

    def _add_up(self, together: dict[str, dict[Labels, Values]], more: dict[str, dict[Labels, Values]]) -> None:
        for name, some in more.items():
            combine, values = self._families[name].combine, together.setdefault(name, {})
            for labels, figures in some.items():
                present = values.get(labels)
                values[labels] = [combine(pair) for pair in zip(present, figures, strict=True)] if present else figures

    async def _keep_showing(self) -> None:
        while True:
            try:
                self._show()
            except Exception as error:  # noqa: BLE001 - it is tried again
                _log.error("metrics not shared with other workers", exc_info=error)
            await asyncio.sleep(_SHOW_SECONDS)

    def _show(self) -> None:
        if self._shared is None:
            return
        if self._slot is None and (slot := self._shared.take_slot()) is not None:
            self._slot, left = slot, self._shared.read(slot)
            self._base = self._counters(_unpacked(left)) if left else {}  # of the worker that this one replaces
        if self._slot is not None:
            message = orjson.dumps(self._shown())
            if not self._shared.write(self._slot, message):
                _log.warning("metrics not shared with other workers: too large", bytes=len(message))

    def _take(self) -> None:
        for family in self._process.collect():
            self._of_process[family.name].set(family.samples[0].value)
        if self._read is None:
            return
        now = self._read()
        self._in_flight.set(now.requests_in_flight)
        self._connections.set(now.connections_in_use, "in_use")
        self._connections.set(now.connections_idle, "idle")
        self._allowed.set(now.connections_allowed)
        self._waiting.set(now.waiting_for_connection)
        self._away.set(now.database_is_away)
        self._lost.set(now.connections_lost)
        self._limits.set(now.statements_too_long, "DATABASE_TIMEOUT")
        for name, replica in now.replicas.items():
            self._replica_used.set(replica.is_read_from, name)
            self._replica_lag.set(replica.lag, name)
        self._token_cache.set(now.token_cache_hits, "hit")
        self._token_cache.set(now.token_cache_misses, "miss")
        for reason, count in now.engine_fallbacks.items():
            self._fallbacks.set(count, reason)
        for name, count in deaths.items():
            self._task_deaths.set(count, name)
        self._spans_lost.set(now.spans_lost)


# The newest worker's start shows each restart; every process has the same limit of files.
_PROCESS_COMBINE: dict[str, Callable[..., float]] = {"process_start_time_seconds": max, "process_max_fds": max}


def _unpacked(message: bytes) -> dict[str, dict[Labels, Values]]:
    read: list[Any] = orjson.loads(message)
    return {name: {tuple(labels): values for labels, values in some} for name, some in read}
