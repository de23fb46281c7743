"""The change feed on a long history: pages, what its position costs writers, and whether a follower misses anything.

It fills a history of its own, and then measures:

- a page of 500 entries, from the middle and at the end, a filtered one, and the place of now: as statements, and
  through HTTP;
- `prune`: its transactions, and the oldest page once it has deleted what was before;
- saves, inserts into the history and imports, as they are, and on a copy of the database without the feed's column and
  index, alternately: CPU of PostgreSQL, WAL and time;
- concurrent writers with pauses, long transactions and rollbacks: whether a follower gets every entry once and in the
  order of its token, and how long after the commit;
- `gateway-tokens import` without and with a follower, alternately.

It exits with 1 if a follower missed an entry, or got one twice or out of order. It never fails by the clock.
"""

import asyncio
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import asyncpg
import httpx
import typer
import uvloop
from load import load
from rich.console import Console
from rich.progress import track
from rich.table import Table
from targets import Target, http, seed, serving
from uuid_utils import uuid7

from graphql_api.domain.filter import NO_FILTER, FeedFilter, Place
from graphql_api.domain.token import Action, Changes, Edit, Given, created, edited
from graphql_api.embedded import embedded_postgres
from graphql_api.schema.cursors import of_place
from graphql_api.storage.changes import ConflictError
from graphql_api.storage.connection import Statement
from graphql_api.storage.feed import MAX_SCANNED, STATEMENTS
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.retention import ROWS, prune
from graphql_api.storage.tokens import TokenStore

EVENTS = "customer_gateway_token_events"
USERS = 1_000
CHUNK = 250_000
PAGE, PAGE_SECONDS = 500, 5.0
INSERTED = 10_000  # entries of one insert
SHORT_SECONDS, LONG_SECONDS = 0.02, 2.0
ROLLED_BACK, LONG, ALONE = 0.2, 0.01, 0.5  # shares of transactions
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 30.0
# Ten entries for each token; ids ascend, as those of version 7 do.
FILL = f"""
insert into {EVENTS} (token_id, version, user_id, gateway, gateway_customer_id, is_active, action, actor, at)
select ($3 || lpad(to_hex(n / 10), 8, '0') || '80008000' || substr(md5((n / 10)::text), 1, 8))::uuid, n % 10 + 1,
  'user-' || md5((n / 10)::text), 'STRIPE', 'cus_' || md5((n / 10)::text), true,
  case when n % 10 = 0 then 'CREATED' else 'UPDATED' end, 'benchmark', '2026-01-01'::timestamptz + n * interval '10 ms'
from generate_series($1::bigint, $2::bigint) as n
"""
QUERY = """query($after:String,$filter:CustomerGatewayTokenEventFilter){
customerGatewayTokenEvents(first:500,after:$after,filter:$filter){
nodes{action tokenId version gateway isActive} pageInfo{endCursor hasNextPage}}}"""
NOW = "{customerGatewayTokenEvents(startAt:NOW){pageInfo{endCursor}}}"
ONE_OF_TEN, NONE = FeedFilter(actions=["CREATED"]), FeedFilter(actions=["ERASED"])
WAL = "select (pg_current_wal_insert_lsn() - '0/0')::bigint"
BACKEND = Statement("backend", "select pg_backend_pid()")


class RolledBackError(Exception):
    """A writer changed its mind."""


def percentiles(seconds: list[float]) -> list[str]:
    """p50 and p99 in ms."""
    ordered = sorted(seconds) or [0.0]
    return [f"{ordered[int((len(ordered) - 1) * share)] * 1000:.1f}" for share in (0.5, 0.99)]


def table(title: str, *columns: str) -> Table:
    new = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        new.add_column(column, justify="right" if number else "left")
    return new


