"""Without authentication only loopback is answered, so that no page of the web can reach a developer's machine."""

import pytest

from graphql_api.web.hosts import AllowedHosts
from tests.asgi import Client
from tests.conftest import AUTH_SECRET

LOOPBACK = ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.1.2.3", "[::1]", "[::1]:8000", "tokens.localhost"]
STRANGE = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example:80",
    "",
    "127.0.0.1@evil",
    "::1x",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_answered(host):
    assert AllowedHosts().refusal(host.encode()) is None


@pytest.mark.parametrize("host", STRANGE)
def test_another_host_is_answered_only_if_it_is_named(host):
    refusal = AllowedHosts(["tokens"]).refusal(host.encode())
    assert f"the host {host!r} is not in ALLOWED_HOSTS" in refusal
    assert AllowedHosts(["*"]).refusal(host.encode()) is None


def test_a_host_is_named_in_any_case_and_with_any_port():
    assert AllowedHosts(["Tokens"]).refusal(b"tokens:8000") is None


PATHS = ["/graphql?query={__typename}", "/healthz", "/metrics", "/nowhere"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("settings", "answers"),
    [({"auth_mode": "disabled"}, False), ({"auth_mode": "disabled", "allowed_hosts": "evil.example"}, True)],
)
async def test_the_service_answers_to_the_hosts_that_it_may(service, path, settings, answers):
    client = Client(await service(**settings))
    response = await client.http.get(path, headers={"host": "evil.example"})
    assert (response.status_code == 421) is not answers
    if not answers:
        assert response.headers["content-type"].startswith("application/json" if "graphql" in path else "text/plain")


@pytest.mark.parametrize("path", PATHS)
async def test_with_authentication_every_host_is_answered(service, path):
    client = Client(await service(auth_secret=AUTH_SECRET))
    assert (await client.http.get(path, headers={"host": "evil.example"})).status_code != 421
