"""What browsers get that open `/graphql`: GraphiQL and its files, or how to get it."""

import os
from http import HTTPStatus
from mimetypes import guess_type
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from graphql_api.web.compression import accepted

BUILT = Path(__file__).parent / "static" / "graphiql"
"""Where the build puts the page."""
# Monaco, the editor, creates style elements. Everything else comes from this service or is part of the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; worker-src 'self'; "
    "font-src 'self' data:; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_ENDINGS = {"br": ".br", "gzip": ".gz"}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Customer gateway tokens</title>
<p>This is a GraphQL endpoint. {}</p></html>
"""
_NOT_BUILT = _PAGE.format(
    "This installation does not include GraphiQL. The released wheel and the image do; in a checkout, run "
    "<code>make graphiql</code>. To use another IDE in the browser, add its origin to <code>CORS_ORIGINS</code>."
)
_OFF = _PAGE.format(
    "GraphiQL, an editor for queries, is off. To turn it on, set <code>INTROSPECTION=true</code> and restart "
    "the service. If the service requires access tokens, paste one into GraphiQL. Programs send queries by POST."
)


def is_for_a_browser(method: str, accept: bytes | None, query_string: bytes, *, is_on: bool) -> bool:
    """Whether a browser opens the URL: it accepts HTML, and a GraphQL client accepts JSON or does not say.

    If GraphiQL is off, a query in the URL is answered.
    """
    return (
        method in {"GET", "HEAD"}
        and accept is not None
        and b"text/html" in accept
        and b"json" not in accept
        and (is_on or not query_string)
    )


class _Files(StaticFiles):
    """Files whose names contain a hash of their content. The build puts a compressed copy next to each."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, compressed as the browser accepts it."""
        accept_encoding = dict(scope["headers"]).get(b"accept-encoding")
        coding = accepted(accept_encoding, tuple(_ENDINGS))
        media_type = guess_type(str(full_path))[0] or "application/octet-stream"
        headers = {
            "vary": "accept-encoding",
            "cache-control": "public, max-age=31536000, immutable",
            "content-security-policy": _POLICY,  # a worker has a policy of its own
        }
        compressed = Path(f"{full_path}{_ENDINGS[coding]}") if coding else None
        if coding and compressed is not None and compressed.is_file():
            headers["content-encoding"] = coding
            full_path, stat_result = compressed, compressed.stat()
        response = FileResponse(full_path, status_code, headers, media_type, stat_result=stat_result)
        is_known = self.is_not_modified(response.headers, Headers(scope=scope))
        return NotModifiedResponse(response.headers) if is_known else response


def routes(built: Path = BUILT, *, is_on: bool = True) -> list[Route | Mount]:
    """The page from this folder and its files, or how to get it if it was not built or is off."""
    index, files = built / "index.html", built / "graphiql"
    headers = {"content-security-policy": _POLICY, "vary": "accept"}

    async def page(_request: Request) -> Response:
        if not is_on:
            return HTMLResponse(_OFF, HTTPStatus.BAD_REQUEST, headers)
        return FileResponse(index, headers=headers) if index.is_file() else HTMLResponse(_NOT_BUILT, headers=headers)

    return [
        Route("/graphql", page),
        *([Mount("/graphiql", _Files(directory=files))] if is_on and files.is_dir() else []),
    ]
