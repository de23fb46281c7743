"""Bounds the size of an answer while it grows, because lists inside lists multiply."""

from typing import Any, NamedTuple, cast

from graphql import GraphQLError

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_ANSWER_ERRORS = 1000
"""Errors that an answer tells; those beyond are only counted."""

MAX_ANSWER_OBJECTS = 40_000
OBJECT_BYTES = MAX_ANSWER_BYTES // MAX_ANSWER_OBJECTS
"""What an object counts at least: its time and memory cost more than its few characters."""

MIN_VALUE_BYTES = 5
"""Of a value as JSON with what is around it, the key left out."""

VALUE_LENGTH = 256
"""What a text or a custom scalar may have at most unless its field says otherwise (`fields.longest`)."""


class AnswerBounds(NamedTuple):
    """What an answer may have at most."""

    max_bytes: int = MAX_ANSWER_BYTES
    max_objects: int = MAX_ANSWER_OBJECTS


class AnswerTooLargeError(GraphQLError):
    """The error in place of an answer that would be too large."""

    def __init__(self, bounds: AnswerBounds) -> None:
        super().__init__(
            f"The answer would have more than {bounds.max_bytes // 1024**2} MiB or {bounds.max_objects:,} objects: ask"
            " for less at a time.",
            extensions={"code": "ANSWER_TOO_LARGE"},
        )


class Room:
    """What an answer may have, or the answers of several requests together, and what is counted while they grow."""

    __slots__ = ("bounds", "counted", "max_bytes", "max_counted", "written")

    def __init__(self, bounds: AnswerBounds | None = None) -> None:
        self.bounds = bounds = bounds or AnswerBounds()
        self.max_bytes = bounds.max_bytes
        self.max_counted = bounds.max_objects * OBJECT_BYTES
        self.counted = 0
        """The bytes of objects without their values, each at least `OBJECT_BYTES`."""
        self.written = 0
        """The bytes of what is JSON already."""

    def count(self, objects: int) -> None:
        """Count objects that will be in an answer.

        Raises:
            AnswerTooLargeError: they are too many.
        """
        self.counted += objects * OBJECT_BYTES
        if self.counted > self.max_counted:
            raise AnswerTooLargeError(self.bounds)


def fits(data: Any, max_bytes: int) -> bool:
    """Whether an answer is small enough, measured before it is written; a character counts as a byte, JSON not."""
    left = max_bytes
    containers = [data] if data else []
    while containers:
        container = containers.pop()
        values = container
        if type(container) is dict:
            values = cast("dict[str, Any]", container).values()
            left -= sum(map(len, cast("dict[str, Any]", container)))
        left -= MIN_VALUE_BYTES * len(container)
        for value in values:
            kind = type(value)
            if kind is str:
                left -= len(value)
            elif kind is dict or kind is list:
                containers.append(value)
        if left < 0:
            return False
    return True
