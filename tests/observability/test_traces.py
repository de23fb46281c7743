"""Traces as a collector gets them: another process, to which the running service sends what it does."""

import asyncio
import re
import secrets
import socket
import subprocess
import sys

import asyncpg
import pytest

from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from tests.conftest import AUTH_SECRET
from tests.observability.conftest import collecting
from tests.until import until

FIND = """query Find($c: String!) {
  customerGatewayTokenByCustomer(gateway: "STRIPE", gatewayCustomerId: $c) { userId metadata } }"""
SAVE = """mutation Save($input: SaveCustomerGatewayTokenInput!) {
  saveCustomerGatewayToken(input: $input) { created userErrors { message } } }"""
TOKEN = {"userId": "u-secret-1", "gateway": "STRIPE", "gatewayCustomerId": "cus_secret2"}


class Caller:
    """Somebody who asks, as a gateway does on behalf of a trace."""

    def __init__(self, http, service):
        self._http = http
        self._url = service.url
        self.token = mint(AUTH_SECRET, "a-service", [ADMIN_SCOPE])

    async def __call__(self, query, *, flags="01", headers=(), **variables):
        """Ask in a new trace; given is its id, and the id of the gateway's span."""
        trace, parent = secrets.token_hex(16), secrets.token_hex(8)
        traceparent = f"00-{trace}-{parent}-{flags}"
        sent = {"authorization": f"Bearer {self.token}", "traceparent": traceparent, **dict(headers)}
        body = {"query": query, "variables": variables}
        (await self._http.post(f"{self._url}/graphql", json=body, headers=sent)).raise_for_status()
        return trace, parent


@pytest.fixture(scope="module")
def service(serving, collector):
    """The service that most tests ask, which sends its spans at once."""
    return serving(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
        OTEL_BSP_SCHEDULE_DELAY="50",
        STRIPE_WEBHOOK_SECRET="whsec_of_the_tests",
        DATABASE_TIMEOUT="0.5",
    )


@pytest.fixture
def ask(http, service, empty_database):
    return Caller(http, service)


async def test_a_request_is_a_trace_below_the_gateways_span(ask, collector):
    query = FIND.replace("Find", "FindFirst")
    trace, gateway = await ask(query, headers={"x-request-id": "my-request"}, c="cus_1")
    spans = await collector.trace(trace)
    assert [*spans] == [
        "graphql.parse",
        "graphql.validate",
        "graphql.compile",
        "by_current_customers",
        "by_customers",
        "graphql.execute",
        "query FindFirst",
    ]
    request, execution = spans["query FindFirst"], spans["graphql.execute"]
    assert (request["kind"], request["parent"], request["status"]) == ("SERVER", gateway, "UNSET")
    assert request["attributes"] == {
        "http.request.method": "POST",
        "url.path": "/graphql",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "graphql.operation.type": "query",
        "graphql.operation.name": "FindFirst",
        "gateway_tokens.outcome": "ok",
        "gateway_tokens.request_id": "my-request",
    }
    parents = {name: span["parent"] for name, span in spans.items()}
    assert {parents[name] for name in ("graphql.parse", "graphql.validate", "graphql.execute")} == {request["id"]}
    assert {parents[name] for name in ("graphql.compile", "by_current_customers", "by_customers")} == {execution["id"]}
    statement = spans["by_current_customers"]
    assert statement["kind"] == "CLIENT"
    assert statement["attributes"] == {"db.system.name": "postgresql", "db.query.summary": "by_current_customers"}
    assert request["began"] <= execution["began"] <= statement["began"]
    assert statement["ended"] <= execution["ended"] <= request["ended"]


async def test_a_document_that_is_known_is_not_parsed_again(ask, collector):
    query = FIND.replace("Find", "FindTwice")
    await ask(query, c="cus_1")
    trace, _ = await ask(query, c="cus_1")
    assert [*await collector.trace(trace)] == [
        "by_current_customers",
        "by_customers",
        "graphql.execute",
        "query FindTwice",
    ]


