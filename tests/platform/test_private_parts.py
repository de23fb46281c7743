"""What is used of libraries and not promised by them: if a release drops it, one sentence here says what and where."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import asyncpg
import pytest
import uvicorn
from joserfc.jws import JWSRegistry
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

import graphql_api

ROOT = Path(graphql_api.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


async def _app(_scope, _receive, _send):
    """No request comes here."""


CONFIG = uvicorn.Config(_app)
CONFIG.load()
COMPILED = select(bindparam("a")).compile(dialect=dialect())

# The library, whose part it is, the part, the module that uses it.
PARTS = [
    ("asyncpg", asyncpg.Connection, "_transport", "storage/connector.py"),
    ("joserfc", JWSRegistry(), "algorithms", "auth/access_tokens.py"),
    ("joserfc", JWSRegistry(), "max_header_length", "auth/access_tokens.py"),
    ("joserfc", JWSRegistry(), "max_signature_length", "auth/access_tokens.py"),
    ("sqlalchemy", COMPILED, "positiontup", "storage/selects.py"),
    ("uvicorn", uvicorn.Server(CONFIG), "capture_signals", "server.py"),
    ("uvicorn", uvicorn.Server(CONFIG), "startup", "server.py"),
    ("uvicorn", CONFIG, "loaded_app", "web/connection.py"),
    ("uvicorn", ServerState(), "connections", "web/connection.py"),
    ("uvicorn", ServerState(), "default_headers", "web/connection.py"),
    ("uvicorn", ServerState(), "tasks", "web/connection.py"),
    ("uvicorn", LifespanOn(CONFIG), "state", "server.py"),
]


@pytest.mark.parametrize(
    ("library", "owner", "part", "module"), PARTS, ids=[f"{library}-{part}" for library, _, part, _ in PARTS]
)
def test_a_part_that_is_used_and_not_promised_is_there(library, owner, part, module):
    assert hasattr(owner, part), (
        f"{library} {version(library)} has no {type(owner).__name__}.{part} any more, which graphql_api/{module} uses: "
        "change that module before the bound in pyproject.toml is raised"
    )
    assert re.search(rf"\b{part}\b", (ROOT / "graphql_api" / module).read_text()), f"{module} does without {part}"


@pytest.mark.parametrize("library", sorted({library for library, *_ in PARTS} | {"graphql-core", "strawberry-graphql"}))
def test_a_library_of_which_more_is_used_than_it_promises_is_bounded(library):
    """`pip install .` takes no release that nobody tried, on whichever day it is run."""
    (requirement,) = [each for each in PROJECT["dependencies"] if re.match(rf"{library}\b(?!-)", each)]
    assert "==" in requirement, requirement