async def fill(console: Console, url: str, lines: int) -> None:
    """Write this many entries."""
    await seed(url, 1, USERS)
    connection = await asyncpg.connect(url)
    began = time.monotonic()
    for first in track(range(0, lines, CHUNK), "Filling the history", transient=True, console=console):
        await connection.execute(FILL, first, min(first + CHUNK, lines) - 1, "018bcfe5")
    await connection.execute(f"vacuum analyze {EVENTS}")
    size = await connection.fetchval(f"select pg_total_relation_size('{EVENTS}')")
    index = await connection.fetchval(f"select pg_relation_size('{EVENTS}_by_position')")
    console.print(
        f"{lines:,} entries after {time.monotonic() - began:.0f} s: {size / lines:.0f} bytes each,"
        f" {index / lines:.0f} of them in the feed's index.\n"
    )
    await connection.close()


# Pages


class Pages:
    """Different requests for pages of a kind: where each starts, and which entries it wants."""

    def __init__(self, starts: list[int], wanted: FeedFilter = NO_FILTER) -> None:
        self.starts, self.wanted = starts, wanted

    def bodies(self, timeline: str) -> list[dict]:
        given = {name: values for name, values in self.wanted._asdict().items() if values is not None}
        return [
            {
                "query": QUERY,
                "variables": {"after": of_place(Place(timeline, start)) if start else None, "filter": given},
            }
            for start in self.starts
        ]


def kinds_of_pages(end: int, count: int) -> dict[str, Pages]:
    chance = random.Random(0)
    middle = [int(end * (0.25 + chance.random() / 2)) for _ in range(count)]
    return {
        "from the middle": Pages(middle),
        "at the end": Pages([end - PAGE] * count),
        "from the middle, of a tenth of the entries": Pages(middle, ONE_OF_TEN),
        f"from the middle, none of {MAX_SCANNED:,}": Pages(middle, NONE),
    }


async def time_statements(console: Console, pool: ConnectionPool, pages: Pages, end: int) -> list[float]:
    found: list[float] = []
    for position in track(pages.starts, "Statements", transient=True, console=console):
        began = time.perf_counter()
        if pages.wanted == NO_FILTER:
            await pool.fetch(STATEMENTS.page, position, end, PAGE + 1)
        else:
            await pool.fetch(STATEMENTS.filtered_page, position, end, PAGE + 1, *pages.wanted)
        found.append(time.perf_counter() - began)
    return found


