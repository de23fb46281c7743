"""What travels with a request: who asks, and what they may do with tokens."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import strawberry

from graphql_api.domain.caller import Caller
from graphql_api.service.tokens import Tokens


@dataclass(slots=True)
class Context:
    """One request.

    `tokens` is what fields read; below a dry run that is what would be there. `loads` is told of each field that is
    loaded for many at once, and for how many. `user_errors` are the codes that mutations answered. `loaders` belongs to
    the engine.
    """

    tokens: Tokens
    request_id: str
    loads: Callable[[str, int], None]
    counts_user_error: Callable[[str, str], None]
    user_errors: list[str] = field(default_factory=list[str])
    loaders: dict[Any, Any] = field(default_factory=dict[Any, Any])
    _stored: Tokens = field(init=False)

    def __post_init__(self) -> None:
        self._stored = self.tokens

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self.tokens.caller

    def refuse(self, mutation: str, code: str) -> None:
        """A mutation answers a user error with this code."""
        self.user_errors.append(code)
        self.counts_user_error(mutation, code)

    def begin(self, mutation: str) -> Tokens:
        """The tokens as they are, for a mutation that the caller may use; what a dry run before it showed is over.

        From now on they are read where they are written.

        Raises:
            UnauthenticatedError: there is no access token.
            ForbiddenError: the caller lacks the scope.
        """
        self.caller.authorize(f"Mutation.{mutation}")
        self.tokens = self._stored
        self.tokens.reads = self.tokens.store
        return self.tokens


Info: TypeAlias = strawberry.Info[Context, None]
