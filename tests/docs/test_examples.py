"""Whatever the documentation shows is tried, and answers as it says."""

import json
import re

import pytest

from tests.docs.pages import PAGES, ROOT, Block, blocks, examples, name_of
from tests.docs.reader import IN_THE_GRAPH, fits

TOOLS_VERSION = 18  # of the wheel that has pg_restore
# What is not tried here, by page and how it begins; the reason says where it is tried instead, or why nowhere.
ELSEWHERE = {
    ("README.md", "make run"): "tests/cli/test_startup.py serves, and this is `make test`",
    ("docs/frontend.md", "npm install"): "the packages are installed from tests/clients/package.json, see below",
    (
        "docs/operations.md",
        "docker build",
    ): "needs a container engine; tests/platform/test_packaging.py has what can be tried",
    ("docs/operations.md", "kubectl"): "needs a cluster; tests/deploy has what can be tried",
    ("docs/configuration.md", "upstream"): "tests/web/test_proxies.py",
    ("docs/configuration.md", "backend"): "tests/web/test_proxies.py",
    ("docs/checks.md", "gateway-tokens check"): "needs a gateway; tests/gateway_apis",
    ("docs/checks.md", "gateway-tokens purge"): "needs a gateway; tests/gateway_apis",
    ("docs/checks.md", '"""Acme'): "tests/gateway_apis/test_another_gateway.py",
    ("docs/checks.md", "--- graphql_api"): "tests/gateway_apis/test_another_gateway.py",
    ("docs/checks.md", "kubectl"): "needs a cluster; tests/deploy has what can be tried",
    (
        "docs/events.md",
        "directive @edfs",
    ): "for Cosmo's router, which no registry has; tests/gateways/test_composition.py",
    ("docs/events.md", "kubectl"): "needs a cluster; tests/deploy has what can be tried",
    ("docs/federation.md", "headers:"): "for Apollo's router in Rust, which no registry has",
    ("docs/database-roles.md", "create role"): "tests/storage/test_roles.py",
    ("docs/database-roles.md", "grant"): "tests/storage/test_roles.py",
    ("docs/database-roles.md", "create publication"): "tests/storage/test_roles.py",
    ("docs/database-roles.md", "create subscription"): "tests/storage/test_publication.py",
    ("docs/scale.md", "alter role"): "for a role that only an operator has; tests/faults/test_pooler.py does without",
    ("docs/scale.md", "alter publication"): "tests/storage/test_publication.py",
    ("docs/scale.md", 'psql "$DATABASE_URL" -c "copy'): "tests/storage/test_publication.py",
    ("docs/scale.md", "create temporary table saved"): "tests/storage/test_publication.py",
    ("docs/releasing.md", "git tag"): "changes the repository",
    ("docs/releasing.md", "python -m pip install build"): "tests/docs/test_repository.py builds the wheel",
    (
        "docs/releasing.md",
        "docker build",
    ): "needs a container engine; tests/platform/test_packaging.py has what can be tried",
    ("docs/architecture.md", "flowchart TD"): "tests/docs/test_drawing.py",
}


def elsewhere(block: Block):
    page = block.place.partition(":")[0]
    return next((key for key in ELSEWHERE if key[0] == page and block.text.startswith(key[1])), None)


def installs(page):
    """Whether it takes packages of Node, or many starts of Python, to try the page."""
    needs_node = any("npx" in block.text or block.words.startswith(IN_THE_GRAPH) for block in blocks(page))
    return needs_node or name_of(page) == "graphql_api/engine/README.md"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if installs(page) else [], id=name_of(page))
        for page in PAGES
        if examples(page)
    ],
)
async def test_what_a_page_shows_is_true(page, reader, connection):
    if name_of(page) == "docs/backup.md" and connection.get_server_version().major != TOOLS_VERSION:
        pytest.skip("pg_restore writes what only a server of its own version takes")
    for example in examples(page):
        if elsewhere(example.block) is None:
            await reader.do(example)


def test_nothing_is_left_out_that_is_not_there():
    assert {elsewhere(block) for page in PAGES for block in blocks(page)} - {None} == ELSEWHERE.keys()


def test_the_types_for_clients_are_made_with_the_packages_that_the_page_names():
    [install] = [block.text for block in blocks(ROOT / "docs/frontend.md") if block.text.startswith("npm install")]
    named = dict(re.fullmatch(r"(@?[^@]+)@?(.*)", word).groups() for word in install.split()[2:])
    pinned = json.loads((ROOT / "tests/clients/package.json").read_text())["devDependencies"]
    assert named.keys() == pinned.keys()
    assert all(pinned[name].startswith(version) for name, version in named.items())


@pytest.mark.parametrize(
    ("shown", "found"), [({"a": 1}, {"a": 2}), ({"a": 1}, {"a": 1, "b": 2}), ([1], [1, 2]), ([1, 2], [1]), ("a", "b")]
)
def test_another_answer_than_the_shown_one_is_seen(shown, found):
    assert not fits(shown, found)
    assert fits(shown, shown)
    assert fits("…", found)
