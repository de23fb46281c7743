"""What surrounds every page: a request id, careful headers and a line in the access log."""

from http import HTTPStatus
from time import perf_counter
from urllib.parse import unquote

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphql_api.observability import logs
from graphql_api.web import request_ids
from graphql_api.web.errors import loggable
from graphql_api.web.hosts import AllowedHosts

# A page can override these.
SECURITY_HEADERS = (
    (b"cache-control", b"private, no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)

# Asked every few seconds for as long as the service runs; only what is not well is worth a line.
_PROBES = {"/healthz", "/readyz", "/metrics"}


class SecurityHeadersMiddleware:
    """ASGI middleware: a request id, careful headers and a line in the access log for every page."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts | None = None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request by the app within; whatever is not HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 500
        headers = dict(scope["headers"])
        request_id = request_ids.of_header(headers.get(request_ids.HEADER))
        logs.request_id.set(request_id)

        async def send_surrounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                nonlocal status
                status = message["status"]
                message["headers"] = _surround(message.get("headers", []), request_id)
            await send(message)

        try:
            refusal = None if self._hosts is None else self._hosts.refusal(headers.get(b"host"))
            answer = self._app if refusal is None else PlainTextResponse(f"{refusal}\n", 421)
            await answer(scope, receive, send_surrounded)
        finally:
            is_probe = scope["path"] in _PROBES and status < HTTPStatus.BAD_REQUEST
            if logs.access.is_enabled and not is_probe:
                line = {
                    "event": "request",
                    "method": scope["method"],
                    "path": loggable(unquote(scope["path"])),
                    "status": status,
                }
                logs.access.write(request_id, {**line, "ms": round((perf_counter() - began) * 1000, 2)})


def _surround(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    said = {name for name, _ in headers}
    cautious = [header for header in SECURITY_HEADERS if header[0] not in said]
    return [*headers, *cautious, (request_ids.HEADER, request_id.encode())]