async def time_looks(pool: ConnectionPool, end: int, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await pool.fetch(STATEMENTS.look, end)
        found.append(time.perf_counter() - began)
    return found


async def time_requests(port: int, headers: dict[str, str], bodies: list[dict], seconds: float) -> list[float]:
    requests = [http(json.dumps(body).encode(), headers) for body in bodies]
    run = await load(port, requests, seconds=seconds, connections=1)
    assert not run.failed
    return run.latencies


async def time_pages(
    console: Console, url: str, port: int, headers: dict[str, str], kinds: dict[str, Pages], title: str
) -> None:
    """Print how long pages of each kind take, and the place of now."""
    end, timeline = await place(url)
    shown = table(title, "page", "p50", "p99", "by HTTP: p50", "p99")
    async with ConnectionPool.open(url, size=1, timeout=300, watches=False) as pool:
        for name, pages in kinds.items():
            statements = await time_statements(console, pool, pages, end)
            requests = await time_requests(port, headers, pages.bodies(timeline), PAGE_SECONDS)
            shown.add_row(name, *percentiles(statements), *percentiles(requests))
        looks = await time_looks(pool, end, 500)
        requests = await time_requests(port, headers, [{"query": NOW}], PAGE_SECONDS)
        shown.add_row("now", *percentiles(looks), *percentiles(requests))
    console.print(shown)


async def time_pruning(console: Console, url: str, share: float) -> None:
    """Delete old entries, of this share of all, and print how long the transactions took."""
    lines, seconds, deleted = await newest(url), [], 0
    async with ConnectionPool.open(url, size=1, timeout=300, watches=False) as pool:
        transactions, began = prune(pool, timedelta(0)), time.perf_counter()
        async for count in transactions:
            seconds.append(time.perf_counter() - began)
            deleted += count
            if len(seconds) * ROWS >= lines * share:
                break
            began = time.perf_counter()
        await transactions.aclose()
    console.print(
        f"Pruning {len(seconds) * ROWS:,} entries deleted {deleted:,} of them:"
        f" {deleted / sum(seconds):,.0f} a second, {' and '.join(percentiles(seconds))} ms (p50 and p99) a transaction"
        f" of {ROWS:,}.\n"
    )


# What the position costs writers


async def copy_without_feed(server: str, url: str) -> str:
    """The address of a copy of this database that lacks the feed's column, its sequence and its index."""
    copy = urlsplit(server)._replace(path="/without_feed").geturl()
    administrator = await asyncpg.connect(server)
    await administrator.execute(f"create database without_feed template {urlsplit(url).path[1:]} strategy file_copy")
    await administrator.close()
    connection = await asyncpg.connect(copy)
    await connection.execute(f"alter table {EVENTS} drop column position")
    await connection.close()
    return copy


# The history with more and more of what makes its position.
PARTS = {
    "without it": [f"alter table {EVENTS} drop column position"],
    "+ the column": [
        f"drop index {EVENTS}_by_position",
        f"alter table {EVENTS} alter position drop identity, alter position set default 0",
    ],
    "+ the sequence": [f"drop index {EVENTS}_by_position"],
    "+ the index": [],
}


async def weigh_parts(console: Console, server: str, url: str) -> None:
    """Print the WAL of an inserted entry without images of pages, by what makes its position."""
    administrator = await asyncpg.connect(server)
    await administrator.execute("alter system set full_page_writes = off")
    await administrator.execute("select pg_reload_conf()")
    shown = table("WAL of an inserted entry, without images of whole pages", "history", "bytes")
    for name, statements in PARTS.items():
        await administrator.execute(f"create database parts template {urlsplit(url).path[1:]} strategy file_copy")
        connection = await asyncpg.connect(urlsplit(server)._replace(path="/parts").geturl())
        for statement in statements:
            await connection.execute(statement)
        wal = await connection.fetchval(WAL)
        await connection.execute(FILL, 0, INSERTED - 1, "018bcfe7")
        shown.add_row(name, f"{(await connection.fetchval(WAL) - wal) / INSERTED:.0f}")
        await connection.close()
        await administrator.execute("drop database parts")
    await administrator.execute("alter system reset full_page_writes")
    await administrator.execute("select pg_reload_conf()")
    await administrator.close()
    console.print(shown)


async def save_change(store: TokenStore, user: str) -> None:
    snapshot = await store.read_at(user, "STRIPE")
    await store.change(snapshot.token, edited(snapshot.token, Edit(description=Given(str(uuid7()))), snapshot.now), "b")


async def save_new(store: TokenStore, user: str) -> None:
    changes = Changes()
    async with store.transaction([user]) as transaction:
        edit = Edit(gateway_customer_id=f"cus_{uuid7()}")
        changes.create(created(str(uuid7()), f"new-{uuid7()}", "NEW", edit, await transaction.now(), Action.CREATED))
        await transaction.write(changes, "b")


COSTS = ("CPU µs", "WAL bytes", "a second", "without", "CPU ÷ without", "WAL ÷ without", "rate ÷ without")


@dataclass
class Cost:
    """What each batch took for one of its entries: bytes of WAL, and microseconds."""

    cpu: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)


