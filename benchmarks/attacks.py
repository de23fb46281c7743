"""What honest callers notice during an attack: the hostile requests of `tests/costs`, ten per second of each.

Each attack runs against one worker for some seconds. Before it, the honest load runs alone for as long, because other
programs slow down both. Latency counts from the time when a request was due: a service that stops for a moment delays
all requests that are due meanwhile.
"""

import asyncio
import json
import random
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table
from targets import SECRET, Target, http, lookup, running

from graphql_api.auth import mint
from graphql_api.domain.caller import READ_SCOPE, WRITE_SCOPE

sys.path.append(str(Path(__file__).parent.parent))

from tests.costs import cases, test_http

USERS = 10_000
TOKENS, METADATA = 120, {"a": "x" * 16_000}  # of the attacker, as in `tests/costs`
SAVE = (
    "mutation($i: [SaveCustomerGatewayTokenInput!]!) { saveCustomerGatewayTokens(inputs: $i) { userErrors { code } } }"
)
JSON = {"Content-Type": "application/json"}


def attacks(tokens: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """All hostile requests, each at the larger of its sizes."""
    for case in cases.CASES:
        bearer = {"Authorization": f"Bearer {tokens[case.caller]}"} if case.caller else {}
        request = case.make(case.sizes[-1])
        caller = f" ({case.caller})" if case.caller else ""
        yield case.name + caller, http(request.body, {**JSON, **bearer, "Connection": "close", **request.headers})
    for name, (make, size) in test_http.CASES.items():
        yield name, make(size * test_http.GROWTH)


class Honest:
    """Callers that look up tokens, at a fixed rate."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests = cycle(requests)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(next(self._requests))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
        if not head.startswith(b"http/1.1 200") or b'"errors"' in body:
            raise SystemExit(f"An honest request was refused: {body[:200]!r}")
        self._idle.append((reader, writer))

    def disconnect(self) -> None:
        """Close the connections, before the service does: it has as many as it had in its worst moment."""
        while self._idle:
            self._idle.pop()[1].close()


async def attack(port: int, request: bytes) -> None:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        with suppress(OSError):
            while await reader.read(65536):
                pass
        writer.close()


async def at_rate(rate: float, seconds: float, send: Callable[[], Awaitable[None]]) -> list[float]:
    """Send at this rate, however long the answers take; the latencies in milliseconds, in order."""
    loop, latencies = asyncio.get_running_loop(), []
    began = loop.time()

    async def one(due: float) -> None:
        await send()
        latencies.append((loop.time() - due) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(due - loop.time())
            group.create_task(one(due))
    return sorted(latencies)


def percentile(latencies: list[float], share: float) -> float:
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)]


async def measure(
    target: Target, honest: Honest, hostile: list[tuple[str, bytes]], seconds: float, rate: float, attack_rate: float
) -> list[tuple[str, int, float, list[float], list[float]]]:
    rows = []
    for name, request in track(hostile, "Attacking", transient=True):
        alone = await at_rate(rate, seconds, honest)
        before = target.cpu_seconds()
        during, _ = await asyncio.gather(
            at_rate(rate, seconds, honest),
            at_rate(attack_rate, seconds, lambda request=request: attack(target.port, request)),
        )
        honest.disconnect()
        rows.append((name, len(request), target.cpu_seconds() - before, alone, during))
    return rows


def main(
    seconds: Annotated[float, typer.Option(help="How long each attack runs, and the honest load before it.")] = 3.0,
    rate: Annotated[float, typer.Option(help="Honest requests per second.")] = 50.0,
    attack_rate: Annotated[float, typer.Option(help="Hostile requests per second.")] = 10.0,
    only: Annotated[str, typer.Option(help="Only attacks whose names match this pattern.")] = "",
) -> None:
    """Run every attack and print what it did to honest callers."""
    with running(USERS, ["compiled"]) as ([target], headers, _):
        inputs = [
            {"userId": "rich", "gateway": f"G{n}", "gatewayCustomerId": f"cus_{n}", "metadata": METADATA}
            for n in range(TOKENS)
        ]
        for first in range(0, TOKENS, 40):
            body = json.dumps({"query": SAVE, "variables": {"i": inputs[first : first + 40]}}).encode()
            target.ask(http(body, headers), headers)
        tokens = {
            "user": mint(SECRET, "rich"),
            "service": mint(SECRET, "attacker", (READ_SCOPE, WRITE_SCOPE)),
        }
        rng = random.Random(1)
        honest = Honest(target.port, [http(json.dumps(lookup(rng, USERS)).encode(), headers) for _ in range(1000)])
        hostile = [each for each in attacks(tokens) if re.search(only, each[0])]
        rows = uvloop.run(measure(target, honest, hostile, seconds, rate, attack_rate))
    table = Table("attack", "bytes", "CPU ms each", "p50 alone", "p50 during", "p99 alone", "p99 during", title="ms")
    for name, size, cpu, alone, during in sorted(rows, key=lambda row: percentile(row[4], 0.5), reverse=True):
        figures = (percentile(each, share) for share in (0.5, 0.99) for each in (alone, during))
        of_attack = cpu / (seconds * attack_rate) * 1000
        table.add_row(name, f"{size:,}", f"{of_attack:.1f}", *(f"{figure:.1f}" for figure in figures))
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
