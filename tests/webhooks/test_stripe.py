"""Stripe's events: bodies signed by Stripe's own library, replayed, reordered, tampered with, and sent by nobody."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from stripe import WebhookSignature

from graphql_api.domain.errors import UnavailableError
from graphql_api.domain.inputs import Gateways
from graphql_api.observability.metrics import Metrics
from graphql_api.storage.pool import ConnectionPool
from graphql_api.web.uploads import Uploads
from graphql_api.webhooks.endpoint import webhooks
from tests.asgi import Client
from tests.until import until

OLD, NEW, EU = "whsec_of_last_year", "whsec_of_this_year", "whsec_of_another_account"
SECRETS = f"{OLD}, {NEW}, stripe_eu:{EU}"
PATH = "/webhooks/stripe"


def event(kind, customer="cus_1", created=None, **rest):
    """An event as Stripe sends it."""
    return json.dumps(
        {
            "id": "evt_1",
            "object": "event",
            "type": kind,
            "created": int(time.time()) if created is None else created,
            "livemode": True,
            "data": {"object": {"id": customer, "object": "customer", "email": "person@example.org"}},
        }
        | rest,
        indent=2,
    )


def signed(body, secret=NEW, at=None):
    return {"stripe-signature": WebhookSignature.generate_signature_header(body, secret, at)}


@pytest.fixture
async def graph(service_with):
    return await service_with(stripe_webhook_secret=SECRETS)


@pytest.fixture
def send(graph):
    """Sends a body as Stripe would, by the client of nobody in particular."""
    client = Client(graph.client.http._transport.app)

    async def post(body, headers=None, path=PATH):
        return await client.http.post(path, content=body, headers=signed(body) if headers is None else headers)

    return post


async def test_a_deleted_customer_is_deactivated_since_then_by_the_webhook(graph, send):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    at = int(time.time()) + 2
    response = await send(event("customer.deleted", created=at))
    assert (response.status_code, response.json()) == (200, {"received": True})
    inactive = await graph.token(token["id"])
    assert (inactive["isActive"], inactive["deactivationReason"]) == (False, "GATEWAY_DELETED")
    assert datetime.fromisoformat(inactive["deactivatedAt"]) == datetime.fromtimestamp(at, UTC)
    newest = (await graph.history(token))[0]
    assert (newest["action"], newest["actor"], newest["reason"]) == ("DEACTIVATED", "stripe-webhook", "GATEWAY_DELETED")


@pytest.mark.parametrize("kind", ["customer.created", "customer.updated"])
async def test_an_event_of_a_customer_who_is_there_verifies(graph, send, kind):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert (await send(event(kind, created=1_700_000_000))).status_code == 200
    verified = await graph.token(token["id"])
    assert verified == token | {"lastVerifiedAt": "2023-11-14T22:13:20.000000+00:00"}
    assert [line["action"] for line in await graph.history(token)] == ["CREATED"]


async def test_whoever_edits_a_token_does_not_notice_that_it_was_verified_meanwhile(graph, send):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    for created in (1_700_000_000, 1_700_000_001, 1_700_000_000):
        await send(event("customer.updated", created=created))
    edited = (await graph.save("u1", "STRIPE", "cus_1", description="VIP", expectedVersion=1))["gatewayToken"]
    assert (edited["version"], edited["description"]) == (2, "VIP")
    assert [line["action"] for line in await graph.history(token)] == ["UPDATED", "CREATED"]


@pytest.mark.parametrize("seconds", [0, 10, 86_400])
async def test_a_deletion_counts_however_long_before_the_saving_it_happened(graph, send, seconds):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert (await send(event("customer.deleted", created=int(time.time()) - seconds))).status_code == 200
    assert (await graph.token(token["id"]))["deactivationReason"] == "GATEWAY_DELETED"


async def test_a_deletion_that_comes_before_the_saving_counts(graph, send):
    assert (await send(event("customer.deleted", "cus_late"))).status_code == 200
    assert (await graph.saved("late", "STRIPE", "cus_late"))["deactivationReason"] == "GATEWAY_DELETED"


async def test_a_deletion_beside_the_saving_counts_whichever_comes_first(graph, send):
    for number in range(30):
        customer = f"cus_{number}"
        response, saved = await asyncio.gather(
            send(event("customer.deleted", customer)), graph.save(f"u{number}", "STRIPE", customer)
        )
        assert (response.status_code, saved["userErrors"]) == (200, [])
        assert (await graph.customer("STRIPE", customer))["deactivationReason"] == "GATEWAY_DELETED"


async def test_a_later_event_makes_a_deleted_customer_active_again(graph, send):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await send(event("customer.deleted", created=int(time.time()) - 200))
    await send(event("customer.updated", created=int(time.time()) - 80))
    assert (await graph.token(token["id"]))["isActive"] is True
    assert (await graph.history(token))[0]["reason"] == "VERIFIED"


async def test_an_event_from_before_the_last_activation_changes_nothing(graph, send):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    late = event("customer.deleted", created=int(time.time()) - 3600)
    await send(late)
    active = (await graph.activate(token))["gatewayToken"]
    assert (await send(late)).status_code == 200
    assert await graph.token(token["id"]) == active


@pytest.mark.parametrize("created", [4_070_908_800, 253_402_300_799, 253_402_300_800, 10**18, 10**30])
async def test_an_event_of_the_future_is_dated_at_its_arrival(graph, send, created):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    before = datetime.now(UTC)
    assert (await send(event("customer.deleted", created=created))).status_code == 200
    at = datetime.fromisoformat((await graph.token(token["id"]))["deactivatedAt"])
    assert abs(at - before) < timedelta(minutes=5)


OF_OTHERS = {
    "another account's": ({"account": "acct_1Other"}, "account"),
    "another context's": ({"context": "acct_1Other"}, "account"),
    "of an account that is no text": ({"account": {"id": "acct_1"}}, "account"),
    "of test mode": ({"livemode": False}, "mode"),
    "thin, of its first version": ({"object": "v2.core.event", "kind": "v1.customer.deleted", "data": None}, "thin"),
    "thin, by its plain name": ({"object": "v2.core.event", "data": None}, "thin"),
}


@pytest.mark.parametrize("name", OF_OTHERS)
async def test_an_event_of_others_does_nothing_and_is_counted_and_logged_once(graph, send, logged, name):
    rest, reason = OF_OTHERS[name]
    token = await graph.saved("u1", "STRIPE", "cus_1")
    counted = f'gateway_tokens_webhooks_ignored_total{{reason="{reason}",sender="stripe-webhook"}}'

    async def count():
        lines = (await graph.client.http.get("/metrics")).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(counted))

    before = await count()
    for _ in range(5):
        assert (await send(event(**({"kind": "customer.deleted"} | rest)))).status_code == 200
    assert await graph.token(token["id"]) == token
    assert await count() == before + 5
    [line] = [line for line in logged if line["event"] == "webhook ignored"]
    assert (line["gateway"], line["sender"], line["events"]) == ("STRIPE", "stripe-webhook", 1)


async def test_an_account_of_ours_counts_for_its_gateway_alone(service_with):
    graph = await service_with(stripe_webhook_secret=SECRETS, stripe_accounts="stripe:acct_1, STRIPE_EU:acct_2")
    await graph.saved("u1", "STRIPE", "cus_1")

    async def is_active_after(**named):
        body = event("customer.deleted", created=int(time.time()) - 60, **named)
        await graph.client.http.post(PATH, content=body, headers=signed(body))
        token = await graph.customer("STRIPE", "cus_1")
        await graph.saved("u1", "STRIPE", "cus_1", isActive=True)
        return token["isActive"]

    assert await is_active_after(account="acct_2") is True
    assert await is_active_after(account="acct_1", context="acct_2") is True
    assert await is_active_after(account="acct_1", context="acct_1") is False


async def test_test_mode_counts_for_gateways_of_test_mode_alone(service_with):
    secrets = f"{NEW},STRIPE_TEST:{OLD},SANDBOX:{EU}"
    graph = await service_with(stripe_webhook_secret=secrets, test_gateways="sandbox")
    for gateway, secret, mode in (("STRIPE", NEW, True), ("STRIPE_TEST", OLD, False), ("SANDBOX", EU, False)):
        await graph.saved("u1", gateway, "cus_1")
        for livemode in (not mode, mode):
            body = event("customer.deleted", livemode=livemode)
            await graph.client.http.post(PATH, content=body, headers=signed(body, secret))
            assert (await graph.customer(gateway, "cus_1"))["isActive"] is (livemode is not mode)


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        (lambda _: {}, "it is missing"),
        (lambda body: signed(body, at=int(time.time()) - 3600), "it is older than 300 seconds"),
        (lambda body: signed(body, "whsec_of_nobody_here"), "it is invalid"),
    ],
)
async def test_the_log_says_what_is_wrong_with_a_signature_and_the_answer_does_not(send, logged, headers, detail):
    body = event("customer.deleted")
    response = await send(body, headers(body))
    assert response.json() == {"error": "Stripe-Signature is missing, invalid or too old."}
    [line] = [line for line in logged if line["event"] == "webhook rejected"]
    assert line["detail"].startswith(detail)


@pytest.mark.parametrize(
    "body",
    [
        event("customer.deleted", "cus_unknown"),
        event("customer.updated", "cus_unknown"),
        event("customer.deleted", "not an id"),
        event("customer.deleted", ""),
        event("invoice.paid", "in_1"),
        event("customer.subscription.deleted", "sub_1"),
        event("customer.source.deleted", "cus_1"),
        json.dumps({"type": "something.new"}),
        json.dumps({"object": "v2.core.event", "type": "v2.core.account.created"}),
    ],
)
async def test_what_is_none_of_ours_is_taken_and_changes_nothing(graph, send, body):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    assert (await send(body)).status_code == 200
    assert await graph.token(token["id"]) == token


async def test_an_event_for_a_former_customer_leaves_the_current_one_alone(graph, send):
    await graph.saved("u1", "STRIPE", "cus_1")
    token = await graph.saved("u1", "STRIPE", "cus_2", replaces="cus_1")
    for kind in ("customer.deleted", "customer.updated"):
        assert (await send(event(kind, "cus_1"))).status_code == 200
    assert await graph.token(token["id"]) == token


GOOD = event("customer.deleted")
NOT_GENUINE = {
    "no signature": (GOOD, {}),
    "an empty one": (GOOD, {"stripe-signature": ""}),
    "of nonsense": (GOOD, {"stripe-signature": "nonsense"}),
    "without a time": (GOOD, {"stripe-signature": signed(GOOD)["stripe-signature"].split(",")[1]}),
    "with another time": (GOOD, {"stripe-signature": signed(GOOD)["stripe-signature"].replace("t=1", "t=2")}),
    "of another scheme": (GOOD, {"stripe-signature": signed(GOOD)["stripe-signature"].replace("v1=", "v0=")}),
    "by another secret": (GOOD, signed(GOOD, "whsec_of_nobody")),
    "by no secret": (GOOD, signed(GOOD, "")),
    "by the setting's own text": (GOOD, signed(GOOD, f"STRIPE_EU:{EU}")),
    "of another body": (GOOD.replace("cus_1", "cus_2"), signed(GOOD)),
    "of the body but for a space": (GOOD + " ", signed(GOOD)),
    "of last hour": (GOOD, signed(GOOD, at=int(time.time()) - 3600)),
    "not in UTF-8": (GOOD.encode() + b"\xff", signed(GOOD)),
    "not in ASCII": (GOOD, {"stripe-signature": signed(GOOD)["stripe-signature"].encode() + b"\xe9"}),
}


@pytest.mark.parametrize("name", NOT_GENUINE)
async def test_what_is_not_signed_rightly_is_refused(graph, send, name):
    body, headers = NOT_GENUINE[name]
    tokens = [await graph.saved("u1", "STRIPE", "cus_1"), await graph.saved("u2", "STRIPE", "cus_2")]
    response = await send(body, headers)
    assert response.status_code == 400
    assert "Stripe-Signature" in response.json()["error"]
    assert [await graph.token(token["id"]) for token in tokens] == tokens


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "5",
        "{}",
        json.dumps({"type": ["customer.deleted"]}),
        event("customer.deleted", created="yesterday"),
        event("customer.deleted", created=True),
        event("customer.deleted", created=1_700_000_000.5),
        event("customer.deleted", livemode=None),
        event("customer.deleted", livemode="true"),
        event("customer.deleted", livemode=1),
        event("customer.deleted").replace('"livemode": true,', ""),
        event("customer.deleted", object="charge"),
        event("customer.deleted", data={"object": {"id": "cus_1", "object": "source"}}),
        event("customer.deleted", created=None, data=None),
        event("customer.deleted", data={"object": "cus_1"}),
        event("customer.deleted", created=-1),
        event("customer.deleted", created=-(10**30)),
        event("customer.deleted", 5),
        event("customer.deleted", "cus_\0"),
        event("customer.updated", "cus_\ud800"),
        event("customer.deleted", account="acct_\0"),
    ],
)
async def test_what_is_signed_and_no_event_is_refused(graph, send, body):
    response = await send(body)
    assert response.status_code == 400
    assert response.json() == {"error": "The event is malformed."}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"type": None}, "its type is not a string"),
        ({"created": "yesterday"}, "its created is invalid: A time in seconds must be a whole number"),
        ({"livemode": 1}, "its livemode is not a boolean"),
        ({"data": {"object": {}}}, "it has no data.object.id"),
        ({"data": {"object": {"id": "cus_1", "object": "source"}}}, "it is not an event about a customer"),
        ({"data": {"object": {"id": "cus_\0"}}}, "the customer's id has a character that cannot be stored"),
        ({"account": "acct_\0"}, "the account has a character that cannot be stored"),
    ],
)
async def test_the_log_says_what_is_wrong_with_a_malformed_event(send, logged, change, detail):
    assert (await send(json.dumps(json.loads(event("customer.deleted")) | change))).status_code == 400
    [line] = [line for line in logged if line["event"] == "webhook rejected"]
    assert line["detail"].startswith(detail)


@pytest.mark.parametrize("field", ["type", "created", "livemode", "data"])
async def test_the_log_names_the_field_that_a_malformed_event_lacks(send, logged, field):
    body = json.loads(event("customer.deleted"))
    del body[field]
    assert (await send(json.dumps(body))).status_code == 400
    [line] = [line for line in logged if line["event"] == "webhook rejected"]
    assert line["detail"].startswith(f"it has no {field}")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "Nonsense"])
async def test_a_compressed_event_is_refused(graph, send, coding):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    body = event("customer.deleted")
    response = await send(body, signed(body) | {"content-encoding": coding})
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
    assert await graph.token(token["id"]) == token
    assert (await send(body, signed(body) | {"content-encoding": "Identity"})).status_code == 200
    assert not (await graph.token(token["id"]))["isActive"]


async def test_a_deletion_in_the_second_of_an_activation_counts_unless_it_came_before(graph, send):
    """Stripe dates events by whole seconds."""
    token = await graph.saved("u1", "STRIPE", "cus_1")
    await graph.activate(token)
    deleted = event("customer.deleted", created=int(time.time()))
    await send(deleted)
    assert not (await graph.token(token["id"]))["isActive"]
    active = (await graph.activate(token))["gatewayToken"]
    await send(deleted)
    assert await graph.token(token["id"]) == active


@pytest.mark.parametrize("secret", [OLD, NEW])
async def test_two_secrets_are_good_while_one_takes_the_others_place(graph, send, secret):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    body = event("customer.deleted")
    assert (await send(body, signed(body, secret))).status_code == 200
    assert (await graph.token(token["id"]))["isActive"] is False


async def test_the_secret_says_whose_event_it_is_and_the_address_does_not(graph, send):
    """One customer id at two accounts: the signature tells them apart."""
    here, there = await graph.saved("u1", "STRIPE", "cus_1"), await graph.saved("u1", "STRIPE_EU", "cus_1")
    body = event("customer.deleted")
    assert (await send(body, signed(body, EU), f"{PATH}?gateway=STRIPE")).status_code == 200
    assert await graph.token(here["id"]) == here
    assert (await graph.token(there["id"]))["isActive"] is False
    assert (await send(body, signed(body, EU), f"{PATH}/STRIPE")).status_code == 404


async def test_the_same_event_twice_and_at_once_is_one_change(graph, send):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    body = event("customer.deleted")
    for response in await asyncio.gather(*(send(body) for _ in range(20))):
        assert response.status_code == 200
    assert [line["version"] for line in await graph.history(token)] == [2, 1]


kinds = st.sampled_from(["customer.created", "customer.updated", "customer.deleted", "invoice.paid"])
events = st.lists(st.tuples(kinds, st.integers(-3, 5)), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events.flatmap(lambda some: st.permutations([*some, *some[:2]]).map(lambda again: (some, again))))
async def test_events_in_any_order_end_in_the_same_state(graph, send, connection, orders):
    ends = []
    for order in orders:
        await connection.execute(
            "truncate customer_gateway_tokens, gateway_customers, customer_gateway_token_events,"
            " gateway_customer_reports"
        )
        token = await graph.saved("u1", "STRIPE", "cus_1")
        for kind, seconds in order:
            await send(event(kind, created=1_700_000_000 + seconds))
        end = await graph.token(token["id"])
        ends.append([end[name] for name in ("isActive", "deactivatedAt", "deactivationReason", "lastVerifiedAt")])
    assert ends[0] == ends[1]


async def test_there_is_no_page_where_no_secret_is_set(service_with):
    graph = await service_with()
    for path in (PATH, "/webhooks/adyen"):
        assert (await graph.client.http.post(path, content=GOOD, headers=signed(GOOD))).status_code == 404


async def test_only_a_post_is_an_event(graph):
    assert (await graph.client.http.get(PATH)).status_code == 405


async def test_an_event_that_is_too_large_is_refused_while_it_is_read(service_with):
    graph = await service_with(stripe_webhook_secret=NEW, max_body_bytes=10_000)
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 1000

    response = await graph.client.http.post(PATH, content=chunks())
    assert response.status_code == 413
    assert sent <= 20
    fits = event("customer.deleted", description="x" * 9000)
    assert (await graph.client.http.post(PATH, content=fits, headers=signed(fits))).status_code == 200


@pytest.mark.parametrize("pause", [0.01, None])
async def test_an_event_that_does_not_arrive_in_time_is_given_up(pause):
    """Whether it stops, or goes on byte by byte."""
    routes = webhooks(gateways=Gateways(), max_body_bytes=10_000, max_body_seconds=0.05, stripe=SECRETS.split(","))
    pages, waits = Starlette(routes=routes), asyncio.Event()

    async def app(scope, receive, send):
        state = {"metrics": Metrics("of a test"), "uploads": Uploads(10_000)}
        await pages({**scope, "state": state}, receive, send)

    async def chunks():
        yield b"{"
        if pause is None:
            await waits.wait()
        for _ in range(9000):
            await asyncio.sleep(pause)
            yield b" "

    response = await asyncio.wait_for(Client(app).http.post(PATH, content=chunks()), 5)
    assert response.status_code == 408


async def test_the_webhook_needs_no_access_token_and_is_given_no_more_than_it_needs(graph, send, as_user):
    token = await graph.saved("u1", "STRIPE", "cus_1")
    body = event("customer.deleted")
    assert (await send(body, signed(body) | {"authorization": "Bearer nonsense"})).status_code == 200
    assert (await graph.token(token["id"]))["isActive"] is False


async def test_while_the_database_cannot_be_asked_stripe_is_told_to_come_again(graph, send, monkeypatch):
    async def unavailable(*_):
        raise UnavailableError("The database cannot be reached.")

    monkeypatch.setattr(ConnectionPool, "fetch", unavailable)
    response = await send(event("customer.deleted"))
    assert response.status_code == 503
    assert response.json() == {"error": "The database is unavailable right now. Send the event again."}


async def test_an_event_whose_token_is_locked_is_answered_within_the_time_of_a_request(service_with, connection):
    hasty = await service_with(stripe_webhook_secret=SECRETS, request_timeout=0.5, database_timeout=60)
    graph = await service_with()
    token = await graph.saved("u1", "STRIPE", "cus_1")
    body = event("customer.deleted")

    async def status():
        return (
            await Client(hasty.client.http._transport.app).http.post(PATH, content=body, headers=signed(body))
        ).status_code

    async with connection.transaction():
        await connection.execute("select from customer_gateway_tokens for update")
        assert await asyncio.wait_for(status(), 30) == 503

    async def is_taken():
        return await status() == 200

    await until(is_taken, "an event is applied that is sent again")
    assert (await graph.token(token["id"]))["isActive"] is False


def test_stripes_library_is_loaded_by_the_first_event_and_not_before():
    code = """if True:
        import sys
        from graphql_api.domain.inputs import Gateways
        from graphql_api.webhooks import WebhookEndpoint, webhooks
        endpoint = WebhookEndpoint("STRIPE", "whsec_1", frozenset(), False)
        pages = webhooks(gateways=Gateways(), max_body_bytes=1, stripe=[endpoint])
        assert len(pages) == 1 and "stripe" not in sys.modules
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
