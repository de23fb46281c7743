"""Errors as callers see them: the one place that gives them their codes and messages.

Errors that the caller can fix or that deny permission have messages. Everything unexpected is logged, and answered as
`INTERNAL` with only the request id. `extensions.help` links to the explanation of a code.

| code | because |
| --- | --- |
| GRAPHQL_PARSE_FAILED, GRAPHQL_VALIDATION_FAILED | the document is wrong; limits have codes of their own |
| BAD_USER_INPUT | a variable or an argument is wrong |
| CURSOR_EXPIRED | entries after a cursor of the change feed were deleted |
| UNAUTHENTICATED, FORBIDDEN | the caller may not |
| UNAVAILABLE, TIMEOUT | the same request may work later |
| INTERNAL | a bug |
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import structlog
from graphql import GraphQLError, GraphQLSyntaxError

from graphql_api.domain.cards import MAX_CHARACTERS, redact_card_numbers
from graphql_api.domain.errors import (
    BadInputError,
    ExpiredCursorError,
    ForbiddenError,
    InputError,
    UnauthenticatedError,
    UnavailableError,
    UnchangedError,
)
from graphql_api.engine.messages import (
    is_argument_error,
    is_token_limit,
    with_advice,
    with_token_limit,
    without_exception,
)
from graphql_api.web.help import link as help_link

Formatted = dict[str, Any]

_log = structlog.get_logger()
_CODES = (
    (UnauthenticatedError, "UNAUTHENTICATED"),
    (ForbiddenError, "FORBIDDEN"),
    (ExpiredCursorError, "CURSOR_EXPIRED"),
    (BadInputError, "BAD_USER_INPUT"),
    (InputError, "BAD_USER_INPUT"),
)
_UNAVAILABLE = "The database is unavailable right now. Send the request again"
_READ_AFTER_MUTATION = (
    "The database is unavailable right now, so this field could not be read. The mutation itself has completed; query "
    "the field again."
)
_MAX_CHARACTERS = 1000  # of a message, which may quote all of a document
MAX_FIELDS_LOGGED = 10
_MAX_LOGGED_CHARACTERS = 300  # of a path, a name or a caller
_MAX_EXCEPTIONS_LOGGED = 3


def refused(code: str, message: str) -> Formatted:
    """One error that belongs to no place in a document."""
    return {"message": message, "extensions": {"code": code, "help": help_link(code)}}


def internal(request_id: str) -> Formatted:
    """The answer for a bug."""
    return {
        "message": "Internal error. The service's log has the details under this request id.",
        "extensions": {"code": "INTERNAL", "help": help_link("INTERNAL"), "requestId": request_id},
    }


def about_document(errors: Iterable[GraphQLError]) -> list[Formatted]:
    """What is wrong with a document, which was not run."""
    return [_placed(error, refused(_document_code(error), _words(error)), {}) for error in errors]


def about_variables(errors: Iterable[GraphQLError]) -> list[Formatted]:
    """What is wrong with the variables of an operation, which was not run."""
    return [_placed(error, refused(_code(error) or "BAD_USER_INPUT", _words(error)), {}) for error in errors]


def about_fields(
    errors: Sequence[GraphQLError],
    request_id: str,
    caller: str | None,
    max_logged: int = MAX_FIELDS_LOGGED,
    *,
    changes: bool,
) -> list[Formatted]:
    """What went wrong while an operation ran, which is a mutation if it `changes` something.

    Denials, outages and the unexpected are logged, once for all fields, of which `max_logged` are named. If that is 0,
    only the unexpected is logged.
    """
    answered: list[Formatted] = []
    redacted: dict[str, str] = {}
    logged: dict[str, list[GraphQLError]] = {}
    for error in errors:
        formatted = _expected(error, changes=changes) or internal(request_id)
        answered.append(_placed(error, formatted, redacted))
        logged.setdefault(formatted["extensions"]["code"], []).append(error)
    for code in logged.keys() & {"UNAUTHENTICATED", "FORBIDDEN"} if max_logged else ():
        _log.warning("denied", code=code, caller=caller and loggable(caller), **_fields(logged[code], max_logged))
    if max_logged and (unavailable := logged.get("UNAVAILABLE")):
        _log.warning("unavailable", reason=str(_cause(unavailable[0])), **_fields(unavailable, max_logged))
    if unexpected := logged.get("INTERNAL"):
        causes = {(type(cause), str(cause)): cause for cause in map(_cause, unexpected)}
        for cause in list(causes.values())[:_MAX_EXCEPTIONS_LOGGED]:
            _log.error("unexpected error", exc_info=cause, **_fields(unexpected, MAX_FIELDS_LOGGED))
    return answered


def loggable(text: str) -> str:
    """The beginning of a text that a caller chose, without card numbers."""
    return _cached_loggable(text) if len(text) <= _MAX_LOGGED_CHARACTERS else _loggable(text)


def _loggable(text: str) -> str:
    safe = redact_card_numbers(text[: _MAX_LOGGED_CHARACTERS + MAX_CHARACTERS])
    return safe if len(safe) <= _MAX_LOGGED_CHARACTERS else f"{safe[:_MAX_LOGGED_CHARACTERS]}…"


_cached_loggable = lru_cache(maxsize=1000)(_loggable)


def _expected(error: GraphQLError, *, changes: bool) -> Formatted | None:
    """A field's error as callers see it; None if it is unexpected."""
    cause = _cause(error)
    if isinstance(cause, GraphQLError):
        code = _code(cause) or _argument_code(cause)
        return refused(code, _words(cause)) if code else None
    if isinstance(cause, UnchangedError):
        return refused("UNAVAILABLE", str(cause))
    if isinstance(cause, UnavailableError):
        if changes and error.path and len(error.path) > 1:
            return refused("UNAVAILABLE", _READ_AFTER_MUTATION)
        return refused("UNAVAILABLE", _UNAVAILABLE + ("; its change may already have been made." if changes else "."))
    code = next((code for kind, code in _CODES if isinstance(cause, kind)), None)
    return refused(code, str(cause)) if code else None


