"""A gateway that is added as the page says: its code blocks, applied to a copy of the package, and the commands."""

import asyncio
import os
import shutil
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.docs.pages import ROOT, blocks
from tests.gateway_apis import standin
from tests.gateway_apis.standin import serving

pytestmark = pytest.mark.slow
KEY = "acme_live_0123456789abcdef"
SHOWN = {block.language: block for block in blocks(ROOT / "docs/checks.md") if "acme" in block.text}


def apply(folder, diff):
    """Change files as the diff says. What it shows has to be there, once."""
    for part in diff.split("--- ")[1:]:
        name, *hunks = part.split("\n@@\n")
        path = folder / name
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = path.read_text()
            assert text.count(old) == 1, f"{name} has {text.count(old)} times:\n{old}"
            path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with a copy of the package in which the page was followed."""
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(ROOT / "graphql_api", folder / "graphql_api", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    module = SHOWN["python"]
    (folder / module.words).write_text(module.text)
    apply(folder, SHOWN["diff"].text)
    return folder


@pytest.fixture
async def acme(graph):
    """Five customers. One was deleted long ago and is not listed, one is listed, one is unknown."""
    acme = standin.Acme(KEY)
    for number in range(1, 6):
        await graph.save(f"u{number}", "ACME", f"a{number}")
        acme.customers[f"a{number}"] = standin.LIVE
    acme.customers["a2"] = standin.DELETED
    acme.delete("a3", datetime.now(UTC) - timedelta(days=60))
    acme.delete("a99")
    del acme.customers["a4"]
    return acme


@pytest.fixture
def run(package, acme, database_url):
    """Runs a command of the copy: its status and what it says."""

    async def command(*arguments, key=KEY):
        with serving(acme) as url:
            settings = {"ACME_API_KEY": key, "ACME_API_BASE": url, "DATABASE_URL": database_url}
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "graphql_api", *arguments),
                cwd=package,
                env={**os.environ, **settings, "PYTHONPATH": str(package)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
        return process.returncode, out.decode()

    return command


async def test_a_gateway_that_is_added_by_the_page_is_checked_and_purged(run, acme, graph):
    status, says = await run("check", "--gateway", "acme", "--rate", "1000")
    assert (status, "2 deletions read, 4 asked: 2 verified, 0 activated, 2 deactivated, 1 unknown" in says) == (1, True)
    states = [(await graph.customer("ACME", f"a{number}"))["isActive"] for number in range(1, 6)]
    assert states == [True, False, False, True, True]
    for user in ("u1", "u2"):
        await graph.erase(user)
    status, says = await run("purge", "--gateway", "ACME", "--yes")
    assert (status, "purge of ACME: 2 deleted, 0 deleted before" in says) == (0, True), says
    assert acme.customers["a1"] == standin.DELETED
    assert (await graph.erasures())["nodes"] == []


async def test_its_key_has_to_be_of_its_form_and_mode(run, acme):
    for key, says in (
        ("sk_live_0123456789abcdef", "ACME_API_KEY must contain API keys: acme_live_… or acme_test_… with 16"),
        ("acme_test_0123456789abcdef", "ACME_API_KEY has a test key for ACME, which is in live mode"),
        ("acme_live_fedcba9876543210", "Acme refuses the key (status 401). It needs customers.read"),
    ):
        status, said = await run("check", "--gateway", "ACME", key=key)
        assert (status in {1, 2}, says in said) == (True, True), said
    status, said = await run("check", "--gateway", "PAYPAL")
    assert (status, "Only Stripe, Mollie and Acme have an API here" in said) == (2, True), said
    status, said = await run("check", "--gateway", "ACME_EU")
    assert (status, "Set ACME_API_KEY=ACME_EU:…" in said) == (2, True), said


async def test_it_fits_into_the_layers(package):
    script = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", script),
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