async def compare_writes(console: Console, with_: str, without: str, saves: int, rounds: int) -> None:
    """Print the cost of each kind of write, with and without the position."""
    async with AsyncExitStack() as stack:
        observer = await asyncpg.connect(with_)
        stack.push_async_callback(observer.close)
        stores: list[TokenStore] = []
        for url in (with_, without):
            pool = await stack.enter_async_context(ConnectionPool.open(url, size=1, timeout=300, watches=False))
            stores.append(TokenStore(pool))
        inserted = 0

        async def batch_of(write: Callable[[TokenStore, str], Awaitable[None]], store: TokenStore) -> None:
            chance = random.Random(0)
            for _ in range(saves):
                await write(store, f"user-{chance.randint(1, USERS)}")

        async def insert(store: TokenStore) -> None:
            statement = Statement("fill", FILL)
            await store.pool.fetch(statement, inserted, inserted + INSERTED - 1, "018bcfe6")

        workloads = {
            f"{saves:,} saves of a change": (saves, lambda store: batch_of(save_change, store)),
            f"{saves:,} saves of a new token": (saves, lambda store: batch_of(save_new, store)),
            f"insert of {INSERTED:,} entries": (INSERTED, insert),
        }
        shown = table("What the feed's position costs, per entry (medians)", "workload", *COSTS)
        for name, (count, run) in workloads.items():
            costs = Cost(), Cost()
            for round_ in track(range(-1, rounds), name, transient=True, console=console):
                pairs = list(zip(stores, costs, strict=True))
                for store, cost in pairs[:: 1 if round_ % 2 else -1]:
                    [[backend]] = await store.pool.fetch(BACKEND)
                    schedule = Path(f"/proc/{backend}/schedstat")
                    wal, began = await observer.fetchval(WAL), time.perf_counter()
                    cpu = int(schedule.read_text().split()[0])
                    await run(store)
                    if round_ >= 0:  # the first one prepares statements
                        cost.cpu.append((int(schedule.read_text().split()[0]) - cpu) / 1000 / count)
                        cost.micros.append((time.perf_counter() - began) * 1e6 / count)
                        cost.wal.append((await observer.fetchval(WAL) - wal) / count)
                inserted += INSERTED
            shown.add_row(name, *compared(*costs))
        console.print(shown)


def compared(with_: Cost, without: Cost) -> list[str]:
    """The medians with the position, how many a second with and without it, and the medians of the ratios."""
    costs = [statistics.median(each) for each in (with_.cpu, with_.wal)]
    rates = [1e6 / statistics.median(each.micros) for each in (with_, without)]
    pairs = (with_.cpu, without.cpu), (with_.wal, without.wal), (without.micros, with_.micros)
    ratios = [statistics.median(a / b for a, b in zip(*pair, strict=True)) for pair in pairs]
    return [f"{each:,.1f}" for each in costs] + [f"{each:,.0f}" for each in rates] + [f"{each:.2f}" for each in ratios]


# Followers


