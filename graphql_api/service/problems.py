"""Why a change is refused: the schema's error codes, and messages that say what to do."""

from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import Token


def expect_version(token: Token, version: int | None) -> None:
    """Check that the token has the expected version, if there is one.

    Raises:
        InputError: STALE, with the current token.
    """
    if version is not None and version != token.version:
        message = (
            f"The token's version is {token.version}, but `expectedVersion` is {version}. Read the token again, and"
            " check whether your change still applies."
        )
        raise InputError([stale_problem(message)], token)


def stale_problem(message: str) -> Problem:
    """STALE: the token changed since the caller read it."""
    return Problem(Code.STALE, message, ("expectedVersion",))


def not_found() -> InputError:
    """NOT_FOUND: no token has the given id."""
    return InputError([Problem(Code.NOT_FOUND, "No token has this id.", ("id",))])


def taken(field: str) -> InputError:
    """CUSTOMER_TAKEN: the customer id in this field belongs to another user."""
    message = "This gateway customer belongs, or belonged, to another user. Check which user is signed in."
    return InputError([Problem(Code.CUSTOMER_TAKEN, message, (field,))])


def erased_problem(field: str) -> Problem:
    """ERASED: the user in this field was erased."""
    message = "This user was erased. Nothing can be saved for them until an admin calls liftUserErasure."
    return Problem(Code.ERASED, message, (field,))
