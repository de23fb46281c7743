"""Who gets an inline trace: the router that shows to be it, and nobody else where access tokens are asked for."""

import base64

import httpx
import pytest

from tests.web import standin
from tests.web.conftest import AUTH_SECRET, token

WANTED = {"apollo-federation-include-trace": "ftv1"}
ROUTER = {"router-authorization": "of the router"}
HELLO = {"query": "{ hello }"}


@pytest.fixture
def asking(graphql):
    def ask(*router_secrets, **options):
        transport = httpx.ASGITransport(graphql(router_secrets=router_secrets, **options))
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    return ask


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
async def test_the_router_gets_a_trace_beside_the_same_data(asking, mode):
    async with asking("of the router", mode=mode) as http:
        plain = (await http.post("/graphql", json=HELLO, headers=ROUTER)).json()
        traced = (await http.post("/graphql", json=HELLO, headers=ROUTER | WANTED)).json()
        again = (await http.post("/graphql", json=HELLO, headers=ROUTER)).json()
    trace = base64.b64decode(traced.pop("extensions")["ftv1"], validate=True)
    assert b"hello" in trace
    assert plain == traced == again


async def test_who_is_not_the_router_gets_none(asking):
    async with asking("of the router") as http:
        assert (await http.post("/graphql", json=HELLO, headers=WANTED)).status_code == 401
    async with asking() as http:
        headers = WANTED | {"authorization": token()}
        assert (await http.post("/graphql", json=HELLO, headers=headers)).json() == {"data": {"hello": "hello you"}}


@pytest.mark.parametrize("value", ["", "ftv2", "FTV1"])
async def test_another_kind_of_trace_is_not_known(asking, value):
    async with asking("of the router") as http:
        headers = {**ROUTER, "apollo-federation-include-trace": value}
        assert "extensions" not in (await http.post("/graphql", json=HELLO, headers=headers)).json()


async def test_no_text_of_an_error_is_in_a_trace(asking):
    async with asking("of the router") as http:
        body = {"query": '{ fail(how: "ValueError") }'}
        answer = (await http.post("/graphql", json=body, headers=ROUTER | WANTED)).json()
    trace = base64.b64decode(answer["extensions"]["ftv1"])
    assert standin.SECRET.encode() not in trace
    assert b"<masked>" in trace


@pytest.mark.parametrize(
    ("settings", "gets_one"),
    [
        ({"auth_mode": "disabled"}, True),
        ({"auth_secret": AUTH_SECRET}, False),
        ({"auth_secret": AUTH_SECRET, "router_secret": "of the router"}, True),
    ],
)
async def test_the_settings_decide(service, settings, gets_one):
    transport = httpx.ASGITransport(await service(**settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.post("/graphql", json={"query": "{ __typename }"}, headers=ROUTER | WANTED)
    assert ("extensions" in answer.json()) is gets_one
