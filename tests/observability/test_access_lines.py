"""What the access log has of a running service: mutations that were refused by their codes, and no probes."""

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Event

import httpx

from graphql_api.auth import mint
from graphql_api.domain.caller import ADMIN_SCOPE
from tests.conftest import AUTH_SECRET
from tests.until import until_sync

REFUSED = 'mutation { a: activateCustomerGatewayToken(id: "00000000-0000-0000-0000-000000000000") { user { id } } }'


def test_refused_mutations_have_their_codes_and_probes_no_lines(serving):
    service = serving()
    headers = {"authorization": f"Bearer {mint(AUTH_SECRET, 'a-service', [ADMIN_SCOPE])}"}
    with httpx.Client(base_url=service.url, headers=headers) as http:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert http.get(path).status_code == 200
        http.post("/graphql", json={"query": REFUSED})
        http.post("/graphql", json=[{"query": REFUSED}, {"query": REFUSED}])
        http.post("/graphql", json={"query": "{ __typename }"})
        assert http.get("/nothing").status_code == 404
    until_sync(lambda: len(service.log("request")) >= 4, "all requests are logged")
    lines = [(line["path"], line["status"], line.get("user_errors")) for line in service.log("request")]
    assert lines == [
        ("/graphql", 200, ["NOT_FOUND"]),
        ("/graphql", 200, ["NOT_FOUND", "NOT_FOUND"]),
        ("/graphql", 200, None),
        ("/nothing", 404, None),
    ]


def test_no_answer_is_without_its_line_when_the_service_is_told_to_end(serving):
    service, answered, enough = serving(), [], Event()

    def ask():
        with suppress(httpx.HTTPError), httpx.Client(base_url=service.url) as http:
            while True:
                response = http.post("/graphql", json={"query": "{ __typename }"})
                answered.append(response.headers["x-request-id"])
                if len(answered) >= 100:
                    enough.set()

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        assert enough.wait(30)
        assert service.end() == 0
        wait(asking)
    logged = [line["request_id"] for line in service.log("request")]
    assert {*answered} <= {*logged}
    assert len({*logged}) == len(logged)


def test_the_root_says_what_is_here(serving):
    url = serving().url
    told = httpx.get(url).json()
    assert {"/graphql", "/readyz"} <= {*told["paths"]}
    page = httpx.get(url, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert 'href="graphql"' in page.text
