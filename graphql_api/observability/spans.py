"""Whose trace it belongs to what happens now. Where nobody traces, nobody's; and nothing of OpenTelemetry is needed."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Spans: TypeAlias = "tuple[Span, ...]"

current: ContextVar[Spans] = ContextVar("spans", default=())
"""The span that something happens in; of a statement that several requests share, one of each of them."""
