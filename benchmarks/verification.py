"""What it costs to verify all tokens of a gateway: seconds, rows and WAL written, lines of history, and memory.

Imports tokens into a fresh database and runs a command that verifies each, then the same command again:

- `check` asks a stand-in of Stripe, a process of its own that answers at once, for each customer;
- `reconcile` applies a file that lists each.

It uses the embedded PostgreSQL in a folder of its own, or that of DATABASE_URL. `--checkout` names another release's
checkout, whose code runs instead of this one's.

    .venv/bin/python benchmarks/verification.py [--tokens 600000] [--by check] [--rate 10000] [--deletions 0]
        [--checkout FOLDER]
"""

import argparse
import asyncio
import csv
import json
import multiprocessing
import os
import secrets
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from graphql_api.embedded import embedded_postgres

HISTORY = "customer_gateway_token_events"
PAGE = 100


def page_of_deletions(query: str, count: int) -> dict[str, object]:
    """A page of a list of this many deletions, of customers that no token has."""
    begin = int(parse_qs(query).get("starting_after", ["evt_0"])[0].removeprefix("evt_"))
    end = min(begin + PAGE, count)
    events = [
        {
            "id": f"evt_{number + 1}",
            "type": "customer.deleted",
            "created": int(time.time()),
            "livemode": True,
            "data": {"object": {"object": "customer", "id": f"gone_{number:012x}"}},
        }
        for number in range(begin, end)
    ]
    return {"object": "list", "data": events, "has_more": end < count}


class StripeAtOnce(asyncio.Protocol):
    """Answers each request that Stripe has every customer, and lists deletions of others."""

    def __init__(self, deletions: int) -> None:
        self._deletions = deletions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer here."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer each head that has come; a GET has no body."""
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            _, _, path, query, _ = urlsplit(head.split(b" ", 2)[1].decode())
            customer = unquote(path.removeprefix("/v1/customers/"))
            found = {"object": "customer", "id": customer, "livemode": True}
            body = json.dumps(page_of_deletions(query, self._deletions) if customer == path else found).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def serve(listener: socket.socket, deletions: int) -> None:
    """Answer for as long as the process runs."""

    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: StripeAtOnce(deletions), sock=listener)
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(forever())


@contextmanager
def stripe_at_once(deletions: int):
    """The address of the stand-in."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listener, deletions), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


@asynccontextmanager
async def database_of(server: str):
    """The address of a new database, which is gone at the end."""
    name = f"benchmark_{secrets.token_hex(4)}"
    administrator = await asyncpg.connect(server)
    await administrator.execute(f"create database {name}")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        await administrator.execute(f"drop database {name} with (force)")
        await administrator.close()


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    megabytes: int


async def run(checkout: Path, variables: dict[str, str], *arguments: str) -> Usage:
    """Run a command of the release in this folder to its end."""
    began = time.perf_counter()
    pid = os.spawnve(
        os.P_NOWAIT,
        sys.executable,
        [sys.executable, "-P", "-m", "graphql_api", *arguments],
        {**os.environ, **variables, "PYTHONPATH": str(checkout)},
    )
    _, status, usage = await asyncio.to_thread(os.wait4, pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed")
    seconds = time.perf_counter() - began
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


async def written(connection: asyncpg.Connection) -> dict[str, int]:
    """The WAL's end, the length of the history, and the rows that were written since the database began."""
    found = {
        "wal": int(await connection.fetchval("select pg_current_wal_insert_lsn() - '0/0'")),
        "lines": await connection.fetchval(f"select count(*) from {HISTORY}"),
        "versions": await connection.fetchval("select sum(version) from customer_gateway_tokens"),
        "bytes": await connection.fetchval("select pg_database_size(current_database())"),
    }
    rows = await connection.fetch("select relname, n_tup_ins + n_tup_upd + n_tup_del as n from pg_stat_user_tables")
    return found | {row["relname"]: row["n"] for row in rows}


def show(title: str, tokens: int, usage: Usage, before: dict[str, int], after: dict[str, int]) -> None:
    """Print what a command wrote."""
    grown = {name: number - before.get(name, 0) for name, number in after.items()}
    wal, lines, versions, size = (grown.pop(name) for name in ("wal", "lines", "versions", "bytes"))
    tables = ", ".join(f"{name} {number:,}" for name, number in sorted(grown.items()) if number)
    print(
        f"{title}: {usage.seconds:.1f} s, {tokens / usage.seconds:,.0f} tokens/s, {usage.cpu_seconds:.1f} s of CPU "
        f"({tokens / usage.cpu_seconds:,.0f} tokens per CPU second), {usage.megabytes} MB of memory\n"
        f"  WAL: {wal:,} bytes, {wal / tokens:,.0f} a token; the database grew by {size:,}\n"
        f"  history: {lines:,} lines; versions: {versions:,}\n"
        f"  rows written: {tables or 'none'}",
        flush=True,
    )


async def measure(server: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Import the tokens, and print what each of two verifications takes."""
    tokens, checkout = arguments.tokens, arguments.checkout
    with (folder / "tokens.csv").open("w", newline="") as file, (folder / "list.csv").open("w", newline="") as listed:
        rows, ids = csv.writer(file), csv.writer(listed)
        rows.writerow(["userId", "gateway", "gatewayCustomerId"])
        ids.writerow(["id"])
        for number in range(tokens):
            rows.writerow([f"user-{number:010d}", "STRIPE", f"cus_{number:012x}"])
            ids.writerow([f"cus_{number:012x}"])
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_of(server))
        key = {
            "STRIPE_API_KEY": "rk_live_ofTheBenchmark",
            "STRIPE_API_BASE": stack.enter_context(stripe_at_once(arguments.deletions)),
        }
        variables = {"DATABASE_URL": url, **(key if arguments.by == "check" else {})}
        await run(checkout, variables, "migrate")
        await run(checkout, variables, "import", str(folder / "tokens.csv"))
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        await connection.execute("vacuum analyze")
        for title in ("first run", "second run"):
            await connection.execute("checkpoint")
            before = await written(connection)
            command = ["check", "--gateway", "STRIPE", "--rate", f"{arguments.rate:g}", "--older-than", "0m"]
            if arguments.by == "reconcile":
                exported_at = datetime.now(UTC).isoformat(timespec="seconds")
                command = ["reconcile", str(folder / "list.csv"), "--gateway", "STRIPE", "--apply"]
                command += ["--exported-at", exported_at]
            usage = await run(checkout, variables, *command)
            # What a session counted is there for all once it has ended.
            show(title, tokens, usage, before, await written(connection))
            verified = "select count(*) from customer_gateway_tokens where last_verified_at is not null"
            assert await connection.fetchval(verified) == tokens


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=600_000)
    parser.add_argument("--by", default="check", choices=["check", "reconcile"], help="the command that verifies")
    parser.add_argument("--rate", type=float, default=10_000, help="requests a second of the check, at most")
    parser.add_argument("--deletions", type=int, default=0, help="of other customers, that the gateway lists")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1], help="where the code is that runs")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = os.environ.get("DATABASE_URL") or stack.enter_context(embedded_postgres(folder / "data"))
        asyncio.run(measure(server, folder, arguments))


if __name__ == "__main__":
    main()
