"""CORS: which pages of other origins may ask here, and with which headers. Starlette knows the rules."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from graphql_api.web.http_errors import Headers

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "X-Request-Id",
    # of clients
    "Apollo-Require-Preflight",
    "ApolloGraphQL-Client-Name",
    "ApolloGraphQL-Client-Version",
    "GraphQL-Client-Name",
    "GraphQL-Client-Version",
    "X-Apollo-Operation-Id",
    "X-Apollo-Operation-Name",
    "X-Apollo-Operation-Type",
    # of tracing
    "B3",
    "Baggage",
    "Newrelic",
    "Sentry-Trace",
    "Traceparent",
    "Tracestate",
    "Uber-Trace-Id",
    "X-Amzn-Trace-Id",
    "X-B3-Flags",
    "X-B3-ParentSpanId",
    "X-B3-Sampled",
    "X-B3-SpanId",
    "X-B3-TraceId",
    "X-Datadog-Origin",
    "X-Datadog-Parent-Id",
    "X-Datadog-Sampling-Priority",
    "X-Datadog-Tags",
    "X-Datadog-Trace-Id",
)


class CORSPolicy(CORSMiddleware):
    """ASGI middleware: answers preflights of `/graphql`, whose own answers take their headers from here.

    Pages of these origins may ask with the headers of common clients and of tracing, and with those that are named.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], headers: Sequence[str] = ()) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=[*REQUEST_HEADERS, *headers],
            expose_headers=["X-Request-Id"],
        )
        self.allow_headers.append("")  # an element of a list may be empty (RFC 9110, 5.6.1)
        self._simple = [(name.lower().encode(), value.encode()) for name, value in self.simple_headers.items()]

    def of_answer(self, origin: bytes) -> Headers:
        """The headers that let a page of this origin read an answer."""
        if self.allow_all_origins:
            return self._simple
        if not self.is_allowed_origin(origin=origin.decode("latin-1")):
            return [(b"vary", b"origin")]
        return [*self._simple, (b"access-control-allow-origin", origin), (b"vary", b"origin")]
