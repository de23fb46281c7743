"""What passes between files and rules: records by the number of their line, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graphql_api.domain.errors import Code, InputError, Problem

Format = Literal["csv", "jsonl"]
Record = Mapping[str, Any]
# A line's number, and its record or why it is none.
Line = tuple[int, Record | Problem]


def unreadable(reason: str) -> Problem:
    """A line is no record, for this reason."""
    return Problem(Code.INVALID, reason)


@dataclass(slots=True)
class Report:
    """What became of the lines of a file, or of some of them: the counts are tokens, `line` is the last line."""

    line: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    rejected: list[tuple[int, Problem]] = field(default_factory=list[tuple[int, Problem]])

    def reject(self, line: int, error: InputError) -> None:
        """Count this line as not stored."""
        self.rejected += [(line, problem) for problem in error.problems]
