"""What travels with a request: who asks, and what they may do with tokens."""

from collections.abc import Callable
from typing import Any, TypeAlias

import strawberry

from graphql_api.domain.caller import Caller
from graphql_api.service.tokens import Tokens


class Context:
    """One request.

    `tokens` is what fields read; below a dry run that is what would be there. `loads` counts each field that is
    loaded for many at once, and for how many. `user_errors` are the codes that mutations answered. `loaders` belongs to
    the engine.
    """

    __slots__ = ("_counts_user_error", "_stored", "loaders", "loads", "request_id", "tokens", "user_errors")

    def __init__(
        self,
        tokens: Tokens,
        request_id: str,
        loads: Callable[[str, int], None],
        counts_user_error: Callable[[str, str], None],
        user_errors: list[str],
    ) -> None:
        self.tokens = self._stored = tokens
        self.request_id = request_id
        self.loads = loads
        self._counts_user_error = counts_user_error
        self.user_errors = user_errors
        self.loaders: dict[Any, Any] = {}

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self.tokens.caller

    def refuse(self, mutation: str, code: str) -> None:
        """Record that a mutation returned a user error with this code."""
        self.user_errors.append(code)
        self._counts_user_error(mutation, code)

    def begin(self, mutation: str) -> Tokens:
        """The stored tokens, for a mutation that the caller may use. This ends the view of an earlier dry run.

        From now on, the request reads from the primary.

        Raises:
            UnauthenticatedError: there is no access token.
            ForbiddenError: the caller lacks the scope.
        """
        self.caller.authorize(f"Mutation.{mutation}")
        self.tokens = self._stored
        self.tokens.reads = self.tokens.store
        return self.tokens


Info: TypeAlias = strawberry.Info[Context, None]
