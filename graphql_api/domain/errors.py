"""What can go wrong with a request, as data; nothing here knows HTTP or GraphQL.

Exception
├── InputError         the input breaks rules that the caller can fix: `problems` lists them
├── ForbiddenError         the caller lacks the right
│   └── UnauthenticatedError   … because there is no access token
├── BadInputError      the request cannot be understood; `message` says why
│   └── ExpiredCursorError     … because entries after a cursor of the change feed were deleted
└── UnavailableError        the database cannot be asked right now
    └── UnchangedError         … or other changes came first for too long, and nothing was changed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphql_api.domain.token import Token


class Code(Enum):
    """What kind of problem an input has; the contract's `CustomerGatewayTokenErrorCode`."""

    INVALID = "INVALID"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CUSTOMER_TAKEN = "CUSTOMER_TAKEN"
    STALE = "STALE"
    CARD_NUMBER = "CARD_NUMBER"
    ERASED = "ERASED"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem that the caller can fix: its code, a message that says how, and the input field."""

    code: Code
    message: str
    field: tuple[str, ...] = ()


class InputError(Exception):
    """The request breaks rules; `problems` lists all of them, `token` is the conflicting token."""

    def __init__(self, problems: Sequence[Problem], token: "Token | None" = None) -> None:
        super().__init__(" ".join(problem.message for problem in problems))
        self.problems = tuple(problems)
        self.token = token


class ForbiddenError(Exception):
    """The caller is known and lacks the right; the message says which right is needed."""


class UnauthenticatedError(ForbiddenError):
    """There is no access token, or it is not valid."""


class BadInputError(Exception):
    """A value cannot be understood at all, such as a cursor that is not ours."""


class ExpiredCursorError(BadInputError):
    """Entries of the change feed after this cursor were deleted: its follower would miss them."""

    def __init__(self) -> None:
        super().__init__(
            "Entries after this cursor were deleted. Start again: get a new cursor with `startAt: NOW`, list"
            " all tokens, then continue from that cursor."
        )


class UnavailableError(Exception):
    """The database cannot be asked in time, or the service has no room; the same request may work later."""


class UnchangedError(UnavailableError):
    """A mutation that changed nothing because other changes came first for too long, or for the given reason."""

    def __init__(self, reason: str = "Other changes took too long") -> None:
        super().__init__(f"{reason}, and nothing was changed. Send the request again.")
