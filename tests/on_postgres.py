"""Runs a command with TEST_DATABASE_URL set to a new PostgreSQL of another release, from a folder with its `bin`.

python -m tests.on_postgres FOLDER pytest tests/storage
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from graphql_api.embedded import _as_owner, _environment
from tests.until import listens, until_sync


@contextmanager
def postgres(native, folder):
    """The address of a server with an empty cluster, which ends with the block."""
    cluster, password, log = folder / "cluster", folder / "password", folder / "log"
    cluster.mkdir(mode=0o700)
    password.write_text(secrets.token_urlsafe(24))
    options = ["--username=postgres", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    programs = native / "bin"
    as_owner = _as_owner(cluster)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 300}
    unsafe = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off")
    given = [f"--{name}={value}" for name, value in {**settings, **unsafe}.items()]
    with log.open("wb") as output:
        shared = {"env": _environment(), "stdout": output, "stderr": output}
        subprocess.run([*as_owner, programs / "initdb", "--no-sync", "-D", cluster, *options], check=True, **shared)
        server = subprocess.Popen([*as_owner, programs / "postgres", "-D", cluster, *given], **shared)
    try:
        until_sync(lambda: server.poll() is not None or listens(port), "PostgreSQL listens")
        if server.poll() is not None:
            sys.exit(log.read_text())
        yield f"postgresql://postgres:{password.read_text()}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(2)  # a fast shutdown
        server.wait(30)


def main(native, *command):
    with tempfile.TemporaryDirectory() as folder, postgres(Path(native), Path(folder)) as url:
        sys.exit(subprocess.run(command, env={**os.environ, "TEST_DATABASE_URL": url}, check=False).returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
