"""What the documentation mentions is there: files, headings, commands, options, targets of make, variables."""

import re
from typing import Any

import pytest
import typer

from graphql_api.cli.main import cli
from graphql_api.settings import Settings
from tests.docs.pages import PAGES, ROOT, name_of, without_blocks

COMMANDS: Any = typer.main.get_command(cli)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)


def code_in(text):
    return re.findall(r"`([^`\n]+)`", text)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@EVERY_PAGE
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@EVERY_PAGE
def test_commands_and_their_options_are_there(page):
    for line in re.findall(r"(?<![\w-])gateway-tokens ([a-z][^`|;&>)\n]*)", page.read_text()):
        name, *words = line.split()
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        known = {option for parameter in COMMANDS.commands[name].params for option in parameter.opts}
        assert options <= {*known, "--help"}, line


@EVERY_PAGE
def test_targets_of_make_are_there(page):
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= TARGETS


@EVERY_PAGE
def test_files_and_folders_are_there(page):
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    for code in code_in(without_blocks(page)):
        if re.fullmatch(rf"({folders})/[\w./-]*", code):
            assert (ROOT / code).exists(), code


def test_every_variable_is_explained_and_nothing_else():
    table = (ROOT / "docs/configuration.md").read_text().partition("## All variables")[2]
    explained = {
        name for row in re.findall(r"^\|([^|]+)\|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert explained == {name.upper() for name in Settings.model_fields}
