"""Pages, the schema, messages, docstrings and comments use the field's words, in plain English."""

import ast
import io
import re
import tokenize

import pytest

from tests.docs.pages import PAGES, ROOT, name_of

# Each has a plainer word: anyone, fix, pass, the number of, no one, someone, check, if.
AVOIDED = re.compile(
    r"\b(who(m)?ever|in vain|mend(s|ed|ing)?|hand(s|ed)? on|so many|nobody|somebody|see to|(none|is one) of ours|anew|"
    r"where (it is|there is|there are|they are|that is|no|none))\b",
    re.IGNORECASE,
)


def found_in(text):
    return [match.group() for match in AVOIDED.finditer(text)]


FILES = [*PAGES, ROOT / "schema.graphql", *sorted((ROOT / "deploy").rglob("*.yaml"))]


@pytest.mark.parametrize("page", FILES, ids=name_of)
def test_a_page_avoids_words_that_readers_stumble_over(page):
    assert found_in(page.read_text()) == []


def texts(module):
    """The messages, docstrings and comments of a module."""
    code = module.read_text()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


MODULES = [
    path
    for folder in ("graphql_api", "benchmarks", "deploy", "docs", "lint")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "migrations" not in path.parts
]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_avoids_them_too(module):
    assert [text for text in texts(module) if found_in(text) and not text.strip().startswith("select")] == []
