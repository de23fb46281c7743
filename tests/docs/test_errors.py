"""Every error leads to the place on docs/errors.md that explains it."""

import ast
import re
from pathlib import Path

import graphql_api
from graphql_api.domain.errors import Code
from graphql_api.settings import Settings
from graphql_api.web import errors

CODE = re.compile(r"[A-Z]+(_[A-Z]+)*")
PACKAGE = Path(graphql_api.__file__).parent
_, IN_ERRORS, IN_USER_ERRORS = (PACKAGE.parent / "docs/errors.md").read_text().split("\n## ")
# Other words in capitals where what callers are told is made: methods, a header's value, names, an outcome for the log.
NO_CODES = {"GET", "HEAD", "POST", "DENY", "T", "TOO_COMPLEX", "CLIENT_HAS_GONE"}


def explained(part):
    return re.findall(r"^### (.*)", part, re.MULTILINE)


def words_in_capitals():
    """Every text of the code that could be a code, but for the names of environment variables."""
    for folder in ("web", "limits"):
        for path in (PACKAGE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                    yield node.value


def test_every_code_is_explained_and_nothing_else():
    variables = {name.upper() for name in Settings.model_fields}
    assert set(words_in_capitals()) - variables - NO_CODES == set(explained(IN_ERRORS))


def test_every_code_of_user_errors_is_explained_and_nothing_else():
    assert explained(IN_USER_ERRORS) == [code.value for code in Code]


def test_an_error_names_the_place_where_its_code_is_explained():
    for code in explained(IN_ERRORS):
        page, anchor = errors.refused(code, "")["extensions"]["help"].split("#")
        assert (PACKAGE.parent / page).is_file()
        assert anchor == code.lower()  # how a heading of one word becomes an anchor
    assert errors.internal("abc")["extensions"]["help"] == "docs/errors.md#internal"
