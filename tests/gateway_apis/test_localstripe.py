"""Against localstripe, a Stripe of other people's making: create, report, delete, check, erase and purge."""

import asyncio
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import SecretStr

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.asgi import opened
from tests.conftest import AUTH_SECRET
from tests.ports import free_port
from tests.until import listens, until
from tests.web.conftest import listening

KEY = "sk_test_localstripe"
WEBHOOK_SECRET = "whsec_of_localstripe"
# Its own command listens on all addresses and writes all that it has to a file after each change.
SERVE = """
import sys
from aiohttp import web
from localstripe import resources
from localstripe.server import app
type(resources.store).dump_to_disk = lambda _: None
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@asynccontextmanager
async def running():
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, str(port))
    try:
        await until(lambda: listens(port), "localstripe listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def localstripe(folder, monkeypatch):
    """Its address and a client of it; commands of ours ask it."""
    async with running() as url, httpx.AsyncClient(base_url=f"{url}/v1", auth=(KEY, "")) as http:
        monkeypatch.setenv("STRIPE_API_KEY", f"STRIPE_TEST:{KEY}")
        monkeypatch.setenv("STRIPE_API_BASE", url)
        monkeypatch.delenv("LOG_FORMAT", raising=False)
        yield http


async def create(http, graph, user):
    """As a checkout does it: claim, create at the gateway, save."""
    claim = (await graph.claim(user, "STRIPE_TEST"))["claim"]
    headers = {"Idempotency-Key": claim["idempotencyKey"]}
    customer = (await http.post("/customers", data={"description": user}, headers=headers)).json()["id"]
    await graph.save(user, "STRIPE_TEST", customer)
    return customer


async def test_from_a_checkout_to_the_deletion_of_what_an_erased_user_left(command, localstripe, graph):
    customers = {user: await create(localstripe, graph, user) for user in ("u1", "u2", "u3")}
    check = ("check", "--gateway", "STRIPE_TEST", "--rate", "1000")
    outcome = await command(*check)
    assert (outcome.status, "3 asked: 3 verified" in outcome.err) == (0, True)

    await localstripe.delete(f"/customers/{customers['u2']}")
    outcome = await command(*check)
    assert (outcome.status, "1 deletions read, 0 asked: 0 verified, 0 activated, 1 deactivated" in outcome.err) == (
        0,
        True,
    )
    gone = await graph.customer("STRIPE_TEST", customers["u2"])
    assert (gone["isActive"], gone["deactivationReason"]) == (False, "GATEWAY_DELETED")
    assert [line["actor"] for line in await graph.history(gone)] == ["check", "a-service"]

    await graph.erase("u1")
    outcome = await command("purge", "--gateway", "STRIPE_TEST", "--yes")
    assert (outcome.status, "purge of STRIPE_TEST: 1 deleted" in outcome.err) == (0, True)
    assert (await localstripe.get(f"/customers/{customers['u1']}")).status_code == 404
    assert (await localstripe.get(f"/customers/{customers['u3']}")).status_code == 200
    assert (await graph.erasures())["nodes"] == []


async def test_its_webhooks_and_a_check_come_to_the_same(command, localstripe, graph, database_url):
    secret = {"stripe_webhook_secret": (SecretStr(f"STRIPE_TEST:{WEBHOOK_SECRET}"),)}
    app = create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET, **secret))
    customer = await create(localstripe, graph, "u1")
    async with opened(app) as opened_app, listening(opened_app) as (host, port):
        hook = {"url": f"http://{host}:{port}/webhooks/stripe", "secret": WEBHOOK_SECRET}
        await localstripe.post(str(localstripe.base_url.join("/_config/webhooks/ours")), json=hook)
        await localstripe.delete(f"/customers/{customer}")

        async def gone():
            token = await graph.customer("STRIPE_TEST", customer)
            return None if token["isActive"] else token

        token = await until(gone, "the webhook deactivates the token")
    outcome = await command("check", "--gateway", "STRIPE_TEST", "--rate", "1000")
    assert "1 deletions read, 0 asked: 0 verified, 0 activated, 0 deactivated" in outcome.err
    now = await graph.customer("STRIPE_TEST", customer)
    assert now == token | {"lastVerifiedAt": now["lastVerifiedAt"]}  # the event of its creation may come last
