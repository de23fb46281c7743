"""The hosts that a service without authentication answers to.

A page of any site can have its own name lead to this machine (DNS rebinding), and would then be of one origin with the
service; the `Host` of its requests gives it away.
"""

import re
from collections.abc import Collection

from graphql_api.domain.cards import quoted

_LOOPBACK = re.compile(r"localhost|(.+\.)?localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_PORT = re.compile(r":[0-9]*$")
_MAX_CHARACTERS = 255


class AllowedHosts:
    """Loopback, and the hosts that are named; `*` is any."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._latest: bytes | None = None  # that was answered: most requests have the same

    def refusal(self, header: bytes | None) -> str | None:
        """Why a `Host` is not answered; None if it is. A client of HTTP/1.0 need not send one."""
        if header is None or header == self._latest or "*" in self._names:
            return None
        host = header[:_MAX_CHARACTERS].decode("latin-1")
        name = _PORT.sub("", host.lower())
        if name in self._names or _LOOPBACK.fullmatch(name):
            self._latest = header
            return None
        return (
            f"Authentication is off, and the host {quoted(host)} is not in ALLOWED_HOSTS. Send requests to localhost,"
            " or add the host."
        )
