"""What partitions change: each workload's CPU, vacuum, and the longest wait while tables become partitions.

    .venv/bin/python benchmarks/partitions.py --rows 2000000 --parts 16 64

Tables with this many tokens are filled in an embedded PostgreSQL, copied for each number of partitions, and partitioned
while others read and write. The store's calls then run alternately on the tables as they were and on the partitions, on
one connection each. It needs about 2 kB of disk for each token, and 1 kB more for each further number of partitions.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from hashlib import md5
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import asyncpg
import psutil
import uvloop
from load import load
from targets import ENTITIES, LOOKUP, SAVE, Target, http, serving
from uuid_utils import uuid7

from graphql_api.bulk.progress import progress
from graphql_api.domain.token import Action, Changes, Edit, Given, created, edited
from graphql_api.embedded import embedded_postgres
from graphql_api.storage.changes import ConflictError
from graphql_api.storage.connection import Statement
from graphql_api.storage.migrate import upgrade
from graphql_api.storage.partitioning import KEYS, Partitioning, alone
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

TOKENS = "customer_gateway_tokens"
CHUNK = 1_000_000
FEWEST = 20  # measurements of each kind
CALLS = 5  # in each
ONE_TABLE = "one table"
BACKEND = Statement("backend", "select pg_backend_pid()")
GATEWAYS = ("STRIPE", "PAYPAL", "ADYEN")
FIELDS = (
    ("id", "id", None),
    ("gateway", "gateway", None),
    ("gatewayCustomerId", "gateway_customer_id", None),
    ("isActive", "is_active", None),
    ("createdAt", "created_at", None),
)
# Users come in no order, as they do in life; ids are of version 7.
FILL = """
with new as (
  select n, ('018bcfe5' || lpad(to_hex(n), 8, '0') || '8000' || substr(md5('id' || n), 1, 12))::uuid as id,
    'user-' || md5((n % ($3 / 3))::text) as user_id, ('{STRIPE,PAYPAL,ADYEN}'::text[])[1 + n / ($3 / 3)] as gateway,
    'cus_' || md5(n::text) as gateway_customer_id, '2026-01-01'::timestamptz + n * interval '10 ms' as at
  from generate_series($1::bigint, $2::bigint) as n
), tokens as (
  insert into customer_gateway_tokens (id, user_id, gateway, gateway_customer_id, created_at)
  select id, user_id, gateway, gateway_customer_id, at from new
), customers as (
  insert into gateway_customers (gateway_customer_id, gateway, user_id)
  select gateway_customer_id, gateway, user_id from new
)
insert into customer_gateway_token_events
  (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
select id, 1, user_id, gateway, gateway_customer_id, true, 'CREATED', 'benchmark', at from new where n < $4
"""
INDEXES = """
select t.relname as table, quote_ident(c.relname) as name, pg_get_indexdef(c.oid) as index,
  quote_ident(conname) as constraint, pg_get_constraintdef(con.oid) as definition
from pg_index i join pg_class t on t.oid = i.indrelid join pg_class c on c.oid = i.indexrelid
left join pg_constraint con on con.conindid = c.oid and con.conrelid = t.oid
where t.relname = any($1) order by c.oid
"""
SIZES = """
select parent, sum(pg_relation_size(oid)) as heap, sum(pg_indexes_size(oid)) as indexes from (
  select c.oid, coalesce(i.inhparent::regclass, c.oid::regclass)::text as parent
  from pg_class c left join pg_inherits i on i.inhrelid = c.oid
  where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
) as each group by 1 having sum(pg_relation_size(oid)) > 1000000 order by 1
"""


def at(server: str, name: str) -> str:
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def user(number: int) -> str:
    return f"user-{md5(str(number).encode()).hexdigest()}"


def customer(number: int) -> str:
    return f"cus_{md5(str(number).encode()).hexdigest()}"


async def fill(url: str, rows: int, events: int) -> None:
    await upgrade(url)
    connection = await asyncpg.connect(url)
    began = time.monotonic()
    indexes = await connection.fetch(INDEXES, [*KEYS])
    for each in indexes:
        constraint = each["constraint"]
        drop = (
            f"alter table {each['table']} drop constraint {constraint}" if constraint else f"drop index {each['name']}"
        )
        await connection.execute(drop)
    for first in range(0, rows, CHUNK):
        await connection.execute(FILL, first, min(first + CHUNK, rows) - 1, rows, events)
    for each in indexes:
        constraint = f"alter table {each['table']} add constraint {each['constraint']} {each['definition']}"
        await connection.execute(constraint if each["constraint"] else each["index"])
    await connection.execute("vacuum analyze")
    print(f"filled with {rows:,} tokens in {time.monotonic() - began:.0f} s")
    await sizes(connection, rows)
    await connection.close()


async def sizes(connection, rows: int) -> None:
    for row in await connection.fetch(SIZES):
        heap, indexes = row["heap"] / rows, row["indexes"] / rows
        print(f"  {row['parent']:32} {heap:6.0f} bytes a token, indexes {indexes:6.0f}")


async def vacuum(url: str, name: str) -> None:
    """Vacuum after one of a hundred tokens changed."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"update {TOKENS} set description = 'changed' where md5(id::text) < '029'")
    began = time.monotonic()
    await connection.execute(f"vacuum (analyze) {TOKENS}")
    whole = time.monotonic() - began
    parts = await connection.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = $1::text::regclass", TOKENS
    )
    longest = whole
    if parts:
        await connection.execute(f"update {TOKENS}_p0 set description = 'again' where md5(id::text) < '029'")
        began = time.monotonic()
        await connection.execute(f"vacuum (analyze) {TOKENS}_p0")
        longest = time.monotonic() - began
    print(f"vacuum, {name}: {whole:.1f} s in all, {longest:.1f} s the table or one partition", flush=True)
    await connection.close()