class Follower:
    """Follows the feed over HTTP from now on."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
        self._cursor = ""
        self.seen: list[tuple[str, int]] = []
        self.at: dict[tuple[str, int], float] = {}

    async def _ask(self, query: str, **variables: str) -> dict:
        answer = (await self._client.post("/graphql", json={"query": query, "variables": variables})).json()
        if "errors" in answer:
            raise SystemExit(f"the follower got {answer['errors']}")
        return answer["data"]["customerGatewayTokenEvents"]

    async def start(self) -> None:
        """Entries of transactions that begin after this are followed."""
        self._cursor = (await self._ask(NOW))["pageInfo"]["endCursor"]

    async def read(self) -> bool:
        """Read a page; whether there are more."""
        page = await self._ask(QUERY, after=self._cursor)
        entries, now = [(node["tokenId"], node["version"]) for node in page["nodes"]], time.perf_counter()
        self.seen += entries
        for entry in entries:
            self.at.setdefault(entry, now)
        self._cursor = page["pageInfo"]["endCursor"]
        return page["pageInfo"]["hasNextPage"]

    async def follow(self, work: asyncio.Task, url: str, start: int) -> list[tuple[str, int]]:
        """Read until the work is done and all entries after the position `start` were read; those in the table.

        It gives up when none has come for a while.
        """
        while not work.done():
            if not await self.read():
                await asyncio.sleep(POLL_SECONDS)
        await work
        stored = await stored_after(url, start)
        came = time.monotonic()
        while len(self.at) < len(stored) and time.monotonic() - came < PATIENCE_SECONDS:
            known = len(self.at)
            await self.read()
            if len(self.at) > known:
                came = time.monotonic()
        while await self.read():
            pass
        return stored

    def disordered(self) -> int:
        """Entries that came after a later one of their token."""
        latest: dict[str, int] = {}
        found = 0
        for token, version in self.seen:
            found += version < latest.get(token, 0)
            latest[token] = max(version, latest.get(token, 0))
        return found

    async def close(self) -> None:
        await self._client.aclose()


class Writers:
    """Writers that share users, and when each of their entries was committed."""

    def __init__(self, pool: ConnectionPool, seconds: float, *, long: bool) -> None:
        self._pool, self._until, self._long = pool, time.monotonic() + seconds, LONG if long else 0
        self.committed: dict[tuple[str, int], float] = {}
        self.rolled_back = self.conflicts = 0

    async def run(self, count: int) -> None:
        await asyncio.gather(*(self._write(random.Random(number)) for number in range(count)))

    async def _write(self, chance: random.Random) -> None:
        store = TokenStore(self._pool)
        while time.monotonic() < self._until:
            write = self._alone if chance.random() < ALONE else self._together
            try:
                entries = await write(store, chance)
            except RolledBackError:
                self.rolled_back += 1
            except ConflictError:
                self.conflicts += 1
            else:
                now = time.perf_counter()
                self.committed |= dict.fromkeys(entries, now)
            await asyncio.sleep(chance.random() * SHORT_SECONDS)

    async def _alone(self, store: TokenStore, chance: random.Random) -> list[tuple[str, int]]:
        snapshot = await store.read_at(f"user-{chance.randint(1, USERS)}", "STRIPE")
        event = edited(snapshot.token, Edit(description=Given(str(uuid7()))), snapshot.now)
        token = await store.change(snapshot.token, event, "benchmark")
        return [(token.id, token.version)]

    async def _together(self, store: TokenStore, chance: random.Random) -> list[tuple[str, int]]:
        users = sorted({f"user-{chance.randint(1, USERS)}" for _ in range(chance.randint(1, 4))})
        pause = LONG_SECONDS / len(users) if chance.random() < self._long else SHORT_SECONDS
        entries: list[tuple[str, int]] = []
        async with store.transaction(users) as transaction:
            await asyncio.sleep(chance.random() * SHORT_SECONDS)
            for user in users:
                changes = Changes()
                edit = Edit(gateway_customer_id=f"cus_{uuid7()}", description=Given(str(uuid7())))
                now = await transaction.now()
                if chance.random() < ALONE:
                    event = created(str(uuid7()), f"new-{uuid7()}", "NEW", edit, now, Action.CREATED)
                    changes.create(event)
                else:
                    [token] = (await transaction.lock_at([(user, "PAYPAL")])).values()
                    changes.change(token, event := edited(token, edit, now))
                await transaction.write(changes, "benchmark")
                entries.append((event.token.id, event.token.version))
                await asyncio.sleep(chance.random() * pause)
            if chance.random() < ROLLED_BACK:
                raise RolledBackError
        return entries


async def stored_after(url: str, position: int) -> list[tuple[str, int]]:
    """The entries after this position, as the table has them."""
    connection = await asyncpg.connect(url)
    sql = f"select token_id::text, version from {EVENTS} where position > $1 order by position"
    rows = await connection.fetch(sql, position)
    await connection.close()
    return [tuple(row) for row in rows]


async def newest(url: str) -> int:
    connection = await asyncpg.connect(url)
    position = await connection.fetchval(f"select max(position) from {EVENTS}")
    await connection.close()
    return position


def faults(stored: list[tuple[str, int]], follower: Follower) -> list[int]:
    """How many entries the follower missed, got twice, and got out of order, and how many are not in the table."""
    times = Counter(follower.seen)
    return [
        sum(entry not in times for entry in stored),
        sum(count - 1 for count in times.values()),
        follower.disordered(),
        len(times.keys() - set(stored)),
    ]


FAULTS = ("missed", "twice", "disordered", "not stored")


async def follow_writers(console: Console, url: str, target: Target, headers: dict, count: int, seconds: float) -> bool:
    """Print what a follower of these writers got; whether it was what they wrote."""
    columns = ("written", "rolled back", "conflicts", "followed", *FAULTS, "p50 ms", "p99 ms")
    shown = table(f"{count} writers, {seconds:.0f} s, and a follower: from the commit to the page", "pauses", *columns)
    total = [0] * len(FAULTS)
    for name, long in {"short": False, f"up to {LONG_SECONDS:.0f} s": True}.items():
        start, follower = await newest(url), Follower(target.port, headers)
        await follower.start()
        with console.status(f"Writing: {name}"):
            async with ConnectionPool.open(url, size=count + 5, timeout=30, watches=False) as pool:
                writers = Writers(pool, seconds, long=long)
                work = asyncio.create_task(writers.run(count))
                stored = await follower.follow(work, url, start)
        await follower.close()
        wrong = faults(stored, follower)
        assert writers.committed.keys() == set(stored)  # what was answered is what the table has
        total = [a + b for a, b in zip(total, wrong, strict=True)]
        waits = [follower.at[entry] - at for entry, at in writers.committed.items() if entry in follower.at]
        shown.add_row(
            name,
            *(f"{each:,}" for each in (len(stored), writers.rolled_back, writers.conflicts, len(follower.seen))),
            *map(str, wrong),
            *percentiles([max(0.0, wait) for wait in waits]),
        )
    console.print(shown)
    return not any(total)


def write_file(path: Path, rows: int, prefix: str) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["userId", "gateway", "gatewayCustomerId"])
        out.writerows([f"{prefix}-{number}", "IMPORTED", f"{prefix}-cus-{number}"] for number in range(rows))


async def import_(url: str, path: Path) -> float:
    """The seconds that the command takes."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "graphql_api", "import", str(path)],
        env={**os.environ, "DATABASE_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise SystemExit("the import failed")
    return time.perf_counter() - began


async def compare_imports(console: Console, with_: str, without: str, folder: Path, rows: int, rounds: int) -> None:
    """Print what importing a file costs with and without the position: CPU of the backends that worked for it, WAL."""
    path, costs = folder / "tokens.csv", (Cost(), Cost())
    observer = await asyncpg.connect(with_)
    for round_ in track(range(rounds), "Importing", transient=True, console=console):
        write_file(path, rows, f"compared-{round_}")
        pairs = list(zip((with_, without), costs, strict=True))
        for url, cost in pairs[:: 1 if round_ % 2 else -1]:
            wal, cpu = await observer.fetchval(WAL), await ended_backends_cpu(observer)
            cost.micros.append(await import_(url, path) * 1e6 / rows)
            cost.wal.append((await observer.fetchval(WAL) - wal) / rows)
            cost.cpu.append((await ended_backends_cpu(observer) - cpu) * 1e6 / rows)
    await observer.close()
    shown = table("What the feed's position costs an import, per line (medians)", "workload", *COSTS)
    shown.add_row(f"{rounds} imports of {rows:,} lines", *compared(*costs))
    console.print(shown)


async def ended_backends_cpu(observer: asyncpg.Connection) -> float:
    """The seconds of CPU that all ended backends of PostgreSQL took, once only the observer's is left."""
    while await observer.fetchval("select count(*) from pg_stat_activity where backend_type = 'client backend'") > 1:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)  # until they are reaped
    parent = process_status(await observer.fetchval("select pg_backend_pid()"))[1]
    return sum(map(int, process_status(int(parent))[13:15])) / os.sysconf("SC_CLK_TCK")


