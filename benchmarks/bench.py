"""Measures the service beside itself on graphql-core, and beside a bare handler, all in one run on this machine.

It seeds a database of its own, checks that all answer alike, and then times workload after workload, the targets in
turn, round after round: a ratio is taken within a round, so that what slows the machine down slows all of them. It
reports and never fails by the clock.
"""

import json
import os
import statistics
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from load import Run, load
from rich.console import Console
from rich.progress import track
from rich.table import Table
from targets import WORKLOADS, Target, requests_of, running


def check(targets: list[Target], requests: dict[str, list[bytes]], headers: dict[str, str]) -> None:
    """Every target answers every kind of request like the first one."""
    for name, some in requests.items():
        for request in some[:5]:
            first, *others = [target.ask(request, headers) for target in targets]
            if "errors" in str(first) or any(other != first for other in others):
                raise SystemExit(f"{name}: the answers differ\n" + "\n".join(map(str, [first, *others])))


def measure(target: Target, requests: list[bytes], seconds: float, connections: int, offset: int) -> tuple[Run, float]:
    """One timed run, and the server's CPU time per request in milliseconds."""
    before = target.cpu_seconds()
    run = uvloop.run(load(target.port, requests, seconds=seconds, connections=connections, offset=offset))
    return run, (target.cpu_seconds() - before) * 1000 / max(len(run.latencies), 1)


def report(console: Console, workload: str, runs: dict[str, list[tuple[Run, float]]]) -> dict:
    table = Table(title=workload, title_justify="left")
    for column in (
        "target",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "server CPU ms",
        "failed",
        *(f"÷ {name}" for name in runs),
    ):
        table.add_column(column, justify="left" if column == "target" else "right")
    result = {}
    for name, own in runs.items():
        figures = {
            "rate": statistics.median(run.rate for run, _ in own),
            "p50": statistics.median(run.percentile(0.5) for run, _ in own) * 1000,
            "p99": statistics.median(run.percentile(0.99) for run, _ in own) * 1000,
            "cpu": statistics.median(cpu for _, cpu in own),
            "failed": sum(run.failed for run, _ in own),
        }
        figures["ratios"] = {
            other: statistics.median(a.rate / b.rate for (a, _), (b, _) in zip(own, runs[other], strict=True))
            for other in runs
        }
        result[name] = figures
        table.add_row(
            name,
            f"{figures['rate']:,.0f}",
            f"{figures['p50']:.2f}",
            f"{figures['p99']:.2f}",
            f"{figures['cpu']:.3f}",
            str(figures["failed"]),
            *(f"{ratio:.2f}" for ratio in figures["ratios"].values()),
        )
    console.print(table)
    return result


def main(
    users: Annotated[int, typer.Option(help="Users in the table, each with a token at three gateways.")] = 20_000,
    rounds: Annotated[int, typer.Option(help="Timed runs of each target in each workload.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a timed run.")] = 2,
    connections: Annotated[int, typer.Option(help="Connections that ask at the same time.")] = 8,
    workloads: Annotated[
        str, typer.Option(help="Which ones, comma-separated; entities-1000:br is for clients that accept br.")
    ] = ",".join(WORKLOADS),
    targets: Annotated[
        str, typer.Option(help="Which servers, comma-separated; there are two-workers and uncompressed, too.")
    ] = "compiled,graphql-core,bare",
    output: Annotated[Path | None, typer.Option(help="File for the figures, as JSON.")] = None,
) -> None:
    """Compare the service with ENGINE=graphql-core and with a bare handler."""
    console = Console(width=120)
    with running(users, targets.split(",")) as (servers, headers, _):
        requests = {name: requests_of(name, users, headers) for name in workloads.split(",")}
        check(servers, requests, headers)
        console.print(f"All answer alike. {users:,} users, {connections} connections, {os.cpu_count()} cores.\n")
        results = {}
        for name, some in requests.items():
            for target in servers:
                measure(target, some, seconds, connections, 0)
            runs: dict[str, list[tuple[Run, float]]] = {target.name: [] for target in servers}
            for round_ in track(range(rounds), name, transient=True, console=console):
                for target in servers:
                    runs[target.name].append(measure(target, some, seconds, connections, (round_ + 1) * 7919))
            results[name] = report(console, name, runs)
        if output:
            output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    typer.run(main)
