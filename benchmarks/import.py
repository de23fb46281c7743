"""How fast `gateway-tokens import` is beside a bare COPY of the same rows, and how much memory it takes.

Each round imports a file into a fresh database, takes the three tables out as files, and copies those into another
fresh database, on the same PostgreSQL: the embedded one in a folder of its own, or that of DATABASE_URL. It fails if
an import uses more memory than it may, whatever the number of rows.

    .venv/bin/python benchmarks/import.py [--rows 60000] [--rounds 3] [--full] [--ending jsonl]
"""

import argparse
import asyncio
import csv
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from graphql_api.embedded import embedded_postgres
from graphql_api.storage.migrate import upgrade

TABLES = ("customer_gateway_tokens", "gateway_customers", "customer_gateway_token_events")
MAX_MEGABYTES = 130  # that an import may use, however long the file is
SHUFFLE = 999_999_937  # a prime: users and customers come in no order, as they do in life


def write(path: Path, rows: int, *, full: bool) -> None:
    """A file of this many tokens, the same every time."""
    names = ["userId", "gateway", "gatewayCustomerId", *(["description", "metadata", "isActive"] if full else [])]
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            out = csv.writer(file)
            out.writerow(names)
        for number in range(rows):
            user, customer = number * SHUFFLE % 10**10, number * SHUFFLE % (10**10 + 19)
            row = [f"user-{user:010d}", ("STRIPE", "PAYPAL", "ADYEN")[number % 3], f"cus_{customer:012x}"]
            if full:
                metadata = json.dumps({"plan": "gold", "seats": number % 100, "source": "migration"})
                row += [f"The customer of user {user}", metadata, "true" if number % 10 else "false"]
            if path.suffix == ".csv":
                out.writerow(row)
            else:
                record = dict(zip(names, row, strict=True))
                if full:
                    record |= {"metadata": json.loads(row[4]), "isActive": row[5] == "true"}
                file.write(json.dumps(record) + "\n")


@asynccontextmanager
async def fresh_database(server: str):
    """The address of a migrated database, which is gone at the end."""
    name = f"benchmark_{secrets.token_hex(4)}"
    administrator = await asyncpg.connect(server)
    await administrator.execute(f"create database {name}")
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    try:
        await upgrade(url)
        yield url
    finally:
        await administrator.execute(f"drop database {name} with (force)")
        await administrator.close()


async def import_(url: str, path: Path) -> tuple[float, int]:
    """The seconds that the command takes from its start to its end, and its greatest memory in MB."""
    began = time.perf_counter()
    pid = os.spawnve(
        os.P_NOWAIT,
        sys.executable,
        [sys.executable, "-m", "graphql_api", "import", str(path)],
        {**os.environ, "DATABASE_URL": url},
    )
    _, status, usage = await asyncio.to_thread(os.wait4, pid, 0)
    if status:
        sys.exit("the import failed")
    megabytes = usage.ru_maxrss // 1024
    if megabytes > MAX_MEGABYTES:
        sys.exit(f"the import used {megabytes} MB of memory, more than {MAX_MEGABYTES}")
    return time.perf_counter() - began, megabytes


async def take_out(url: str, folder: Path) -> None:
    """Write each table as a file that COPY takes."""
    connection = await asyncpg.connect(url)
    for table in TABLES:
        await connection.copy_from_table(table, output=folder / table)
    await connection.close()


async def copy(url: str, folder: Path) -> float:
    """The seconds that bare COPY takes for the three tables."""
    connection = await asyncpg.connect(url)
    began = time.perf_counter()
    for table in TABLES:
        await connection.copy_to_table(table, source=folder / table)
    seconds = time.perf_counter() - began
    await connection.close()
    return seconds


async def measure(server: str, path: Path, rows: int, rounds: int, *, full: bool) -> None:
    """Print the rows a second of both, and how they compare."""
    write(path, rows, full=full)
    ratios: list[float] = []
    for _ in range(rounds):
        async with fresh_database(server) as url:
            seconds, megabytes = await import_(url, path)
            await take_out(url, path.parent)
        async with fresh_database(server) as url:
            bare = await copy(url, path.parent)
        ratios.append(bare / seconds)
        print(
            f"{rows:,} rows of {path.suffix}: import {rows / seconds:,.0f}/s with {megabytes} MB,"
            f" COPY {rows / bare:,.0f}/s, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="with description, metadata and isActive")
    parser.add_argument("--ending", default="csv", choices=["csv", "jsonl"], help="which kind of file is imported")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = os.environ.get("DATABASE_URL") or stack.enter_context(embedded_postgres(folder / "data"))
        path = folder / f"tokens.{arguments.ending}"
        asyncio.run(measure(server, path, arguments.rows, arguments.rounds, full=arguments.full))


if __name__ == "__main__":
    main()
