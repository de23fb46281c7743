"""The embedded PostgreSQL: where it runs, who shares it, who cannot reach it, and what happens after a kill."""

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest

import graphql_api
from graphql_api.domain.errors import UnavailableError
from graphql_api.embedded import embedded_postgres
from tests.until import until, until_sync

NOBODY = 65534
QUICK = {"fsync": "off"}
ROOT = Path(graphql_api.__file__).parents[1]
HOLD = """
import sys, time
from pathlib import Path
from graphql_api.embedded import embedded_postgres
with embedded_postgres(Path(sys.argv[1]), {"fsync": "off"}) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder(tmp_path):
    """A folder that only this user can enter, as pytest's own are."""
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    return tmp_path / "data"


async def run(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def hold(folder, *before):
    """Another process that uses the folder's server until its standard input ends."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def pid_file(folder):
    return folder / "postgresql" / "cluster" / "postmaster.pid"


def postmaster(folder):
    return psutil.Process(int(pid_file(folder).read_text().split()[0]))


def runs(process):
    """Whether it has not ended; what its parent has not taken note of is a zombie, and has ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(folder):
    server = postmaster(folder)
    server.kill()
    until_sync(lambda: not runs(server), "the server has ended")


def socket_of(url):
    return Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"


def modes(*folders):
    """The mode of each folder, and of every folder above it."""
    return {place: place.stat().st_mode for folder in folders for place in (folder, *folder.parents)}


async def test_what_is_stored_is_there_at_the_next_start(folder):
    with embedded_postgres(folder, QUICK) as url:
        await run(url, "create table kept as select 42 as number")
    with embedded_postgres(folder, QUICK) as url:
        assert await run(url, "select number from kept") == 42


async def test_text_is_utf8_and_sorted_by_code_point(folder):
    with embedded_postgres(folder, QUICK) as url:
        assert await run(url, "select string_agg(x, '' order by x) from unnest('{b,a,Z,é}'::text[]) x") == "Zabé"
        assert await run(url, "show data_checksums") == "on"


async def test_a_server_knows_no_secret_and_neither_it_nor_its_socket_is_left_after_the_end(folder, monkeypatch):
    for name in ("AUTH_SECRET", "DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "PGPASSWORD"):
        monkeypatch.setenv(name, f"the secret of {name}")
    with embedded_postgres(folder, QUICK) as url:
        server = postmaster(folder)
        assert "the secret of" not in str([process.environ() for process in [server, *server.children()]])
        assert socket_of(url).exists()
    assert not runs(server)
    assert not socket_of(url).parent.exists()


async def test_a_path_may_be_long(folder):
    with embedded_postgres(folder / ("long" * 50) / "data", QUICK) as url:
        assert await run(url, "select 1") == 1


async def test_the_folder_for_temporary_files_may_have_a_long_path(folder, monkeypatch):
    long = folder / ("long" * 30)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with embedded_postgres(folder, QUICK) as url:
        assert await run(url, "select 1") == 1
    assert not list(long.iterdir())


async def test_several_folders_have_a_server_each(folder):
    with embedded_postgres(folder / "one", QUICK) as one, embedded_postgres(folder / "two", QUICK) as two:
        await run(one, "create table only_in_one ()")
        assert await run(two, "select to_regclass('only_in_one')") is None


async def test_processes_share_a_folders_server_until_the_last_one_leaves(folder):
    with hold(folder) as first:
        url = first.stdout.readline().strip()
        with embedded_postgres(folder) as shared:
            assert shared == url
            first.communicate()
            assert await run(shared, "select 1") == 1
            server = postmaster(folder)
        assert not runs(server)


async def test_a_starter_that_lives_on_does_not_keep_the_last_one_from_leaving(folder):
    with embedded_postgres(folder, QUICK):
        other = hold(folder)
        other.stdout.readline()
        server = postmaster(folder)
    other.communicate(timeout=10)
    assert other.returncode == 0
    server.wait(0)


async def test_ten_processes_that_start_at_once_share_one_server(folder):
    processes = [hold(folder) for _ in range(10)]
    assert len({process.stdout.readline() for process in processes}) == 1
    server = postmaster(folder)
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert not runs(server)


async def test_the_server_of_a_killed_process_is_taken_over(folder):
    with hold(folder) as killed:
        url = killed.stdout.readline().strip()
        killed.kill()
    orphan = postmaster(folder)
    with embedded_postgres(folder) as again:
        assert again == url
        assert postmaster(folder) == orphan
    assert not runs(orphan)


async def test_a_killed_server_recovers_at_the_next_start_with_all_that_was_acknowledged(folder):
    with embedded_postgres(folder, QUICK) as url:
        await run(url, "create table kept as select 42 as number")
        kill(folder)
        with embedded_postgres(folder, QUICK) as again:
            assert await run(again, "select number from kept") == 42
            assert again == url  # so whoever uses it already reaches it again


async def test_a_pid_file_whose_number_another_process_has_now_does_not_stop_the_start(folder):
    with embedded_postgres(folder, QUICK) as url:
        kill(folder)
        for file in (pid_file(folder), Path(f"{socket_of(url)}.lock")):
            _, _, rest = file.read_text().partition("\n")
            file.write_text(f"{os.getppid()}\n{rest}")
        with embedded_postgres(folder, QUICK):
            assert await run(url, "select 1") == 1


async def test_a_killed_server_whose_queries_run_on_is_replaced_all_the_same(folder):
    with embedded_postgres(folder, QUICK) as url:
        connection = await asyncpg.connect(url)
        endless = asyncio.create_task(connection.execute("do $$ begin loop perform 1; end loop; end $$"))
        running = "select count(*) from pg_stat_activity where query like 'do %' and state = 'active'"
        await until(lambda: run(url, running), "the endless statement runs")
        kill(folder)
        with embedded_postgres(folder, QUICK):
            assert await run(url, "select 1") == 1
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await endless


async def test_a_signal_to_the_terminal_does_not_reach_it(folder):
    with embedded_postgres(folder, QUICK):
        server = postmaster(folder)
        assert os.getsid(server.pid) == server.pid


async def test_what_somebody_else_does_in_the_folder_is_left_alone(folder):
    with embedded_postgres(folder, QUICK):
        theirs = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=pid_file(folder).parent)
        kill(folder)
        with embedded_postgres(folder, QUICK) as url:
            assert await run(url, "select 1") == 1
        assert theirs.poll() is None
        theirs.kill()
        theirs.wait()


async def test_a_start_that_was_killed_halfway_is_begun_again(folder):
    unfinished = folder / "postgresql" / "unfinished"
    unfinished.mkdir(parents=True, mode=0o700)
    (unfinished / "PG_VERSION").write_text("18")
    with embedded_postgres(folder, QUICK) as url:
        assert await run(url, "select 1") == 1
    assert not unfinished.exists()


async def test_a_server_that_cannot_start_says_why_in_one_line(folder):
    with embedded_postgres(folder, QUICK):
        pass
    (folder / "postgresql" / "cluster" / "PG_VERSION").write_text("9\n")
    says = pytest.raises(UnavailableError, match=r"^PostgreSQL did not start: .*FATAL.*incompatible[^\n]*$")
    with says, embedded_postgres(folder, QUICK):
        pass


async def test_the_password_is_needed_and_only_its_owner_reads_it(folder):
    password = folder / "postgresql" / "password"
    with embedded_postgres(folder, QUICK) as url:
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        with pytest.raises(asyncpg.InvalidPasswordError):
            await run(url.replace(password.read_text(), "guessed"), "select 1")
        assert await run(url, "select count(*) from pg_hba_file_rules where auth_method <> 'scram-sha-256'") == 0
        assert await run(url, "show listen_addresses") == ""


async def test_no_mode_outside_the_folder_changes(folder):
    package = Path(psutil.__file__).parent.parent / "embedded_postgres" / "pginstall" / "bin"
    before = modes(folder.parent, package, Path(tempfile.gettempdir()), Path.home())
    with embedded_postgres(folder, QUICK):
        assert modes(*before) == before
        assert stat.S_IMODE((folder / "postgresql").stat().st_mode) == 0o700
    assert modes(*before) == before


@only_root
async def test_another_local_user_cannot_reach_the_socket(tmp_path_factory):
    connect = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    )
    with embedded_postgres(tmp_path_factory.mktemp("data"), QUICK) as url:
        command = [sys.executable, "-c", connect, str(socket_of(url))]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PermissionError" in tried.stderr


