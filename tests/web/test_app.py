"""The service as a whole, through its front door."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette

from graphql_api.app import create_app
from graphql_api.observability import logs
from graphql_api.settings import ConfigurationError, Settings
from graphql_api.web.graphiql import routes
from tests.asgi import Client
from tests.conftest import AUTH_SECRET
from tests.node import install
from tests.until import until
from tests.web.conftest import listening


@pytest.fixture
def settings_of_nobody(database_url):
    return Settings(database_url=database_url, auth_secret=AUTH_SECRET)


async def test_it_is_alive_and_ready(client):
    for path in ("/healthz", "/readyz"):
        response = await client.http.get(path)
        assert response.status_code == 200
        assert response.json() == {"status": "ok"}


async def test_without_its_database_it_is_alive_and_not_ready(service):
    client = Client(await service(database_url="postgresql://nobody:password@127.0.0.1:1/nowhere"))
    assert (await client.http.get("/healthz")).status_code == 200
    response = await client.http.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "reason": "The database cannot be reached."}
    assert await client("{ __typename }") == {"data": {"__typename": "Query"}}


async def test_a_load_balancer_may_check_it_as_haproxy_does(settings_of_nobody):
    """`option httpchk HEAD /readyz` sends HTTP/1.0 without a Host; a bare `option httpchk` asks for the root."""
    async with listening(create_app(settings_of_nobody), lifespan="on") as address:
        for request, status in ((b"HEAD /readyz", b"200 OK"), (b"OPTIONS /", b"405 Method Not Allowed")):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request + b" HTTP/1.0\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 " + status)
            assert not body or not request.startswith(b"HEAD")
            assert status == b"200 OK" or b"allow: " in head.lower()


async def test_with_a_database_that_was_never_migrated_it_is_not_ready(service, new_database):
    response = await Client(await service(database_url=await new_database())).http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["reason"] == "The database is not migrated: run `gateway-tokens migrate`."


async def test_without_keys_it_is_ready_and_says_what_is_missing(service):
    running = Client(await service(auth_secret=None, auth_jwks_url="http://127.0.0.1:1/keys"))
    response = await running.http.get("/readyz")
    assert response.status_code == 200
    assert response.json()["reason"].endswith("AUTH_JWKS_URL gave no keys yet: connection refused.")


async def test_what_is_nowhere_is_not_found_and_the_paths_that_are_here_are_named(service):
    http = Client(await service(stripe_webhook_secret="whsec_0123456789abcdef")).http
    response = await http.get("/nowhere")
    paths = (await http.get("/")).json()["paths"]
    assert {*paths} == {"/graphql", "/help/errors", "/healthz", "/readyz", "/metrics", "/webhooks/stripe"}
    assert (response.status_code, ", ".join(paths) in response.text) == (404, True)
    assert all([(await http.get(path)).status_code != 404 for path in paths])
    page = (await http.get("/", headers={"accept": "text/html"})).text
    assert all(f'<a href="{path[1:]}">' in page for path in paths)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert response.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "/metrics/", "/graphql/", "/webhooks/stripe/"])
async def test_nothing_redirects(client, path):
    for method in ("GET", "POST"):
        response = await client.http.request(method, path, headers={"host": "evil.example"})
        assert response.status_code == 404
        assert "location" not in response.headers


@pytest.mark.parametrize("path", ["/graphiql", "/graphiql/", "/graphiql/x", "/graphiql/assets/x.js", "/graphiql/%00"])
async def test_a_file_that_graphiql_does_not_have_is_not_found_whether_it_was_built_or_not(service, tmp_path, path):
    running = Client(await service(auth_mode="disabled", introspection=True))
    not_built = httpx.AsyncClient(transport=httpx.ASGITransport(Starlette(routes=routes(tmp_path))))
    async with not_built:
        for answer in (await running.http.get(path), await not_built.get(f"http://localhost{path}")):
            assert answer.status_code == 404
            assert "location" not in answer.headers


@pytest.mark.parametrize("path", [b"/%6detrics", b"/metrics%2f", b"/%2fmetrics", b"/help%2ferrors", b"/%67raphql"])
async def test_a_path_is_taken_as_it_is_written(settings_of_nobody, path):
    """A proxy's rule for a path need not know its other spellings."""
    async with listening(create_app(settings_of_nobody), lifespan="on") as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("path", ["/metrics", "/help/errors"])
