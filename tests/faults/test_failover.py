"""The primary is shut down, its standby is promoted, and the old primary comes back as a standby."""

import asyncio
import os
import sys

from graphql_api.storage.feed import Feed
from graphql_api.storage.migrate import newest_revision, upgrade
from graphql_api.storage.pool import ConnectionPool
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.service import serving
from tests.until import until


async def test_writes_follow_a_switchover_and_never_go_back(pair, tmp_path, measured):
    first, second = pair
    hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
    url = first.url.replace(f"127.0.0.1:{first.port}", hosts) + "?target_session_attrs=read-write"
    async with serving(tmp_path, DATABASE_URL=url) as service:
        load = Load([service.graphql])
        async with load.running():
            now = asyncio.get_running_loop().time
            await asyncio.sleep(1)
            await first.stop()
            await second.ask("select pg_promote()")
            promoted = now()
            await asyncio.sleep(1)
            await asyncio.to_thread(first.rejoin, second)
            await first.start()
            back = now()
            await asyncio.sleep(2)
    saved = min(
        each.began + each.seconds for each in load.answers if each.kind == "save" and ends_after(each, promoted)
    )
    measured("first save after the promotion", f"{saved - promoted:.2f} s")
    measured("failed", f"{len(load.failed())} of {len(load.answers)}")
    assert saved - promoted < 5
    assert await first.ask("select pg_is_in_recovery()")
    assert not load.failed(after=back)
    assert await load.differences(second.url) == []


RECORD = """
  insert into customer_gateway_token_events
    (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
  select gen_random_uuid(), 1, 'u', 'STRIPE', 'c', true, 'CREATED', '%s', now() from generate_series(1, %s)
"""


async def test_a_follower_misses_nothing_after_a_failover_that_lost_entries(pair):
    """Positions are given again, so entries of the new primary stand where the follower has been."""
    first, second = pair
    await upgrade(first.url)
    url = first.url.replace(f"127.0.0.1:{first.port}", f"127.0.0.1:{first.port},127.0.0.1:{second.port}")
    async with ConnectionPool.open(url) as pool:
        feed = Feed(pool)
        await first.ask(RECORD % ("both", 10))
        place = (await feed.page(None, 100)).end
        caught_up = f"select pg_last_wal_replay_lsn() >= '{await first.ask('select pg_current_wal_lsn()::text')}'"
        await until(lambda: second.ask(caught_up), "the standby has replayed what there is")
        await second.ask("alter system set primary_conninfo = ''")
        await second.ask("select pg_reload_conf()")
        await until(lambda: _follows_nobody(second), "the standby follows nobody")
        await first.ask(RECORD % ("lost", 500))
        page = await feed.page(place, 1000)
        assert len(page.lines) == 500
        await first.kill()
        await second.ask("select pg_promote()")
        await second.ask(RECORD % ("new", 100))
        after = await feed.page(page.end, 1000)
        assert [line["actor"] for line in after.lines][-100:] == ["new"] * 100
        assert {line["actor"] for line in after.lines} <= {"both", "new"}
        assert after.lines[-100]["position"] <= page.end.position
        assert after.end.timeline != page.end.timeline
        assert not (await feed.page(after.end, 10)).lines


async def _follows_nobody(standby):
    return not await standby.ask("select count(*) from pg_stat_wal_receiver")


async def test_migrations_go_to_the_primary_wherever_it_stands_among_the_hosts(pair):
    primary, standby = pair
    url = primary.url.replace(f"127.0.0.1:{primary.port}", f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}")
    await upgrade(url)
    assert await primary.ask("select version_num from alembic_version") == newest_revision()


async def test_migrating_a_standby_fails_with_one_line(pair):
    _, standby = pair
    migrating = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", "migrate"),
        env={**os.environ, "DATABASE_URL": standby.url},
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await migrating.communicate()
    assert migrating.returncode == 1
    database, line = told.splitlines()
    assert database.startswith(b"Database: ")
    assert line.startswith(b"gateway-tokens: the database cannot be used (it is read-only): set DATABASE_URL")


async def test_connections_to_a_server_that_became_read_only_are_left(pair, tmp_path):
    """Its address is still the right one, as that of a balancer is; only new connections lead to the new primary."""
    first, second = pair
    async with (
        Proxy.to("127.0.0.1", first.port) as proxy,
        serving(tmp_path, DATABASE_URL=first.url_by(proxy.port)) as service,
    ):
        load = Load([service.graphql])
        async with load.running():
            await asyncio.sleep(0.5)
            await first.ask("alter system set default_transaction_read_only = on")
            await first.ask("select pg_reload_conf()")
            proxy.target = ("127.0.0.1", second.port)
            await second.ask("select pg_promote()")
            promoted = asyncio.get_running_loop().time()
            await asyncio.sleep(1.5)
    assert not load.failed(after=promoted + 1)
    assert any(each.kind == "save" and ends_after(each, promoted + 1) for each in load.answers)


def ends_after(answer, time):
    return not answer.error and answer.began + answer.seconds > time