def process_status(process: int) -> list[str]:
    """What Linux says of a process, from its state on (proc(5), stat)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


async def follow_imports(
    console: Console, url: str, target: Target, headers: dict, folder: Path, rows: int, rounds: int
) -> bool:
    """Print how fast an import is without and with a follower; whether that got every line."""
    path, seconds, behind = folder / "tokens.csv", ([], []), []
    total, followed = [0] * len(FAULTS), 0
    for round_ in track(range(rounds), "Importing", transient=True, console=console):
        for is_followed in (False, True)[:: 1 if round_ % 2 else -1]:
            write_file(path, rows, f"import-{round_}-{is_followed}")
            if not is_followed:
                seconds[0].append(await import_(url, path))
                continue
            start, follower = await newest(url), Follower(target.port, headers)
            await follower.start()
            began = time.perf_counter()
            work = asyncio.create_task(import_(url, path))
            stored = await follower.follow(work, url, start)
            await follower.close()
            seconds[1].append(work.result())
            behind.append(max(follower.at.values(), default=began) - began - work.result())
            assert len(stored) == rows
            total = [a + b for a, b in zip(total, faults(stored, follower), strict=True)]
            followed += len(follower.seen)
    columns = ("without", "with a follower", "÷", "followed", *FAULTS, "s behind the end")
    shown = table(f"Imports of {rows:,} lines: lines/s (medians), and what a follower got", *columns)
    without, with_ = (rows / statistics.median(each) for each in seconds)
    ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
    figures = f"{without:,.0f}", f"{with_:,.0f}", f"{ratio:.2f}", f"{followed:,}"
    shown.add_row(*figures, *map(str, total), f"{max(0.0, *behind):.1f}")
    console.print(shown)
    return not any(total)


def main(
    lines: Annotated[int, typer.Option(help="Entries in the history.")] = 1_000_000,
    pages: Annotated[int, typer.Option(help="Different pages from the middle.")] = 500,
    saves: Annotated[int, typer.Option(help="Saves in a batch.")] = 200,
    rounds: Annotated[int, typer.Option(help="Batches of each kind, with and without the position.")] = 10,
    writers: Annotated[int, typer.Option(help="Concurrent writers.")] = 20,
    seconds: Annotated[float, typer.Option(help="How long they write.")] = 15,
    rows: Annotated[int, typer.Option(help="Lines of the imported file.")] = 100_000,
    imports: Annotated[int, typer.Option(help="Imports without a follower, and with one.")] = 2,
    pruned: Annotated[float, typer.Option(help="Which share of the entries to prune.")] = 0.1,
    shared_buffers: Annotated[str, typer.Option(help="PostgreSQL's.")] = "512MB",
    directory: Annotated[
        Path | None, typer.Option(help="Where the databases are: 1 kB for each entry. Default: a temporary folder.")
    ] = None,
) -> None:
    """Measure the change feed: pages, the cost of the position, and followers of writers and of imports."""
    console = Console(width=120)
    settings = {"shared_buffers": shared_buffers, "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        server = stack.enter_context(embedded_postgres(folder / "data", settings))
        asyncio.run(create(server))
        url = urlsplit(server)._replace(path="/feed").geturl()
        asyncio.run(fill(console, url, lines))
        with serving(url, ["compiled"], folder) as [[target], headers]:
            end, _ = asyncio.run(place(url))
            title = f"A page of {PAGE} of {lines:,} entries, ms"
            uvloop.run(time_pages(console, url, target.port, headers, kinds_of_pages(end, pages), title))
        asyncio.run(weigh_parts(console, server, url))
        with_, without = url, asyncio.run(copy_without_feed(server, url))
        asyncio.run(compare_writes(console, with_, without, saves, rounds))
        asyncio.run(compare_imports(console, with_, without, folder, rows, imports))
        [[target], headers] = stack.enter_context(serving(url, ["compiled"], folder))
        is_right = asyncio.run(follow_writers(console, url, target, headers, writers, seconds))
        is_right &= asyncio.run(follow_imports(console, url, target, headers, folder, rows, imports))
        asyncio.run(time_pruning(console, url, pruned))
        title = "The oldest page after that, ms"
        uvloop.run(time_pages(console, url, target.port, headers, {"the oldest": Pages([0])}, title))
    raise SystemExit(not is_right)


async def create(server: str) -> None:
    administrator = await asyncpg.connect(server)
    await administrator.execute("create database feed")
    await administrator.close()


async def place(url: str) -> tuple[int, str]:
    """The highest position, and the timeline."""
    async with ConnectionPool.open(url, size=1) as pool:
        now = await TokenStore(pool).feed.now()
    return now.position, now.timeline


if __name__ == "__main__":
    typer.run(main)