async def test_a_mutation_shows_its_transaction(ask, collector):
    trace, _ = await ask(SAVE, input=TOKEN)
    spans = await collector.trace(trace)
    assert {"begin", "insert", "record", "reserve", "commit"} <= spans.keys()
    execution = spans["graphql.execute"]["id"]
    assert all(span["parent"] == execution for span in spans.values() if span["kind"] == "CLIENT")


async def test_nothing_that_was_sent_is_in_a_span(ask, collector):
    await ask(SAVE, input={**TOKEN, "description": "a secret3", "metadata": {"note": "secret4"}})
    await ask(SAVE, input={**TOKEN, "userId": "u-secret-5"})  # the customer is another user's
    await ask(FIND, c="cus_secret2")
    await ask('{ customerGatewayTokenByCustomer(gateway: "secret-6", gatewayCustomerId: "x") { userId } }')
    await ask("query _4111111111111111 { __typename }", headers={"baggage": "key=secret7", "cookie": "secret8"})
    await ask('{ nonsense(id: "secret9") }')
    headers = {"authorization": "Bearer " + mint(AUTH_SECRET, "secret10")}
    trace, _ = await ask("query Last { __typename }", headers=headers)
    await collector.trace(trace)
    received = str(collector.spans)
    for one in ("secret", "4111111111111111", ask.token[:20], "a-service"):
        assert one not in received
    assert "query _…" in received


async def test_only_what_the_gateway_samples_is_sent(ask, collector):
    await ask("query Unsampled { __typename }", flags="00")
    trace, _ = await ask("query Sampled { __typename }")
    await collector.trace(trace)
    assert "Unsampled" not in str(collector.spans)


async def test_requests_that_share_a_statement_have_it_in_each_of_their_traces(
    http, serving, collector, empty_database, database_url
):
    service = serving(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
        OTEL_BSP_SCHEDULE_DELAY="50",
        DATABASE_TIMEOUT="60",
        REQUEST_TIMEOUT="60",
    )
    ask = Caller(http, service)

    async def all_wait():
        return "requests_in_flight 30.0" in (await http.get(f"{service.url}/metrics")).text

    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("lock table customer_gateway_tokens in access exclusive mode")
        asking = asyncio.gather(*(ask(FIND, c=f"cus_{number}") for number in range(30)))
        await until(all_wait, "all requests wait, of which no more than a few have a statement of their own")
    await connection.close()
    traces = await asking
    statements = []
    for trace, _ in traces:
        spans = await collector.trace(trace)
        statements.append(spans["by_current_customers"])
        assert statements[-1]["parent"] == spans["graphql.execute"]["id"]
    assert len({(span["began"], span["ended"]) for span in statements}) < len(statements)
    assert service.end() == 0


async def test_what_fails_is_marked_without_a_word_of_why(ask, collector, database_url):
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("lock table customer_gateway_tokens in access exclusive mode")
        trace, _ = await ask(FIND, c="cus_1")
    await connection.close()
    spans = await collector.trace(trace)
    for name, kind in (("by_current_customers", "TimeoutError"), ("query Find", "UNAVAILABLE")):
        assert (spans[name]["status"], spans[name]["message"]) == ("ERROR", "")
        assert spans[name]["attributes"]["error.type"] == kind
        assert spans[name]["events"] == []


async def test_what_the_caller_did_wrong_is_no_error_of_the_service(ask, collector):
    trace, _ = await ask("{ nonsense }")
    request = (await collector.trace(trace))["POST /graphql"]
    assert request["status"] == "UNSET"
    assert request["attributes"]["gateway_tokens.outcome"] == "GRAPHQL_VALIDATION_FAILED"


async def test_a_webhook_is_traced_and_a_probe_is_not(service, collector, http):
    for path in ("healthz", "readyz", "metrics", "nowhere"):
        await http.get(f"{service.url}/{path}")
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    await http.post(f"{service.url}/webhooks/stripe", content=b"{}", headers=headers)
    span = (await collector.trace(trace))["POST /webhooks/stripe"]
    assert span["attributes"]["http.response.status_code"] == 400
    assert {each["attributes"]["url.path"] for each in collector.spans if each["kind"] == "SERVER"} <= {
        "/graphql",
        "/webhooks/stripe",
    }


