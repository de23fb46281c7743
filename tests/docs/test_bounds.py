"""The page of bounds says what the code does."""

import inspect
import re
from pathlib import Path

from graphql_api.auth import Authenticator
from graphql_api.auth.access_tokens import MAX_TOKEN_BYTES
from graphql_api.engine import (
    MAX_ANSWER_BYTES,
    MAX_ANSWER_ERRORS,
    MAX_ANSWER_OBJECTS,
    Engine,
    engine,
    operation,
    values,
)
from graphql_api.engine.parsing import MAX_NAME_LENGTH
from graphql_api.observability import metrics
from graphql_api.settings import Settings
from graphql_api.storage import connection
from graphql_api.web import answers, compression, persisted_queries
from graphql_api.web.connection_registry import ConnectionLimits
from graphql_api.web.graphql import RequestLimits

PAGE = Path(__file__).parent.parent.parent / "docs/configuration.md"
SOCKET = ConnectionLimits()


def defaults(made):
    """What something is made with unless it is told otherwise."""
    return {name: each.default for name, each in inspect.signature(made).parameters.items()}


DOCUMENTS = defaults(Engine)
FIXED = {
    "connections per worker; then those that wait longest for their clients are closed": [SOCKET.max_connections],
    "bytes in a head; header lines": [SOCKET.max_head_bytes, SOCKET.max_header_lines],
    "seconds to send a head; a body": [SOCKET.max_head_seconds, RequestLimits(0, 0, 0).max_body_seconds],
    "seconds that a connection may be idle; that an answer may stay unread": [
        SOCKET.max_idle_seconds,
        SOCKET.max_unread_seconds,
    ],
    "requests that wait on one connection": [SOCKET.max_waiting_requests],
    "bytes in an access token; cached verified tokens": [MAX_TOKEN_BYTES, defaults(Authenticator)["max_cached"]],
    "members of a compressed body": [compression._MAX_MEMBERS],
    "characters in a name, an operation name, a document id": [MAX_NAME_LENGTH],
    "errors reported for an invalid document; for invalid variables": [engine.MAX_ERRORS, values.MAX_ERRORS],
    "bytes in an answer, before compression; errors": [MAX_ANSWER_BYTES, MAX_ANSWER_ERRORS],
    "bytes in an answer to a caller without an access token": [answers.OF_NOBODY.max_bytes],
    "objects in an answer; in one to a caller without a scope": [MAX_ANSWER_OBJECTS, answers.OF_USERS.max_objects],
    "bytes of all answers of a worker that clients have not read yet; then the connections that have waited longest are"
    " closed": [SOCKET.max_unread_bytes],
    "cached documents; for one caller without the read scope": [
        DOCUMENTS["max_documents"],
        DOCUMENTS["max_documents"] // 8,
    ],
    "characters of the cached documents": [DOCUMENTS["max_characters"]],
    "compiled forms of an operation with `@skip` or `@include`; for one caller": [
        operation.MAX_VARIANTS,
        operation.MAX_VARIANTS // 2,
    ],
    "names of operations that the metrics of a worker distinguish": [metrics.MAX_OPERATIONS],
    "cached persisted queries, and their characters": [
        persisted_queries.MAX_DOCUMENTS,
        persisted_queries.MAX_CHARACTERS,
    ],
    "prepared statements of a connection, and their bytes": [connection.MAX_PREPARED, connection.MAX_PREPARED_BYTES],
}


def test_the_page_says_what_the_bounds_are():
    section = PAGE.read_text().partition("## What one request may cost")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    fixed = set()
    for bound, value, setting in rows:
        numbers = [float(number.replace(",", "")) for number in value.split("; ")]
        if not (names := re.findall(r"`([A-Z_]+)`", setting)):
            fixed.add(bound)
            assert numbers == FIXED[bound], bound
        else:
            names = [name.lower() for name in names]
            assert numbers == [Settings.model_fields[name].default for name in names], bound
    assert fixed == FIXED.keys()
