"""The servers under test, the database that they share, and the requests that they get."""

import asyncio
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import asyncpg
import httpx
import psutil
from rich.progress import track

from graphql_api.embedded import embedded_postgres
from graphql_api.storage.migrate import upgrade

HERE = Path(__file__).parent
SECRET = "a secret that only this benchmark knows"
GATEWAYS = ("ADYEN", "PAYPAL", "STRIPE")
ENTITIES = (
    "query($r:[_Any!]!){_entities(representations:$r)"
    "{... on User{gatewayTokens{id gateway gatewayCustomerId isActive createdAt}}}}"
)
LOOKUP = (
    "query($g:String!,$c:String!){customerGatewayTokenByCustomer(gateway:$g,gatewayCustomerId:$c)"
    "{id userId gateway gatewayCustomerId isActive createdAt}}"
)
SAVE = (
    "mutation($i:SaveCustomerGatewayTokenInput!){saveCustomerGatewayToken(input:$i)"
    "{created gatewayToken{id gateway gatewayCustomerId isActive} userErrors{code}}}"
)
SEED = """
insert into customer_gateway_tokens (user_id, gateway, gateway_customer_id)
select 'user-' || u, g, 'cus_' || md5(u::text || g)
from generate_series($1::integer, $2::integer) u, unnest($3::text[]) g
"""


def customer(user: int, gateway: str) -> str:
    return "cus_" + hashlib.md5(f"{user}{gateway}".encode()).hexdigest()


def entities(count: int) -> Callable[[random.Random, int], dict]:
    def body(rng: random.Random, users: int) -> dict:
        ids = rng.sample(range(1, users + 1), count)
        return {"query": ENTITIES, "variables": {"r": [{"__typename": "User", "id": f"user-{u}"} for u in ids]}}

    return body


def lookup(rng: random.Random, users: int) -> dict:
    gateway = rng.choice(GATEWAYS)
    return {"query": LOOKUP, "variables": {"g": gateway, "c": customer(rng.randint(1, users), gateway)}}


def save(rng: random.Random, users: int) -> dict:
    user, gateway = rng.randint(1, users), rng.choice(GATEWAYS)
    token = {"userId": f"user-{user}", "gateway": gateway, "gatewayCustomerId": customer(user, gateway)}
    return {"query": SAVE, "variables": {"i": token | {"description": f"note {rng.randint(0, 10**9)}"}}}


# name: what makes one request, and how many different ones
WORKLOADS = {
    "entities-1": (entities(1), 5000),
    "entities-50": (entities(50), 1000),
    "entities-1000": (entities(1000), 100),
    "lookup": (lookup, 5000),
    "save": (save, 5000),
}


class Target:
    """A server under test, in a process of its own."""

    def __init__(self, name: str, port: int, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.port = name, port
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdout=self._log, stderr=self._log, cwd=HERE
        )

    def __enter__(self) -> Self:
        for _ in range(300):
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/healthz")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return self
        raise SystemExit(f"{self.name} did not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def cpu_seconds(self) -> float:
        process = psutil.Process(self.process.pid)
        return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children()))

    def ask(self, request: bytes, headers: dict[str, str]) -> object:
        body = request.partition(b"\r\n\r\n")[2]
        return httpx.post(f"http://127.0.0.1:{self.port}/graphql", content=body, headers=headers).json()


async def seed(url: str, first: int, last: int) -> None:
    """Fill the database with these users, each with a token at three gateways."""
    await upgrade(url)
    connection = await asyncpg.connect(url)
    for begin in track(range(first, last + 1, 10_000), "Filling the database", transient=True):
        await connection.execute(SEED, begin, min(begin + 9_999, last), list(GATEWAYS))
    await connection.execute("vacuum analyze customer_gateway_tokens")
    await connection.close()


def http(body: bytes, headers: dict[str, str]) -> bytes:
    lines = [
        f"{name}: {value}" for name, value in {"Host": "127.0.0.1", **headers, "Content-Length": str(len(body))}.items()
    ]
    return ("POST /graphql HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + body


def requests_of(name: str, users: int, headers: dict[str, str]) -> list[bytes]:
    """Different requests of a workload, the same in every run; of `lookup:br`, from a client that accepts br."""
    name, _, coding = name.partition(":")
    make, count = WORKLOADS[name] if name in WORKLOADS else (entities(int(name.partition("-")[2])), 300)
    headers = headers | ({"Accept-Encoding": coding} if coding else {})
    rng = random.Random(name)
    bodies = [json.dumps(make(rng, users), separators=(",", ":")).encode() for _ in range(count)]
    return [http(body, headers) for body in bodies]


@contextmanager
def running(users: int, names: list[str], **settings: str) -> Iterator[tuple[list[Target], dict[str, str], str]]:
    """These targets on a database with this many users, the headers that they require, and the database's URL.

    `settings` are PostgreSQL's.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(embedded_postgres(folder / "data", settings))
        asyncio.run(seed(url, 1, users))
        targets, headers = stack.enter_context(serving(url, names, folder))
        yield targets, headers, url


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [opened.getsockname()[1] for opened in sockets]


@contextmanager
def serving(url: str, names: list[str], folder: Path) -> Iterator[tuple[list[Target], dict[str, str]]]:
    """These targets on this database, and the headers that they require. Their logs are written to the folder."""
    with ExitStack() as stack:
        environment = {"DATABASE_URL": url, "AUTH_SECRET": SECRET, "LOG_FORMAT": "json"}
        mint = [sys.executable, "-m", "graphql_api", "token", "--sub", "bench", "--scope", "gateway-tokens:admin"]
        token = subprocess.run(
            [*mint, "--expires-in", "86400"], env=os.environ | environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        serve = [sys.executable, "-m", "graphql_api", "serve", "--port"]
        bare = [sys.executable, "-m", "uvicorn", "bare:app", "--no-access-log", "--log-level", "warning", "--port"]
        commands = {
            "compiled": (serve, {"ENGINE": "compiled"}),
            "two-workers": ([*serve[:-1], "--workers", "2", "--port"], {}),
            "uncompressed": (serve, {"COMPRESSION": "false"}),
            "graphql-core": (serve, {"ENGINE": "graphql-core"}),
            "bare": (bare, {}),
        }
        targets = [
            stack.enter_context(
                Target(name, port, [*commands[name][0], str(port)], environment | commands[name][1], folder / name)
            )
            for port, name in zip(free_ports(len(names)), names, strict=True)
        ]
        yield targets, {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
