"""PgBouncer in transaction mode before a PostgreSQL: each transaction runs on whichever connection is free."""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from graphql_api import embedded
from graphql_api.storage.pool import ConnectionPool
from tests.until import listens, until_sync


def count_on_no_session():
    """Have what runs in this process, and in those that it starts, connect as a pooler wants it."""
    os.environ["DATABASE_PREPARED_STATEMENTS"] = "false"
    ConnectionPool.open = partial(ConnectionPool.open, prepares=False)
    asyncpg.connect = partial(asyncpg.connect, statement_cache_size=0)


class Pooler:
    """Takes connections to any database of a server."""

    def __init__(self, port):
        self.port = port

    def to(self, url):
        """The address of this database by way of the pooler."""
        return f"postgresql://postgres:unasked@127.0.0.1:{self.port}{urlsplit(url).path}"


@contextmanager
def pgbouncer(folder, server_url, **settings):
    """A pooler before this server, whose log stays in the folder."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing = "pgbouncer is missing: `apt-get install pgbouncer`."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = urlsplit(server_url)
    place = {name: values[0] for name, values in parse_qs(address.query).items()}
    host, server_port = place.get("host", address.hostname), place.get("port", address.port)
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "max_client_conn": 1000,
        **settings,
    }
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = host={host} port={server_port} user=postgres password={address.password}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in given.items())
    )
    with (folder / "pgbouncer.log").open("wb") as log:
        ends_with_us = ["setpriv", "--pdeathsig", "TERM"]
        process = subprocess.Popen(
            [*embedded._as_owner(folder), *ends_with_us, program, configuration], stdout=log, stderr=log, cwd=folder
        )
    try:
        until_sync(lambda: process.poll() is not None or listens(port), "PgBouncer listens")
        assert process.poll() is None, (folder / "pgbouncer.log").read_text()
        yield Pooler(port)
    finally:
        process.terminate()
        process.wait(10)
