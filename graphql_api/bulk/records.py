"""What passes between files and rules: records by the number of their line, and what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from graphql_api.domain.errors import Code, InputError, Problem

Format = Literal["csv", "jsonl"]
Record = Mapping[str, Any]


class Unreadable(NamedTuple):
    """A line that is not a record, why, and what could be read of it."""

    problem: Problem
    record: Record


# The number of a line, and what is on it.
Line = tuple[int, Record | Unreadable]


def unreadable(reason: str, record: Record | None = None, *field: str) -> Unreadable:
    """A line is not a record, for this reason, which may lie in one field."""
    return Unreadable(Problem(Code.INVALID, reason, field), record or {})


class Rejection(NamedTuple):
    """A line that was not taken, why, and what is on it."""

    line: int
    problems: Sequence[Problem]
    record: Record


@dataclass(slots=True)
class Tally:
    """What became of the lines of a file, or of some of them: the counts are tokens, `line` is the last line."""

    line: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: list[Rejection] = field(default_factory=list[Rejection])

    def reject(self, line: int, error: InputError, record: Record | Unreadable) -> None:
        """Count this line as not taken."""
        self.rejected.append(Rejection(line, error.problems, values_of(record)))


def values_of(record: Record | Unreadable) -> Record:
    """What could be read of a line."""
    return record.record if isinstance(record, Unreadable) else record
