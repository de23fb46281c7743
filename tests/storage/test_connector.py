"""Which host of an address is taken, and what a connection to it has."""

import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.errors import UnavailableError
from graphql_api.storage.connector import Connector, addresses, place

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


async def test_a_connection_over_tcp_is_kept_alive(by_tcp, database_url):
    _, way = by_tcp
    raw = await Connector(way(database_url), session=None, target=None).connect()
    try:
        shown = raw._transport.get_extra_info("socket")
        with socket.fromfd(shown.fileno(), shown.family, shown.type) as same:
            assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
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
