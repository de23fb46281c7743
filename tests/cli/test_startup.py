"""`gateway-tokens serve` from outside: what it prints, that it answers, how it ends, and what a kill leaves."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest

import graphql_api
from graphql_api import __version__
from graphql_api.cli.startup import announce
from graphql_api.settings import Settings
from tests.until import listens, until_sync

AUTH_SECRET = "signs the access tokens of these tests only"
SAVE = """mutation { saveCustomerGatewayToken(input: {userId: "u1", gateway: "STRIPE", gatewayCustomerId: "cus_1"})
  { created userErrors { message } } }"""
PATHS = ("/healthz", "/readyz", "/metrics", "/graphql?query={__typename}")
FIND = '{ customerGatewayTokenByCustomer(gateway: "stripe", gatewayCustomerId: "cus_1") { userId } }'


class Service:
    """A `serve` in a session of its own, as in a terminal."""

    def __init__(self, folder, arguments, environment, *, on_a_terminal=False):
        self.folder = folder
        self.log = (folder / "log").open("a+")
        terminal, end = pty.openpty() if on_a_terminal else (None, subprocess.PIPE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "graphql_api", "serve", "--port", "0", *arguments],
            env={**os.environ, "DATA_DIR": str(folder / "data"), "DRAIN_SECONDS": "0", **environment},
            stdout=end,
            stderr=self.log,
            start_new_session=True,
            text=True,
        )
        if terminal is not None:
            os.close(end)
            self.process.stdout = os.fdopen(terminal)
        self.first_line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+/graphql", self.first_line).group()

    def ask(self, query):
        return httpx.post(self.url, json={"query": query}, timeout=10).raise_for_status().json()

    def postgresql(self):
        pid_file = self.folder / "data" / "postgresql" / "cluster" / "postmaster.pid"
        return psutil.Process(int(pid_file.read_text().split()[0]))

    def press_ctrl_c(self):
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(20)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()
        self.log.close()


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts services in one folder and ends them."""
    for name in ("DATABASE_URL", "AUTH_MODE", "AUTH_SECRET", "AUTH_JWKS_URL", "AUTH_JWKS_FILE"):
        monkeypatch.delenv(name, raising=False)
    services = []

    def start(*arguments, on_a_terminal=False, **environment):
        services.append(Service(tmp_path, arguments, environment, on_a_terminal=on_a_terminal))
        return services[-1]

    yield start
    for service in services:
        service.close()


def test_it_says_what_to_do_next_and_that_works(serve):
    service = serve("--demo", LOG_FORMAT="console")
    told = "".join(service.process.stdout.readline() for _ in range(8))
    assert f"gateway-tokens {__version__}, 1 worker, database: embedded in {service.folder}/data" in service.first_line
    assert "Authentication is off" in told
    query = re.search(r"A query: +(.*)", told).group(1)
    answer = service.ask(query)
    assert [node["userId"] for node in answer["data"]["customerGatewayTokens"]["nodes"]] == [
        "user-1",
        "user-2",
        "user-3",
    ]
    curl = re.search(r"In a shell: +(curl .*)", told).group(1)
    assert json.loads(subprocess.check_output(shlex.split(curl))) == answer


def test_behind_a_router_it_says_that_only_the_router_is_in_the_way(serve):
    secrets = {"ROUTER_SECRET": f"{'x' * 32},{'y' * 32}"}
    service = serve(LOG_FORMAT="console", **secrets)
    told = "".join(each for each, _ in zip(service.process.stdout, range(7), strict=False))
    assert "anyone who can reach your router, or knows ROUTER_SECRET, can read and change every token." in told
    curl = re.search(r"In a shell: +(curl .*)", told).group(1)
    answer = subprocess.run(["/bin/sh", "-c", curl], env=os.environ | secrets, capture_output=True, check=True).stdout
    assert json.loads(answer) == {"data": {"customerGatewayTokens": {"nodes": []}}}


def test_on_a_terminal_it_hands_over_an_access_token_of_each_role(serve):
    service = serve(AUTH_SECRET=AUTH_SECRET, INTROSPECTION="true", on_a_terminal=True)
    told = "".join(service.process.stdout.readline() for _ in range(3))
    tokens = dict(parse_qsl(told.rpartition("#")[2].strip()))
    assert tokens.keys() == {"user-1", "payments", "admin"}
    for sub in ("admin", "user-1"):
        headers = {"Authorization": f"Bearer {tokens[sub]}"}
        asked = {"query": "{ customerGatewayTokens { totalCount } }"}
        assert ("errors" in httpx.post(service.url, json=asked, headers=headers).json()) == (sub == "user-1")


def test_with_a_secret_alone_it_says_how_to_get_graphiql(serve):
    service = serve(AUTH_SECRET=AUTH_SECRET, LOG_FORMAT="console")
    assert service.process.stdout.readline() == "\n"
    assert "INTROSPECTION=true" in service.process.stdout.readline()


def test_commands_use_the_postgresql_of_a_running_service_and_ctrl_c_stops_both(serve):
    service = serve()
    postgresql = service.postgresql()
    migrate = [sys.executable, "-m", "graphql_api", "migrate"]
    subprocess.run(migrate, env={**os.environ, "DATA_DIR": str(service.folder / "data")}, check=True)
    assert service.ask(SAVE)["data"]["saveCustomerGatewayToken"]["created"]
    assert service.press_ctrl_c() == 0
    assert not psutil.pid_exists(postgresql.pid) or postgresql.status() == psutil.STATUS_ZOMBIE


