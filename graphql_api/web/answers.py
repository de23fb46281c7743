"""The body of an answer: what an operation answered, as JSON of a bounded length."""

from collections.abc import Sequence
from typing import Any

import orjson

from graphql_api.domain.caller import Caller
from graphql_api.engine import MAX_ANSWER_BYTES, MAX_ANSWER_ERRORS, AnswerBounds, AnswerTooLargeError, Result, Room
from graphql_api.web.errors import Formatted, about_variables

SERVICE_BOUNDS = AnswerBounds()

USER_BOUNDS = AnswerBounds(MAX_ANSWER_BYTES, max_objects=2_502)
"""To callers without a scope: as many objects as the largest page has. Lists inside lists multiply."""

UNAUTHENTICATED_BOUNDS = AnswerBounds(1024 * 1024, USER_BOUNDS.max_objects)
"""To callers without an access token, who may read nothing but the schema and what they sent."""


def bounds_of(caller: Caller | None) -> AnswerBounds:
    """What an answer to this caller may have."""
    if caller is None or (caller.subject is None and not caller.scopes):
        return UNAUTHENTICATED_BOUNDS
    return SERVICE_BOUNDS if caller.scopes else USER_BOUNDS


class BatchRoom(Room):
    """What is left of the bounds of an answer that several requests share: of its bytes, and of its errors.

    One error is kept for each request, since an answer without data needs one.
    """

    __slots__ = ("_bytes", "_errors")

    def __init__(self, requests: int, bounds: AnswerBounds) -> None:
        super().__init__(bounds)
        self._bytes = bounds.max_bytes
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
        return too_large(room.bounds)
    return body, told[0]["extensions"]["code"] if told else "ok"


def refuse(told: Sequence[Formatted], room: BatchRoom | None = None) -> bytes:
    """The answer to an operation that did not run."""
    return orjson.dumps({"errors": told if room is None else room.tell(told)})


def too_large(bounds: AnswerBounds) -> tuple[bytes, str]:
    """What is answered instead of too much."""
    told = about_variables([AnswerTooLargeError(bounds)])
    return orjson.dumps({"errors": told, "data": None}), told[0]["extensions"]["code"]
