"""Why a change is refused: the schema's error codes, and messages that say what to do."""

from graphql_api.domain.errors import Code, InputError, Problem
from graphql_api.domain.token import Token


def expect_version(token: Token, version: int | None) -> None:
    """Go on only if the token has this version, or none is expected.

    Raises:
        InputError: STALE, with the token as it is.
    """
    if version is not None and version != token.version:
        message = f"The token has changed: its version is {token.version}, not {version}. Read it again."
        raise InputError([stale_problem(message)], token)


def stale_problem(message: str) -> Problem:
    """The token is not as the caller saw it."""
    return Problem(Code.STALE, message, ("expectedVersion",))


def not_found() -> InputError:
    """No token has the id that was sent."""
    return InputError([Problem(Code.NOT_FOUND, "No token has this id.", ("id",))])


def taken(field: str) -> InputError:
    """The identifier at this field is another user's."""
    message = "This gateway customer belongs, or belonged, to another user. Check which user is signed in."
    return InputError([Problem(Code.CUSTOMER_TAKEN, message, (field,))])


def erased_problem(field: str) -> Problem:
    """The user at this field was erased."""
    message = "This user was erased. Nothing can be saved for them until an admin calls liftUserErasure."
    return Problem(Code.ERASED, message, (field,))
