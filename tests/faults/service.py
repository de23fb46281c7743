"""The running service: `gateway-tokens serve` in processes of its own."""

import asyncio
import os
import re
import resource
import sys
from contextlib import asynccontextmanager, suppress

from tests.faults.http import close
from tests.until import until


class Service:
    def __init__(self, process, first_line):
        self.process = process
        self.url = re.search(r"(http://\S+)/graphql", first_line).group(1)

    @property
    def graphql(self):
        return f"{self.url}/graphql"

    @property
    def address(self):
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    async def connections_in_use(self):
        """How many of its connections to the database have something under way."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        await close(writer)
        return float(re.search(r'database_connections{[^}]*state="in_use"[^}]*} (\S+)', page).group(1))

    async def until(self, status, *, http):
        """Seconds until `/readyz` answers with this status."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def answers():
            return (await http.get(f"{self.url}/readyz"))[0] == status

        await until(answers, f"/readyz answers {status}")
        return loop.time() - began


def _as_fast_as_ever():
    """The environment without what has coverage measured, which halves the speed."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def as_most_systems_begin():
    """With few open files, and the right to have more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))


@asynccontextmanager
async def serving(folder, *options, **environment):
    """A service that ends with the test; its log stays in the folder."""
    command = [sys.executable, "-m", "graphql_api", "serve", "--port", "0", *options]
    with (folder / "service.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**_as_fast_as_ever(), "AUTH_MODE": "disabled", "DRAIN_SECONDS": "0", **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            preexec_fn=as_most_systems_begin,
        )
        try:
            yield Service(process, (await process.stdout.readline()).decode())
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()
