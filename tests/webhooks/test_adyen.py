"""Adyen's webhooks on stored payment details, signed over the whole body."""

import hashlib
import hmac
import json
from base64 import b64encode

import pytest
from pydantic import ValidationError

from graphql_api.settings import Settings

KEY, OTHER = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056", "00" * 32
PATH = "/webhooks/adyen"


def event(kind, created="2026-01-01T12:00:00+01:00", environment="live", **data):
    return json.dumps(
        {
            "createdAt": created,
            "environment": environment,
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
        "2026-01-01T11:00:00.000000+00:00",
    )
    assert await graph.token(shopper["id"]) == shopper
    assert (await graph.history(stored))[0]["actor"] == "adyen-webhook"


@pytest.mark.parametrize("kind", ["created", "updated", "alreadyExisting"])
@pytest.mark.parametrize("customer", ["M5N7TQ4TG5PFWR50", "shopper-1"])
async def test_stored_details_confirm_themselves_and_their_shopper(graph, send, kind, customer):
    token = await graph.saved("u1", "ADYEN", customer)
    assert (await send(event(f"recurring.token.{kind}"))).status_code == 200
    assert (await graph.token(token["id"]))["lastVerifiedAt"] == "2026-01-01T11:00:00.000000+00:00"


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
        event("recurring.token.disabled", environment=None),
        event("recurring.token.disabled", environment=["live"]),
        event("recurring.token.disabled", environment="LIVE"),
        event("recurring.token.created", shopperReference=None),
        event("recurring.token.created", shopperReference="shopper-\0"),
        event("recurring.token.disabled", storedPaymentMethodId="\0"),
    ],
)
async def test_what_is_signed_and_no_webhook_is_refused(graph, send, body):
    assert (await send(body)).status_code == 400


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"type": None}, "its type is not a string"),
        ({"createdAt": "yesterday"}, "its createdAt is invalid: A time must be ISO 8601 with a UTC offset"),
        ({"environment": "LIVE"}, "its environment is neither test nor live"),
        ({"data": {}}, "it has no data.storedPaymentMethodId"),
        ({"data": {"storedPaymentMethodId": "M5", "shopperReference": 5}}, "its data.shopperReference is not a string"),
    ],
)
async def test_the_log_says_what_is_wrong_with_a_malformed_event(send, logged, change, detail):
    assert (await send(json.dumps(json.loads(event("recurring.token.disabled")) | change))).status_code == 400
    [line] = [line for line in logged if line["event"] == "webhook rejected"]
    assert line["detail"].startswith(detail)


@pytest.mark.parametrize("field", ["type", "createdAt", "environment", "data"])
async def test_the_log_names_the_field_that_a_malformed_event_lacks(send, logged, field):
    body = json.loads(event("recurring.token.disabled"))
    del body[field]
    assert (await send(json.dumps(body))).status_code == 400
    [line] = [line for line in logged if line["event"] == "webhook rejected"]
    assert line["detail"].startswith(f"it has no {field}")


@pytest.mark.parametrize(("key", "gateway", "environment"), [(KEY, "ADYEN", "live"), (OTHER, "ADYEN_TEST", "test")])
async def test_the_key_says_whose_event_it_is_and_the_environment_has_to_be_its(graph, send, key, gateway, environment):
    tokens = {name: await graph.saved("u1", name, "shopper-1") for name in ("ADYEN", "ADYEN_TEST")}
    for sent in ({"live", "test"} - {environment}, {environment}):
        body = event("recurring.token.created", environment=sent.pop())
        assert (await send(body, signed(body, key))).status_code == 200
        verified = {name for name, token in tokens.items() if (await graph.token(token["id"]))["lastVerifiedAt"]}
        assert verified == ({gateway} if f'"{environment}"' in body else set())


async def test_merchant_accounts_count_if_some_are_named(service_with):
    graph = await service_with(adyen_webhook_hmac_key=KEY, adyen_merchant_accounts="adyen:Shop")
    token = await graph.saved("u1", "ADYEN", "M5N7TQ4TG5PFWR50")
    for account, is_active in (("OtherShop", True), (None, True), ("Shop", False)):
        body = event("recurring.token.disabled", merchantAccount=account)
        assert (await graph.client.http.post(PATH, content=body, headers=signed(body))).status_code == 200
        assert (await graph.token(token["id"]))["isActive"] is is_active


@pytest.mark.parametrize("key", ["no hex", KEY[:-2], KEY + "00", f"{KEY},{KEY}", f"ADYEN_EU:{KEY},{KEY}"])
def test_a_key_that_is_none_or_there_twice_is_refused(key):
    with pytest.raises(ValidationError) as refused:
        Settings(database_url="postgresql://x/y", adyen_webhook_hmac_key=key)
    assert KEY[:8] not in str(refused.value)
