"""Which host of an address is taken, and what a connection to it has."""

import asyncio
import socket
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connection import Statement
from graphql_api.storage.connector import Connector, addresses, connect_to_primary, place
from graphql_api.storage.pool import ConnectionPool
from tests.faults.proxy import Proxy
from tests.until import until

HOSTS = st.lists(st.from_regex(r"[a-z]{1,8}(:[1-9][0-9]{0,3})?", fullmatch=True), min_size=1, max_size=4)


@given(HOSTS)
def test_an_address_with_several_hosts_is_one_for_each(hosts):
    found = addresses(f"postgresql://u:p@{','.join(hosts)}/db?sslmode=disable")
    assert [place(each) for each in found] == hosts
    assert {urlsplit(each).path for each in found} == {"/db"}
    assert all(each.startswith("postgresql://u:p@") for each in found)


def test_hosts_in_the_query_are_taken_apart_too():
    found = addresses("postgresql:///db?host=a,b&port=1,2")
    assert [place(each) for each in found] == ["a:1", "b:2"]


@pytest.mark.parametrize(
    "connect", [lambda url: Connector(url, session=None, target=None).connect(), connect_to_primary]
)
async def test_a_connection_over_tcp_is_kept_alive(by_tcp, database_url, connect):
    _, way = by_tcp
    raw = await connect(way(database_url))
    try:
        shown = raw._transport.get_extra_info("socket")
        with socket.fromfd(shown.fileno(), shown.family, shown.type) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    finally:
        raw.terminate()


async def test_a_host_that_cannot_be_reached_comes_last_the_next_time():
    connector = Connector("postgresql://localhost:1,localhost:2/db", session=None, target=None)
    with pytest.raises(UnavailableError):
        await connector.connect()
    assert [place(each) for each in connector._addresses] == ["localhost:1", "localhost:2"]
    del connector._addresses[1]
    with pytest.raises(UnavailableError):
        await connector.connect()


@pytest.fixture
async def hosts(by_tcp, database_url):
    """Four ways to the database, each through a proxy at a round trip of 50 ms, and an address with all of them."""
    proxy, way = by_tcp
    others = [Proxy(proxy.target) for _ in range(3)]
    for other in others:
        await other.accept()
    proxies = [proxy, *others]
    for each in proxies:
        each.delay = 0.025
    ports = ",".join(f"127.0.0.1:{each.port}" for each in proxies)
    yield proxies, way(database_url).replace(f"127.0.0.1:{proxy.port}", ports)
    for other in others:
        await other.refuse()


@pytest.mark.parametrize("silent", range(4))
async def test_commands_find_the_host_that_is_not_silent(hosts, silent):
    proxies, url = hosts
    for proxy in proxies[:silent]:
        proxy.stall()
    raw = await connect_to_primary(url)
    raw.terminate()
    assert all(proxy.attempts for proxy in proxies[:silent])


async def test_commands_say_what_a_host_said_rather_than_that_another_cannot_be_reached(hosts):
    proxies, url = hosts
    for proxy in proxies[1:]:
        await proxy.refuse()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await connect_to_primary(url + "_that_does_not_exist")


@pytest.mark.parametrize("silent", range(4))
async def test_hosts_that_are_silent_or_far_away_leave_time_for_the_others(hosts, silent):
    proxies, url = hosts
    for proxy in proxies[:silent]:
        proxy.stall()
    async with ConnectionPool.open(url, size=1) as pool:
        assert await pool.fetch(Statement("one", "select 1"))
    assert all(proxy.attempts for proxy in proxies[:silent])


async def test_a_host_whose_first_answer_is_late_is_used_if_connecting_may_take_longer(by_tcp, database_url):
    proxy, way = by_tcp
    proxy.silences = lambda chunk: setattr(proxy, "delay", 0.6 if b"change_tokens" in chunk else 0)
    async with ConnectionPool.open(way(database_url), size=1, connect_timeout=60) as pool:
        await pool.connections.wait_connected()


async def test_a_statement_that_its_backend_computes_is_not_lost(url, connection):
    """It waits for nothing, so that `wait_event` is null."""
    connector = Connector(url, session=None, target=None)
    raw, mark = await connector.connect(), "/*computes*/"
    loop = f"{mark}do $$ begin while clock_timestamp() < now() + interval '30 s' loop end loop; end $$"
    running = asyncio.create_task(raw.execute(loop))
    began = "select exists (select from pg_stat_activity where pid = $1 and state = 'active' and"
    began += " state_change < clock_timestamp() - interval '0.3 s')"
    await until(lambda: connection.fetchval(began, raw.get_server_pid()), "it has been running for a while")
    lost = [await connector.lost(connector.address_of(raw), [mark, "/*unknown*/"]) for _ in range(3)]
    await connection.execute("select pg_cancel_backend($1::int)", raw.get_server_pid())
    with pytest.raises(asyncpg.QueryCanceledError):
        await running
    await raw.close()
    assert lost == [{"/*unknown*/"}] * 3


async def test_of_two_hosts_that_answer_late_only_one_is_kept(hosts, connection):
    proxies, url = hosts
    for proxy in proxies:
        proxy.delay = 0.1
    count = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'late'"
    raw = await Connector(url, session={"application_name": "late"}, target=None).connect()
    try:
        await until(lambda: connection.fetchval(f"select ({count}) = 1"), "the others are closed")
    finally:
        raw.terminate()
