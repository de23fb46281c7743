"""A request that HTTP alone is reason enough to refuse, before anything of it runs."""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]


class HTTPError(Exception):
    """The answer to such a request: its status, the stable code of its one error, what to do, further headers.

    Where a limit is the reason, `limit` is the environment variable that sets it.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Headers = (), *, limit: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        self.limit = limit
