"""Who gets GraphiQL at /graphql, and how carefully it is served."""

import gzip
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import brotli
import pytest
from starlette.routing import Router

from graphql_api.app import create_app
from graphql_api.settings import Settings
from graphql_api.web import graphiql
from tests.asgi import Client, opened

ROOT = Path(__file__).parents[2]
AUTH_SECRET = "signs no access token in these tests, ever"
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


@pytest.fixture
async def open_service(database_url):
    async with opened(create_app(Settings(database_url=database_url, auth_mode="disabled"))) as app:
        yield Client(app).http


@pytest.fixture
async def closed_service(database_url):
    async with opened(create_app(Settings(database_url=database_url, auth_secret=AUTH_SECRET))) as app:
        yield Client(app).http


@pytest.fixture
def not_built(tmp_path):
    """The page and its files where GraphiQL was not built."""
    return Client(Router(graphiql.routes(tmp_path), redirect_slashes=False)).http


async def test_a_browser_gets_a_page_that_may_ask_nobody_else(open_service):
    response = await open_service.get("/graphql", headers=BROWSER)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert not re.search(r"https?:|\*", response.headers["content-security-policy"])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["vary"] == "accept"


async def test_the_page_needs_nothing_from_another_host_and_its_files_are_kept_for_ever(open_service, built):
    page = (await open_service.get("/graphql", headers=BROWSER)).text
    files = re.findall(r'(?:src|href)="\./(graphiql/[^"]+)"', page)
    assert len(files) == len(re.findall(r"(?:src|href)=", page)) - 1  # the icon is empty
    for file in files:
        response = await open_service.get(f"/{file}")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert response.headers["content-encoding"] in {"br", "gzip"}


async def test_without_a_build_the_page_says_how_to_get_it(not_built):
    response = await not_built.get("/graphql", headers=BROWSER)
    assert "make graphiql" in response.text
    assert "CORS_ORIGINS" in response.text


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json, text/html", "*/*"])
async def test_a_program_gets_an_answer(open_service, accept):
    response = await open_service.get("/graphql", params={"query": "{ __typename }"}, headers={"accept": accept})
    assert response.json() == {"data": {"__typename": "Query"}}


async def test_a_browser_that_posts_gets_no_page(open_service):
    response = await open_service.post("/graphql", json={"query": "{ __typename }"}, headers=BROWSER)
    assert response.json() == {"data": {"__typename": "Query"}}


async def test_where_introspection_is_off_there_is_no_page_and_there_are_no_files(closed_service, built):
    response = await closed_service.get("/graphql", headers=BROWSER)
    assert response.json()["errors"][0]["message"] == "`query` is missing."
    (script,) = (ROOT / "graphql_api/web/static/graphiql/graphiql").glob("index-*.js")
    assert (await closed_service.get(f"/graphiql/{script.name}")).status_code == 404


@pytest.mark.parametrize("path", ["..%2findex.html", "../index.html", "%2e%2e/%2e%2e/__init__.py", ""])
async def test_nothing_but_its_files_is_served(open_service, path):
    assert (await open_service.get(f"/graphiql/{path}")).status_code == 404


@pytest.mark.parametrize("tab", sorted((ROOT / "graphiql/tabs").glob("*.graphql")), ids=lambda tab: tab.stem)
async def test_a_tab_is_answered_as_it_is(open_service, empty_database, tab):
    variables = tab.with_suffix(".json")
    asked = {"query": tab.read_text(), "variables": json.loads(variables.read_text()) if variables.exists() else {}}
    answer = (await open_service.post("/graphql", json=asked)).json()
    assert "errors" not in answer
    assert all(field.get("userErrors", []) == [] for field in answer["data"].values() if isinstance(field, dict))


def test_the_wheel_brings_it_along(built, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "graphql_api/web/static/graphiql/index.html" in names
    assert any(re.fullmatch(r"graphql_api/web/static/graphiql/graphiql/index-\S+\.js", name) for name in names)


@pytest.fixture
async def small_build(tmp_path):
    """What serves a build of one file with compressed copies and one without."""
    folder = tmp_path / "graphiql"
    folder.mkdir()
    (folder / "a.js").write_text("plain")
    (folder / "a.js.br").write_bytes(brotli.compress(b"plain"))
    (folder / "a.js.gz").write_bytes(gzip.compress(b"plain"))
    (folder / "b.svg").write_text("<svg/>")
    return Client(Router(graphiql.routes(tmp_path), redirect_slashes=False)).http


@pytest.mark.parametrize(
    ("accepted", "coding"), [("gzip, deflate, br, zstd", "br"), ("gzip", "gzip"), ("zstd", None), ("identity", None)]
)
async def test_a_file_is_sent_as_the_build_compressed_it(small_build, accepted, coding):
    response = await small_build.get("/graphiql/a.js", headers={"accept-encoding": accepted})
    assert response.text == "plain"
    assert response.headers.get("content-encoding") == coding
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["vary"] == "accept-encoding"
    assert "immutable" in response.headers["cache-control"]


async def test_a_file_without_a_compressed_one_is_sent_as_it_is(small_build):
    response = await small_build.get("/graphiql/b.svg", headers={"accept-encoding": "br"})
    assert (response.text, response.headers.get("content-encoding")) == ("<svg/>", None)


@pytest.mark.parametrize("path", ["/graphiql/x", "/graphiql", "/graphiql/", "/graphql/"])
async def test_what_was_not_built_is_not_found(not_built, path):
    assert (await not_built.get(path)).status_code == 404
