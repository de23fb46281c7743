"""The parameters of a GraphQL request: read from a body or a query string, or refused in every other shape."""

from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from graphql_api.web.http_errors import HTTPError

_MAX_FIELDS = 20
_KINDS = {"query": str, "operationName": str, "documentId": str, "variables": dict, "extensions": dict}


class Parameters(NamedTuple):
    """What a request asks: a document, or the id of one."""

    query: str | None
    operation_name: str | None
    variables: dict[str, Any] | None
    document_id: str | None


def from_body(body: bytes) -> Parameters:
    """Read a JSON body.

    Raises:
        HTTPError: 400, it is not JSON, is a batch, or a parameter has the wrong type.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _refused("The body is not valid JSON in UTF-8 (at most 1,000 levels deep, finite numbers).") from None
    if isinstance(found, list):
        raise _refused("Send one operation per request. Batches are not supported.")
    if not isinstance(found, dict):
        raise _refused("The body must be a JSON object.")
    return _checked(found)  # pyright: ignore[reportUnknownArgumentType]


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
        raise _refused("The query string is not valid UTF-8, or has too many fields.") from None
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        raise _refused("A parameter occurs twice.")
    for name in found.keys() & {"variables", "extensions"}:
        try:
            found[name] = orjson.loads(found[name])
        except orjson.JSONDecodeError:
            raise _refused(f"`{name}` is not valid JSON.") from None
    return _checked(found)


def _checked(found: dict[str, Any]) -> Parameters:
    for name, value in found.items():
        if value is not None and name in _KINDS and type(value) is not _KINDS[name]:
            raise _refused(f"`{name}` must be {'a string' if _KINDS[name] is str else 'an object'} or null.")
    query, extensions = found.get("query"), found.get("extensions")
    document_id = found.get("documentId") or (_persisted(extensions) if extensions else None)
    if query is None and document_id is None:
        raise _refused("`query` is missing.")
    return Parameters(query, found.get("operationName"), found.get("variables"), document_id)


def _persisted(extensions: dict[str, Any]) -> str | None:
    """The id as Apollo's persisted queries send it."""
    match extensions:
        case {"persistedQuery": {"sha256Hash": str(document_id)}}:
            return document_id
        case _:
            return None


def _refused(message: str) -> HTTPError:
    return HTTPError(400, "BAD_REQUEST", message)