async def test_a_line_of_the_log_bears_the_id_of_its_trace(service, ask, http):
    known = len(service.log("request"))
    sampled, _ = await ask("{ __typename }")
    unsampled, _ = await ask("{ __typename }", flags="00")
    await http.get(f"{service.url}/nothing")
    await until(lambda: len(service.log("request")) >= known + 3, "three requests are logged")
    lines = service.log("request")[known:]
    assert [line.get("trace_id") for line in lines] == [sampled, unsampled, None]


async def test_the_variables_of_opentelemetry_count(serving, http):
    settings = {
        "OTEL_SERVICE_NAME": "tokens-of-the-tests",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=me",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    with collecting() as collector:
        service = serving(OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, **settings)
        await http.post(f"{service.url}/graphql", json={"query": "query Parentless { __typename }"})
        trace, _ = await Caller(http, service)("query Sampled { __typename }")
        service.end()
        span = (await collector.trace(trace))["query Sampled"]
        assert "Parentless" not in str(collector.spans)
    assert span["resource"]["service.name"] == "tokens-of-the-tests"
    assert span["resource"]["deployment.environment.name"] == "test"
    assert span["headers"]["x-tenant"] == "me"


async def test_each_worker_sends_its_own_and_what_is_left_when_it_ends(serving, http):
    with collecting() as collector:
        never = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        service = serving("--workers", "2", OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, **never)
        ask, traces = Caller(http, service), set()
        for _ in range(40):  # each on a new connection, which the kernel hands to either worker
            trace, _ = await ask("{ __typename }", headers={"connection": "close"})
            traces.add(trace)
        assert service.end() == 0
        spans = await collector.until(lambda spans: {span["trace"] for span in spans} == traces)
    pids = {span["resource"]["process.pid"] for span in spans}
    assert len(pids) == 2
    assert service.process.pid not in pids


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def test_a_collector_that_is_away_costs_one_line_and_is_used_once_it_is_there(serving, http):
    address = f"http://127.0.0.1:{(port := unused_port())}"
    quickly = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1.5", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    service = serving(OTEL_EXPORTER_OTLP_ENDPOINT=address, **quickly)
    ask = Caller(http, service)

    async def lost(number):
        await ask("query Lost { __typename }")
        figures = (await http.get(f"{service.url}/metrics")).text
        return float(re.search(r"^gateway_tokens_spans_lost_total (\S+)$", figures, re.MULTILINE)[1]) >= number

    several = 5  # which takes as many attempts, since each is sent alone
    await until(lambda: lost(several), f"{several} spans are lost")
    (line,) = service.log("trace export failed")
    assert f"port={port}" in line["reason"]
    figures = (await http.get(f"{service.url}/metrics")).text
    assert float(re.search(r"^gateway_tokens_spans_lost_total (\S+)$", figures, re.MULTILINE)[1]) > 0
    with collecting(port) as collector:
        trace, _ = await ask("query Sent { __typename }")
        await collector.trace(trace)
        assert service.end() == 0
    assert {line["event"] for line in service.log()} == {
        "started",
        "request",
        "trace export failed",
        "trace export recovered",
        "stopping",
        "stopped",
    }
    assert len(service.log("trace export recovered")) == 1


async def test_a_collector_that_never_answers_delays_neither_requests_nor_the_end(serving, http):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        never = {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        service = serving(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", **never)
        for _ in range(5):
            await Caller(http, service)("{ __typename }")
        assert service.end() == 0


def test_without_traces_opentelemetry_is_not_even_imported():
    code = """if True:
        import sys
        from graphql_api import cli
        from graphql_api.app import create_app
        from graphql_api.settings import Settings
        create_app(Settings(auth_mode="disabled", database_url="postgresql://x/y"))
        print([name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))])
    """
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
