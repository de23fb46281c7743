"""The hosts that a service without authentication answers to.

A page of any site can have its own name lead to this machine (DNS rebinding), and would then be of one origin with the
service; the `Host` that its requests bear gives it away.
"""

import re
from collections.abc import Collection

_LOOPBACK = re.compile(r"localhost|(.+\.)?localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_MAX_CHARACTERS = 255


class AllowedHosts:
    """Loopback, and the hosts that are named; `*` is any."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)

    def accepts(self, header: bytes | None) -> bool:
        """Whether a `Host` may be answered; a client of HTTP/1.0 need not send one."""
        if header is None or "*" in self._names:
            return True
        host = header[:_MAX_CHARACTERS].decode("latin-1").lower()
        name = re.sub(r":[0-9]*$", "", host)
        return name in self._names or _LOOPBACK.fullmatch(name) is not None
