"""The command line: what each command prints, how it ends, and the one line that says what is wrong."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import asyncpg
import pytest
import typer

import graphql_api
from graphql_api import __version__
from graphql_api.bulk.jobs import JobStoppedError
from graphql_api.cli.main import cli, main
from graphql_api.cli.process import CommandError, run
from graphql_api.settings import Settings
from graphql_api.storage.migrate import _revision, newest_revision, upgrade

ROOT = Path(graphql_api.__file__).parents[1]
ADDRESS = "DATABASE_URL must be a URL such as postgresql://user:password@host:5432/database"
ESCAPES = "write %, @, :, /, ?, #, [ and ] in the password as %25, %40, %3A, %2F, %3F, %23, %5B and %5D"
HOSTS = "ALLOWED_HOSTS must be a comma-separated list of hosts such as tokens.example, or *"
ORIGINS = "CORS_ORIGINS must be a comma-separated list of origins such as https://shop.example, or *"
SECRET = "a development secret of 40 characters..."


def console_script():
    """What an installer makes of the console script."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["gateway-tokens"].partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch, tmp_path):
    """No variable of ours is set, and the working directory is empty."""
    for name in ("DATABASE_URL", "AUTH_MODE", "AUTH_SECRET", "AUTH_JWKS_URL", "AUTH_JWKS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a command in this process: its exit status, and what it prints."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gateway-tokens", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return call


async def store_a_token(url):
    """A token that is no demo token."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "insert into customer_gateway_tokens (id, user_id, gateway, gateway_customer_id)"
        " values (gen_random_uuid(), 'u1', 'STRIPE', 'cus_1')"
    )
    await connection.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serv"], "No such command 'serv'. Did you mean 'serve'?"),
        (["serve", "--prot", "1"], "No such option: --prot"),
        (["serve", "--port", "70000"], "Invalid value for '--port': must be at most 65535, not '70000'"),
        (["serve", "--workers", "0"], "Invalid value for '--workers': must be at least 1, not '0'"),
        (["demo", "--users", "many"], "Invalid value for '--users': must be a whole number, not 'many'"),
        (["export", "x", "--format", "xml"], "'--format': 'xml' is not one of 'csv', 'jsonl'."),
        (["token"], "Missing option '--sub'. (gateway-tokens token --help)"),
        (["token", "--sub", "u1"], "AUTH_SECRET is not set"),
        (["token", "--sub", ""], "--sub must have 1 to 255 characters"),
        (["token", "--sub", "u" * 256], "--sub must have 1 to 255 characters"),
        (["serve", "--port", "9001"], "METRICS_PORT and --port are both 9001: change one of them"),
        (["serve", "--host", "192.0.2.1"], "AUTH_MODE=disabled if that is what you want"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(call, monkeypatch, arguments, says):
    monkeypatch.setenv("METRICS_PORT", "9001")
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("gateway-tokens: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AUTH_MODE", "off", "AUTH_MODE must be jwt or disabled, not 'off'"),
        ("DATABASE_URL", "mysql://localhost", f"{ADDRESS}; it begins with mysql://"),
        ("DATABASE_URL", "jdbc:postgresql://localhost/x", f"{ADDRESS}; it begins with jdbc: remove that\n"),
        ("DATABASE_URL", "'postgresql://localhost/x'", f"{ADDRESS}; it begins with a quotation mark: remove"),
        ("DATABASE_URL", "localhost:5432/tokens", f"{ADDRESS}; it does not begin with postgresql://"),
        *(
            ("DATABASE_URL", f"postgresql://u:{password}@localhost/tokens", f"{ADDRESS}; {ESCAPES}\n")
            for password in ("p@ss", "p#ss", "p/ss", "p?ss", "1#ss", "1/ss", "1?ss", "p@ss/w:d")
        ),
        ("DATABASE_URL", "postgresql://:5432/x", f"{ADDRESS}; a port has no host before it"),
        ("DATABASE_URL", "postgresql://localhost:port/x", f"{ADDRESS}; a port is not a number"),
        ("DATABASE_URL", "postgresql://a:5432,b:99999/x", f"{ADDRESS}; a port is not a number"),
        ("DATABASE_REPLICA_URL", "postgresql://a/x,postgresql://b:99999/x", "DATABASE_REPLICA_URL must be URLs"),
        ("AUTH_SECRET", "short", "AUTH_SECRET must have at least 32 bytes, not 5"),
        ("AUTH_JWKS_URL", "https://", "AUTH_JWKS_URL must be a URL such as https://host/path; it names no host"),
        (
            "AUTH_JWKS_URL",
            "https://issuer:port/",
            "AUTH_JWKS_URL must be a URL such as https://host/path; it has a port that is not a number",
        ),
        ("AUTH_JWKS_URL", "https://x:0/", "AUTH_JWKS_URL must be a URL such as https://host/path; it has port 0"),
        ("ROUTER_SECRET", ",", "ROUTER_SECRET must be comma-separated values"),
        ("GATEWAYS", " , ", "GATEWAYS must be comma-separated values"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1,1x:whsec_2", "STRIPE_WEBHOOK_SECRET must contain the signing secrets"),
        ("STRIPE_WEBHOOK_SECRET", "STRIPE_EU:", "STRIPE_WEBHOOK_SECRET must contain the signing secrets"),
        ("INTROSPECTION", "maybe", "INTROSPECTION must be true or false, not 'maybe'"),
        ("MAX_DEPTH", "deep", "MAX_DEPTH must be a whole number, not 'deep'"),
        ("MAX_DEPTH", "0", "MAX_DEPTH must be at least 1, not '0'"),
        ("DATABASE_TIMEOUT", "4000", "DATABASE_TIMEOUT must be at most 3600, not '4000'"),
        ("CORS_ORIGINS", "https://a.example/", f"{ORIGINS}; 'https://a.example/' ends with a slash"),
        ("CORS_ORIGINS", "a.example", f"{ORIGINS}; 'a.example' does not begin with http:// or https://"),
        ("ALLOWED_HOSTS", "http://x,foo/", f"{HOSTS}; 'http://x' has more than a host"),
        ("ALLOWED_HOSTS", "x.example,foo/", f"{HOSTS}; 'foo/' has more than a host"),
        ("ALLOWED_HOSTS", "x.example:8000", f"{HOSTS}; 'x.example:8000' has more than a host"),
        ("METRICS_PORT", "99999", "METRICS_PORT must be at most 65535, not '99999'"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "migrate", "demo"])
def test_a_variable_that_is_set_wrong_is_named_in_one_line(call, monkeypatch, command, variable, value, says):
    monkeypatch.setenv(variable, value)
    status, out, err = call(command)
    assert (status, out) == (2, "")
    assert err.startswith(f"gateway-tokens: {says}")
    assert err.count("\n") == 1
    assert variable != "AUTH_SECRET" or value not in err


def test_a_folder_of_data_that_cannot_be_made_is_named_with_its_variable(call, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "file" / "data"))

    status, out, err = call("migrate")

    assert (status, out) == (1, "")
    named, said = err.splitlines()
    assert named == f"Database: embedded in {tmp_path}/file/data"
    assert said.startswith(f"gateway-tokens: DATA_DIR: {tmp_path}")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:hidden@127.0.0.1:1/x", "(connection refused): start PostgreSQL, or check the host and"),
        ("postgresql://me:hidden@no.such.host.invalid/x", "(its host name has no address): check the host in"),
        ("postgresql://me:hidden@/x", "cannot be used ("),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_line_without_its_password(call, monkeypatch, url, says):
    monkeypatch.setenv("DATABASE_URL", url)
    status, out, err = call("migrate")
    assert (status, out) == (1, "")
    named, _, err = err.partition("\n")
    assert named == f"Database: x on {url.partition('@')[2].removesuffix('/x') or 'the default host'}"
    assert err.startswith("gateway-tokens: the database cannot be used (")
    assert says in err
    assert "hidden" not in err
    assert err.count("\n") == 1


def test_a_wrong_password_for_the_database_is_one_line(call, monkeypatch, server_url):
    monkeypatch.setenv("DATABASE_URL", server_url.replace("postgres:", "postgres:wrong", 1))
    status, _, err = call("migrate")
    assert status == 1
    assert "password authentication failed" in err
    assert err.count("\n") == 2


def test_a_folder_that_cannot_be_made_is_one_line(call, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "file"))
    status, _, err = call("migrate")
    assert status == 1
    assert "Not a directory" in err
    assert err.count("\n") == 2


def test_a_host_that_does_not_exist_is_one_line(call):
    status, _, err = call("serve", "--host", "no.such.host.invalid")
    assert status == 1
    assert err.startswith("gateway-tokens: cannot listen on port 8000 of no.such.host.invalid: ")


def test_a_port_that_is_taken_is_one_line(call):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = call("serve", "--port", str(port))
    assert (status, out) == (1, "")
    assert err.startswith(f"gateway-tokens: cannot listen on port {port} of 127.0.0.1: Address already in use")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("secret", "who"),
    [(None, "anyone who can reach 127.0.0.1"), ("x" * 32, "anyone who can reach your router, or knows ROUTER_SECRET,")],
)
def test_it_says_who_could_reach_a_service_without_authentication(call, monkeypatch, secret, who):
    monkeypatch.setattr("graphql_api.server.is_loopback", lambda _: False)
    if secret:
        monkeypatch.setenv("ROUTER_SECRET", secret)
    assert f"{who} could read and change every token: set " in call("serve", "--port", "0")[2]


@pytest.mark.parametrize(
    ("configured", "refused"),
    [({}, True), ({"AUTH_MODE": "disabled"}, False), ({"AUTH_SECRET": SECRET}, False)],
)
def test_only_in_so_many_words_may_everybody_reach_a_service_without_authentication(
    call, monkeypatch, configured, refused
):
    monkeypatch.setattr("graphql_api.server.is_loopback", lambda _: False)
    for name, value in configured.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, _, err = call("serve", "--port", str(taken.getsockname()[1]))
    assert ("anyone who can reach 127.0.0.1" in err) == refused
    assert ("Address already in use" in err) != refused


def test_help_imports_nothing_that_takes_time():
    printed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "graphql_api", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in printed.stdout
    imported = {line.rpartition("|")[2].strip() for line in printed.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"pydantic", "rich", "asyncio", "sqlalchemy", "strawberry", "uvicorn", "asyncpg"}


PRESS = "import os\nos.kill(os.getpid(), 2)\n"


@pytest.mark.parametrize("command", [["-m", "graphql_api"], ["-c", console_script()]])
@pytest.mark.parametrize(
    ("module", "code"), [("signal.py", PRESS), ("typer.py", PRESS), ("typer.py", f"exec({PRESS!r})")]
)
def test_ctrl_c_is_one_line_while_the_first_modules_are_imported(tmp_path, command, module, code):
    (tmp_path / module).write_text(code)
    ended = subprocess.run(
        [sys.executable, *command, "serve"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "gateway-tokens: interrupted\n")


@pytest.mark.parametrize(("command", "lines"), [("--version", 0), ("doctor", 0), ("doctor", 4)])
async def test_it_ends_quietly_if_the_reader_of_its_output_has_gone(database_url, command, lines):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    output, end = os.pipe()
    reader = os.fdopen(output)
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("lock table alembic_version")  # the fifth line of `doctor` waits for it
        if not lines:
            reader.close()
        running = subprocess.Popen(
            [sys.executable, "-m", "graphql_api", command],
            env={**environment, "PYTHONPATH": str(ROOT), "DATABASE_URL": database_url, "AUTH_SECRET": SECRET},
            stdout=end,
            stderr=subprocess.PIPE,
        )
        os.close(end)
        for _ in range(lines):
            assert not reader.readline().startswith("WRONG")
        reader.close()
    await connection.close()
    assert (running.communicate()[1], running.returncode) == (b"", 1)


def test_a_file_is_looked_at_before_a_database_is_started(call, tmp_path):
    status, _, err = call("import", "none.csv")
    assert status == 2
    assert "none.csv does not exist" in err
    assert not (tmp_path / "data").exists()


def test_every_command_says_in_the_list_of_all_what_it_does(call):
    _, out, _ = call("-h")
    listed = out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert listed
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z].*[.]", line) and "..." not in line for line in listed), out


def test_alone_it_prints_its_help(call):
    assert call() == call("--help")
    assert call()[0] == 0


def test_the_help_of_serve_names_the_page_of_settings(call):
    assert "`gateway-tokens help configuration`" in " ".join(call("serve", "--help")[1].split())


def test_the_help_of_export_says_that_it_overwrites(call):
    assert "An existing file is replaced when the export is complete" in " ".join(call("export", "--help")[1].split())


def test_a_word_is_taken_in_any_case(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "INFO")
    monkeypatch.setenv("ENGINE", "GraphQL-Core")
    settings = Settings.load()
    assert (settings.log_level, settings.engine) == ("info", "graphql-core")


ON_A_DATABASE = [
    ["import", "t.csv"],
    ["export", "t.csv"],
    ["remap", "t.csv", "--gateway", "STRIPE"],
    ["reconcile", "t.csv", "--gateway", "STRIPE"],
    ["check", "--gateway", "STRIPE"],
    ["purge", "--gateway", "STRIPE", "--yes"],
    ["partition"],
    ["distribute"],
    ["migrate"],
    ["demo"],
    ["deliver"],
    ["deliver", "--resume", "billing"],
    ["prune", "--history-older-than", "9d", "--yes"],
]


def test_all_commands_that_need_a_database_are_known():
    commands = typer.main.get_command(cli).commands.items()
    with_database = {name for name, command in commands if "embedded" in {each.name for each in command.params}}
    assert {*with_database, "distribute"} == {"serve"} | {name for name, *_ in ON_A_DATABASE}


@pytest.mark.parametrize("command", ON_A_DATABASE)
def test_no_command_but_serve_starts_a_database_unless_told_to(call, monkeypatch, tmp_path, command):
    (tmp_path / "t.csv").write_text("old,new\n" if command[0] == "remap" else "userId,gateway,gatewayCustomerId\n")
    monkeypatch.delenv("DATA_DIR")
    monkeypatch.setenv("DATABSE_URL", "postgresql://db.example/tokens")
    monkeypatch.setenv("EVENT_WEBHOOKS", "billing=https://billing.example/events")
    monkeypatch.setenv("EVENT_WEBHOOK_SECRETS", f"billing:whsec_{'A' * 32}")
    monkeypatch.setenv("STRIPE_API_KEY", f"rk_live_{'a' * 24}")
    status, out, err = call(*command)
    assert (status, out) == (2, "")
    warning, said = err.splitlines()
    assert warning == (
        "gateway-tokens: warning: DATABSE_URL is set, but the service has no such setting. Did you mean DATABASE_URL?"
    )
    way_out = " to the coordinator of the cluster" if command == ["distribute"] else ", or pass --embedded"
    assert said.startswith(f"gateway-tokens: DATABASE_URL is not set: set it{way_out}")
    assert not (tmp_path / ".data").exists()


def test_a_bulk_command_works_on_the_embedded_database_when_told_to(call, monkeypatch, tmp_path):
    monkeypatch.delenv("DATA_DIR")
    status, _, err = call("export", "t.csv", "--embedded")
    assert status == 0
    assert err.splitlines()[-1] == "export t.csv: 0 tokens"
    assert (tmp_path / ".data").exists()


@pytest.fixture(params=["empty", "older"])
async def behind(request, new_database, migrated_database):
    """A database that lacks what this release needs, the tables that it has, and what is to be said of it."""
    url = await new_database(migrated_database) if request.param == "older" else await new_database()
    connection = await asyncpg.connect(url)
    if request.param == "older":
        await connection.execute("update alembic_version set version_num = '0001'")
    says = {
        "empty": "The database has no tables yet: run `gateway-tokens migrate`.",
        "older": f"The database is at migration 0001, and this release needs {newest_revision()}: "
        "run `gateway-tokens migrate`.",
    }
    yield url, lambda: connection.fetchval("select count(*) from pg_tables where schemaname = 'public'"), says
    await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["import", "t.csv"],
        ["import", "t.csv", "--check"],
        ["export", "old.csv"],
        ["remap", "t.csv", "--gateway", "STRIPE"],
        ["reconcile", "t.csv", "--gateway", "STRIPE"],
        ["prune", "--history-older-than", "9d", "--dry-run"],
        ["partition", "--dry-run"],
    ],
)
async def test_a_bulk_command_does_not_migrate_a_database_that_it_is_given(behind, tmp_path, command):
    """But for an import into an empty one."""
    url, tables, says = behind
    (tmp_path / "t.csv").write_text("userId,gateway,gatewayCustomerId\nu1,STRIPE,cus_1\n")
    (tmp_path / "old.csv").write_text("of last night")
    before = await tables()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graphql_api", *command),
        env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    if not before and command == ["import", "t.csv"]:
        assert (process.returncode, await tables() > 0) == (0, True)
        return
    said = says["older" if before else "empty"]
    assert (process.returncode, out, err.decode().splitlines()[1:]) == (1, b"", [f"gateway-tokens: {said}"])
    assert await tables() == before
    assert {file.name for file in tmp_path.iterdir()} == {"t.csv", "old.csv"}
    assert (tmp_path / "old.csv").read_text() == "of last night"


SLOW = """
import asyncio
import json
import graphql_api.bulk.jobs as jobs

async def slow(*_):
    press()
    try:
        await asyncio.sleep(60)
    finally:
        {at_the_end}

jobs.import_file = slow
"""
# What is replaced in a process so that Ctrl-C is pressed at this moment of a command.
MOMENTS = {
    "before the database": "import graphql_api.cli.process\ngraphql_api.cli.process.load_settings = press",
    "while it is created": "import subprocess\nsubprocess.run = lambda *_, **__: press()",
    "at work": SLOW.format(at_the_end="pass"),
    "at work that ends in an error then": SLOW.format(at_the_end="raise ValueError"),
    "at work that takes its time to end": SLOW.format(at_the_end="await asyncio.sleep(0.1)"),
}


def test_the_log_of_a_command_goes_to_standard_error():
    """What `export -` writes would otherwise have lines of the log among its own."""
    code = "import structlog; from graphql_api.cli.process import load_settings; load_settings(); "
    code += "structlog.get_logger().warning('database is unavailable')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert (done.stdout, json.loads(done.stderr)["event"]) == ("", "database is unavailable")


def test_sigterm_after_ctrl_c_disturbs_neither_the_cleaning_up_nor_the_exit():
    code = """
import os, signal
from graphql_api import interrupts
from graphql_api.cli import main as cli
from graphql_api.__main__ import main

def press():
    with interrupts.cancelling(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    raise KeyboardInterrupt

cli.main = press
try:
    main()
finally:
    os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "gateway-tokens: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "name", "times"),
    [
        *product(MOMENTS, ["SIGINT"], [1, 3]),
        *product([moment for moment in MOMENTS if "at work" in moment], ["SIGTERM", "SIGHUP"], [2]),
    ],
)
def test_a_signal_is_one_line_at_any_moment(tmp_path, database_url, moment, name, times):
    code = f"""
import os, signal

def press():
    for _ in range({times}):
        os.kill(os.getpid(), signal.{name})

{MOMENTS[moment]}
from graphql_api.__main__ import main
main()
"""
    (tmp_path / "t.csv").touch()
    ended = subprocess.run(
        [sys.executable, "-c", code, "import", "t.csv"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"DATABASE_URL": database_url} if "at work" in moment else {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if not line.startswith("Database: ")]
    status = 128 + signal.Signals[name]
    assert (ended.returncode, ended.stdout, said) == (status, "", ["gateway-tokens: interrupted"])


def test_a_second_ctrl_c_while_the_connections_are_closed_leaves_what_a_job_says_of_the_first():
    async def stops():
        task = asyncio.current_task()
        try:
            raise JobStoppedError("stopped after line 5")
        finally:
            task.cancel()
            await asyncio.sleep(0)

    with pytest.raises(CommandError, match="stopped after line 5"):
        run(stops())


def test_the_version_is_the_packages(call):
    assert call("--version") == (0, f"{__version__}\n", "")


def test_a_token_is_printed_alone(call, monkeypatch):
    monkeypatch.setenv("AUTH_SECRET", SECRET)
    status, out, err = call("token", "--sub", "u1", "--scope", "gateway-tokens:read gateway-tokens:write")
    assert (status, err) == (0, "")
    assert len(out.strip().split(".")) == 3


def test_a_scope_that_does_not_exist_is_named_beside_those_that_do(call, monkeypatch):
    monkeypatch.setenv("AUTH_SECRET", SECRET)
    status, out, err = call("token", "--sub", "u1", "--scope", "gateway-tokens:read gateway-tokens:wrte")
    assert (status, len(out.strip().split("."))) == (0, 3)
    assert err == (
        "gateway-tokens: warning: this service has no scope gateway-tokens:wrte. Its scopes are gateway-tokens:admin, "
        "gateway-tokens:events, gateway-tokens:read and gateway-tokens:write.\n"
    )


async def test_ten_that_migrate_at_once_all_succeed(new_database):
    url = await new_database()
    await asyncio.gather(*(upgrade(url) for _ in range(10)))
    assert await _revision(url) == newest_revision()


def test_without_a_database_url_migrating_makes_a_postgresql_in_the_data_folder(call, tmp_path):
    says = f"The database is at migration {newest_revision()}.\n"
    assert call("migrate") == (0, says, f"Database: embedded in {tmp_path}/data\n")
    assert (tmp_path / "data" / "postgresql" / "cluster").is_dir()


async def test_migrating_the_database_of_a_newer_release_says_so(call, monkeypatch, new_database, migrated_database):
    monkeypatch.setenv("DATABASE_URL", url := await new_database(migrated_database))
    connection = await asyncpg.connect(url)
    await connection.execute("update alembic_version set version_num = '9001'")
    await connection.close()
    status, out, _ = await asyncio.to_thread(call, "migrate")
    newer = f"newer than this release's {newest_revision()}: nothing to do"
    assert (status, out) == (0, f"The database is at migration 9001, which is {newer}.\n")


def test_demo_tokens_are_stored_once(call, monkeypatch, empty_database):
    monkeypatch.setenv("DATABASE_URL", empty_database)
    assert call("demo", "--users", "3")[:2] == (0, "Stored demo tokens for 3 users.\n")
    assert call("demo", "--users", "3")[:2] == (0, "The demo tokens exist already.\n")


def test_demo_tokens_do_not_mix_with_others(call, monkeypatch, empty_database):
    monkeypatch.setenv("DATABASE_URL", empty_database)
    asyncio.run(store_a_token(empty_database))
    status, out, err = call("demo")
    assert (status, out) == (1, "")
    assert "Demo tokens need an empty database" in err


def test_the_schema_is_printed_and_compared(call, tmp_path):
    _, sdl, _ = call("schema")
    assert "type CustomerGatewayToken" in sdl
    (tmp_path / "schema.graphql").write_text(sdl)
    assert call("schema", "--check") == (0, "", "")
    (tmp_path / "schema.graphql").write_text(sdl.replace("type PageInfo", "type Page"))
    status, diff, err = call("schema", "--check")
    assert status == 1
    assert "+type PageInfo" in diff
    assert err.startswith("gateway-tokens: schema.graphql differs")
    (tmp_path / "schema.graphql").unlink()
    status, _, err = call("schema", "--check")
    assert (status, err) == (
        2,
        "gateway-tokens: schema.graphql does not exist here; create it with `gateway-tokens schema > schema.graphql`\n",
    )


def test_the_published_schema_is_the_one_of_the_code(call, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert call("schema", "--check") == (0, "", "")


OF_FILES = {"--check", "--dry-run", "--rejects", "--format", "--encoding", "--delimiter", "--column", "--embedded"}


@pytest.mark.parametrize("name", ["import", "remap", "reconcile"])
def test_the_commands_that_read_files_have_the_same_options_and_say_the_same_of_them(name):
    commands = typer.main.get_command(cli).commands
    options = {option: each.help for each in commands[name].params for option in each.opts}
    first = {option: each.help for each in commands["import"].params for option in each.opts}
    assert {option: options[option] for option in OF_FILES} == {option: first[option] for option in OF_FILES}


def test_every_page_that_a_message_names_can_be_shown(call):
    sources = [file.read_text() for file in (ROOT / "graphql_api").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"gateway-tokens help ([\w-]+)", text)}
    assert named >= {"configuration", "scale"}
    for name in named:
        status, page, _ = call("help", name)
        assert (status, page[:2]) == (0, "# ")
        assert re.search(rf"^{name} ", call("help")[1], re.MULTILINE)


@pytest.mark.parametrize("name", ["payments.md", "Payments", "docs/payments.md"])
def test_a_page_is_found_by_the_name_of_its_file_and_in_any_case(call, name):
    assert call("help", name) == call("help", "payments")


def test_a_page_that_is_not_there_is_refused(call):
    status, printed, said = call("help", "nothing")
    assert (status, printed) == (2, "")
    assert said.startswith("gateway-tokens: There is no page 'nothing'. Run `gateway-tokens help` to list the pages")
    assert "Did you mean configuration?" in call("help", "confguration")[2]


@pytest.mark.parametrize("command", [(), *((name,) for name in typer.main.get_group(cli).commands)])
def test_no_help_refers_to_a_file_that_an_installation_may_not_have(call, command):
    assert ".md" not in call(*command, "--help")[1]


def test_on_a_terminal_a_page_is_laid_out_and_has_no_link_that_cannot_be_opened(call, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, page, _ = call("help", "configuration")
    assert ("\x1b[" in page, "\x1b]8;" in page, "| --- |" in page) == (True, False, False)
