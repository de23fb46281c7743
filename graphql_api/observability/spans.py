"""The current span, independent of OpenTelemetry, which is not imported if tracing is off."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Spans: TypeAlias = "tuple[Span, ...]"

current: ContextVar[Spans] = ContextVar("spans", default=())
"""The span that something happens in; of a statement that several requests share, one of each of them."""
