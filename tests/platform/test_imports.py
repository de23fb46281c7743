"""The contract about circles: `make lint` applies it to the package, these tests to planted ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphql_api

ROOT = Path(graphql_api.__file__).parents[1]
CONFIGURATION = """
[tool.importlinter]
root_package = "planted"
contract_types = ["no_cycles: lint.no_cycles.NoCyclesContract"]

[[tool.importlinter.contracts]]
name = "No circles"
type = "no_cycles"
"""
FOR_A_CHECKER = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from planted import a\n"


@pytest.fixture
def lint(tmp_path):
    """Checks a package of these modules; the status and what is printed."""

    def lint(**modules):
        (tmp_path / "planted").mkdir()
        (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
        for name, source in {"__init__": "", **modules}.items():
            (tmp_path / "planted" / f"{name}.py").write_text(source)
        checked = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return checked.returncode, checked.stdout + checked.stderr

    return lint


@pytest.mark.parametrize("last", ["from planted import a\n", FOR_A_CHECKER], ids=["at run time", "for a type checker"])
def test_a_circle_is_found_and_its_chain_shown(lint, last):
    status, printed = lint(a="from planted import b\n", b="from planted import c\n", c=last)
    assert status == 1
    assert "planted.a\n  imports planted.b\n  imports planted.c\n  imports planted.a\n" in printed


def test_imports_that_point_one_way_are_no_circle(lint):
    status, printed = lint(a="from planted import b, c\n", b="from planted import c\n", c="import os\n")
    assert status == 0, printed
