"""Who is let in."""

import httpx
import pytest

from tests.asgi import Client
from tests.web.conftest import token


def ask(web, **headers):
    return web.post(
        "/graphql",
        json={"query": "{ caller }"},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def test_nobody_is_let_in_as_nobody(web):
    assert (await ask(web)).json() == {"data": {"caller": None}}


async def test_an_empty_header_counts_as_none(web):
    assert (await ask(web, authorization="")).json() == {"data": {"caller": None}}


async def test_a_user_is_let_in_as_who_they_are(web):
    assert (await ask(web, authorization=token("u1"))).json() == {"data": {"caller": "u1"}}


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Bearer", "Basic dTpw", "{token}x", "{token}, {token}"])
@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_an_access_token_that_is_not_good_is_refused(web, log, authorization, accept):
    authorization = authorization.format(token=token())
    response = await ask(web, authorization=authorization, accept=accept)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="The ')
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert "data" not in response.json()
    [line] = log()
    assert line["outcome"] == "UNAUTHENTICATED"
    assert len(authorization) < 10 or authorization[7:] not in str(line)


async def test_two_access_tokens_are_refused(web):
    headers = [("authorization", token("u1")), ("authorization", token("u2")), ("content-type", "application/json")]
    response = await web.post("/graphql", content=b'{"query": "{ caller }"}', headers=headers)
    assert response.status_code == 401


@pytest.fixture
async def behind_router(graphql):
    transport = httpx.ASGITransport(graphql(router_secrets=("old secret", "new secret")))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


@pytest.mark.parametrize("secret", ["old secret", "new secret"])
async def test_the_router_is_let_in_by_either_secret(behind_router, secret):
    assert (await ask(behind_router, router_authorization=secret)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"router_authorization": ""}, {"router_authorization": "wrong"}])
async def test_nobody_but_the_router_is_let_in_where_it_has_a_secret(behind_router, headers):
    response = await ask(behind_router, authorization=token(), **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Router-Authorization"
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_while_there_are_no_keys_access_tokens_can_neither_be_accepted_nor_refused(service):
    client = Client(await service(auth_jwks_url="http://127.0.0.1:1/keys"), token()[7:])
    response = await client.http.post("/graphql", json={"query": "{ __typename }"})
    assert response.status_code == 503
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    assert (await client.http.get("/healthz")).status_code == 200
