"""Traces of requests, sent to a collector by OTLP over HTTP.

OpenTelemetry's own variables set the destination, the sampling and the service's name. Spans contain names
of operations, statements and outcomes, but nothing from the request: no variables, ids or error messages.

This module is imported only if tracing is on: importing OpenTelemetry takes a third of a second.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import time_ns
from typing import Any, TypeAlias

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict

from graphql_api.observability import spans

Attributes: TypeAlias = Mapping[str, str | int]

_FLUSH_SECONDS = 3.0  # at the end, for what was not sent yet

_log = structlog.get_logger()


class Tracing:
    """Makes spans while it is open. Do not fork meanwhile, because a thread sends the spans."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._from_headers = TraceContextTextMapPropagator()
        self._tracer: Tracer
        self._exporter: _Exporter

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Send spans until the context ends, then the remaining ones, unless the collector is unreachable."""
        exporter = self._exporter = _Exporter()
        processor = BatchSpanProcessor(exporter)
        provider = TracerProvider(resource=_resource(self._version), shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("gateway-tokens", self._version)
        with _reporting(exporter):
            try:
                yield
            finally:
                flushing = threading.Thread(target=provider.shutdown, daemon=True)
                flushing.start()
                await asyncio.to_thread(flushing.join, _FLUSH_SECONDS)
                if flushing.is_alive():
                    exporter.shutdown()

    @property
    def spans_lost(self) -> int:
        """How many spans the collector did not accept, without those that did not fit into the queue."""
        return self._exporter.lost

    @contextmanager
    def request(self, name: str, headers: Mapping[bytes, bytes], attributes: Attributes) -> Generator[Span]:
        """A span of a request, in the trace that the headers name."""
        carrier = {key: headers.get(key.encode(), b"").decode("latin-1") for key in ("traceparent", "tracestate")}
        context = self._from_headers.extract(carrier)
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes)
        with _during(span):
            yield span

    @contextmanager
    def span(self, name: str) -> Generator[None]:
        """A child of the current span, if that one is sampled."""
        for parent in _sampled()[:1]:
            with _during(self._tracer.start_span(name, set_span_in_context(parent))):
                yield
            return
        yield

    def statement(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Add a span of a finished statement to the trace of each request that it ran for."""
        end = time_ns()
        for parent in _sampled():
            span = self._tracer.start_span(
                name,
                set_span_in_context(parent),
                SpanKind.CLIENT,
                {"db.system.name": "postgresql", "db.query.summary": name},
                start_time=end - round(seconds * 1e9),
            )
            if error is not None:
                self.fail(span, type(error).__name__)
                if state := getattr(error, "sqlstate", None):
                    span.set_attribute("db.response.status_code", state)
            span.end(end)

    @staticmethod
    def fail(span: Span, kind: str) -> None:
        """Mark a span as failed."""
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR)

    @staticmethod
    def stamp(_logger: object, _level: str, event: EventDict) -> EventDict:
        """Add the trace id to a log line."""
        for span in spans.current.get()[:1]:
            event["trace_id"] = format_trace_id(span.get_span_context().trace_id)
        return event


def _sampled() -> spans.Spans:
    """The current spans that are sampled; the others need no children."""
    return tuple([span for span in spans.current.get() if span.get_span_context().trace_flags.sampled])


@contextmanager
def _during(span: Span) -> Generator[None]:
    token = spans.current.set((span,))
    try:
        yield
    finally:
        spans.current.reset(token)
        span.end()


def _resource(version: str) -> Resource:
    """The resource of the spans, from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES."""
    own: dict[str, Any] = {"service.name": "gateway-tokens", "service.version": version, "process.pid": os.getpid()}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


class _Exporter(OTLPSpanExporter):
    """Logs once that the export fails, and once that it has recovered; the library logs every failed batch."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self.lost = 0
        self._is_losing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.reason = ""
        result = super().export(spans)
        is_losing = result is not SpanExportResult.SUCCESS
        self.lost += len(spans) if is_losing else 0
        if is_losing and not self._is_losing:
            _log.warning("trace export failed", reason=self.reason)
        elif self._is_losing and not is_losing:
            _log.warning("trace export recovered")
        self._is_losing = is_losing
        return result


class _Reasons(logging.Handler):
    """Captures the library's log records, the only place where it gives the reason of a failed export."""

    def __init__(self, exporter: _Exporter) -> None:
        super().__init__(logging.WARNING)
        self._exporter = exporter

    def emit(self, record: logging.LogRecord) -> None:
        self._exporter.reason = self._exporter.reason or record.getMessage()


@contextmanager
def _reporting(exporter: _Exporter) -> Generator[None]:
    library, handler = logging.getLogger("opentelemetry"), _Reasons(exporter)
    library.addHandler(handler)
    library.propagate = False
    try:
        yield
    finally:
        library.propagate = True
        library.removeHandler(handler)
