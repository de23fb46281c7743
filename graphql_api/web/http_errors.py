"""The one exception by which a request leaves the usual way to its answer."""

from collections.abc import Iterable, Sequence
from typing import Any

Headers = Sequence[tuple[bytes, bytes]]


class HTTPError(Exception):
    """What is answered instead: the status, the stable code of the one error, what to do, further headers.

    `limits` are the environment variables of limits that the request met. Several errors, of a document or of its
    variables, come by `of_errors`.
    """

    def __init__(
        self,
        status: int | None,
        code: str,
        message: str,
        headers: Headers = (),
        *,
        limits: Iterable[str] = (),
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        self.limits = limits
        self.errors = errors

    @classmethod
    def of_errors(cls, errors: Sequence[dict[str, Any]], limits: Iterable[str]) -> "HTTPError":
        """A request that was not run, for these reasons; its status depends on the media type of the answer."""
        return cls(None, errors[0]["extensions"]["code"], errors[0]["message"], limits=limits, errors=errors)
