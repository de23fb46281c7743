"""Adyen's webhooks on stored payment details, signed over the whole body."""

import hashlib
import hmac
import json
from base64 import b64encode

import pytest

from graphql_api.app import create_app
from graphql_api.settings import ConfigurationError, Settings

KEY, OTHER = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056", "00" * 32
PATH = "/webhooks/adyen"


def event(kind, created="2999-01-01T12:00:00+01:00", **data):
    return json.dumps(
        {
            "createdAt": created,
            "environment": "live",
            "eventId": "QBQQ9DLNRHHKGK38",
            "type": kind,
            "version": "1",
            "data": {
                "merchantAccount": "Shop",
                "operation": "any",
                "shopperReference": "shopper-1",
                "storedPaymentMethodId": "M5N7TQ4TG5PFWR50",
                "type": "visa",
            }
            | data,
        }
    )


def signed(body, key=KEY):
    mac = hmac.new(bytes.fromhex(key), body.encode(), hashlib.sha256)
    return {"hmacsignature": b64encode(mac.digest()).decode(), "protocol": "HmacSHA256"}


@pytest.fixture
async def graph(service_with):
    return await service_with(adyen_webhook_hmac_key=f"{KEY},ADYEN_TEST:{OTHER}")


@pytest.fixture
def send(graph):
    async def post(body, headers=None):
        return await graph.client.http.post(PATH, content=body, headers=signed(body) if headers is None else headers)

    return post


async def test_disabled_details_are_gone_and_their_shopper_stays(graph, send):
    stored = await graph.saved("u1", "ADYEN", "M5N7TQ4TG5PFWR50")
    shopper = await graph.saved("u2", "ADYEN", "shopper-1")
    assert (await send(event("recurring.token.disabled"))).status_code == 200
    inactive = await graph.token(stored["id"])
    assert (inactive["deactivationReason"], inactive["deactivatedAt"]) == (
        "GATEWAY_DELETED",
        "2999-01-01T11:00:00.000000+00:00",
    )
    assert await graph.token(shopper["id"]) == shopper
    assert (await graph.history(stored))[0]["actor"] == "adyen-webhook"


@pytest.mark.parametrize("kind", ["created", "updated", "alreadyExisting"])
@pytest.mark.parametrize("customer", ["M5N7TQ4TG5PFWR50", "shopper-1"])
async def test_stored_details_confirm_themselves_and_their_shopper(graph, send, kind, customer):
    token = await graph.saved("u1", "ADYEN", customer)
    assert (await send(event(f"recurring.token.{kind}"))).status_code == 200
    assert (await graph.token(token["id"]))["lastVerifiedAt"] == "2999-01-01T11:00:00.000000+00:00"


@pytest.mark.parametrize(
    "body", [event("recurring.token.disabled", storedPaymentMethodId="unknown"), event("something.new"), '{"type": ""}']
)
async def test_what_is_none_of_ours_is_taken_and_changes_nothing(graph, send, body):
    token = await graph.saved("u1", "ADYEN", "shopper-1")
    assert (await send(body)).status_code == 200
    assert await graph.token(token["id"]) == token


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"hmacsignature": ""},
        {"hmacsignature": "é".encode()},
        signed(event("recurring.token.created")),
        signed(event("recurring.token.disabled"), "11" * 32),
    ],
)
async def test_what_is_not_signed_rightly_is_refused(graph, send, headers):
    token = await graph.saved("u1", "ADYEN", "M5N7TQ4TG5PFWR50")
    response = await send(event("recurring.token.disabled"), headers)
    assert (response.status_code, response.json()) == (400, {"error": "HmacSignature is missing or invalid."})
    assert await graph.token(token["id"]) == token


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        event("recurring.token.disabled", created="yesterday"),
        event("recurring.token.disabled", created="2026-11-22T12:00:00"),
        '{"type": "recurring.token.disabled"}',
        '{"type": "recurring.token.disabled", "createdAt": "2026-11-22T12:00:00Z", "data": []}',
        event("recurring.token.disabled", storedPaymentMethodId=5),
        event("recurring.token.created", shopperReference=None),
    ],
)
async def test_what_is_signed_and_no_webhook_is_refused(graph, send, body):
    assert (await send(body)).status_code == 400


async def test_the_key_says_whose_event_it_is(graph, send):
    live, test = await graph.saved("u1", "ADYEN", "shopper-1"), await graph.saved("u1", "ADYEN_TEST", "shopper-1")
    body = event("recurring.token.created")
    assert (await send(body, signed(body, OTHER))).status_code == 200
    assert (await graph.token(live["id"]))["lastVerifiedAt"] is None
    assert (await graph.token(test["id"]))["lastVerifiedAt"] is not None


def test_a_key_that_is_none_stops_the_service():
    with pytest.raises(ConfigurationError, match="ADYEN_WEBHOOK_HMAC_KEY"):
        create_app(Settings(database_url="postgresql://x/y", adyen_webhook_hmac_key="no hex"))
