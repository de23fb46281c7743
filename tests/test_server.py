"""The server around any app: one process or several, the end by a signal, workers that die."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

import graphql_api
from graphql_api.server import is_loopback, listening
from tests.until import until_sync

SERVE = """
import asyncio, os, resource, sys
from graphql_api import server

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        print(os.getpid(), "left", flush=True)
        return
    if seconds := {"/slow": 0.5, "/endless": 60}.get(scope["path"]):
        print("asked", flush=True)
        await asyncio.sleep(seconds)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

if files := int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
with server.listening("127.0.0.1", 0, int(sys.argv[1])) as listeners:
    print(listeners[0].getsockname()[1], flush=True)
    server.keep_signals()
    for number in sys.argv[4:]:
        os.kill(os.getpid(), int(number))
    try:
        server.serve(app, [[listener] for listener in listeners], float(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


class Service:
    """The app above, served by another process with this many workers."""

    def __init__(self, workers, drain_seconds, files=0, signals=()):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *map(str, (workers, drain_seconds, files, *map(int, signals)))],
            cwd=Path(graphql_api.__file__).parents[1],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def ask(self, path="/"):
        """The number of the process that answers on a new connection."""
        return int(httpx.get(self.url + path, timeout=10).text)

    def workers(self):
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def serve():
    """Starts services; what is left of them at the end is killed."""
    services = []

    def start(workers, drain_seconds=0, **others):
        services.append(Service(workers, drain_seconds, **others))
        return services[-1]

    yield start
    for service in services:
        if service.process.poll() is None:
            os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        service.process.stdout.close()


def test_one_worker_is_the_process_itself(serve):
    service = serve(1)
    assert service.ask() == service.process.pid
    assert not service.workers()


def test_several_workers_answer_on_one_port(serve):
    service = serve(2)
    until_sync(lambda: service.workers() == {service.ask() for _ in range(20)}, "every worker answers")
    assert len(service.workers()) == 2


def test_connections_that_come_at_once_are_spread_over_the_workers(serve):
    service = serve(2)
    service.ask()
    with ThreadPoolExecutor(40) as pool:
        answers = Counter(pool.map(lambda _: service.ask(), range(40)))
    assert set(answers) == service.workers()
    assert min(answers.values()) >= 8


@pytest.mark.parametrize("files", [64, 1024])
def test_more_silent_connections_than_files_may_be_open_keep_nobody_out(serve, files):
    service = serve(1, files=files)
    with ExitStack() as silent:
        for _ in range(2 * files):
            silent.enter_context(socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))))
        assert service.ask() == service.process.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_every_process_with_status_0(serve, number, workers):
    service = serve(workers)
    until_sync(lambda: len({service.ask() for _ in range(20)}) == workers, "every worker answers")
    assert len(service.workers()) == (workers if workers > 1 else 0)
    assert service.end(number) == 0
    assert service.process.stdout.read().count("left") == workers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_that_comes_too_early_is_heeded_later(serve, number, workers):
    service = serve(workers, signals=[number])
    assert service.process.wait(20) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_under_way_is_answered_before_the_end(serve, workers):
    service = serve(workers)
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert service.process.stdout.readline() == "asked\n"
        # Ctrl-C reaches every process of the terminal, and the supervisor passes it on as well.
        os.killpg(service.process.pid, signal.SIGINT)
        assert connection.recv(1024).startswith(b"HTTP/1.1 200 OK")
    assert service.process.wait(10) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_ctrl_c_does_not_wait_for_what_is_under_way(serve, workers):
    service = serve(workers)
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert service.process.stdout.readline() == "asked\n"
        service.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(0.3)
        assert service.end(signal.SIGINT) == 130


def test_a_killed_worker_is_replaced_while_the_other_serves_on(serve):
    service = serve(2)
    killed = service.ask()
    os.kill(killed, signal.SIGKILL)
    assert service.ask() != killed
    until_sync(lambda: len(service.workers() - {killed}) == 2, "the worker is replaced")
    assert service.end() == 0
    logged = service.process.stdout.read()
    assert re.search(rf"worker ended +pid={killed} status=SIGKILL", logged)
    assert re.search(r"worker started +pid=\d+.*\n.*stopping +signal=SIGTERM", logged)


def test_workers_end_when_their_supervisor_is_killed(serve):
    service = serve(2)
    service.ask()
    workers = [psutil.Process(pid) for pid in service.workers()]
    service.end(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("192.0.2.1", False), ("::", False)],
)
def test_only_addresses_of_this_machine_alone_are_loopback(host, answer):
    assert is_loopback(host) is answer


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_is_refused(workers):
    with listening("127.0.0.1", 0, workers) as taken:
        port = taken[0].getsockname()[1]
        with pytest.raises(OSError, match="Address already in use"), listening("127.0.0.1", port, workers):
            pass


def test_ipv6_is_listened_on():
    with listening("::1", 0, 2) as listeners:
        assert {listener.getsockname()[0] for listener in listeners} == {"::1"}
