"""Pages, the schema and messages use the field's words, in plain English."""

import ast
import re

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


@pytest.mark.parametrize("page", [*PAGES, ROOT / "schema.graphql"], ids=name_of)
def test_a_page_avoids_words_that_readers_stumble_over(page):
    assert found_in(page.read_text()) == []


def messages(module):
    """The texts of a module that are not docstrings."""
    tree = ast.parse(module.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_messages_avoid_them_too():
    modules = [path for path in (ROOT / "graphql_api").rglob("*.py") if "migrations" not in path.parts]
    texts = [text for module in modules for text in messages(module) if not text.strip().startswith("select")]
    assert [text for text in texts if found_in(text)] == []
