"""What Prometheus collects: from the running service, and from the metrics alone where it takes many names."""

import hmac
import os
import signal
import subprocess
import sys
from base64 import b64encode
from contextlib import contextmanager

import asyncpg
import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from graphql_api import __version__
from graphql_api.app import create_app
from graphql_api.domain.errors import UnavailableError
from graphql_api.observability.metrics import MAX_OPERATIONS, Metrics, Reading
from graphql_api.observability.shared_memory import MAX_MESSAGE_BYTES, SharedMemory
from graphql_api.schema import build_schema
from graphql_api.settings import Settings
from graphql_api.storage.database_metrics import DatabaseMetrics
from tests.asgi import Client, opened
from tests.until import until, until_sync

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


async def test_what_checks_of_gateways_found_is_read_from_the_database(service_with, connection):
    await connection.execute(
        "insert into gateway_checks values ('STRIPE', null, to_timestamp(90), to_timestamp(60), 1, 2, 3, 4, 5),"
        " ('MOLLIE', null, null, null, 7, 0, 0, 0, 0)"
    )
    found = await collected((await service_with()).client)
    assert {key[1:]: value for key, value in found.items() if key[0] == "checks_total" and "STRIPE" in key} == {
        ("STRIPE", "verified"): 1,
        ("STRIPE", "gone"): 2,
        ("STRIPE", "unknown"): 3,
        ("STRIPE", "unanswered"): 4,
        ("STRIPE", "throttled"): 5,
    }
    assert found["check_finished_timestamp_seconds", "STRIPE"] == 90
    assert found["check_oldest_timestamp_seconds", "STRIPE"] == 60
    assert ("check_oldest_timestamp_seconds", "MOLLIE") not in found


async def test_what_the_feed_and_its_endpoints_are_behind_is_read_from_the_database(service_with, connection):
    graph = await service_with()
    await graph.saved("u1", "STRIPE", "cus_1")
    await connection.execute("update customer_gateway_token_events set at = at - interval '1 hour'")
    await connection.execute(
        "insert into event_endpoints (name, position, disabled_at) values ('old', 0, now()), ('new', 1, null)"
    )
    found = await collected(graph.client)
    assert 3600 <= found["event_delivery_lag_seconds", "old"] < 3700
    assert found["event_endpoint_disabled", "old"] == 1
    assert found["event_delivery_lag_seconds", "new"] == found["event_endpoint_disabled", "new"] == 0
    assert found[("event_feed_lag_seconds",)] == 0


async def test_whichever_worker_is_asked_an_endpoint_that_was_removed_is_not_behind(database_url, workers):
    """Another worker may have read of it, and may not be asked again."""
    connection = await asyncpg.connect(database_url)

    def behind(http):
        return ("event_delivery_lag_seconds", "removed") in samples(http.get("/metrics").text)

    await connection.execute("insert into event_endpoints (name, position) values ('removed', 0)")
    with httpx.Client(base_url=workers) as http:
        await until(lambda: behind(http), "the endpoint is known")
        for _ in range(20):  # the kernel hands each connection to either worker
            with httpx.Client(base_url=workers) as other:
                behind(other)
        await connection.execute("delete from event_endpoints where name = 'removed'")
        await until(lambda: not behind(http), "the endpoint is unknown")
    await connection.close()


@pytest.mark.parametrize(
    "error", [UnavailableError("away"), asyncpg.UndefinedTableError("not migrated"), TimeoutError(), OSError()]
)
async def test_without_a_database_there_are_the_other_metrics(error):
    async def read():
        raise error

    await DatabaseMetrics(read, interval_seconds=0, timeout_seconds=60).refresh()


async def test_a_limit_that_is_met_counts_by_the_variable_that_sets_it(as_service, client):
    service = as_service("gateway-tokens:read")
    aliases = " ".join(f"a{number}: __typename" for number in range(301))
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
    async with metrics.collecting(lambda: NOTHING._replace(connections_lost=2, engine_fallbacks=fallbacks)):
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
    app = create_app(Settings(database_url=empty_database, auth_mode="disabled", adyen_webhook_hmac_key="00" * 32))
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
        assert (await client('{ customerGatewayTokenByCustomer(gateway: "S", gatewayCustomerId: "c") { id } }'))[
            "errors"
        ]
        assert (await collected(client))["database_away",] == 1


@contextmanager
def two_workers(database_url, tmp_path, *before):
    """The service with two workers, whose command stands behind others."""
    environment = {**os.environ, "DATABASE_URL": database_url, "AUTH_MODE": "disabled", "LOG_LEVEL": "error"}
    environment["DRAIN_SECONDS"] = "0"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "graphql_api", "serve", "--port", "0", "--workers", "2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with process.stdout as stdout:
        try:
            yield stdout.readline().decode().split()[1].removesuffix("/graphql")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