async def test_long_pages_are_compressed_for_who_accepts_it(client, service_with, path):
    for accepts, coding in (("gzip", "gzip"), ("identity", None)):
        response = await client.http.get(path, headers={"accept-encoding": accepts})
        assert response.status_code == 200
        assert response.headers.get("content-encoding") == coding
        assert response.headers["vary"] == "accept-encoding"
        assert len(response.text) > 1024
    plain = (await service_with(compression=False)).client
    assert "content-encoding" not in (await plain.http.get(path, headers={"accept-encoding": "gzip"})).headers


async def test_pages_have_request_ids_and_lines_in_the_log_too(service, capsys):
    client = Client(await service())
    response = await client.http.get("/4111111111111111", headers={"x-request-id": "abc"})
    assert response.headers["x-request-id"] == "abc"
    logs.access.flush()
    line = json.loads(capsys.readouterr().err)
    assert (line["method"], line["path"], line["status"], line["request_id"]) == ("GET", "/…", 404, "abc")


async def test_every_audit_of_graphql_over_http_passes(service):
    folder = install(Path(__file__).parent)
    async with listening(await service(auth_secret=AUTH_SECRET, introspection="true")) as (host, port):
        node = await asyncio.create_subprocess_exec(
            "node", folder / "audit.mjs", f"http://{host}:{port}/graphql", stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await node.communicate()
    audits = [json.loads(line) for line in printed.splitlines()]
    assert [audit for audit in audits if audit["status"] != "ok"] == []
    counts = Counter(audit["name"].split()[0] for audit in audits)
    assert counts == {"MUST": 13, "SHOULD": 23, "MAY": 25}


SUGGESTIVE = [
    "{ custmerGatewayToken(id: 1) { id } }",
    "{ customerGatewayToken(idd: 1) { id } }",
    "query($i: IDD!) { customerGatewayToken(id: $i) { id } }",
    "{ customerGatewayToken(id: 1) { ... on Usr { id } } }",
    "query($i: ID!) { customerGatewayToken(id: $ii) { id } }",
    "{ customerGatewayTokens(filter: {gatway: 1}) { totalCount } }",
    "mutation { deactivateCustomerGatewayToken(id: 1, reason: FRUD) { user { id } } }",
    "{ customerGatewayToken(id: 1) @skp(if: true) { id } }",
    "{ customerGatewayToken(id: 1) }",
    "{ customerGatewayToken(id: 'x') { id } }",
]


@pytest.mark.parametrize("query", SUGGESTIVE)
async def test_nothing_is_suggested_where_introspection_is_off(client, query):
    answer = await client(query)
    assert answer["errors"]
    assert "did you mean" not in str(answer).lower()


async def test_variables_suggest_nothing_where_introspection_is_off(client):
    for filter_ in ({"gatway": "STRIPE"}, {"isActive": "tru"}):
        query = "query($f: CustomerGatewayTokenFilter) { customerGatewayTokens(filter: $f) { totalCount } }"
        answer = await client(query, f=filter_)
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        assert "did you mean" not in str(answer).lower()


@pytest.mark.parametrize("query", ["{ __schema { queryType { name } } }", '{ __type(name: "User") { name } }'])
async def test_the_schema_can_be_looked_at_only_where_introspection_is_on(client, service, query):
    refused = await client(query)
    assert refused["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    (error,) = refused["errors"]
    assert "Set INTROSPECTION=true in the service" in error["message"]
    assert "data" not in refused
    assert (await Client(await service(introspection="true"))(query))["data"]


async def test_the_router_gets_the_schema_although_introspection_is_off(client):
    answer = await client("{ __typename _service { sdl } }")
    assert "type CustomerGatewayToken" in answer["data"]["_service"]["sdl"]


async def test_a_page_of_another_origin_is_answered_only_where_it_is_named(service):
    asking = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    named = Client(await service(cors_origins="https://shop.example"))
    unnamed = Client(await service())
    for client, origin in ((named, "https://shop.example"), (unnamed, None)):
        for response in (
            await client.http.options("/graphql", headers={**asking, "access-control-request-headers": "content-type"}),
            await client.http.post("/graphql", json={"query": "{ __typename }"}, headers=asking),
        ):
            assert response.headers.get("access-control-allow-origin") == origin
    refused = await named.http.options("/graphql", headers={**asking, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("origins", [{}, {"cors_origins": "https://shop.example"}], ids=["none", "one"])
async def test_options_without_a_question_about_another_origin_is_a_method_like_any_other(service, origins):
    client = Client(await service(**origins))
    responses = [await client.http.request(method, "/graphql") for method in ("OPTIONS", "PUT")]
    assert [(each.status_code, each.headers["allow"]) for each in responses] == [(405, "GET, HEAD, POST")] * 2


async def test_a_preflight_has_the_headers_of_every_answer(service):
    client = Client(await service(cors_origins="https://shop.example"))
    asking = {"access-control-request-method": "POST", "x-request-id": "abc"}
    for origin, status in (("https://shop.example", 200), ("https://evil.example", 400)):
        response = await client.http.options("/graphql", headers={**asking, "origin": origin})
        assert response.status_code == status
        assert response.headers.get_list("cache-control") == ["private, no-store"]
        assert response.headers["x-request-id"] == "abc"


OF_CLIENTS = [
    *("Authorization", "Content-Type", "X-Request-Id"),
    *("traceparent", "tracestate", "baggage", "sentry-trace", "b3", "newrelic", "uber-trace-id", "x-amzn-trace-id"),
    *("x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"),
    *("x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-origin", "x-datadog-sampling-priority"),
    "x-datadog-tags",
    *("apollographql-client-name", "apollographql-client-version", "graphql-client-name", "graphql-client-version"),
    *("apollo-require-preflight", "x-apollo-operation-name", "x-apollo-operation-id", "x-apollo-operation-type"),
]


@pytest.mark.parametrize(
    "headers", [*OF_CLIENTS, ",".join(OF_CLIENTS), "X-Shop", "x-shop, X-Till", "x-shop,, x-till", ""]
)
async def test_a_page_may_send_the_headers_of_clients_and_of_tracing_and_those_that_are_named(service, headers):
    client = Client(await service(cors_origins="https://shop.example", cors_headers="X-Shop, X-Till"))
    asking = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    response = await client.http.options("/graphql", headers={**asking, "access-control-request-headers": headers})
    assert response.status_code == 200
    allowed = response.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert {name.strip().lower() for name in headers.split(",") if name} <= {*allowed}
    others = await client.http.options("/graphql", headers={**asking, "access-control-request-headers": "x-other"})
    assert others.status_code == 400


@pytest.mark.parametrize("origins", ["shop.example", "https://shop.example/", "https://", "ftp://shop.example"])
def test_an_origin_that_is_none_stops_the_service(origins, monkeypatch):
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(ConfigurationError, match="CORS_ORIGINS"):
        Settings.load()


async def test_where_documents_are_trusted_only_they_run(service, tmp_path):
    trusted = '{ customerGatewayToken(id: "x") { id } }'
    (tmp_path / "documents.json").write_text(json.dumps({"a": trusted}))
    client = Client(await service(trusted_documents=tmp_path / "documents.json"))
    for body in ({"query": trusted}, {"documentId": "a"}, {"extensions": {"persistedQuery": {"sha256Hash": "a"}}}):
        assert (await client.http.post("/graphql", json=body)).json() == {"data": {"customerGatewayToken": None}}
    for body in ({"query": "{ __typename }"}, {"documentId": "b"}, {"query": "{ __typename }", "documentId": "a"}):
        answer = (await client.http.post("/graphql", json=body)).json()
        assert answer["errors"][0]["extensions"]["code"] == "DOCUMENT_NOT_TRUSTED"
        assert "data" not in answer


async def test_without_trusted_documents_a_request_needs_a_query(client):
    response = await client.http.post("/graphql", json={"documentId": "a"})
    assert response.status_code == 400


def test_trusted_documents_that_cannot_be_read_stop_the_service(tmp_path):
    (tmp_path / "documents.json").write_text("{ __typename }")
    with pytest.raises(ConfigurationError, match=r"^TRUSTED_DOCUMENTS: the file must be a \.graphql document, or JSON"):
        create_app(Settings(trusted_documents=tmp_path / "documents.json"))


@pytest.fixture
async def locking(empty_database):
    """A connection that keeps the table to itself until it is told to roll back."""
    connection = await asyncpg.connect(empty_database)
    await connection.execute("begin; lock table customer_gateway_tokens in access exclusive mode")
    yield connection
    await connection.close()


NONE_WAITS = "select count(*) = 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


async def test_queries_that_were_ended_leave_the_database_to_the_next(service, locking):
    client = Client(await service(request_timeout=0.3, database_pool_size=2))
    query = "{ customerGatewayTokens { totalCount } }"
    for _ in range(3):
        answers = await asyncio.gather(*(client(query) for _ in range(5)))
        assert {answer["errors"][0]["extensions"]["code"] for answer in answers} == {"TIMEOUT"}
    await until(lambda: locking.fetchval(NONE_WAITS), "no statement waits for the lock any more")
    await locking.execute("rollback")

    async def are_answered():
        answers = await asyncio.gather(*(client(query) for _ in range(5)))
        return answers == [{"data": {"customerGatewayTokens": {"totalCount": 0}}}] * 5

    await until(are_answered, "the next queries are answered, on a busy machine too")


TOTAL = "{ customerGatewayTokens { totalCount } }"
DELETE = 'mutation { deleteCustomerGatewayToken(id: "%s") { deletedId } }'


@pytest.fixture
async def token_id(empty_database, connection):
    return await connection.fetchval(
        "insert into customer_gateway_tokens (id, user_id, gateway, gateway_customer_id)"
        " values (gen_random_uuid(), 'u1', 'STRIPE', 'cus_1') returning id::text"
    )


async def test_a_mutation_whose_time_is_over_changes_nothing_and_says_so(service, token_id, locking):
    await locking.execute("rollback; begin; lock table customer_gateway_tokens in exclusive mode")  # reads go on
    client = Client(await service(request_timeout=1))
    answer = await client(DELETE % token_id)
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert await locking.fetchval("select count(*) from customer_gateway_tokens") == 1
    await locking.execute("rollback")
    assert await client(DELETE % token_id) == {"data": {"deleteCustomerGatewayToken": {"deletedId": token_id}}}


MUTATIONS = {
    "its read by id": (DELETE, "customer_gateway_tokens"),
    "its read by user": (
        'mutation { saveCustomerGatewayToken(input: {userId: "%s", gateway: "A", gatewayCustomerId: "b"}) {created} }',
        "customer_gateway_tokens",
    ),
    "its read by customer": (
        'mutation { verifyGatewayCustomer(gateway: "STRIPE", gatewayCustomerId: "cus_1%.0s") { user { id } } }',
        "customer_gateway_tokens",
    ),
    "its change": (
        'mutation { activateCustomerGatewayToken(id: "%s") { userErrors { code } } }',
        "customer_gateway_token_events",
    ),
    "its claim": (
        'mutation { claimGatewayCustomer(userId: "u2%.0s", gateway: "STRIPE") { claim { acquired } } }',
        "gateway_customer_claims",
    ),
}


@pytest.mark.parametrize("kind", MUTATIONS)
async def test_the_time_of_a_mutation_is_over_for_all_of_it(service, token_id, locking, kind):
    mutation, table = MUTATIONS[kind]
    await locking.execute("update customer_gateway_tokens set is_active = false; commit; begin")
    await locking.execute(f"lock table {table}")
    app = await service(request_timeout=1, database_timeout=60, auth_mode="disabled")
    answer = await Client(app)(mutation % token_id)
    assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    assert not app.state["graphql"]._mutations.running
    await until(lambda: locking.fetchval(NONE_WAITS), "no statement waits for the lock any more")


async def test_a_mutation_keeps_its_place_as_long_as_it_runs(service, token_id, locking):
    app = await service(request_timeout=0.3, max_concurrent_requests=1)
    graphql = app.state["graphql"]
    graphql.limits = replace(graphql.limits, answer_share=-10)  # it goes on after its answer
    client, places = Client(app), graphql._admission.of_mutations
    [error] = (await client(DELETE % token_id))["errors"]
    assert error["extensions"]["code"] == "TIMEOUT"
    assert "may already have been made" in error["message"]
    assert not places._free
    await locking.execute("rollback")
    await until(lambda: places._free, "the mutation has ended")
    assert await client(TOTAL) == {"data": {"customerGatewayTokens": {"totalCount": 0}}}


async def test_queries_find_places_while_mutations_of_one_user_wait_for_a_lock(service, token_id, locking):
    await locking.execute("rollback; begin; select from customer_gateway_tokens for update")
    client = Client(await service(request_timeout=60, max_concurrent_requests=2, auth_mode="disabled"))
    batch = [{"query": TOTAL}, {"query": DELETE % token_id}]
    waiting = [asyncio.create_task(client(DELETE % token_id)) for _ in range(4)]
    waiting += [asyncio.create_task(client.http.post("/graphql", json=batch)) for _ in range(4)]
    await until(lambda: locking.fetchval("select count(*) from pg_locks where not granted"), "a mutation waits")
    for _ in range(3):
        assert await client(TOTAL) == {"data": {"customerGatewayTokens": {"totalCount": 1}}}
    await locking.execute("rollback")
    await asyncio.gather(*waiting)


AT_STRIPE = 'userId: "u1", gateway: "STRIPE"'


@pytest.mark.parametrize(
    "change",
    [
        f'saveCustomerGatewayToken(input: {{{AT_STRIPE}, gatewayCustomerId: "cus_1", description: "other"}})',
        f'saveCustomerGatewayToken(input: {{{AT_STRIPE}, gatewayCustomerId: "cus_2", replaces: "cus_1"}})',
        'updateCustomerGatewayToken(input: {id: "%s", description: "other"})',
        'deactivateCustomerGatewayToken(id: "%s")',
        'deleteCustomerGatewayToken(id: "%s")',
    ],
)
async def test_a_mutation_of_a_locked_row_knows_that_nothing_was_changed(service, token_id, locking, change):
    await locking.execute("rollback; begin; select from customer_gateway_tokens for update")
    app = await service(request_timeout=3, auth_mode="disabled")
    client = Client(app)
    answer = await client(f"mutation {{ {change.replace('%s', token_id)} {{ userErrors {{ code }} }} }}")
    assert (
        answer["errors"][0]["message"] == "The change took too long, and nothing was changed. Send the request again."
    )
    assert "database_losses_total 0.0" in (await client.http.get("/metrics")).text


@pytest.mark.usefixtures("token_id")
async def test_a_read_that_fails_after_a_mutation_does_not_say_that_it_may_have_been_made(service, locking):
    await locking.execute("rollback; begin; lock table customer_gateway_token_events")
    client = Client(await service(database_timeout=0.5, request_timeout=60, auth_mode="disabled"))
    unchanged = '{userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1"}'
    payload = "gatewayToken { id history { nodes { action } } }"
    answer = await client(f"mutation {{ saveCustomerGatewayToken(input: {unchanged}) {{ {payload} }} }}")
    [error] = answer["errors"]
    assert error["path"] == ["saveCustomerGatewayToken", "gatewayToken", "history"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert "The mutation itself has completed" in error["message"]
