"""The body of an answer: what an operation answered, as JSON of a bounded length."""

from collections.abc import Sequence
from typing import Any

import orjson

from graphql_api.engine import MAX_ANSWER_BYTES, MAX_ANSWER_ERRORS, AnswerTooLargeError, Result, Room
from graphql_api.web.errors import Formatted, about_variables

MAX_UNSCOPED_BYTES = 1024 * 1024
"""Of an answer to a caller without a scope, who may read little, and may leave answers unread again and again."""


class BatchRoom(Room):
    """What is left of the bounds of an answer that several requests share: of its bytes, and of its errors.

    One error is kept for each request, since an answer without data needs one.
    """

    __slots__ = ("_bytes", "_errors")

    def __init__(self, requests: int, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._bytes = max_bytes
        self._errors = max(0, MAX_ANSWER_ERRORS - requests)

    def tell(self, told: Sequence[Formatted]) -> Sequence[Formatted]:
        """As many of a request's errors as there is room for, at least one of them."""
        told = told[: 1 + self._errors]
        self._errors -= max(0, len(told) - 1)
        return told

    def takes(self, body: bytes) -> bool:
        """Whether there is room for this part of the answer; if so it is taken."""
        if len(body) > self._bytes:
            return False
        self._bytes -= len(body)
        return True


def write(
    result: Result, told: Sequence[Formatted], extensions: dict[str, Any] | None = None, room: BatchRoom | None = None
) -> tuple[bytes, str]:
    """The answer of an operation that ran, and its outcome: `ok`, or the code of its first error.

    Args:
        result: what was executed
        told: its errors as callers are told of them
        extensions: what else to tell
        room: what it shares with other answers
    """
    left_out = result.errors_left_out
    if room is not None and told:
        left_out += len(told)
        told = room.tell(told)
        left_out -= len(told)
    if left_out:
        extensions = {**(extensions or {}), "errorsLeftOut": left_out}
    answer: dict[str, Any] = {"errors": told} if told else {}
    answer["data"] = result.data
    if extensions:
        answer["extensions"] = extensions
    body = orjson.dumps(answer)
    if room is not None and not room.takes(body):
        return too_large(room.max_bytes)
    if len(body) > MAX_ANSWER_BYTES:
        return too_large()
    return body, told[0]["extensions"]["code"] if told else "ok"


def refuse(told: Sequence[Formatted], room: BatchRoom | None = None) -> bytes:
    """The answer to an operation that did not run."""
    return orjson.dumps({"errors": told if room is None else room.tell(told)})


def write_data(data: Any) -> tuple[bytes, str]:
    """The answer of an operation that ran without an error, and its outcome."""
    body = orjson.dumps({"data": data})
    return (body, "ok") if len(body) <= MAX_ANSWER_BYTES else too_large()


def too_large(max_bytes: int = MAX_ANSWER_BYTES) -> tuple[bytes, str]:
    """What is answered instead of too much."""
    told = about_variables([AnswerTooLargeError(max_bytes)])
    return orjson.dumps({"errors": told, "data": None}), told[0]["extensions"]["code"]
