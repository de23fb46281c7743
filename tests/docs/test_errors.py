"""Every error links to the explanation of its code on the page that the service serves."""

import ast
import re
from pathlib import Path

import graphql_api
from graphql_api.domain.errors import Code
from graphql_api.settings import Settings
from graphql_api.web import errors

CODE = re.compile(r"[A-Z]+(_[A-Z]+)*")
PACKAGE = Path(graphql_api.__file__).parent
_, IN_ERRORS, IN_USER_ERRORS = (PACKAGE / "web/errors.md").read_text().split("\n## ")
# Other words in capitals where what callers are told is made: methods, a header's value, names, an outcome for the log.
NO_CODES = {
    "CONNECT",
    "GET",
    "HEAD",
    "POST",
    "DENY",
    "T",
    "TOO_COMPLEX",
    "CLIENT_HAS_GONE",
    "FOR_ROUTERS",
    "UNREAD_ANSWERS",
    "WAITING_CONNECTIONS",
}


def explained(part):
    return re.findall(r"^### (.*)", part, re.MULTILINE)


def words_in_capitals():
    """Every text of the code that could be a code, but for the names of environment variables."""
    for pattern in ("web/*.py", "limits/*.py", "engine/size.py"):
        for path in PACKAGE.glob(pattern):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                    yield node.value


def test_every_code_is_explained_and_nothing_else():
    variables = {name.upper() for name in Settings.model_fields}
    assert set(words_in_capitals()) - variables - NO_CODES == set(explained(IN_ERRORS))


def test_every_code_of_user_errors_is_explained_and_nothing_else():
    assert explained(IN_USER_ERRORS) == [code.value for code in Code]


async def test_an_error_links_to_the_explanation_of_its_code(client):
    links = {errors.refused(code, "")["extensions"]["help"] for code in explained(IN_ERRORS)}
    assert errors.internal("abc")["extensions"]["help"] in links
    for link in links:
        page, anchor = link.split("#")
        answer = await client.http.get(page)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert f'<h3 id="{anchor}">{anchor.upper()}</h3>' in answer.text


async def test_the_page_of_errors_needs_no_access_token_and_runs_no_script(client):
    answer = await client.http.get("/help/errors")
    assert "<p><strong>HTTP 503</strong>, or 200 with a <code>path</code>." in answer.text
    assert "script" not in answer.headers["content-security-policy"]
