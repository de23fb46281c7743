"""Requests that leave a trace: the same answers, and a span for each part of the way there."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from graphql import MiddlewareManager
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphql_api.domain.cards import redact_card_numbers
from graphql_api.engine import Operation, Result
from graphql_api.observability import spans
from graphql_api.web.exchange import Exchange
from graphql_api.web.graphql import Answer, GraphQL, outcome_of
from graphql_api.web.watch import Watched

if TYPE_CHECKING:
    from graphql_api.observability.tracing import Tracing

_OURS = frozenset({"INTERNAL", "TIMEOUT", "UNAVAILABLE"})  # outcomes that no caller can be blamed for
_SERVER_ERROR = 500


class Traced:
    """ASGI middleware: a span for each request to one of these paths."""

    def __init__(self, app: ASGIApp, tracing: "Tracing", paths: Collection[str]) -> None:
        self._app = app
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by the app within; whatever is no request to these paths passes."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        asked = {"http.request.method": method, "url.path": path, "url.scheme": scope["scheme"]}
        with self._tracing.request(f"{method} {path}", dict(scope["headers"]), asked) as span:

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERROR:
                        self._tracing.fail(span, str(message["status"]))
                await send(message)

            await self._app(scope, receive, send_traced)


class TracedGraphQL(GraphQL):
    """Answers GraphQL requests, with a span for the execution and what has become known in the one of the request."""

    def __init__(self, *, tracing: "Tracing", **options: Any) -> None:
        super().__init__(**options)
        self._tracing = tracing

    async def _execute(
        self,
        operation: Operation,
        variables: dict[str, Any] | None,
        context: object,
        watched: Watched,
        middleware: MiddlewareManager | None = None,
    ) -> Result:
        with self._tracing.span("graphql.execute"):
            executed = super()._execute(operation, variables, context, watched, middleware)
            return executed if isinstance(executed, Result) else await executed

    def _tell(self, exchange: Exchange, answer: Answer | None, seconds: float) -> None:
        super()._tell(exchange, answer, seconds)
        (span,) = spans.current.get()
        span.set_attribute("gateway_tokens.request_id", exchange.request_id)
        outcome = outcome_of(answer)
        span.set_attribute("gateway_tokens.outcome", outcome)
        if outcome in _OURS:
            self._tracing.fail(span, outcome)
        if operation := exchange.operation:
            kind, name = operation.kind_name, redact_card_numbers(operation.name or "")
            span.update_name(f"{kind} {name}".rstrip())
            span.set_attribute("graphql.operation.type", kind)
            span.set_attribute("graphql.operation.name", name)
