"""Pages for those who operate the service: whether it lives, whether it is ready, what it counts."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.metrics import CONTENT_TYPE

READINESS_SECONDS = 0.25
"""For so long an answer of the database about its readiness counts for all who ask."""


class Readiness:
    """Asks whether the service is ready: a few times a second, however many callers there are."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        """`check` raises `UnavailableError` with the reason."""
        self._check = check
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
            await self._check()
        except UnavailableError as unavailable:
            return str(unavailable)
        return None


async def healthz(_request: Request) -> Response:
    """Answer while the process lives."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 while the database answers, is migrated, and the process is to go on; else 503 with the reason."""
    if "draining" in request.scope["state"]:
        return JSONResponse({"status": "unavailable", "reason": "This process is shutting down."}, 503)
    if reason := await request.state.readiness.reason():
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """Answer what Prometheus collects."""
    return Response(request.state.metrics.text(), media_type=CONTENT_TYPE)


METRICS = Route("/metrics", metrics)
PROBES = [Route("/healthz", healthz), Route("/readyz", readyz), METRICS]
