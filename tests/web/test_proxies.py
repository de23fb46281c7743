"""The proxies that configuration.md shows, in front of the service."""

import re

import httpx
import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.docs.pages import ROOT, blocks
from tests.web.conftest import listening
from tests.web.proxies import proxy


def shown(name, upstream):
    """What the page shows of this proxy, with this port in place of its servers."""
    [text] = [block.text for block in blocks(ROOT / "docs/configuration.md") if block.language == name]
    text = re.sub(r"10\.0\.0\.[12]:8000", f"127.0.0.1:{upstream}", text)
    if name == "haproxy":
        return {"frontend": "", "backend": text}
    http, begins, server = text.partition("location")
    return {"http": http, "server": begins + server}


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_requests_pass_with_what_the_service_needs(name, database_url, tmp_path):
    app = create_app(Settings(database_url=database_url, auth_mode="disabled"))
    async with (
        listening(app, lifespan="on") as (_, upstream),
        proxy(name, tmp_path, **shown(name, upstream)) as (_, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        async def ask(headers):
            return await client.post("/graphql", json={"query": "{ __typename }"}, headers=headers)

        for _ in range(20):
            answer = await ask({"X-Request-Id": "mine"})
            assert answer.json() == {"data": {"__typename": "Query"}}
            assert answer.headers["x-request-id"] == "mine"
        assert (await ask({"Host": "evil.example"})).status_code == 421
        assert (await ask({"Authorization": "Bearer " + "x" * 9000})).status_code == 200
