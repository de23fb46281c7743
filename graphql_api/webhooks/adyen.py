"""Adyen's webhooks on stored payment details (https://docs.adyen.com/api-explorer/Tokenization-webhooks/1/overview).

Adyen identifies shoppers by the platform's own reference, and their stored payment details by an id of its own. A
platform uses one of the two as its gateway customer id. An event about stored details confirms both. If details are
disabled, only they are gone, because their shopper may have others.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256

from graphql_api.domain import values
from graphql_api.webhooks.reports import (
    Report,
    SignatureError,
    UnreadableEventError,
    WebhookEndpoint,
    field,
    read,
    time,
)

_CONFIRMING = {"recurring.token.created", "recurring.token.updated", "recurring.token.alreadyExisting"}
_DISABLING = "recurring.token.disabled"


class Adyen:
    """Reads the events of one or more merchant accounts."""

    path = "/webhooks/adyen"
    name = "adyen-webhook"

    def __init__(self, endpoints: Sequence[WebhookEndpoint]) -> None:
        self._endpoints = [(endpoint, bytes.fromhex(endpoint.secret)) for endpoint in endpoints]

    def reports(self, body: bytes, headers: Mapping[str, str]) -> list[Report]:
        endpoint = self._signer(body, headers.get("hmacsignature", ""))
        event = read(body)
        kind = field(event, "type", str)
        if kind not in {*_CONFIRMING, _DISABLING}:
            return []
        stored, shopper = (field(event, f"data.{name}", str) for name in ("storedPaymentMethodId", "shopperReference"))
        environment = field(event, "environment", str)
        if environment not in {"test", "live"}:
            raise UnreadableEventError("its environment is neither test nor live")
        at = time(event, "createdAt", values.instant)
        if endpoint.accounts:
            endpoint.check_account(event["data"].get("merchantAccount") or "", setting="ADYEN_MERCHANT_ACCOUNTS")
        endpoint.check_mode(is_test=environment == "test")
        if kind == _DISABLING:
            return [Report(endpoint.gateway, stored, at, is_gone=True)]
        return [Report(endpoint.gateway, customer, at, is_gone=False) for customer in (stored, shopper)]

    def _signer(self, body: bytes, signature: str) -> WebhookEndpoint:
        for endpoint, key in self._endpoints:
            expected = b64encode(hmac.digest(key, body, sha256))
            if hmac.compare_digest(expected, signature.encode()):
                return endpoint
        detail = "it is invalid: another key, or a body that was changed on the way" if signature else "it is missing"
        raise SignatureError("HmacSignature is missing or invalid.", detail)
