"""Which addresses belong to private networks, in every notation."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.addresses import is_address, is_loopback, is_private

PUBLIC = ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822", "2002:5db8:d822::1"]
LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1%eth0",
    "fec0::1",
    "fd00::1",
    "ff02::1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::a00:1",
    "2002:0a00:0001::",
    "2001:0:a00:1::1",
]


@pytest.mark.parametrize("address", PUBLIC + LOOPBACK + PRIVATE)
def test_which_addresses_are_private(address):
    assert is_private(address) == (address in PRIVATE)
    assert is_loopback(address) == (address in LOOPBACK)


NETWORKS = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
FORMS = [
    "::ffff:{0}",
    "::{0}",
    "64:ff9b::{0}",
    "2002:{1:02x}{2:02x}:{3:02x}{4:02x}::",
    "2002:{1:02x}{2:02x}:{3:02x}{4:02x}:1::1",
]


@given(st.sampled_from(NETWORKS).flatmap(lambda network: st.ip_addresses(v=4, network=network)), st.sampled_from(FORMS))
def test_a_private_address_is_private_in_every_form_of_ipv6(address, form):
    assert is_private(form.format(address, *address.packed))


@given(st.ip_addresses())
def test_no_address_is_both_private_and_of_this_machine(address):
    assert is_address(str(address))
    assert not (is_private(str(address)) and is_loopback(str(address)))
    assert is_private(str(address)) or is_loopback(str(address)) or _holds_one_of_the_internet(address)


def _holds_one_of_the_internet(address):
    """IPv6 knows three ways to have an address of IPv4 in it."""
    inner = [IPv4Address(address.packed[-4:]), IPv4Address(address.packed[2:6])] if address.version == 6 else []
    return any(each.is_global for each in (address, *inner))


@pytest.mark.parametrize("host", ["example.com", "", "010.0.0.1", "1.2.3", "localhost"])
def test_a_name_is_no_address(host):
    assert not is_address(host)