async def partition(url: str, tables: Sequence[str], parts: int, users: int) -> None:
    """Partition these tables while four readers and two writers work; print how long the longest of them waited."""
    waits: dict[str, list[tuple[float, str]]] = {"read": [], "save": []}
    is_done, phase = False, ""

    def enter(done: int, note: str) -> None:
        nonlocal phase
        show(done, note)
        if note[0].isalpha() and phase != note:
            print(f"  {note} after {time.monotonic() - began:.0f} s", flush=True)
        phase = note

    async def work(store: TokenStore, kind: str) -> None:
        while not is_done:
            who = user(random.randrange(users))
            began = time.monotonic()
            if kind == "read":
                await store.of_users_as_json([who], FIELDS)
            else:
                await save(store, who)
            waits[kind].append((time.monotonic() - began, phase))
            await asyncio.sleep(0.005)

    async with ConnectionPool.open(url) as pool:
        store = TokenStore(pool)
        tasks = [asyncio.create_task(work(store, kind)) for kind in ("read", "read", "read", "read", "save", "save")]
        for table in tables:
            async with alone(url) as connection:
                work_on = await Partitioning.of(connection, table, parts)
                expected = (await work_on.estimate()).seconds
                began = time.monotonic()
                with progress(table, work_on.rows) as show:
                    await work_on.run(enter)
            took = time.monotonic() - began
            print(f"{table}: {parts} partitions after {took:.0f} s, estimated {expected:.0f} s", flush=True)
        is_done = True
        await asyncio.gather(*tasks)
    for kind, each in waits.items():
        seconds = sorted(wait for wait, _ in each)
        swap = max((wait for wait, when in each if when == "swapping"), default=0)
        print(
            f"  {kind}s meanwhile: {len(each)}, p99 {seconds[int(len(each) * 0.99)] * 1000:.0f} ms, "
            f"longest {seconds[-1] * 1000:.0f} ms, at a swap {swap * 1000:.0f} ms"
        )


async def save(store: TokenStore, who: str) -> None:
    while True:
        snapshot = await store.read_at(who, "STRIPE")
        event = edited(snapshot.token, Edit(description=Given(str(random.random()))), snapshot.now)
        try:
            await store.change(snapshot.token, event, "benchmark")
        except ConflictError:
            continue
        return


