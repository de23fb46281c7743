"""Draws a flame graph of the service while it answers one workload, with py-spy."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from load import load
from targets import requests_of, running

SECONDS = 10


def main(
    image: Annotated[Path, typer.Argument(help="The picture to draw, such as flamegraph.svg.")],
    workload: Annotated[str, typer.Option(help="What is asked.")] = "entities-50",
    users: Annotated[int, typer.Option(help="Users in the table.")] = 20_000,
) -> None:
    """Load the service and record it."""
    with running(users, ["compiled"]) as ([target], headers, _):
        requests = requests_of(workload, users, headers)
        loading = threading.Thread(
            target=lambda: uvloop.run(load(target.port, requests, seconds=SECONDS + 2, connections=8))
        )
        loading.start()
        py_spy = [str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(target.process.pid)]
        subprocess.run([*py_spy, "--duration", str(SECONDS), "--rate", "400", "--output", str(image)], check=True)
        loading.join()


if __name__ == "__main__":
    typer.run(main)
