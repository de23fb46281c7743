"""`/help/errors`: the page that `extensions.help` of every error links to. Anyone may read it."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graphql_api.web import compression

ERRORS_PATH = "/help/errors"

_SOURCE = Path(__file__).with_name("errors.md")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Customer gateway tokens: error codes</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto } :target { background: Mark; color: MarkText }</style></head>
<body>{{body}}</body></html>
"""


def link(code: str) -> str:
    """The address that explains an error code, relative to this service's own."""
    return f"{ERRORS_PATH}#{code.lower()}"


async def _errors(request: Request) -> Response:
    return await compression.page(request, _html().encode(), "text/html", {"content-security-policy": _POLICY})


@cache
def _html() -> str:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - a start need not wait for it

    markdown = MarkdownIt("commonmark")
    tokens = markdown.parse(_SOURCE.read_text(encoding="utf-8"))
    for opening, text in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", re.sub(r"[^\w -]", "", text.content).lower().replace(" ", "-"))
    return _PAGE.replace("{{body}}", markdown.renderer.render(tokens, markdown.options, {}))


HELP = [Route(ERRORS_PATH, _errors)]
