"""Pages for those who operate the service: whether it lives, whether it is ready, what it counts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.metrics import CONTENT_TYPE
from graphql_api.web import compression
from graphql_api.web.help import ERRORS_PATH

READINESS_SECONDS = 0.25
"""For so long an answer of the database about its readiness counts for all who ask."""


class Readiness:
    """Asks whether the service is ready: a few times a second, however many callers there are."""

    def __init__(self, check: Callable[[], Awaitable[str]]) -> None:
        """`check` raises `UnavailableError` with the reason, or answers what is not to be had although it is ready."""
        self._check = check
        self.note = ""
        self._asking: asyncio.Task[str | None] | None = None
        self._asked_at = 0.0

    async def reason(self) -> str | None:
        """Why the service is not ready; None: it is."""
        if self._asking is None or (self._asking.done() and monotonic() - self._asked_at >= READINESS_SECONDS):
            self._asked_at = monotonic()
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str | None:
        try:
            self.note = await self._check()
        except UnavailableError as unavailable:
            return str(unavailable)
        return None


async def healthz(_request: Request) -> Response:
    """Answer while the process lives."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 while the database answers, is migrated, and the process is to go on; else 503 with the reason.

    While the database is read-only, or there are no keys for access tokens yet, it is 200 with the reason.
    """
    if "draining" in request.scope["state"]:
        return JSONResponse({"status": "unavailable", "reason": "This process is shutting down."}, 503)
    if reason := await request.state.readiness.reason():
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    note = request.state.readiness.note
    return JSONResponse({"status": "ok", "reason": note} if note else {"status": "ok"})


async def metrics(request: Request) -> Response:
    """Answer what Prometheus collects."""
    await asyncio.gather(*(each.refresh() for each in request.state.metrics_of_database))
    return await compression.page(request, request.state.metrics.text(), CONTENT_TYPE)


async def index(request: Request) -> Response:
    """Say what is here, for people and programs that begin at the root."""
    paths = _paths(request)
    if "text/html" in request.headers.get("accept", ""):
        # Relative addresses: a proxy may put a path in front of them.
        items = "".join(f'<li><a href="{path[1:]}">{path[1:]}</a>{_ABOUT.get(path, "")}</li>\n' for path in paths)
        return HTMLResponse(_INDEX.format(items))
    return JSONResponse({"service": "Customer gateway tokens, a GraphQL subgraph", "paths": paths})


async def _not_found(request: Request, _error: Exception) -> Response:
    """Say which paths there are on this port."""
    return PlainTextResponse(_NOTHING.format(", ".join(_paths(request))), 404)


def _paths(request: Request) -> list[str]:
    """The pages of this port, which METRICS_PORT and the secrets of webhooks decide."""
    return [each.path for each in request.app.routes if isinstance(each, Route) and each.path != INDEX.path]


_NOTHING = (
    "Nothing is at this path. This port serves {}. No path ends with a slash. A webhook path exists only if its "
    "gateway's secret is set. If METRICS_PORT is set, /metrics is on that port only.\n"
)
NOT_FOUND: Mapping[Any, ExceptionHandler] = {404: _not_found}
"""What answers for the paths that nothing is at."""

_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Customer gateway tokens</title></head>
<body><h1>Customer gateway tokens</h1>
<p>This service maps users to their customers at payment gateways.</p>
<ul>
{}</ul></body></html>
"""
_ABOUT = {
    "/graphql": ": GraphQL, and GraphiQL if it is on",
    ERRORS_PATH: ": what error codes mean",
    "/healthz": ": whether the process is alive",
    "/readyz": ": whether the service is ready",
    "/metrics": ": what Prometheus collects",
}
INDEX = Route("/", index)
METRICS = Route("/metrics", metrics)
PROBES = [Route("/healthz", healthz), Route("/readyz", readyz), METRICS]
