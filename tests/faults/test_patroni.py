"""High availability as people run it: Patroni with etcd promotes a standby, and the service follows.

One service knows both hosts (`target_session_attrs`), the other one HAProxy, which asks Patroni who is the primary.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from graphql_api import embedded
from tests.faults.conftest import LONG
from tests.faults.load import Load
from tests.faults.service import serving
from tests.ports import free_port
from tests.until import until

_PROGRAMS = ("patroni", "etcd", "haproxy")
_PATH = f"{os.environ['PATH']}:/usr/sbin"
_MISSING = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_MISSING, reason=f"not installed: {', '.join(_MISSING)}"),
    pytest.mark.skipif(not LONG, reason="a failover takes Patroni half a minute: make test-faults"),
]
_TTL_SECONDS = 20  # the least that Patroni takes


@contextmanager
def running(folder, name, command):
    """A program and all that it starts, which end with the test."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**embedded._environment(), "PATH": _PATH},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield
    finally:
        kill(folder)
        process.wait(20)


def kill(folder):
    """What a machine that dies does to all that runs on it: those that name its folder, and what they started."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if process.pid != os.getpid() and any(str(folder) in word for word in process.cmdline()):
                for each in (process, *process.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()


class Node:
    """A PostgreSQL that Patroni runs."""

    def __init__(self, folder, name, etcd):
        self.name, self.port, self.rest = name, free_port(), free_port()
        self.home = folder / name
        self.home.mkdir(mode=0o700)
        local = {"unix_socket_directories": "", "fsync": "off"}
        accounts = {
            "superuser": {"username": "postgres", "password": "of the tests"},
            "replication": {"username": "replicator", "password": "of the tests"},
            "rewind": {"username": "rewinder", "password": "of the tests"},
        }
        configuration = {
            "scope": "tokens",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"host": f"127.0.0.1:{etcd}"},
            "bootstrap": {
                "dcs": {
                    "ttl": _TTL_SECONDS,
                    "loop_wait": 1,
                    "retry_timeout": 3,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}},
                },
                "initdb": [{"encoding": "UTF8"}],
                "pg_hba": ["host all all 127.0.0.1/32 md5", "host replication replicator 127.0.0.1/32 md5"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.home / "cluster"),
                "bin_dir": os.path.dirname(embedded._binary("postgres")),  # noqa: PTH120
                "pgpass": str(self.home / "pgpass"),
                "authentication": accounts,
                "parameters": local,
            },
        }
        (self.home / "patroni.json").write_text(json.dumps(configuration))  # JSON is YAML

    @property
    def command(self):
        return [*embedded._as_owner(self.home), shutil.which("patroni", path=_PATH), str(self.home / "patroni.json")]

    def is_(self, role):
        """Whether Patroni says that this is the primary, or a synchronous standby."""
        with (
            suppress(OSError),
            contextlib.closing(urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/{role}", timeout=2)) as answer,
        ):
            return answer.status == 200


HAPROXY = """
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
listen primary
  bind 127.0.0.1:{port}
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 500 fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""


async def test_the_service_follows_a_failover_by_both_hosts_and_behind_haproxy(tmp_path, measured):
    etcd, peer, front = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        urls = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        arguments = {
            "name": "etcd",
            "data-dir": tmp_path / "etcd" / "data",
            "listen-client-urls": urls[0],
            "advertise-client-urls": urls[0],
            "listen-peer-urls": urls[1],
            "initial-advertise-peer-urls": urls[1],
            "initial-cluster": f"etcd={urls[1]}",
        }
        command = [shutil.which("etcd"), *(f"--{name}={value}" for name, value in arguments.items())]
        (tmp_path / "etcd").mkdir()
        stack.enter_context(running(tmp_path / "etcd", "etcd", command))
        first, second = (Node(tmp_path, name, etcd) for name in ("first", "second"))
        stack.enter_context(running(first.home, "patroni", first.command))
        await until(lambda: asyncio.to_thread(first.is_, "primary"), "the first is the primary", seconds=90)
        stack.enter_context(running(second.home, "patroni", second.command))
        await until(lambda: asyncio.to_thread(second.is_, "synchronous"), "the second is synchronous", seconds=90)
        servers = "\n".join(
            f"  server {node.name} 127.0.0.1:{node.port} check port {node.rest}" for node in (first, second)
        )
        (balancer := tmp_path / "haproxy").mkdir()
        (balancer / "haproxy.cfg").write_text(HAPROXY.format(port=front, servers=servers))
        haproxy = [shutil.which("haproxy", path=_PATH), "-db", "-f", str(balancer / "haproxy.cfg")]
        stack.enter_context(running(balancer, "haproxy", haproxy))

        account = "postgresql://postgres:of%20the%20tests@127.0.0.1:"
        both = f"{account}{first.port},127.0.0.1:{second.port}/postgres?target_session_attrs=read-write"
        async with (
            serving(tmp_path, DATABASE_URL=both) as direct,
            serving(tmp_path, DATABASE_URL=f"{account}{front}/postgres") as behind,
        ):
            loads = {"both hosts": Load([direct.graphql], reads=30), "HAProxy": Load([behind.graphql], reads=30)}
            now = asyncio.get_running_loop().time
            async with loads["both hosts"].running(), loads["HAProxy"].running():
                await asyncio.sleep(2)
                await asyncio.to_thread(kill, first.home)
                killed = now()
                await until(lambda: asyncio.to_thread(second.is_, "primary"), "the second is promoted", seconds=90)
                promoted = now()
                await asyncio.sleep(5)
        measured("until Patroni promoted the standby", f"{promoted - killed:.1f} s")
        for name, load in loads.items():
            saved = min(
                each.ended for each in load.answers if each.kind == "save" and each.began > killed and not each.error
            )
            measured(f"first save after that, {name}", f"{saved - promoted:.2f} s")
            measured(f"longest answer, {name}", f"{max(each.seconds for each in load.answers):.1f} s")
            assert saved - promoted < 5
            assert await load.differences(f"{account}{second.port}/postgres") == []
