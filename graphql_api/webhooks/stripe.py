"""Stripe's events (https://docs.stripe.com/webhooks), checked by Stripe's own library."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from graphql_api.webhooks.reports import Report, SignatureError, UnreadableEventError, accounts, read

_IS_GONE = {"customer.created": False, "customer.updated": False, "customer.deleted": True}
_TOLERANCE = 300  # seconds that an event may take to us, as Stripe's library has it


class Stripe:
    """Reads the events of one or more accounts."""

    path = "/webhooks/stripe"
    name = "stripe-webhook"

    def __init__(self, secrets: Iterable[str]) -> None:
        self._accounts = accounts("STRIPE", secrets)

    def reports(self, body: bytes, headers: Mapping[str, str]) -> list[Report]:
        """See `Sender`."""
        gateway = self._signer(body, headers.get("stripe-signature"))
        match read(body):
            case {"type": str(kind)} if kind not in _IS_GONE:
                return []
            case {"type": str(kind), "created": int(created), "data": {"object": {"id": str(customer)}}}:
                return [Report(gateway, customer, _time(created), _IS_GONE[kind])]
            case _:
                raise UnreadableEventError

    def _signer(self, body: bytes, signature: str | None) -> str:
        # The library takes half a second and ten megabytes: whoever has no webhooks does without.
        from stripe import SignatureVerificationError, WebhookSignature  # noqa: PLC0415

        for gateway, secret in self._accounts:
            try:
                WebhookSignature.verify_header(body, signature, secret, _TOLERANCE)
            except (SignatureVerificationError, UnicodeDecodeError, TypeError):  # the last two for what is no ASCII
                continue
            return gateway
        raise SignatureError("Stripe-Signature is missing, invalid or too old.")


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise UnreadableEventError from None
