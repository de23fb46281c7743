"""The body of an answer: what an operation answered, as JSON of a bounded length."""

from typing import Any

import orjson

from graphql_api.engine import MAX_ANSWER_BYTES, AnswerTooLargeError, Result
from graphql_api.web.errors import Formatted, about_variables


def write(result: Result, told: list[Formatted], extensions: dict[str, Any] | None = None) -> tuple[bytes, str]:
    """The answer of an operation that ran, and its outcome: `ok`, or the code of its first error.

    Args:
        result: what was executed
        told: its errors as callers are told of them
        extensions: what else to tell
    """
    if result.errors_left_out:
        extensions = {**(extensions or {}), "errorsLeftOut": result.errors_left_out}
    answer: dict[str, Any] = {"errors": told} if told else {}
    answer["data"] = result.data
    if extensions:
        answer["extensions"] = extensions
    body = orjson.dumps(answer)
    if len(body) > MAX_ANSWER_BYTES:
        return too_large()
    return body, told[0]["extensions"]["code"] if told else "ok"


def too_large() -> tuple[bytes, str]:
    """What is answered instead of too much."""
    told = about_variables([AnswerTooLargeError()])
    return orjson.dumps({"errors": told, "data": None}), told[0]["extensions"]["code"]
