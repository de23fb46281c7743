"""The secret by which a router shows that a request comes through it."""

import hashlib
import hmac
from collections.abc import Iterable


class RouterSecret:
    """The accepted values: one, or two during rotation; none if every request is accepted."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._digests = [_digest(value.encode()) for value in values]
        self.is_required = bool(self._digests)

    def accepts(self, header: bytes | None) -> bool:
        """Whether this value of `Router-Authorization` is accepted, compared in constant time."""
        if not self._digests:
            return True
        digest = _digest(header or b"")
        return any(hmac.compare_digest(digest, good) for good in self._digests)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