def _argument_code(error: GraphQLError) -> str | None:
    """Arguments are looked at before anything runs, but for an explicit null in a variable that has a default."""
    return "BAD_USER_INPUT" if is_argument_error(error) else None


def _cause(error: GraphQLError) -> Exception:
    cause: Exception = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _code(error: GraphQLError) -> str | None:
    return (error.extensions or {}).get("code")


def _document_code(error: GraphQLError) -> str:
    syntax = isinstance(error, GraphQLSyntaxError)
    return _code(error) or ("GRAPHQL_PARSE_FAILED" if syntax else "GRAPHQL_VALIDATION_FAILED")


def _words(error: GraphQLError) -> str:
    """The message, without exceptions that are not meant for callers."""
    if is_token_limit(error):
        return with_token_limit(error.message)
    if isinstance(_cause(error), GraphQLError | BadInputError | InputError):
        return error.message
    return without_exception(error.message)


def _placed(error: GraphQLError, formatted: Formatted, redacted: dict[str, str]) -> Formatted:
    """The error with its places in the document and in the answer, whose keys are looked at once for a request."""
    answer: Formatted = {"message": _shortened(with_advice(formatted["message"]))}
    if error.locations:
        answer["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error.path is not None:
        for key in error.path:
            if isinstance(key, str) and key not in redacted:
                redacted[key] = redact_card_numbers(key)
        answer["path"] = [redacted.get(key, key) if isinstance(key, str) else key for key in error.path]
    answer["extensions"] = formatted["extensions"]
    return answer


def _shortened(message: str) -> str:
    """The beginning of a message, without card numbers, even one that is cut."""
    if len(message) <= _MAX_CHARACTERS:
        return redact_card_numbers(message)
    return redact_card_numbers(message[: _MAX_CHARACTERS + MAX_CHARACTERS])[:_MAX_CHARACTERS] + " …"


def _fields(errors: Sequence[GraphQLError], most: int) -> dict[str, Any]:
    """Where errors are: by the names in the answer, which are the caller's to choose."""
    paths = (".".join(map(str, error.path or ())) for error in errors[:most])
    return {"fields": [loggable(path) for path in paths], "count": len(errors)}
