"""Runs GraphQL operations: each document is parsed, validated and compiled once. README.md says how and why."""

from graphql_api.engine.engine import Engine, Mode, NoOperationError
from graphql_api.engine.fields import batched, longest, reads
from graphql_api.engine.operation import Operation
from graphql_api.engine.runtime import Result
from graphql_api.engine.selection import JSONField, RawJSON, Selection, raw_json, selection_of
from graphql_api.engine.size import (
    MAX_ANSWER_BYTES,
    MAX_ANSWER_ERRORS,
    MAX_ANSWER_OBJECTS,
    AnswerBounds,
    AnswerTooLargeError,
    Room,
)
from graphql_api.engine.types import by_class

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_ANSWER_ERRORS",
    "MAX_ANSWER_OBJECTS",
    "AnswerBounds",
    "AnswerTooLargeError",
    "Engine",
    "JSONField",
    "Mode",
    "NoOperationError",
    "Operation",
    "RawJSON",
    "Result",
    "Room",
    "Selection",
    "batched",
    "by_class",
    "longest",
    "raw_json",
    "reads",
    "selection_of",
]