async def create(store: TokenStore, who: str) -> None:
    changes = Changes()
    async with store.transaction([who]) as transaction:
        edit = Edit(gateway_customer_id=f"cus_{uuid7()}")
        changes.create(created(str(uuid7()), who, "NEW", edit, await transaction.now(), Action.CREATED))
        await transaction.write(changes, "benchmark")


async def lookup(store: TokenStore, number: int) -> None:
    assert await store.by_customers([("STRIPE", customer(number))], frozenset({"id"}))


def workloads(users: int):
    def one() -> str:
        return user(random.randrange(users))

    return {
        "entities-1": lambda store: store.of_users_as_json([one()], FIELDS),
        "entities-50": lambda store: store.of_users_as_json([one() for _ in range(50)], FIELDS),
        "entities-1000": lambda store: store.of_users_as_json([one() for _ in range(1000)], FIELDS),
        "lookup by customer": lambda store: lookup(store, random.randrange(users)),
        "save a change": lambda store: save(store, one()),
        "save a new token": lambda store: create(store, f"new-{uuid7()}"),
    }


async def compare(urls: dict[str, str], users: int, seconds: float) -> None:
    """Print the CPU that the connection's backend took, which other work hardly distorts (Linux)."""
    async with AsyncExitStack() as stack:
        stores: dict[str, TokenStore] = {}
        backends: dict[str, Path] = {}
        for name, url in urls.items():
            pool = await stack.enter_async_context(ConnectionPool.open(url, size=1))
            stores[name] = TokenStore(pool)
            [[backend]] = await pool.fetch(BACKEND)
            backends[name] = Path(f"/proc/{backend}/schedstat")
        print(f"\n{'µs of CPU, median (÷ one table)':34}" + "".join(f"{name:>22}" for name in stores))
        for workload, run in workloads(users).items():
            times: dict[str, list[float]] = {name: [] for name in stores}
            until = time.monotonic() + seconds
            while time.monotonic() < until or len(times[ONE_TABLE]) < FEWEST:
                for name in random.sample([*stores], len(stores)):
                    began = int(backends[name].read_text().split()[0])
                    for _ in range(CALLS):
                        await run(stores[name])
                    times[name].append((int(backends[name].read_text().split()[0]) - began) / CALLS / 1000)
            first = median(times[ONE_TABLE])
            cells = (f"{median(each):12.0f} ({median(each) / first:5.2f})" for each in times.values())
            print(f"{workload:34}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def requests(users: int, headers: dict[str, str]) -> dict[str, list[bytes]]:
    """HTTP requests of the five workloads, as those of `bench.py`."""

    def entities(count: int) -> dict:
        some = [{"__typename": "User", "id": user(random.randrange(users))} for _ in range(count)]
        return {"query": ENTITIES, "variables": {"r": some}}

    def lookup() -> dict:
        return {"query": LOOKUP, "variables": {"g": "STRIPE", "c": customer(random.randrange(users))}}

    def save() -> dict:
        number = random.randrange(users)
        token = {"userId": user(number), "gateway": "STRIPE", "gatewayCustomerId": customer(number)}
        return {"query": SAVE, "variables": {"i": token | {"description": f"note {random.random()}"}}}

    kinds = {
        "entities-1": (lambda: entities(1), 20_000),
        "entities-50": (lambda: entities(50), 4000),
        "entities-1000": (lambda: entities(1000), 200),
        "lookup": (lookup, 20_000),
        "save": (save, 20_000),
    }
    return {
        name: [http(json.dumps(make()).encode(), headers) for _ in range(count)]
        for name, (make, count) in kinds.items()
    }


def backends_cpu(name: str) -> int:
    """The CPU time, in ns, of all backends of a database that live."""
    total = 0
    for process in psutil.process_iter(["cmdline"]):
        with suppress(OSError, psutil.Error):
            if f" {name} " in " ".join(process.info["cmdline"] or ())[:200] and process.name() == "postgres":
                total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])
    return total


