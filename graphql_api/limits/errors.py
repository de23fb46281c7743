"""The error of a request that exceeds a limit."""

from graphql import GraphQLError

from graphql_api.engine.messages import is_token_limit

TOO_COMPLEX = "DOCUMENT_TOO_COMPLEX"


class DocumentTooComplexError(GraphQLError):
    """The error, with the request's value, the maximum, and the environment variable that sets it."""

    def __init__(self, what: str, limit: int, variable: str) -> None:
        message = f"The request is too complex: {what}; the limit is {limit:,} ({variable})."
        super().__init__(message, extensions={"code": TOO_COMPLEX})
        self.variable = variable


def limit_of(error: GraphQLError) -> str | None:
    """The environment variable of the limit that an error is about, including the parser's."""
    if isinstance(error, DocumentTooComplexError):
        return error.variable
    return "MAX_TOKENS" if is_token_limit(error) else None
