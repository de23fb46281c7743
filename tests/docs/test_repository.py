"""What surrounds the code: licence, changelog and the workflow that checks every change."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from graphql_api import __version__
from tests.docs.pages import ROOT

WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yaml"))


def built(kind, folder):
    """Path → content of what a wheel or a source distribution contains."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", folder]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (archive,) = folder.iterdir()
    if kind == "wheel":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        return {each.name: sdist.extractfile(each).read() for each in sdist if each.isfile()}


def test_a_wheel_has_graphiql_if_it_was_built(tmp_path):
    page = ROOT / "graphql_api/web/static/graphiql/index.html"
    assert ("graphql_api/web/static/graphiql/index.html" in built("wheel", tmp_path)) == page.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_licence_is_in_what_is_published(kind, tmp_path):
    contents = built(kind, tmp_path)
    assert (ROOT / "LICENSE").read_bytes() in [text for name, text in contents.items() if name.endswith("/LICENSE")]
    metadata = next(text for name, text in contents.items() if name.endswith(("/METADATA", "/PKG-INFO")))
    assert b"License-Expression: MIT" in metadata
    assert b"](" not in metadata  # a package index would resolve a relative link to its own site


def test_the_changelog_has_a_section_for_this_version():
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:2] == ["Unreleased", __version__]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_fits_the_schema_of_workflows(workflow):
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    checked = subprocess.run([*check, workflow], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_workflow_checks_what_the_package_supports():
    jobs = YAML(typ="safe").load(ROOT / ".github/workflows/check.yaml")["jobs"]
    matrix = jobs["check"]["strategy"]["matrix"]
    assert matrix == {"python": ["3.11", "3.12", "3.13", "3.14"], "postgresql": ["13", "18"]}
    assert jobs["check"]["steps"][-1] == {"run": ".ci/run"}
    assert jobs["everything"]["steps"][-1] == {"run": ".ci/run --cov --cov-fail-under=97"}
