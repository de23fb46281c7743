"""Where addresses of the internet protocol are: on the internet, in a private network, or on this machine."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")  # all of IPv6 that is given to networks of the internet


def is_private(address: str) -> bool:
    """Whether an address is not one of the internet, nor this machine's own.

    Raises:
        ValueError: it is not an address.
    """
    ip = _reached(address)
    if isinstance(ip, IPv6Address) and ip not in _UNICAST and not ip.is_loopback:
        return True
    return not ip.is_loopback and (not ip.is_global or ip.is_multicast)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own.

    Raises:
        ValueError: it is not an address.
    """
    return _reached(address, translates=False).is_loopback


def is_address(host: str) -> bool:
    """Whether a host is written as an address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _reached(address: str, *, translates: bool = True) -> IPv4Address | IPv6Address:
    """The address, or the one of IPv4 in it to which a packet for it goes; a gateway may translate or wrap it."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip
    if translates and ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or (translates and ip.sixtofour) or ip
