"""Stripe's events (https://docs.stripe.com/webhooks), checked by Stripe's own library."""

from collections.abc import Mapping, Sequence

from graphql_api.domain import values
from graphql_api.webhooks.reports import (
    IgnoredEventError,
    Report,
    SignatureError,
    UnreadableEventError,
    WebhookEndpoint,
    field,
    read,
    time,
)

_IS_GONE = {"customer.created": False, "customer.updated": False, "customer.deleted": True}
_TOLERANCE_SECONDS = 300  # that an event may take to us, as Stripe's library has it
_THIN = (
    "The endpoint sends thin events, which this service cannot process. In Stripe, create the endpoint with the "
    'payload style "snapshot".'
)


class Stripe:
    """Reads the events of one or more accounts."""

    path = "/webhooks/stripe"
    name = "stripe-webhook"

    def __init__(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        self._endpoints = endpoints

    def reports(self, body: bytes, headers: Mapping[str, str]) -> list[Report]:
        endpoint = self._signer(body, headers.get("stripe-signature"))
        event = read(body)
        kind = field(event, "type", str)
        if event.get("object") == "v2.core.event":
            if kind.removeprefix("v1.") in _IS_GONE:
                raise IgnoredEventError(endpoint.gateway, "thin", _THIN)
            return []
        if kind not in _IS_GONE:
            return []
        customer = field(event, "data.object.id", str)
        if (event.get("object", "event"), event["data"]["object"].get("object", "customer")) != ("event", "customer"):
            raise UnreadableEventError("it is not an event about a customer")
        is_live = field(event, "livemode", bool)
        at = time(event, "created", values.second)
        endpoint.check_account(event.get("account"), event.get("context"), setting="STRIPE_ACCOUNTS")
        endpoint.check_mode(is_test=not is_live)
        return [Report(endpoint.gateway, customer, at, _IS_GONE[kind])]

    def _signer(self, body: bytes, signature: str | None) -> WebhookEndpoint:
        for endpoint in self._endpoints:
            if _is_signed(body, signature, endpoint.secret, _TOLERANCE_SECONDS):
                return endpoint
        if not signature:
            detail = "it is missing"
        elif any(_is_signed(body, signature, endpoint.secret, None) for endpoint in self._endpoints):
            detail = f"it is older than {_TOLERANCE_SECONDS} seconds by this machine's clock"
        else:
            detail = "it is invalid: the secret is wrong, or the body was changed in transit"
        raise SignatureError("Stripe-Signature is missing, invalid or too old.", detail)


def _is_signed(body: bytes, signature: str | None, secret: str, tolerance: int | None) -> bool:
    # Importing the library takes half a second and ten megabytes, so only services with webhooks do.
    from stripe import SignatureVerificationError, WebhookSignature  # noqa: PLC0415

    try:
        WebhookSignature.verify_header(body, signature, secret, tolerance)
    except (SignatureVerificationError, UnicodeDecodeError, TypeError):  # the last two for what is not ASCII
        return False
    return True
