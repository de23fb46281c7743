"""Requests that leave a trace: the same answers, and a span for each part of the way there."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from graphql import MiddlewareManager
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphql_api.engine import Operation, Result
from graphql_api.observability import spans
from graphql_api.web import errors
from graphql_api.web.graphql import GraphQL
from graphql_api.web.request import Request, Response

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span

    from graphql_api.observability.tracing import Tracing

_OURS = frozenset({"INTERNAL", "TIMEOUT", "UNAVAILABLE"})  # outcomes that no caller can be blamed for


class Traced:
    """ASGI middleware: a span for each request to one of these paths."""

    def __init__(self, app: ASGIApp, tracing: "Tracing", paths: Collection[str]) -> None:
        self._app = app
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by the app within; whatever is not a request to these paths passes."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        with _request_span(self._tracing, scope["method"], scope["path"], dict(scope["headers"])) as span:

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _say_status(self._tracing, span, message["status"])
                await send(message)

            await self._app(scope, receive, send_traced)


@dataclass(eq=False, kw_only=True)
class TracedGraphQL(GraphQL):
    """Answers GraphQL requests, with a span for each, and one for its execution."""

    tracing: "Tracing"

    async def respond(self, request: Request) -> Response | None:
        """The answer, and a span of it."""
        with _request_span(self.tracing, request.method, request.path, request.headers) as span:
            response = await super().respond(request)
            if response is not None:
                _say_status(self.tracing, span, response.status)
            return response

    async def _execute(
        self,
        request: Request,
        operation: Operation,
        variables: dict[str, Any] | None,
        context: object,
        middleware: MiddlewareManager | None = None,
    ) -> Result:
        with self.tracing.span("graphql.execute"):
            executed = super()._execute(request, operation, variables, context, middleware)
            return executed if isinstance(executed, Result) else await executed

    def _tell(self, request: Request, status: int | None, outcome: str, seconds: float) -> None:
        super()._tell(request, status, outcome, seconds)
        (span,) = spans.current.get()
        span.set_attribute("gateway_tokens.request_id", request.id)
        span.set_attribute("gateway_tokens.outcome", outcome)
        if outcome in _OURS:
            self.tracing.fail(span, outcome)
        if operation := request.operation:
            kind, name = operation.kind_name, errors.loggable(operation.name or "")
            span.update_name(f"{kind} {name}".rstrip())
            span.set_attribute("graphql.operation.type", kind)
            span.set_attribute("graphql.operation.name", name)


def _request_span(
    tracing: "Tracing", method: str, path: str, headers: Mapping[bytes, bytes]
) -> "AbstractContextManager[Span]":
    asked = {"http.request.method": method, "url.path": path, "url.scheme": "http"}
    return tracing.request(f"{method} {path}", headers, asked)


def _say_status(tracing: "Tracing", span: "Span", status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        tracing.fail(span, str(status))
