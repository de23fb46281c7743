"""What a Citus cluster costs: each workload's time on distributed tables beside that on tables of one database.

    .venv/bin/python benchmarks/distributed.py postgresql://postgres@127.0.0.1:5432/postgres --shards 4 32

Its argument is a database of the coordinator that knows the workers, as a superuser. The same tokens are stored in a
database of the coordinator alone, and in one of the cluster for each number of shards. The store's calls then run
alternately, on one connection each.
"""

import argparse
import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import asyncpg
from partitions import CALLS, FEWEST, at, fill, workloads

from graphql_api.storage.distribution import distribute
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore

sys.path.append(str(Path(__file__).parent.parent))

from tests.citus import Cluster

ALONE = "one database"


async def compare(urls: dict[str, str], users: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        stores = {
            name: TokenStore(await stack.enter_async_context(ConnectionPool.open(url, size=1, timeout=60)))
            for name, url in urls.items()
        }
        print(f"\n{'ms, median (÷ one database)':30}" + "".join(f"{name:>20}" for name in stores))
        for workload, run in workloads(users).items():
            times: dict[str, list[float]] = {name: [] for name in stores}
            until = time.monotonic() + seconds
            while time.monotonic() < until or len(times[ALONE]) < FEWEST:
                for name in random.sample([*stores], len(stores)):
                    for _ in range(CALLS):
                        began = time.perf_counter()
                        await run(stores[name])
                        times[name].append((time.perf_counter() - began) * 1000)
            first = median(times[ALONE])
            cells = (f"{median(each):8.2f} ({median(each) / first:5.2f})" for each in times.values())
            print(f"{workload:30}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


async def main(url: str, rows: int, counts: list[int], seconds: float) -> None:
    async with Cluster.of(url) as cluster:
        names = {ALONE: "bench_alone", **{f"{count} shards": f"bench_{count}" for count in counts}}
        administrator = await asyncpg.connect(url)
        for name in names.values():
            await cluster.drop(name)
            await administrator.execute(f"create database {name} template template0")
            await fill(at(url, name), rows, rows)
        for count in counts:
            await cluster.join(f"bench_{count}")
            connection = await asyncpg.connect(at(url, f"bench_{count}"))
            await distribute(connection, count)
            await connection.close()
        await compare({name: at(url, database) for name, database in names.items()}, rows // 3, seconds)
        for name in names.values():
            await cluster.drop(name)
        await administrator.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="a database of the coordinator")
    parser.add_argument("--rows", type=int, default=150_000, help="tokens; three for each user")
    parser.add_argument("--shards", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--seconds", type=float, default=10, help="for each workload")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.rows // 3 * 3, given.shards, given.seconds))
