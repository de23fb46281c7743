"""The endpoints for gateways' events: signed reports change tokens, and nothing else is trusted."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graphql_api.domain import deadline, values
from graphql_api.domain.caller import WRITE_SCOPE, Caller
from graphql_api.domain.errors import InputError, UnavailableError
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.token import DeactivationReason
from graphql_api.service import gateway_reports
from graphql_api.service.tokens import Tokens
from graphql_api.webhooks.adyen import Adyen
from graphql_api.webhooks.reports import (
    IgnoredEventError,
    Report,
    SignatureError,
    UnreadableEventError,
    WebhookEndpoint,
    WebhookSender,
)
from graphql_api.webhooks.stripe import Stripe

_LOG_EVERY_SECONDS = 60  # what is ignored for one reason

_log = structlog.get_logger()


def webhooks(
    *,
    gateways: Gateways,
    max_body_bytes: int,
    max_body_seconds: float = 10,
    max_seconds: float = 10,
    stripe: Sequence[WebhookEndpoint] = (),
    adyen: Sequence[WebhookEndpoint] = (),
) -> list[Route]:
    """An endpoint for each gateway with signing secrets.

    Args:
        gateways: those that may have tokens
        max_body_bytes: how large an event may be
        max_body_seconds: how long an event may take to arrive
        max_seconds: how long its reports may take to apply, before the answer is 503 and the gateway sends it again
        stripe: endpoints whose secrets are Stripe's, `whsec_…`
        adyen: endpoints whose secrets are Adyen's HMAC keys, in hexadecimal
    """
    senders: list[WebhookSender] = [
        *([Stripe(stripe)] if stripe else ()),
        *([Adyen(adyen)] if adyen else ()),
    ]
    routes = [(each.path, _Handler(each, gateways, max_body_bytes, max_body_seconds, max_seconds)) for each in senders]
    return [Route(path, handler.answer, methods=["POST"]) for path, handler in routes]


class _Handler:
    """The endpoint for the events of one gateway."""

    def __init__(
        self,
        sender: WebhookSender,
        gateways: Gateways,
        max_body_bytes: int,
        max_body_seconds: float,
        max_seconds: float,
    ) -> None:
        self._sender = sender
        self._caller = Caller(sender.name, frozenset({WRITE_SCOPE}))
        self._gateways = gateways
        self._max_body_bytes = max_body_bytes
        self._max_body_seconds = max_body_seconds
        self._max_seconds = max_seconds
        self._ignored: dict[tuple[str, str], _Ignored] = {}

    async def answer(self, request: Request) -> Response:
        """Answer, and count the answer by its status."""
        status = 500
        try:
            response = _refused_coding(request) or await self._answer(request)
            status = response.status_code
        finally:
            request.state.metrics.webhook(self._sender.name, status)
        return response

    async def _answer(self, request: Request) -> Response:
        """Answer 200 if the event was applied or does not concern this service, 400 if it is not authentic."""
        try:
            body = await self._body(request)
            # In a thread, because this imports a library, and other requests should not wait for that.
            reports = await asyncio.to_thread(self._sender.reports, body, request.headers)
        except (SignatureError, UnreadableEventError) as error:
            _log.warning("webhook rejected", sender=self._sender.name, reason=str(error), detail=error.detail)
            return JSONResponse({"error": str(error)}, 400)
        except IgnoredEventError as ignored:
            request.state.metrics.webhook_ignored(self._sender.name, ignored.reason)
            self._note(ignored)
            return JSONResponse({"received": True})
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code)
        tokens = Tokens(request.state.store, self._caller, self._gateways)
        try:
            with deadline.until(asyncio.get_running_loop().time() + self._max_seconds):
                for report in reports:
                    known = await _done(tokens, report)
                    _log.info("gateway report", gateway=report.gateway, is_gone=report.is_gone, known=known)
        except UnavailableError:
            return JSONResponse({"error": "The database is unavailable right now. Send the event again."}, 503)
        return JSONResponse({"received": True})

    def _note(self, ignored: IgnoredEventError) -> None:
        """Log ignored events at most once a minute per reason, with their number since the last line."""
        seen = self._ignored.setdefault((ignored.gateway, ignored.reason), _Ignored())
        seen.events += 1
        if monotonic() - seen.logged_at >= _LOG_EVERY_SECONDS:
            _log.warning(
                "webhook ignored",
                sender=self._sender.name,
                gateway=ignored.gateway,
                reason=str(ignored),
                events=seen.events,
            )
            seen.logged_at, seen.events = monotonic(), 0

    async def _body(self, request: Request) -> bytes:
        stream = request.stream()
        try:
            async with asyncio.timeout(self._max_body_seconds):
                body = await request.state.uploads.receive(lambda: anext(stream, b""), self._max_body_bytes)
        except (TimeoutError, ClientDisconnect):
            raise HTTPException(408, "The event did not arrive in time.") from None
        except UnavailableError as error:
            raise HTTPException(503, f"{error} Send the event again.") from None
        if len(body) > self._max_body_bytes:
            raise HTTPException(413, f"The event is larger than {self._max_body_bytes} bytes.")
        return body


@dataclass(slots=True)
class _Ignored:
    """How many events were ignored since the last log line, and its time."""

    events: int = 0
    logged_at: float = -inf


def _refused_coding(request: Request) -> Response | None:
    """The answer to a compressed event, which no gateway sends."""
    codings = {coding.strip().lower() for coding in ",".join(request.headers.getlist("content-encoding")).split(",")}
    if codings <= {"", "identity"}:
        return None
    return JSONResponse({"error": "Send the event without Content-Encoding."}, 415, {"accept-encoding": "identity"})


async def _done(tokens: Tokens, report: Report) -> bool:
    """Apply the report to the token. Returns whether the customer is known."""
    try:
        gateway = tokens.gateways.parse(report.gateway)
        customer = values.gateway_customer_id(report.customer)
        if report.is_gone:
            reason = DeactivationReason.GATEWAY_DELETED
            found = await gateway_reports.deactivate_customer(tokens, gateway, customer, reason, report.at, caps=True)
            return found is not None
        await gateway_reports.verify_customer(tokens, gateway, customer, report.at, caps=True)
    except InputError:
        return False
    return True