def compare_over_http(urls: dict[str, str], users: int, seconds: float, rounds: int) -> None:
    """Print rate, and CPU of the service and of its backends for each request; the databases in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets: dict[str, Target] = {}
        headers: dict[str, str] = {}
        for name, url in urls.items():
            own = folder / name
            own.mkdir()
            [targets[name]], headers = stack.enter_context(serving(url, ["compiled"], own))
        for workload, some in requests(users, headers).items():
            figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in urls}
            for turn in range(rounds + 1):
                for name, target in targets.items():
                    database = urlsplit(urls[name]).path[1:]
                    server, backends = target.cpu_seconds(), backends_cpu(database)
                    offset = turn * 7919
                    run = uvloop.run(load(target.port, some, seconds=seconds, connections=8, offset=offset))
                    count = len(run.latencies)
                    if run.failed:
                        print(f"{workload}, {name}: {run.failed} failed")
                    if turn:  # the first one warms up
                        cpu = (target.cpu_seconds() - server) * 1000 / count
                        figures[name].append((run.rate, cpu, (backends_cpu(database) - backends) / 1e6 / count))
            first = figures[ONE_TABLE]
            for name, own in figures.items():
                ratio = median(a[0] / b[0] for a, b in zip(own, first, strict=True))
                rate, cpu, backend = (median(column) for column in zip(*own, strict=True))
                print(
                    f"{workload:14} {name:14} {rate:8,.0f}/s ({ratio:4.2f}), service {cpu:7.3f} ms, "
                    f"backends {backend:7.3f} ms",
                    flush=True,
                )


async def main(server: str, rows: int, events: int, counts: list[int], tables: Sequence[str]) -> dict[str, str]:
    """Make the databases that are not there yet, and answer their addresses."""
    users = rows // 3
    administrator = await asyncpg.connect(server)
    urls = {ONE_TABLE: at(server, "unpartitioned")}
    there = {row[0] for row in await administrator.fetch("select datname from pg_database")}
    if "unpartitioned" not in there:
        await administrator.execute("create database unpartitioned")
        await fill(urls[ONE_TABLE], rows, events)
    for count in counts:
        name, database = f"{count} partitions", f"partitioned_{count}"
        urls[name] = at(server, database)
        if database not in there:
            await administrator.execute(f"create database {database} template unpartitioned strategy file_copy")
            await partition(urls[name], tables, count, users)
        connection = await asyncpg.connect(urls[name])
        await sizes(connection, rows)
        await connection.close()
    await administrator.close()
    return urls


async def vacuum_all(urls: dict[str, str]) -> None:
    for name, url in urls.items():
        await vacuum(url, name)


def measure(server: str, given: argparse.Namespace) -> None:
    rows = given.rows // 3 * 3
    urls = asyncio.run(main(server, rows, given.events or rows, given.parts, given.tables))
    if given.http:
        compare_over_http(urls, rows // 3, given.seconds, given.http)
    else:
        asyncio.run(compare(urls, rows // 3, given.seconds))
    asyncio.run(vacuum_all(urls))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000, help="tokens; three for each user")
    parser.add_argument("--events", type=int, help="history entries, if not one for each token")
    parser.add_argument("--parts", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=20, help="for each workload")
    parser.add_argument("--shared-buffers", default="2GB")
    parser.add_argument("--dir", type=Path, help="where the databases are; default: the system's temporary directory")
    parser.add_argument("--tables", nargs="+", choices=KEYS, default=[*KEYS], help="only these become partitions")
    parser.add_argument("--http", type=int, metavar="ROUNDS", help="compare whole requests to a service on each")
    parser.add_argument("--server", help="a server that has databases of an earlier run, instead of an embedded one")
    given = parser.parse_args()
    settings = {
        "shared_buffers": given.shared_buffers,
        "max_wal_size": "16GB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "maintenance_work_mem": "1GB",
    }
    if given.server:
        measure(given.server, given)
    else:
        with (
            tempfile.TemporaryDirectory(dir=given.dir) as folder,
            embedded_postgres(Path(folder), settings) as server,
        ):
            measure(server, given)
