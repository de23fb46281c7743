"""What Prometheus collects: from the running service, and from the metrics alone where it takes many names."""

import hmac
import os
import signal
import subprocess
import sys
from base64 import b64encode

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from graphql_api.app import create_app
from graphql_api.observability.metrics import MAX_OPERATIONS, Metrics, Reading
from graphql_api.settings import Settings
from tests.asgi import Client, opened
from tests.until import until_sync

NOTHING = Reading(**dict.fromkeys(Reading._fields, 0) | {"engine_fallbacks": {}, "replicas": {}})


ENTITIES = "query E($r: [_Any!]!) { _entities(representations: $r) { ... on User { gatewayTokens { id } } } }"


def samples(text):
    """Name and labels → value."""
    return {
        (sample.name.removeprefix("gateway_tokens_"), *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def collected(client):
    response = await client.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(response.text)


async def grown(client, work):
    """By how much each figure grew during the work."""
    before = await collected(client)
    await work()
    return {key: value - before.get(key, 0) for key, value in (await collected(client)).items()}


async def test_a_request_counts_by_operation_kind_and_outcome(as_service, client):
    service = as_service("gateway-tokens:read")

    async def work():
        for _ in range(3):
            await service("query Hello { __typename }")
        await service("query Hello { nonsense }")
        await client.http.post("/graphql", content=b"{")

    counts = await grown(client, work)
    assert counts["request_duration_seconds_count", "Hello", "ok", "query"] == 3
    assert counts["request_duration_seconds_count", "", "", "GRAPHQL_VALIDATION_FAILED"] == 1
    assert counts["request_duration_seconds_count", "", "", "UNSUPPORTED_MEDIA_TYPE"] == 1
    assert 0 < counts["request_duration_seconds_sum", "Hello", "ok", "query"] < 5


async def test_a_limit_that_is_met_counts_by_the_variable_that_sets_it(as_service, client):
    service = as_service("gateway-tokens:read")
    aliases = " ".join(f"a{number}: __typename" for number in range(40))
    tokens = " ".join(["__typename"] * 2000)
    representations = [{"__typename": "User", "id": "u"}] * 2001

    async def work():
        await service(f"{{ {aliases} }}")
        await service(f"{{ {tokens} }}")
        await service(ENTITIES, r=representations)
        await service.http.post("/graphql", json={"query": "{ __typename }", "variables": {"x": "x" * 2**20}})

    counts = await grown(client, work)
    limits = {limit: count for (name, *labels), count in counts.items() if name == "limits_total" for limit in labels}
    assert {limit for limit, count in limits.items() if count == 1} == {
        "MAX_ALIASES",
        "MAX_TOKENS",
        "MAX_REPRESENTATIONS",
        "MAX_BODY_BYTES",
    }
    assert counts["request_duration_seconds_count", "", "", "DOCUMENT_TOO_COMPLEX"] == 1
    assert counts["request_duration_seconds_count", "DOCUMENT_TOO_COMPLEX", "other", "query"] == 1


async def test_names_from_callers_without_an_access_token_are_not_told_apart(client):
    counts = await grown(client, lambda: client("query FromNobody { __typename }"))
    assert counts["request_duration_seconds_count", "ok", "other", "query"] == 1
    assert not any("FromNobody" in key for key in counts)


async def test_batches_statements_and_remembered_access_tokens_count(as_service, client):
    service = as_service("gateway-tokens:read")
    users = [{"__typename": "User", "id": f"u{number}"} for number in range(7)]

    async def work():
        for _ in range(2):
            await service(ENTITIES, r=users)

    counts = await grown(client, work)
    for field in ("Query._entities", "User.gatewayTokens"):
        assert counts["batch_size_count", field] == 2
        assert counts["batch_size_sum", field] == 14
    assert counts["statement_duration_seconds_count", "of_users_as_json"] == 2
    assert counts["token_cache_total", "miss"] <= 1 <= counts["token_cache_total", "hit"]
    figures = await collected(client)
    assert figures["database_connections", "idle"] >= 1
    assert figures["database_connections_max",] == 10
    assert figures["database_waiting",] == figures["database_away",] == 0


async def test_the_metrics_need_no_access_token_and_no_database(client):
    assert "build_info" in {key[0] for key in await collected(client)}


def test_only_so_many_names_are_told_apart():
    metrics = Metrics("1")
    for number in range(MAX_OPERATIONS + 50):
        metrics.request(f"Operation{number}", "query", "ok", 0.001, teaches=True)
    counts = samples(metrics.text().decode())
    names = {key for key in counts if key[0] == "request_duration_seconds_count"}
    assert len(names) == MAX_OPERATIONS + 1
    assert counts["request_duration_seconds_count", "ok", "other", "query"] == 50


async def test_what_is_counted_elsewhere_is_taken_when_asked_for():
    metrics, fallbacks = Metrics("1"), {}
    async with metrics.following(lambda: NOTHING._replace(connections_lost=2, engine_fallbacks=fallbacks)):
        fallbacks["too many fields"] = 3
        assert samples(metrics.text().decode())["engine_fallbacks_total", "too many fields"] == 3
        fallbacks["too many fields"] = 5
        counts = samples(metrics.text().decode())
    assert counts["engine_fallbacks_total", "too many fields"] == 5
    assert counts["database_losses_total",] == 2


async def test_every_field_that_is_loaded_for_many_at_once_counts(graph, client):
    await graph.save("u1", "STRIPE", "cus_1")
    query = """{ customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1") {
      formerGatewayCustomerIds history { nodes { action } } user { gatewayToken(gateway: "STRIPE") { id } } } }"""
    counts = await grown(client, lambda: graph.client(query))
    for field in (
        "CustomerGatewayToken.formerGatewayCustomerIds",
        "CustomerGatewayToken.history",
        "User.gatewayToken",
    ):
        assert counts["batch_size_count", field] == 1, field


async def test_a_transaction_counts_its_beginning_its_statements_and_its_end(graph, client):
    counts = await grown(client, lambda: graph.save("u1", "STRIPE", "cus_1"))
    for statement in ("begin", "insert", "record", "reserve", "commit"):
        assert counts["statement_duration_seconds_count", statement] == 1, statement


async def test_a_statement_that_takes_too_long_counts(empty_database, connection):
    app = create_app(Settings(database_url=empty_database, auth_mode="disabled", database_timeout=0.2))
    async with opened(app) as running, connection.transaction():
        client = Client(running)
        await connection.execute("lock table customer_gateway_tokens")
        counts = await grown(client, lambda: client("{ customerGatewayTokens { nodes { id } } }"))
    assert counts["limits_total", "DATABASE_TIMEOUT"] == 1


async def test_an_event_of_a_gateway_counts_by_the_status_of_the_answer(empty_database):
    app = create_app(Settings(database_url=empty_database, auth_mode="disabled", adyen_webhook_hmac_key="00"))
    genuine = b64encode(hmac.digest(b"\0", b'{"type": "something.new"}', "sha256")).decode()
    async with opened(app) as running:
        client = Client(running)

        async def work():
            for signature in (genuine, "wrong", "wrong"):
                await client.http.post(
                    "/webhooks/adyen", content=b'{"type": "something.new"}', headers={"hmacsignature": signature}
                )

        counts = await grown(client, work)
    assert counts["webhooks_total", "200", "adyen-webhook"] == 1
    assert counts["webhooks_total", "400", "adyen-webhook"] == 2


async def test_a_database_that_is_away_is_told_as_soon_as_somebody_noticed():
    app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", auth_mode="disabled"))
    async with opened(app) as running:
        client = Client(running)
        assert (await collected(client))["database_away",] == 0
        assert (await client('{ customerGatewayTokenByCustomer(gateway: "S", gatewayCustomerId: "c") { id } }'))[
            "errors"
        ]
        assert (await collected(client))["database_away",] == 1


@pytest.fixture
def workers(database_url, tmp_path):
    """The service with two workers."""
    environment = {**os.environ, "DATABASE_URL": database_url, "AUTH_MODE": "disabled", "LOG_LEVEL": "error"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "graphql_api", "serve", "--port", "0", "--workers", "2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    line = process.stdout.readline().decode()
    yield line.split()[1].removesuffix("/graphql")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stdout.close()


def test_whichever_worker_is_asked_tells_what_all_of_them_did(workers):
    def count():
        with httpx.Client(base_url=workers) as http:
            found = samples(http.get("/metrics").text)
        return found.get(("request_duration_seconds_count", "Hi", "ok", "query"), 0)

    for asked in range(1, 31):
        with httpx.Client(base_url=workers) as http:  # a new connection, which the kernel hands to either worker
            assert http.post("/graphql", json={"query": "query Hi { __typename }"}).status_code == 200
            # The answer is sent before it is counted.
            until_sync(lambda asked=asked: count() >= asked, "the request is counted")
    assert [count() for _ in range(10)] == [30] * 10
