"""Documents that routers make of several: these have more room than what strangers send, until they cost too much."""

import pytest
from pydantic import SecretStr

from graphql_api.app import create_app
from graphql_api.auth import mint
from graphql_api.settings import Settings
from tests.asgi import Client, opened
from tests.conftest import AUTH_SECRET

SECRET = "what only the router knows"


def merged(fetches, fields="gatewayTokens { id }"):
    """What a router makes of so many fetches, each for one user."""
    variables = " ".join(f"$r{n}: [_Any!]!" for n in range(fetches))
    fetched = " ".join(
        f"a{n}: _entities(representations: $r{n}) {{ ... on User {{ {fields} }} }}" for n in range(fetches)
    )
    given = {f"r{n}": [{"__typename": "User", "id": f"u{n}"}] for n in range(fetches)}
    return f"query ({variables}) {{ {fetched} }}", given


def code(answer):
    return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None


@pytest.fixture
def nobody(client):
    return client


async def test_a_service_that_may_read_everything_has_room_and_others_have_none(nobody, as_user, as_service):
    query, given = merged(60)
    service = as_service("gateway-tokens:read")
    assert code(await service(query, **given)) is None
    for stranger in (nobody, as_user("u1"), as_service("gateway-tokens:events")):
        assert code(await stranger(query, **given)) == "DOCUMENT_TOO_COMPLEX"
    assert code(await service(query, **given)) is None


async def test_whoever_comes_through_the_router_has_room(empty_database):
    settings = Settings(
        database_url=empty_database, auth_secret=SecretStr(AUTH_SECRET), router_secret=(SecretStr(SECRET),)
    )
    query, given = merged(60)
    async with opened(create_app(settings)) as app:
        for token, expected in ((mint(AUTH_SECRET, "u1"), "FORBIDDEN"), (None, "UNAUTHENTICATED")):
            client = Client(app, token)
            client.http.headers["router-authorization"] = SECRET
            answer = await client(query, **given)
            assert {error["extensions"]["code"] for error in answer["errors"]} == {expected}
            assert len(answer["data"]) == 60
            assert answer["data"]["a2"] == [{"gatewayTokens": None}]


async def test_the_cost_decides_for_them(as_service):
    service = as_service("gateway-tokens:read")
    query, given = merged(2, " ".join(f"b{n}: gatewayTokens {{ id }}" for n in range(100)))
    assert code(await service(query, **given)) is None
    given["r0"] *= 1000
    [error] = (await service(query, **given))["errors"]
    assert "(MAX_COST)" in error["message"]
