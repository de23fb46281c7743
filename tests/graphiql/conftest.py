"""GraphiQL as a person meets it: the built page, the service with demo tokens, a real Chromium without a network."""

import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, async_playwright

from graphql_api.app import create_app
from graphql_api.demo import fill
from graphql_api.settings import Settings
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.tokens import TokenStore
from tests.asgi import opened
from tests.node import install
from tests.web.conftest import listening

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="session")
def built():
    """The page, built if it is not yet."""
    install(ROOT / "graphiql")
    subprocess.run(["make", "--silent", "graphiql"], cwd=ROOT, check=True)  # noqa: S607 - whichever make is found


@pytest.fixture(scope="session")
async def demo_database(new_database, migrated_database):
    url = await new_database(migrated_database)
    async with ConnectionPool.open(url) as database:
        await fill(TokenStore(database))
    return url


@pytest.fixture
async def serving(built, demo_database):
    """Serves demo tokens with these settings; given is where the page is."""
    async with AsyncExitStack() as stack:

        async def serve(**settings):
            app = create_app(Settings(database_url=demo_database, **settings))
            host, port = await stack.enter_async_context(listening(await stack.enter_async_context(opened(app))))
            return f"http://{host}:{port}/graphql"

        yield serve


@pytest.fixture
async def address(serving):
    return await serving(auth_mode="disabled")


@pytest.fixture(scope="session")
async def chromium():
    """The browser that Debian packages."""
    executable = shutil.which("chromium")
    if executable is None:
        missing = "Chromium is missing: `apt-get install chromium`."
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        yield browser
        await browser.close()


def _is_introspection(response):
    return "__schema" in (response.request.post_data or "")


def _is_an_answer(response):
    return response.request.method == "POST" and not _is_introspection(response)


class GraphiQL:
    """The page in a browser, used as people do; what it did beyond this machine, or wrongly, is in `faults`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._said)

    def _asked(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.hostname != "127.0.0.1":
            self.faults.append(f"asked {request.url}")

    def _said(self, message):
        if message.type == "error":
            self.faults.append(f"said {message.text}")

    @property
    def query(self):
        return self.page.locator(".graphiql-query-editor .monaco-editor").first

    async def answer(self):
        """What is shown of the answer; the editor writes spaces that do not break."""
        return (await self._answer.inner_text()).replace("\xa0", " ")

    @property
    def _answer(self):
        return self.page.locator(".graphiql-response .view-lines")

    @property
    def footer(self):
        return self.page.locator(".graphiql-footer")

    async def open(self, address):
        async with self.page.expect_response(_is_introspection):
            await self.page.goto(address)
        await self.query.wait_for()

    async def run(self):
        """Run the query of the tab, and wait for all of its answer."""
        async with self.page.expect_response(_is_an_answer):
            await self.page.get_by_role("button", name="Execute query").click()
        await self.page.locator(".graphiql-spinner").wait_for(state="detached")
        await self._answer.get_by_text("{").first.wait_for()

    async def tabs(self):
        return await self.page.locator(".graphiql-tab-button").all_inner_texts()

    async def tab(self, name):
        await self.page.locator(".graphiql-tab-button", has_text=name).click()

    async def write(self, text, into=None):
        """Replace what an editor holds with one line, by pasting: it closes brackets for who types."""
        editor = into or self.query
        await self.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        await editor.click()
        await self.page.keyboard.press("Control+A")
        await self.page.keyboard.press("Control+V")
        await editor.get_by_text(text).wait_for()

    async def keeps(self, text):
        """Wait until the browser keeps this: it does so a moment after it was written."""
        await self.page.evaluate(
            """text => new Promise(done => {
              const look = () => JSON.stringify(localStorage).includes(text) ? done() : setTimeout(look, 20);
              look();
            })""",
            text,
        )

    async def kept(self):
        """Everything that the browser keeps of the page when it is closed."""
        return await self.page.evaluate("JSON.stringify(localStorage)")


@pytest.fixture
async def graphiql(chromium, serving):
    """The browser of somebody who was never here before; it closes while the service still runs."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    made = GraphiQL(await context.new_page())
    yield made
    await context.close()
    assert made.faults == []


@pytest.fixture
def shot(graphiql):
    """Keeps what the browser shows for the documentation, where SCREENSHOTS is set."""

    async def keep(name):
        if os.environ.get("SCREENSHOTS"):
            await graphiql.page.mouse.move(0, 0)
            await graphiql.page.screenshot(path=IMAGES / f"graphiql-{name}.png")

    return keep
