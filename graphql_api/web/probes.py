"""Pages for those who operate the service: whether it lives, whether it is ready, what it counts."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.metrics import CONTENT_TYPE


async def healthz(_request: Request) -> Response:
    """Answer while the process lives."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 while the database answers, is migrated, and the process is to go on; else 503 with the reason."""
    if "draining" in request.scope["state"]:
        return JSONResponse({"status": "unavailable", "reason": "This process is shutting down."}, 503)
    try:
        await request.state.check_ready()
    except UnavailableError as unavailable:
        return JSONResponse({"status": "unavailable", "reason": str(unavailable)}, 503)
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """Answer what Prometheus collects."""
    return Response(request.state.metrics.text(), media_type=CONTENT_TYPE)


METRICS = Route("/metrics", metrics)
PROBES = [Route("/healthz", healthz), Route("/readyz", readyz), METRICS]
