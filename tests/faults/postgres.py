"""PostgreSQL servers of the tests' own on a loopback port, which are hurt by real signals; one may follow another."""

import asyncio
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress

import asyncpg
import psutil

from graphql_api import embedded
from tests.ports import free_port
from tests.until import until


class Postgres:
    """One server; its cluster is made by the embedded PostgreSQL, which runs on sockets only."""

    def __init__(self, home):
        self.home = home
        self.port = free_port()
        self.process = None
        home.mkdir(mode=0o700, parents=True)
        self._cluster = home / "cluster"

    @property
    def url(self):
        return self.url_by(self.port)

    def url_by(self, port):
        """The server's address behind a proxy at this port."""
        return f"postgresql://postgres:{(self.home / 'password').read_text()}@127.0.0.1:{port}/postgres"

    def create(self):
        embedded._Server(self.home, {"fsync": "off"})._create()

    def follow(self, primary):
        """Become a standby of another server."""
        shutil.rmtree(self._cluster, ignore_errors=True)
        shutil.copy(primary.home / "password", self.home / "password")
        self._run("pg_basebackup", "-D", self._cluster, "-d", primary.url, "-R", "-X", "stream", "-c", "fast")

    def rejoin(self, primary):
        """Come back as a standby of the server that was promoted meanwhile."""
        self._run("pg_rewind", "-D", self._cluster, f"--source-server={primary.url}", "-R")

    async def start(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "wal_log_hints": "on",
            "wal_receiver_status_interval": "1",
            "wal_keep_size": "512",
        }
        command = [*embedded._as_owner(self._cluster), embedded._binary("postgres"), "-D", str(self._cluster)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        with (self.home / "log").open("a") as log:
            started = subprocess.Popen(
                command, env=embedded._environment(), stdout=log, stderr=log, start_new_session=True
            )
        self.process = psutil.Process(started.pid)
        self._started = started
        await self.answers()

    async def answers(self):
        """Wait until the server lets clients in."""

        async def lets_in():
            with suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(self.url, timeout=5)
                await connection.close()
                return True

        await until(lets_in, "PostgreSQL lets clients in", seconds=60)

    async def stop(self):
        """A fast shutdown: connections are told and closed."""
        self.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(self._started.wait)

    async def kill(self):
        """The postmaster dies, and all that it left behind is cleared away, as a machine's service manager does."""
        backends = self.process.children(recursive=True)
        self.process.kill()
        await asyncio.to_thread(self._started.wait)
        for backend in backends:
            with suppress(psutil.NoSuchProcess):
                backend.kill()
        await until(lambda: not any(map(_runs, backends)), "the backends have ended")
        (self._cluster / "postmaster.pid").unlink()

    async def kill_and_start(self):
        await self.kill()
        await self.start()

    def kill_a_backend(self):
        next(
            each
            for each in self.process.children()
            if "client backend" in _title(each) or ("postgres:" in _title(each) and "127.0.0.1" in _title(each))
        ).kill()

    async def stop_receiving(self):
        """What the primary writes from now on does not come here."""
        await self.run("alter system set primary_conninfo = ''")
        await self.run("select pg_reload_conf()")
        await until(lambda: self.ask("select not exists (select from pg_stat_wal_receiver)"), "nothing is received")

    def signal_all(self, number):
        for process in [self.process, *self.process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    async def ask(self, sql):
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    async def run(self, script):
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    async def terminate_backends(self):
        await self.ask(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )

    def _run(self, program, *arguments):
        command = [*(embedded._as_owner(self._cluster) if self._cluster.exists() else []), embedded._binary(program)]
        subprocess.run(
            [*command, *map(str, arguments)], env=embedded._environment(), check=True, capture_output=True, timeout=60
        )


@contextmanager
def servers(folder):
    """Makes servers, none of which outlives the test."""
    made = []

    def make():
        made.append(Postgres(folder / f"server-{len(made)}"))
        return made[-1]

    yield make
    for server in made:
        if server.process and server.process.is_running():
            server.signal_all(signal.SIGCONT)
            server.process.send_signal(signal.SIGQUIT)
            server._started.wait(20)


def _runs(process):
    """Whether it does anything still; who collects the dead may take a while."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _title(process):
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""
