"""The secret that a gateway sends to show that a request came through it."""

import hashlib
import hmac
from collections.abc import Iterable


class RouterSecret:
    """The values that are good now: one, or two while it is being changed; none where any request is welcome."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._digests = [_digest(value.encode()) for value in values]

    def accepts(self, header: bytes | None) -> bool:
        """Whether this value of `Router-Authorization` is good, in a time that says nothing of how nearly it is."""
        if not self._digests:
            return True
        digest = _digest(header or b"")
        return any(hmac.compare_digest(digest, good) for good in self._digests)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
