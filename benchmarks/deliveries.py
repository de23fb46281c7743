"""How soon a change reaches a follower of the change feed and a receiver of deliveries, under a steady rate of saves.

PostgreSQL, `serve`, `deliver`, what saves, the follower and the receiver share this machine. The time is counted from
the entry's own, which is before its commit. It exits with 1 if one of the two did not get exactly what was saved.
"""

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
import uvloop
from feed import NOW, PATIENCE_SECONDS, POLL_SECONDS, newest, percentiles, stored_after, table
from rich.console import Console
from targets import save, seed, serving

from graphql_api.embedded import embedded_postgres

USERS = 10_000
FEED = """query($after:String){customerGatewayTokenEvents(first:500,after:$after){
nodes{tokenId version at} pageInfo{endCursor hasNextPage}}}"""
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
DELIVER = [sys.executable, "-m", "graphql_api", "deliver"]
KEY = base64.b64encode(bytes(32)).decode()


class Arrivals:
    """The entries that arrived, each with the seconds since it was made."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}

    def add(self, token: str, version: int, at: str) -> None:
        self.seconds.setdefault((token, version), time.time() - datetime.fromisoformat(at).timestamp())


class Receiver(Arrivals):
    """An HTTP server that takes deliveries."""

    async def listen(self) -> str:
        """Listen, and return the address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                event = json.loads(await reader.readexactly(length))
                self.add(event["data"]["id"], event["data"]["version"], event["timestamp"])
                writer.write(NO_CONTENT)
        except asyncio.IncompleteReadError:
            writer.close()


class Follower(Arrivals):
    """Follows the feed over HTTP from now on."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def start(self) -> None:
        self._cursor = (await self._page(NOW))["pageInfo"]["endCursor"]

    async def follow(self) -> None:
        while True:
            page = await self._page(FEED, after=self._cursor)
            for node in page["nodes"]:
                self.add(node["tokenId"], node["version"], node["at"])
            self._cursor = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                await asyncio.sleep(POLL_SECONDS)

    async def _page(self, query: str, **variables: str) -> dict:
        answer = await self._client.post("/graphql", json={"query": query, "variables": variables})
        return answer.json()["data"]["customerGatewayTokenEvents"]


async def save_steadily(client: httpx.AsyncClient, rate: float, seconds: float) -> float:
    """Save at this rate, however long each save takes. Returns the rate that was reached."""
    chance, began, saves = random.Random(0), time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(began + number / rate - time.perf_counter())
        saves.append(asyncio.create_task(client.post("/graphql", json=save(chance, USERS))))
    for each in saves:
        answer = (await each).json()
        assert not answer["data"]["saveCustomerGatewayToken"]["userErrors"], answer
    return len(saves) / (time.perf_counter() - began)


async def measure(url: str, address: str, headers: dict[str, str], rate: float, seconds: float) -> bool:
    """Print how soon entries arrived; whether all did."""
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60, limits=limits) as client:
        receiver, follower = Receiver(), Follower(client)
        webhook = {"EVENT_WEBHOOKS": f"bench={await receiver.listen()}", "EVENT_WEBHOOK_SECRETS": f"bench:whsec_{KEY}"}
        environment = {**os.environ, "DATABASE_URL": url, **webhook}
        await (await asyncio.create_subprocess_exec(*DELIVER, "--once", env=environment)).wait()  # knows the endpoint
        delivering = await asyncio.create_subprocess_exec(*DELIVER, env=environment, stderr=subprocess.DEVNULL)
        await follower.start()
        following = asyncio.create_task(follower.follow())
        arrivals = {"a page of the feed": follower, "a receiver of deliver": receiver}
        await save_steadily(client, 1, 1)
        while not all(each.seconds for each in arrivals.values()):  # `deliver` takes a while to start
            await asyncio.sleep(POLL_SECONDS)
        for each in arrivals.values():
            each.seconds.clear()
        start = await newest(url)
        reached = await save_steadily(client, rate, seconds)
        stored = set(await stored_after(url, start))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(each.seconds.keys() < stored for each in arrivals.values()) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        following.cancel()
        delivering.terminate()
        await delivering.wait()
    title = f"{len(stored):,} saves, {reached:.0f} a second: from the change to"
    shown = table(title, "", "arrived", "p50 ms", "p99 ms")
    for name, each in arrivals.items():
        shown.add_row(name, f"{len(each.seconds):,}", *percentiles(list(each.seconds.values())))
    Console(width=120).print(shown)
    return all(each.seconds.keys() == stored for each in arrivals.values())


def main(
    rate: Annotated[float, typer.Option(help="Saves per second.")] = 200,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 30,
) -> None:
    """Measure the latency of the change feed and of deliveries."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(embedded_postgres(folder / "data"))
        asyncio.run(seed(url, 1, USERS))
        [[target], headers] = stack.enter_context(serving(url, ["compiled"], folder))
        is_right = uvloop.run(measure(url, f"http://127.0.0.1:{target.port}", headers, rate, seconds))
    raise SystemExit(not is_right)


if __name__ == "__main__":
    typer.run(main)
