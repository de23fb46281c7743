"""What surrounds every page: a request id, careful headers and a line in the access log."""

from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphql_api.domain.cards import redact_card_numbers
from graphql_api.observability import logs
from graphql_api.web import request_ids

# A page says otherwise where it needs more.
SECURITY_HEADERS = (
    (b"cache-control", b"private, no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class SecurityHeadersMiddleware:
    """ASGI middleware: a request id, careful headers and a line in the access log for every page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request by the app within; whatever is not HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 500
        request_id = request_ids.taken_over(dict(scope["headers"]).get(request_ids.HEADER))
        logs.request_id.set(request_id)

        async def send_surrounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                nonlocal status
                status = message["status"]
                message["headers"] = _surround(message.get("headers", []), request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_surrounded)
        finally:
            line: dict[str, Any] = {"method": scope["method"], "path": redact_card_numbers(scope["path"])}
            logs.access.info("request", **line, status=status, ms=round((perf_counter() - began) * 1000, 2))


def _surround(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    said = {name for name, _ in headers}
    cautious = [header for header in SECURITY_HEADERS if header[0] not in said]
    return [*headers, *cautious, (request_ids.HEADER, request_id.encode())]