@pytest.fixture
def container(tmp_path):
    """What to put before a command so that root may do what containers allow: little, and no user namespaces."""
    refusing = tmp_path / "bin" / "unshare"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    rights = (
        "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap net_bind_service sys_chroot kill"
    )
    bounds = ",".join(["-all", *(f"+{right}" for right in rights.split())])
    return ["setpriv", f"--bounding-set={bounds}", "env", f"PATH={refusing.parent}:{os.environ['PATH']}"]


@only_root
@pytest.mark.parametrize("existed", [False, True])
async def test_root_can_do_without_user_namespaces(folder, container, existed):
    if existed:
        with embedded_postgres(folder, QUICK) as url:
            await run(url, "create table kept ()")
    before = modes(folder.parent)
    for _ in range(2):
        with hold(folder, *container) as process:
            url = process.stdout.readline().strip()
            server = postmaster(folder)
            assert server.uids().effective == NOBODY
            assert (await run(url, "select to_regclass('kept')") is not None) == existed
            process.communicate()
        assert not runs(server)
    assert modes(folder.parent) == before


@only_root
async def test_a_server_killed_in_a_container_is_replaced(folder, container):
    with hold(folder, *container) as first:
        url = first.stdout.readline().strip()
        kill(folder)
        with hold(folder, *container) as second:
            assert second.stdout.readline().strip() == url
            assert await run(url, "select 1") == 1
            second.communicate()
        first.communicate()


@only_root
def test_root_without_any_right_is_told_what_to_do(folder, container):
    command = ["setpriv", "--bounding-set=-all", *container[2:], sys.executable, "-m", "graphql_api", "migrate"]
    tried = subprocess.run(command, env={**os.environ, "DATA_DIR": str(folder)}, stderr=subprocess.PIPE, check=False)
    assert tried.returncode == 1
    assert tried.stderr.splitlines()[1].startswith(b"gateway-tokens: PostgreSQL does not run as root")


@only_root
async def test_an_ordinary_user_uses_a_folder_that_only_they_can_enter(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    os.chown(home, NOBODY, NOBODY)
    # The right to read what lies in root's own folders stands for an installation that everybody can read.
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights]
    with hold(home / "data", *user) as process:
        url = process.stdout.readline().strip()
        server = postmaster(home / "data")
        assert server.uids().effective == NOBODY
        assert await run(url, "select 1") == 1
        process.communicate()
    assert not runs(server)
    assert (home / "data" / "postgresql").stat().st_uid == NOBODY
