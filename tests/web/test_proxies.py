"""The proxies that configuration.md shows, in front of the service."""

import re

import httpx
import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.docs.pages import ROOT, blocks
from tests.web.conftest import listening
from tests.web.proxies import free_port, proxy

SHOWN = {
    block.language: block.text
    for block in blocks(ROOT / "docs/configuration.md")
    if block.language in {"nginx", "haproxy"}
}
NGINX = """
daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {http}
  server {{ listen 127.0.0.1:{port}; {server} }}
}}
"""
HAPROXY = """
global
  log stderr local0 emerg
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend in
  bind 127.0.0.1:{port}
  default_backend gateway_tokens
{backend}
"""


def configuration(name, port, upstream):
    text = re.sub(r"10\.0\.0\.[12]:8000", f"127.0.0.1:{upstream}", SHOWN[name])
    if name == "haproxy":
        return HAPROXY.format(port=port, backend=text)
    http, begins, server = text.partition("location")
    return NGINX.format(http=http, port=port, server=begins + server)


@pytest.mark.parametrize("name", SHOWN)
async def test_requests_pass_with_what_the_service_needs(name, database_url, tmp_path):
    app = create_app(Settings(database_url=database_url, auth_mode="disabled"))
    port = free_port()
    async with (
        listening(app, lifespan="on") as (_, upstream),
        proxy(name, configuration(name, port, upstream), tmp_path, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for _ in range(20):
            answer = await client.post("/graphql", json={"query": "{ __typename }"}, headers={"X-Request-Id": "mine"})
            assert answer.json() == {"data": {"__typename": "Query"}}
            assert answer.headers["x-request-id"] == "mine"
        answer = await client.post("/graphql", json={"query": "{ __typename }"}, headers={"Host": "evil.example"})
        assert answer.status_code == 421
        long = {"Authorization": "Bearer " + "x" * 9000}
        assert (await client.post("/graphql", json={"query": "{ __typename }"}, headers=long)).status_code == 200