def test_a_second_ctrl_c_is_one_line(serve):
    service = serve()
    with socket.create_connection(("127.0.0.1", httpx.URL(service.url).port)) as connection:
        head = "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(99).startswith(b"HTTP/1.1 100")  # this request keeps the service from ending
        os.killpg(service.process.pid, signal.SIGINT)
        until_sync(lambda: not listens(httpx.URL(service.url).port), "the first press is heeded")
        assert service.press_ctrl_c() == 130
    service.log.seek(0)
    *events, last = service.log.read().splitlines()
    assert [json.loads(line)["event"] for line in events] == ["started", "stopping", "stopped"]
    assert last == "gateway-tokens: interrupted"


def test_the_next_start_recovers_from_a_kill_of_service_and_database(serve):
    first = serve()
    first.ask(SAVE)
    first.kill()
    second = serve()
    assert second.postgresql().is_running()
    assert second.ask(FIND)["data"]["customerGatewayTokenByCustomer"] == {"userId": "u1"}
    second.postgresql().kill()
    second.kill()
    third = serve()
    assert third.ask(FIND)["data"]["customerGatewayTokenByCustomer"] == {"userId": "u1"}


async def test_a_database_url_is_used_by_every_worker(serve, new_database):
    service = serve("--workers", "2", "--demo", DATABASE_URL=await new_database())
    assert re.search(r"2 workers, database: test_\w+ on \S+", service.first_line)
    service.ask(SAVE)
    for _ in range(10):
        assert service.ask(FIND)["data"]["customerGatewayTokenByCustomer"] == {"userId": "u1"}
    assert not (service.folder / "data").exists()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0
    service.log.seek(0)
    lines = [json.loads(line) for line in service.log.read().splitlines()]
    started, stopping, stopped = [line for line in lines if line["event"] in {"started", "stopping", "stopped"}]
    assert (started["version"], started["workers"]) == (__version__, 2)
    assert started["address"] in service.url
    assert re.fullmatch(r"test_\w+ on \S+", started["database"])
    assert (stopping["signal"], stopped["event"]) == ("SIGTERM", "stopped")


@pytest.mark.parametrize(
    ("log_format", "is_short"), [(None, True), ("json", True), ("console", False)], ids=["not set", "json", "console"]
)
def test_standard_output_is_one_line_if_programs_read_the_log(capsys, log_format, is_short):
    announce(Settings(log_format=log_format), "0.0.0.0", 8000, workers=1, database="x")  # noqa: S104
    assert capsys.readouterr().out.splitlines()[-1].startswith("Serving http") == is_short


def test_a_misspelled_database_url_is_no_embedded_database_for_a_network(tmp_path):
    """A misspelled DATABASE_URL would otherwise be an empty service that is ready."""
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "DATA_DIR"}}
    environment |= {"AUTH_SECRET": AUTH_SECRET, "DATABSE_URL": "postgresql:///x", "LOG_FORMAT": "json"}
    environment["PYTHONPATH"] = str(Path(graphql_api.__file__).parents[1])
    command = [sys.executable, "-m", "graphql_api", "serve", "--host", "0.0.0.0", "--port", "0"]  # noqa: S104
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False, text=True)
    slip, said = process.stderr.splitlines()
    assert process.returncode == 2
    assert json.loads(slip)["problem"].endswith("Did you mean DATABASE_URL?")
    assert said.startswith(
        "gateway-tokens: DATABASE_URL is not set: set it, or pass --embedded (or set DATA_DIR) to work on the embedded"
    )
    assert not [*tmp_path.iterdir()]


async def test_what_requests_will_fail_at_is_in_the_log_before_them(serve, new_database, migrated_database, tmp_path):
    url, role = await new_database(migrated_database), f"reader_{uuid4().hex}"
    connection = await asyncpg.connect(url)
    await connection.execute(f"create role {role}; grant select on all tables in schema public to {role}")
    (path := tmp_path / "documents.json").write_text('{"old": "{ nope }"}')
    service = serve(
        DATABASE_URL=f"{url}{'&' if '?' in url else '?'}role={role}",
        TRUSTED_DOCUMENTS=str(path),
        AUTH_JWKS_URL="http://127.0.0.1:1/keys",
        LOG_FORMAT="json",
    )

    def told():
        whole = re.findall(r"^{.*}$", (tmp_path / "log").read_text(), re.MULTILINE)
        return {line["event"]: line for line in map(json.loads, whole)}

    events = "missing grant", "invalid trusted document", "access token keys are not fetched"
    until_sync(lambda: set(events) <= told().keys(), "the log names all three")
    missing, invalid, keys = map(told().get, events)
    assert missing["run"].endswith(f" to {role}")
    assert invalid["problem"].startswith(
        "TRUSTED_DOCUMENTS: the document 'old', line 1, cannot run: Cannot query field"
    )
    assert (keys["setting"], keys["reason"]) == ("AUTH_JWKS_URL", "connection refused")
    service.close()
    await connection.execute(f"drop owned by {role}; drop role {role}")
    await connection.close()


def test_metrics_have_a_port_of_their_own(serve, database_url):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = serve("--workers", "2", DATABASE_URL=database_url, METRICS_PORT=str(port))
    public, operators = service.url.removesuffix("/graphql"), f"http://127.0.0.1:{port}"
    status = {(base, path): httpx.get(base + path).status_code for base in (public, operators) for path in PATHS}
    assert [status[public, path] for path in PATHS] == [200, 200, 404, 200]
    assert [status[operators, path] for path in PATHS] == [200, 200, 200, 404]
    assert "This port serves /healthz, /readyz, /metrics. No" in httpx.get(operators).text
    assert httpx.post(f"{operators}/graphql", json={"query": "{ __typename }"}).status_code == 404
    assert service.ask("{ __typename }") == {"data": {"__typename": "Query"}}
