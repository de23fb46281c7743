"""How a request that asks for too much is refused."""

from graphql import GraphQLError

from graphql_api.engine.messages import is_token_limit

TOO_COMPLEX = "DOCUMENT_TOO_COMPLEX"


class DocumentTooComplexError(GraphQLError):
    """The refusal: what there is, what may be, and which environment variable says so."""

    def __init__(self, what: str, limit: int, variable: str) -> None:
        message = f"The request is too complex: {what}, but at most {limit:,} allowed ({variable})."
        super().__init__(message, extensions={"code": TOO_COMPLEX})
        self.variable = variable


def limit_of(error: GraphQLError) -> str | None:
    """The environment variable of the limit that an error is about; of the parser's only one, too."""
    if isinstance(error, DocumentTooComplexError):
        return error.variable
    return "MAX_TOKENS" if is_token_limit(error) else None
