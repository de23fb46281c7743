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


async def test_if_introspection_is_off_the_page_says_how_to_turn_it_on_and_there_are_no_files(closed_service, built):
    response = await closed_service.get("/graphql", headers=BROWSER)
    assert response.status_code == 400
    assert "INTROSPECTION=true" in response.text
    answer = await closed_service.get("/graphql", params={"query": "{ __typename }"}, headers=BROWSER)
    assert answer.json() == {"data": {"__typename": "Query"}}
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


PLAIN, SVG = "plain " * 500, "<svg/>" * 500


@pytest.fixture
async def small_build(tmp_path):
    """What serves a build of one file with compressed copies and one without."""
    folder = tmp_path / "graphiql"
    folder.mkdir()
    (folder / "a.js").write_text(PLAIN)
    (folder / "a.js.br").write_bytes(brotli.compress(PLAIN.encode()))
    (folder / "a.js.gz").write_bytes(gzip.compress(PLAIN.encode()))
    (folder / "b.svg").write_text(SVG)
    return Client(Router(graphiql.routes(tmp_path), redirect_slashes=False)).http


ACCEPTED = [
    ("gzip, deflate, br, zstd", "br"),
    ("gzip", "gzip"),
    ("br;q=0.1, gzip", "gzip"),
    ("zstd", None),
    ("identity", None),
    ("gzip;q=0", None),
    ("gzip;q=0, br;q=0", None),
    ("notgzip", None),
]


@pytest.mark.parametrize("accepted", [accepted for accepted, _ in ACCEPTED])
async def test_a_browser_that_has_a_file_is_not_sent_it_again(small_build, accepted):
    encoding = {"accept-encoding": accepted}
    sent = await small_build.get("/graphiql/a.js", headers=encoding)
    validators = {"if-none-match": sent.headers["etag"]}, {"if-modified-since": sent.headers["last-modified"]}
    for validator in validators:
        response = await small_build.get("/graphiql/a.js", headers=encoding | validator)
        assert (response.status_code, response.content) == (304, b"")
        for name in ("etag", "vary", "cache-control"):
            assert response.headers.get_list(name) == [sent.headers[name]]
    for stale in ({"if-none-match": '"x"'}, {"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        assert (await small_build.get("/graphiql/a.js", headers=encoding | stale)).status_code == 200


async def test_the_variants_of_a_file_are_told_apart(small_build):
    sent = [await small_build.get("/graphiql/a.js", headers={"accept-encoding": coding}) for coding in ("br", "gzip")]
    assert len({response.headers["etag"] for response in sent}) == 2


@pytest.mark.parametrize("accepted", [accepted for accepted, _ in ACCEPTED])
@pytest.mark.parametrize("path", ["/graphiql/a.js", "/graphiql/b.svg"])
async def test_head_announces_what_get_sends(small_build, path, accepted):
    got, head = [
        await small_build.request(method, path, headers={"accept-encoding": accepted}) for method in ("GET", "HEAD")
    ]
    assert head.headers == got.headers
    assert head.content == b""


async def test_head_finds_the_page_that_a_browser_gets(open_service):
    got, head = [await open_service.request(method, "/graphql", headers=BROWSER) for method in ("GET", "HEAD")]
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "vary"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(("accepted", "coding"), ACCEPTED)
async def test_a_file_is_sent_as_the_build_compressed_it(small_build, accepted, coding):
    response = await small_build.get("/graphiql/a.js", headers={"accept-encoding": accepted})
    assert response.text == PLAIN
    assert response.headers.get("content-encoding") == coding
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers.get_list("vary") == ["accept-encoding"]
    assert "immutable" in response.headers["cache-control"]


async def test_a_file_without_a_compressed_one_is_sent_as_it_is(small_build):
    response = await small_build.get("/graphiql/b.svg", headers={"accept-encoding": "br"})
    assert (response.text, response.headers.get("content-encoding")) == (SVG, None)


@pytest.mark.parametrize("path", ["/graphiql/x", "/graphiql", "/graphiql/", "/graphql/"])
async def test_what_was_not_built_is_not_found(not_built, path):
    assert (await not_built.get(path)).status_code == 404
