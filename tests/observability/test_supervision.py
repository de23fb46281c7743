import asyncio
from collections import Counter

import pytest

from graphql_api.app import create_app
from graphql_api.auth.keys import FileKeys, RemoteKeys
from graphql_api.deliveries import delivering
from graphql_api.deliveries.delivering import Delivery
from graphql_api.observability import supervision
from graphql_api.observability.metrics import Metrics
from graphql_api.observability.shared_memory import SharedMemory
from graphql_api.observability.supervision import supervise
from graphql_api.settings import Settings
from graphql_api.storage.connection_set import ConnectionSet
from graphql_api.storage.connector import place
from graphql_api.storage.replicas import Replica, WalTracker
from tests.asgi import Client, opened
from tests.auth.issuer import key_set, new_key
from tests.conftest import AUTH_SECRET
from tests.until import until


@pytest.fixture
async def started():
    """Starts tasks that end with the test."""
    tasks = []
    yield lambda *arguments, **options: tasks.append(asyncio.create_task(supervise(*arguments, **options)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_task_that_dies_is_counted_and_runs_again(started):
    runs = []

    async def die_once():
        runs.append(1)
        if len(runs) == 1:
            raise KeyError
        await asyncio.Event().wait()

    before = supervision.deaths["once"]
    started("once", die_once, pause_seconds=0.01)
    await until(lambda: len(runs) == 2, "the task runs again")
    assert supervision.deaths["once"] == before + 1
    assert supervision.failing() == []


async def test_a_task_that_dies_at_once_again_and_again_is_named_until_it_runs(started):
    lives = asyncio.Event()

    async def die():
        if not lives.is_set():
            raise KeyError
        await asyncio.Event().wait()

    started("often", die, pause_seconds=0.05)
    await until(lambda: supervision.failing() == ["often"], "the task is named")
    lives.set()


async def test_readiness_names_a_task_that_does_not_keep_running(started, database_url):
    async def die():
        raise KeyError

    async with opened(create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET))) as app:
        client = Client(app)

        async def is_named():
            response = await client.http.get("/readyz")
            return response.status_code == 503 and "follows prices" in response.json()["reason"]

        started("follows prices", die, pause_seconds=0.01)
        await until(is_named, "the task is named")


async def test_the_end_of_a_task_is_no_death(started):
    async def end():
        pass

    before = supervision.deaths["ends"]
    await asyncio.wait_for(supervise("ends", end), 5)
    assert supervision.deaths["ends"] == before


@pytest.mark.parametrize("keys", ["auth_jwks_file", "auth_jwks_url"])
async def test_the_death_of_each_task_of_the_service_is_counted(monkeypatch, tmp_path, database_url, keys):
    async def die(*_):
        raise KeyError

    for owner, method in (
        (ConnectionSet, "_watch"),
        (WalTracker, "follow"),
        (Replica, "follow"),
        (FileKeys, "keep_current"),
        (RemoteKeys, "keep_current"),
        (Metrics, "_keep_showing"),
        (Delivery, "run"),
    ):
        monkeypatch.setattr(owner, method, die)
    (file := tmp_path / "keys.json").write_bytes(key_set(new_key("one")))
    place_of = {"auth_jwks_file": file, "auth_jwks_url": "http://127.0.0.1:1/keys"}
    settings = Settings(database_url=database_url, database_replica_url=database_url, **{keys: place_of[keys]})
    before = Counter(supervision.deaths)
    with SharedMemory.open(1) as memory:
        async with opened(create_app(settings, memory)):
            deliveries = asyncio.create_task(delivering.run([Delivery("audit", *[None] * 6)]))
            names = {f"replica {place(database_url)}", "access token keys", "shared metrics", "deliveries to audit"}
            names |= {"database connections", "replica connections", "log of the primary"}
            await until(lambda: (supervision.deaths - before).keys() >= names, f"the deaths of {names} are counted")
            deliveries.cancel()
