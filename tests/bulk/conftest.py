"""Commands on this worker's database, and what they leave in its tables."""

import asyncio
import csv
import gc
import io
import json
import os
import re
import sys
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphql_api.cli.main import main

ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def folder(empty_database, monkeypatch, tmp_path):
    """The working directory of commands on an empty database."""
    for name in ("GATEWAYS", "DATA_DIR", "DATABASE_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", empty_database)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    yield tmp_path
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs a command of the console script: `await command("import", "tokens.csv")`."""

    def call():
        try:
            main()
        except SystemExit as end:
            return end.code or 0

    async def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["gateway-tokens", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        # A command begins with a context of its own, without the deadline of the test's last mutation.
        status = await asyncio.to_thread(Context().run, call)
        out, err = capsys.readouterr()
        # A command that comes as far as its database names it first; the rest is what it says of its work.
        return Outcome(status, out, re.sub(r"\ADatabase: \w+ on .+\n", "", err))

    return run


@pytest.fixture
def process(folder):
    """Starts a command as a process of its own."""

    async def start(*arguments, stderr=asyncio.subprocess.PIPE, stdin=None):
        command = [sys.executable, "-m", "graphql_api", *arguments]
        return await asyncio.create_subprocess_exec(*command, stderr=stderr, stdin=stdin, env=os.environ)

    return start


@pytest.fixture
def write(folder):
    """Writes a file of records: `write("tokens.csv", {"userId": …}, …)`; CSV has the columns of the first one."""

    def write(name, *records):
        path = folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                rows = csv.DictWriter(file, records[0])
                rows.writeheader()
                rows.writerows(records)
            else:
                file.writelines(f"{json.dumps(record)}\n" for record in records)
        return name

    return write


@pytest.fixture
def table(connection):
    """What a query finds, each row as a tuple."""

    async def rows(query, *arguments):
        return [tuple(row) for row in await connection.fetch(query, *arguments)]

    return rows


@pytest.fixture
def everything(table):
    """All that is stored of tokens, without what is made up anew each time."""

    async def dump():
        return (
            await table(
                "select user_id, gateway, gateway_customer_id, description, metadata, is_active, version,"
                " deactivation_reason from customer_gateway_tokens order by 1, 2"
            ),
            await table("select user_id, gateway, gateway_customer_id from gateway_customers order by 1, 2, 3"),
            await table(
                "select user_id, gateway, version, gateway_customer_id, is_active, reason"
                " from customer_gateway_token_events order by 1, 2, 3"
            ),
        )

    return dump


@pytest.fixture
def empty(request, empty_database):
    """Empties the database once more."""
    return request.getfixturevalue("_emptier")


@pytest.fixture
def reasons(folder):
    """What is wrong in a file of rejects, without what is said of it: each problem with its line, field and code."""

    def read(name):
        with (folder / name).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file) if name.endswith(".csv") else map(json.loads, file)
            return [
                (int(row["line"]), field, code)
                for row in rows
                for field, code in zip(row["field"].split("; "), row["code"].split("; "), strict=True)
            ]

    return read
