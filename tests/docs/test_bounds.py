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

ROOT = Path(__file__).parent.parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs/configuration.md"
SOCKET = ConnectionLimits()


def defaults(made):
    """What something is made with unless it is told otherwise."""
    return {name: each.default for name, each in inspect.signature(made).parameters.items()}


DOCUMENTS = defaults(Engine)
FIXED = {
    "connections per worker, or three quarters of the process's hard limit on open files if that is less; beyond this,"
    " the service closes those that have used most of their time to send something": SOCKET.max_connections,
    "bytes in a request's head (request line and headers)": SOCKET.max_head_bytes,
    "header lines": SOCKET.max_header_lines,
    "seconds to receive a request's head": SOCKET.max_head_seconds,
    "seconds to receive a body": RequestLimits(0, 0, 0).max_body_seconds,
    "seconds that a connection may be idle between requests; a new one has 10": SOCKET.max_idle_seconds,
    "seconds that a response may stay unread; then the connection is closed": SOCKET.max_unread_seconds,
    "pipelined requests that wait on one connection; the service reads the others later": (SOCKET.max_waiting_requests),
    "bytes in an access token": MAX_TOKEN_BYTES,
    "cached verified access tokens": defaults(Authenticator)["max_cached"],
    "members (gzip) or frames (Zstandard) of a compressed body": compression._MAX_MEMBERS,
    "characters in a name, an operation name, a document id": MAX_NAME_LENGTH,
    "errors reported for an invalid document": engine.MAX_ERRORS,
    "errors reported for invalid variables": values.MAX_ERRORS,
    "bytes in a response, before compression": MAX_ANSWER_BYTES,
    "bytes in a response to a caller without an access token": answers.UNAUTHENTICATED_BOUNDS.max_bytes,
    "errors in a response": MAX_ANSWER_ERRORS,
    "objects in a response": MAX_ANSWER_OBJECTS,
    "objects in a response to a caller without a scope": answers.USER_BOUNDS.max_objects,
    "bytes of responses, per worker, that clients have not read yet; beyond this, the service closes the connections"
    " that have waited longest": SOCKET.max_unread_bytes,
    "cached documents": DOCUMENTS["max_documents"],
    "cached documents of one caller without the read scope": DOCUMENTS["max_documents"] // 8,
    "characters of the cached documents": DOCUMENTS["max_characters"],
    "compiled forms of an operation with `@skip` or `@include`": operation.MAX_VARIANTS,
    "compiled forms of such an operation for one caller": operation.MAX_VARIANTS // 2,
    "names of operations that the metrics of a worker distinguish": metrics.MAX_OPERATIONS,
    "cached persisted queries": persisted_queries.MAX_DOCUMENTS,
    "characters of the cached persisted queries": persisted_queries.MAX_CHARACTERS,
    "prepared statements of a connection": connection.MAX_PREPARED,
    "bytes of the prepared statements of a connection": connection.MAX_PREPARED_BYTES,
}


def test_the_readme_says_what_the_bounds_are():
    section = README.read_text().partition("## What one request may cost")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    fixed = set()
    for bound, value, setting in rows:
        numbers = [float(number.replace(",", "")) for number in re.findall(r"[\d,]+", value)]
        if not (names := re.findall(r"`([A-Z_]+)`", setting)):
            fixed.add(bound)
            assert numbers == [FIXED[bound]], bound
        else:
            assert numbers == [Settings.model_fields[name.lower()].default for name in names], bound
    assert fixed == FIXED.keys()


def test_the_page_says_what_the_defaults_are():
    """Those that are numbers or words of the program."""
    section = PAGE.read_text().partition("## All variables")[2]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (?:`([^`]+)`|([\d,]+)) \|$", section, re.MULTILINE)
    shown = {name: word or number.replace(",", "") for name, word, number in rows}
    assert shown == {name: str(Settings.model_fields[name.lower()].default).lower() for name in shown}
    assert len(shown) > 30
