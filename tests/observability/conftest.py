"""The service as a process, and a collector of traces as another."""

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import AUTH_SECRET

COLLECTOR = Path(__file__).with_name("collector.py")


class Service:
    """A `serve` with its log in a file."""

    def __init__(self, folder, arguments, environment):
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "graphql_api", "serve", "--port", "0", *arguments],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.url = re.search(r"http://\S+(?=/graphql)", self.process.stdout.readline()).group()

    def log(self, *events):
        """The lines of the log, or those of these events."""
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if not events or line["event"] in events]

    def workers(self):
        return self.process.children()

    def end(self):
        self.process.terminate()
        status = self.process.wait(60)
        self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def serving(tmp_path_factory, database_url):
    """Starts the service with these variables; it ends with the tests."""
    started = []

    def start(*arguments, **environment):
        settings = {"DATABASE_URL": database_url, "AUTH_SECRET": AUTH_SECRET, "DRAIN_SECONDS": "0"}
        started.append(Service(tmp_path_factory.mktemp("service"), arguments, settings | environment))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.end()


class Collector:
    """What a collector process has been sent."""

    def __init__(self, process, port):
        self.address = f"http://127.0.0.1:{port}"
        self.port = port
        self.spans = []
        self._process = process

    def _next(self):
        line = self._process.stdout.readline()
        assert line, "the collector ended"
        self.spans.append(json.loads(line))
        return self.spans[-1]

    async def until(self, wanted):
        """All spans so far, as soon as they are as they are wanted."""
        async with asyncio.timeout(60):
            while not wanted(self.spans):
                await asyncio.to_thread(self._next)
        return self.spans

    async def trace(self, trace):
        """The spans of a trace by name, as soon as the one of its request is there, which ends last."""

        def own(spans):
            return [span for span in spans if span["trace"] == trace]

        spans = await self.until(lambda spans: any(span["kind"] == "SERVER" for span in own(spans)))
        return {span["name"]: span for span in own(spans)}


@contextmanager
def collecting(port=0):
    with subprocess.Popen([sys.executable, COLLECTOR, str(port)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Collector(process, int(process.stdout.readline()))
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=60) as http:
        yield http
