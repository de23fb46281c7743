"""The parameters of a GraphQL request: read from a body or a query string, or refused in every other shape."""

import codecs
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from graphql_api.engine.parsing import MAX_NAME_LENGTH
from graphql_api.web.http_errors import HTTPError

_MAX_FIELDS = 20
_KINDS = {"query": str, "operationName": str, "documentId": str, "variables": dict, "extensions": dict}

# What clients in languages that do not tell an empty object from an empty array, or from nothing, send for none.
_EMPTY: dict[str, tuple[Any, ...]] = {"variables": ([], ""), "extensions": ([], "")}
_USUAL = frozenset({"query", "variables", "operationName"})
_new = tuple.__new__  # of a named tuple: its class would be a call more, for each request


class Parameters(NamedTuple):
    """What a request asks: a document, or the id of one."""

    query: str | None
    operation_name: str | None
    variables: dict[str, Any] | None
    document_id: str | None
    persisted_hash: str | None = None
    persisted_version: Any = None


def from_body(body: bytes, max_batch: int = 0) -> "Parameters | list[Parameters | HTTPError]":
    """Read a JSON body: a request, or an array of at most `max_batch`.

    Raises:
        HTTPError: 400, it is not JSON, is a batch that is empty or too large, or a parameter has the wrong type.
    """
    try:
        found = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        raise _refused(
            "The body is not valid UTF-8 JSON. It can be at most 1,024 levels deep, and numbers must be finite."
        ) from None
    if isinstance(found, dict):
        return _checked(found)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(found, list):
        return _batch(found, max_batch)  # pyright: ignore[reportUnknownArgumentType]
    raise _refused("The body must be a JSON object, or an array of them.")


def _batch(found: list[Any], max_batch: int) -> list[Parameters | HTTPError]:
    if not max_batch:
        raise _refused("Send one operation per request. Batches are switched off (MAX_BATCH_REQUESTS).")
    if not 0 < len(found) <= max_batch:
        message = f"A batch must have at least 1 and at most {max_batch} requests (MAX_BATCH_REQUESTS)."
        raise HTTPError(400, "BAD_REQUEST", message, limits=["MAX_BATCH_REQUESTS"])
    return [_of_batch(each) for each in found]


def _of_batch(found: Any) -> Parameters | HTTPError:
    """A request of a batch, or why it is none: the others are answered."""
    if not isinstance(found, dict):
        return _refused("Every request of a batch must be a JSON object.")
    try:
        return _checked(found)  # pyright: ignore[reportUnknownArgumentType]
    except HTTPError as error:
        return error


def from_query_string(query_string: bytes) -> Parameters:
    """Read the parameters of a GET; `variables` and `extensions` are JSON.

    Raises:
        HTTPError: 400, they are not valid UTF-8, occur twice, or have the wrong type.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=False, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        message = f"The query string must be percent-encoded UTF-8 with at most {_MAX_FIELDS} parameters."
        raise _refused(message) from None
    pairs = [(name, value) for name, value in pairs if name in _KINDS]
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        raise _refused("A parameter occurs more than once in the query string. Send each one once.")
    for name in found.keys() & {"variables", "extensions"}:
        try:
            found[name] = orjson.loads(found[name])
        except orjson.JSONDecodeError:
            raise _refused(f"`{name}` is not valid JSON.") from None
    return _checked(found)


def _checked(found: dict[str, Any]) -> Parameters:
    query, variables, name = found.get("query"), found.get("variables"), found.get("operationName")
    if (
        type(query) is str
        and (type(variables) is dict or variables is None)
        and (name is None or (type(name) is str and len(name) <= MAX_NAME_LENGTH))
        and _USUAL.issuperset(found)
    ):
        return _new(Parameters, (query, name or None, variables, None, None, None))
    for name, value in found.items():
        if value is not None and name in _KINDS and type(value) is not _KINDS[name]:
            if name in _EMPTY and value in _EMPTY[name]:
                found[name] = None
                continue
            raise _refused(f"`{name}` must be {'a string' if _KINDS[name] is str else 'an object'} or null.")
    for name in ("operationName", "documentId"):
        if len(found.get(name) or "") > MAX_NAME_LENGTH:
            raise _refused(f"`{name}` can have at most {MAX_NAME_LENGTH} characters.")
    query, extensions = found.get("query"), found.get("extensions")
    document_id, persisted = found.get("documentId"), _persisted(extensions) if extensions else None
    if query is None and document_id is None and persisted is None:
        if extensions and extensions.get("persistedQuery") is not None:
            raise _refused("`query` is missing, and `extensions.persistedQuery` has no string `sha256Hash`.")
        raise _refused("`query` is missing.")
    name = found.get("operationName") or None
    variables = found.get("variables")
    if persisted is None:
        return Parameters(query, name, variables, document_id)
    return Parameters(query or None, name, variables, document_id, persisted["sha256Hash"], persisted.get("version"))


def _persisted(extensions: dict[str, Any]) -> dict[str, Any] | None:
    """What Apollo's clients send for a persisted query."""
    match extensions:
        case {"persistedQuery": {"sha256Hash": str()} as persisted}:
            return persisted
        case _:
            return None


def _refused(message: str) -> HTTPError:
    return HTTPError(400, "BAD_REQUEST", message)
