"""Draws how the latency of `_entities` grows with the number of users asked for, and with the rows of the table."""

import asyncio
import statistics
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import typer
import uvloop
from load import load
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from rich.progress import track
from targets import Target, requests_of, running, seed

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
ROUNDS, SECONDS = 3, 1


def latency(target: Target, workload: str, users: int, headers: dict[str, str]) -> float:
    """Milliseconds: the median over some runs of the median of one, with one request at a time."""
    requests = requests_of(workload, users, headers)
    runs = [
        uvloop.run(load(target.port, requests, seconds=SECONDS, connections=1, offset=round_))
        for round_ in range(ROUNDS)
    ]
    return statistics.median(run.percentile(0.5) for run in runs) * 1000


def main(
    image: Annotated[Path, typer.Argument(help="The picture to draw, such as curves.svg.")],
    users: Annotated[int, typer.Option(help="Users in the table at the end; each has three tokens.")] = 200_000,
    shared_buffers: Annotated[str, typer.Option(help="PostgreSQL's setting.")] = "128MB",
) -> None:
    """Measure and draw."""
    sizes = [size for size in (2_000, 20_000, 200_000, 2_000_000, 20_000_000) if size <= users]
    figure, (by_count, by_rows) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = ["compiled", "graphql-core", "bare"]
    with running(sizes[0], names, shared_buffers=shared_buffers) as (targets, headers, url):
        for target in targets:
            counts = track(COUNTS, f"{target.name}: latency over N", transient=True)
            own = [latency(target, f"entities-{count}", sizes[0], headers) for count in counts]
            by_count.plot(COUNTS, own, marker="o", label=target.name)
        over_rows: dict[str, list[float]] = {name: [] for name in names}
        filled = sizes[0]
        for size in sizes:
            if size > filled:
                asyncio.run(seed(url, filled + 1, size))
                filled = size
            for target in targets:
                over_rows[target.name].append(latency(target, "entities-50", size, headers))
        for name, own in over_rows.items():
            by_rows.plot([size * 3 for size in sizes], own, marker="o", label=name)
    by_count.set(yscale="log", xlabel="users asked for", title="Latency over N")
    by_rows.set(ylim=(0, None), xlabel="rows of the table", title="Latency of 50 users over rows")
    for axes in (by_count, by_rows):
        axes.set(xscale="log", ylabel="p50 in ms")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    by_rows.set_xticks([size * 3 for size in sizes])
    figure.savefig(image)
    typer.echo(f"Drew {image}.")


if __name__ == "__main__":
    typer.run(main)