@pytest.fixture
def workers(database_url, tmp_path):
    with two_workers(database_url, tmp_path) as url:
        yield url


# In a mount namespace of its own, to which a user without privileges may be denied the right.
ISOLATED = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
FILLED = (
    "mount -t tmpfs -o size=64k none /dev/shm && { head -c 1000000 /dev/zero > /dev/shm/full 2> /dev/null;"
    ' ! echo x 2> /dev/null > /dev/shm/more; } && exec "$@"'
)


def may_mount():
    return subprocess.run([*ISOLATED, FILLED, "sh", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a file system")
def test_a_shared_memory_that_is_full_costs_nothing(database_url, tmp_path):
    with two_workers(database_url, tmp_path, *ISOLATED, FILLED, "sh") as url:
        ask(url, 4)
        until_counted(url, 4)


def counted(url):
    with httpx.Client(base_url=url) as http:  # a new connection, which the kernel hands to either worker
        found = samples(http.get("/metrics").text)
    return found.get(("request_duration_seconds_count", "Hi", "ok", "query"), 0), found


def ask(url, times):
    for _ in range(times):
        with httpx.Client(base_url=url) as http:
            assert http.post("/graphql", json={"query": "query Hi { __typename }"}).status_code == 200


def until_counted(url, wanted):
    """What is told as soon as ten answers in a row, of either worker, have this count."""

    def settled():
        answers = [counted(url) for _ in range(10)]
        assert all(count <= wanted for count, _ in answers)
        return all(count == wanted for count, _ in answers) and answers[-1][1]

    return until_sync(settled, f"{wanted} requests are counted")


def test_whichever_worker_is_asked_tells_what_all_of_them_did(workers):
    ask(workers, 30)
    found = until_counted(workers, 30)
    assert found["database_connections_max",] == 20
    assert found["build_info", __version__] == 1
    assert found["process_cpu_seconds_total",] > 0
    assert found["process_resident_memory_bytes",] > 50e6


def is_serving(process):
    return process.status() != psutil.STATUS_ZOMBIE and "serve" in process.cmdline()


def test_what_a_worker_counted_outlives_it_and_what_was_true_of_it_does_not(workers):
    ask(workers, 20)
    found = until_counted(workers, 20)
    started = found["process_start_time_seconds",]
    (supervisor,) = (each for each in psutil.Process().children() if is_serving(each))
    for number, worker in enumerate(supervisor.children(), 1):
        worker.kill()
        ask(workers, 1)  # answered by the other one, or by the replacement
        found = until_counted(workers, 20 + number)
    assert found["database_connections_max",] == 20
    assert found["process_start_time_seconds",] > started


@pytest.mark.slow
def test_workers_leave_no_file_in_shared_memory(workers):
    ask(workers, 4)
    until_counted(workers, 4)
    (supervisor,) = (each for each in psutil.Process().children() if is_serving(each))
    for process in (supervisor, *supervisor.children()):
        held = [mapped.path for mapped in process.memory_maps()] + [file.path for file in process.open_files()]
        assert not [path for path in held if path.startswith("/dev/shm/")]  # noqa: S108


def test_of_a_message_that_does_not_fit_the_one_before_stays():
    with SharedMemory.open(2) as memory:
        slot = memory.take_slot()
        assert memory.read(slot) == b""
        for message in (b"one", b"two", b"three"):
            assert memory.write(slot, message)
            assert memory.read(slot) == message
        assert not memory.write(slot, b"x" * (MAX_MESSAGE_BYTES + 1))
        assert memory.read(slot) == b"three"
        assert [*memory.others(slot)] == []
        assert [*memory.others(None)] == [(slot, b"three")]


async def test_a_user_error_of_a_mutation_counts_by_its_code(graph, client):
    """With an alias, and although the caller does not select the code."""
    query = """mutation($card: String!, $id: ID!) {
      a: createCustomerGatewayToken(input: {userId: "u1", gateway: "S", gatewayCustomerId: $card}) { user { id } }
      activateCustomerGatewayToken(id: $id) { user { id } } }"""
    variables = {"card": "4111111111111111", "id": "00000000-0000-0000-0000-000000000000"}
    counts = await grown(client, lambda: graph.client(query, **variables))
    assert counts["user_errors_total", "CARD_NUMBER", "createCustomerGatewayToken"] == 1
    assert counts["user_errors_total", "NOT_FOUND", "activateCustomerGatewayToken"] == 1


def test_every_mutation_counts_its_user_errors():
    mutations = build_schema()._schema.mutation_type.fields
    uncounted = [name for name, field in mutations.items() if not hasattr(resolver_of(field), "__wrapped__")]
    assert mutations
    assert not uncounted


def resolver_of(field):
    return field.extensions["strawberry-definition"].base_resolver.wrapped_func
