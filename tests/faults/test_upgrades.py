"""Processes end and are replaced, and migrations run, while callers go on."""

import asyncio
import signal

import psutil
import pytest

from graphql_api.storage.migrate import upgrade
from tests.faults.balancer import Balancer
from tests.faults.load import Load
from tests.faults.service import serving
from tests.until import until

pytestmark = pytest.mark.slow
TABLE = "customer_gateway_tokens"


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_lost_when_a_process_is_told_to_end(tmp_path, postgres, measured, workers):
    async with (
        serving(tmp_path, "--workers", str(workers), DATABASE_URL=postgres.url, DRAIN_SECONDS="2") as first,
        serving(tmp_path, "--workers", str(workers), DATABASE_URL=postgres.url) as second,
        Balancer.before(first, second) as url,
    ):
        load = Load([url])
        async with load.running():
            await asyncio.sleep(1)
            loop = asyncio.get_running_loop()
            began = loop.time()
            first.process.send_signal(signal.SIGTERM)
            status = await first.process.wait()
            ended = loop.time() - began
            await asyncio.sleep(1)
    measured(
        "lost, none", f"{len(load.failed())} of {len(load.answers)} { ({each.error for each in load.failed()} or '') }"
    )
    measured("exit status 0 within 25 s", f"{status} after {ended:.1f} s")
    assert status == 0
    assert load.lost() == []
    assert await load.differences(postgres.url) == []


async def test_a_process_ends_in_time_although_the_database_is_stopped(tmp_path, postgres, measured):
    async with serving(tmp_path, DATABASE_URL=postgres.url, DRAIN_SECONDS="1") as service:
        load = Load([service.graphql], reads=20, saves=5)
        async with load.running():
            await asyncio.sleep(0.5)
            postgres.signal_all(signal.SIGSTOP)
            began = asyncio.get_running_loop().time()
            service.process.send_signal(signal.SIGTERM)
            status = await service.process.wait()
            ended = asyncio.get_running_loop().time() - began
            postgres.signal_all(signal.SIGCONT)
    measured("with the database stopped: exit status 0, DRAIN_SECONDS=1", f"{status} after {ended:.1f} s")
    assert status == 0
    assert await load.differences(postgres.url) == []


async def test_a_killed_worker_is_replaced_and_the_others_go_on(tmp_path, postgres, measured):
    async with serving(tmp_path, "--workers", "3", DATABASE_URL=postgres.url) as service:
        process = psutil.Process(service.process.pid)
        load = Load([service.graphql])
        async with load.running():
            await asyncio.sleep(1)
            before = {child.pid for child in process.children()}
            loop = asyncio.get_running_loop()
            began = loop.time()
            process.children()[0].kill()
            await until(lambda: {child.pid for child in process.children()} - before, "the worker is replaced")
            replaced = loop.time()
            await asyncio.sleep(2)
    measured("replaced within 3 s", f"{replaced - began:.2f} s")
    measured("failed, only what the worker had under way", f"{len(load.failed())} of {len(load.answers)}")
    assert not load.lost(after=replaced)
    assert await load.differences(postgres.url) == []


async def test_migrations_run_while_the_release_before_serves(tmp_path, postgres, coming, measured):
    coming.add(f"alter table {TABLE} add column rank integer not null default 0")
    coming.add(f"alter table {TABLE} add constraint rank_is_small check (rank < 100) not valid")
    coming.add(f"alter table {TABLE} validate constraint rank_is_small")
    index = f"create index concurrently by_rank on {TABLE} (rank)"
    coming.add(concurrently=["drop index concurrently if exists by_rank", index])
    async with serving(tmp_path, DATABASE_URL=postgres.url) as service:
        load = Load([service.graphql])
        async with load.running():
            await asyncio.sleep(1)
            await upgrade(postgres.url, versions=coming.folder)
            await asyncio.sleep(1)
    measured("failed, none", f"{len(load.failed())} of {len(load.answers)}")
    measured("slowest answer", f"{load.slowest():.2f} s")
    assert load.lost() == []
    assert await load.differences(postgres.url) == []


async def test_of_eight_instances_one_migrates_and_all_start(tmp_path, new_server, measured):
    postgres = new_server()
    postgres.create()
    await postgres.start()
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(starts_and_answers(tmp_path, postgres))
    assert await postgres.ask("select count(*) from erasure_key") == 1


async def starts_and_answers(folder, postgres):
    async with serving(folder, DATABASE_URL=postgres.url, DRAIN_SECONDS="0") as service:
        assert await service.connections_in_use() == 0
