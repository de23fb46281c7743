"""Every regular expression of the package is listed here, with the reason why its time is linear in what it reads."""

import ast
import re
import time
from functools import cache
from pathlib import Path

import pytest

import graphql_api
from graphql_api.domain import cards

PACKAGE = Path(graphql_api.__file__).parent
USES = {"compile", "match", "search", "fullmatch", "sub", "split", "findall", "finditer", "subn"}

# Those that read what callers send: the reason, and units of text that would show it if it were not so.
PATTERNS = {
    ("engine/messages.py", "_NUMBER_FOR_STRING"): "fixed text, then one class up to the end",
    ("engine/messages.py", "_SUGGESTION"): "runs on a text that ends with a question mark: each beginning has its end",
    ("engine/messages.py", "_WRONG_ENUM_VALUE"): "fixed text, then one class, up to a quote, which is not in it",
    ("engine/parsing.py", "_NAME"): "one class, matched at a place",
    ("engine/parsing.py", "_DIGITS"): "one class, matched at a place",
    ("engine/parsing.py", "_IGNORED"): "one class, matched at a place",
    ("engine/parsing.py", "_COMMENT"): "one class, matched at a place",
    ("engine/parsing.py", "_STRING"): "possessive, of alternatives that begin differently or are bounded, at a place",
    ("engine/parsing.py", "_CODE_POINT"): "bounded",
    ("engine/parsing.py", "_BLOCK"): "possessive, of alternatives that begin differently or are bounded, at a place",
    ("engine/parsing.py", "_BLANK_LINES"): "possessive, and begins only at the beginning",
    ("engine/parsing.py", "_INDENTS"): "possessive, and begins only at the end of a line",
    ("storage/migrate.py", "_IS_OURS"): "bounded",
    ("schema/cursors.py", "_VERSION"): "one class, bounded",
    ("schema/cursors.py", "_POSITION"): "bounded",
    ("schema/scalars.py", "_DATE_TIME"): "of a bounded length",
    ("auth/__init__.py", "_BEARER"): "classes that exclude each other, one after the other, at a place",
    ("auth/access_tokens.py", "_KEY_ID"): "bounded",
    ("web/request_ids.py", "_PRINTABLE"): "one class",
    ("limits/trusted.py", "_HASH"): "of a bounded length",
    ("web/media_types.py", "_QUALITY"): "bounded",
    ("web/hosts.py", "_LOOPBACK"): "reads at most 255 characters",
    ("web/hosts.py", "_PORT"): "reads at most 255 characters",
    ("domain/values.py", "_GATEWAY"): "bounded",
    ("domain/values.py", "_BLANK"): "one class of characters",
    ("domain/cards.py", "_SEPARATOR"): "one character, or CR LF",
    ("domain/cards.py", "_HIDDEN"): "one class of characters",
    ("domain/cards.py", "_CANDIDATES"): "begins only after what is no digit, and looks ahead a bounded length",
    ("domain/cards.py", "_MAYBE"): "bounded",
    ("domain/cards.py", "_MAYBE_IN_ASCII"): "bounded",
    ("retry_after.py", "_SECONDS"): "two runs of digits, with a dot between",
    ("network_errors.py", "_SEVERAL"): "fixed text, then one run of digits, matched at the beginning",
    ("domain/cards.py", "_NUMBERS"): "a digit has to follow what stands between digits, which is bounded",
    ("domain/cards.py", "_IDENTIFIERS"): "possessive, and begins only at the beginning of a word",
}
# Those that read only what an operator gives, or ourselves.
OPERATORS = {
    "settings/": "the environment",
    "bulk/": "files that an operator imports, cell by cell",
    "gateway_apis/": "options, customer ids of at most 255 characters, bounded headers of a gateway's API",
    "storage/remedies.py": "an error of the database",
    "web/help.py": "a page of ours",
}


@cache
def modules():
    """What the modules consist of that name another one for regular expressions, by their paths."""
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        path: list(ast.walk(ast.parse(text))) for path, text in texts.items() if re.search(r"\b(re|regex|re2)\b", text)
    }


def uses():
    """Every use of the module `re`: the file, and the name that the pattern gets, or the function that is called."""
    for path, nodes in modules().items():
        names = {
            id(call): target.id
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
            for call in ast.walk(node.value)
        }
        for node in nodes:
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=attribute)) if attribute in USES:
                    yield path, names.get(id(node), f"re.{attribute}")


def test_every_regular_expression_is_listed_with_the_reason_why_it_is_linear():
    found = {(path, name) for path, name in uses() if not path.startswith(tuple(OPERATORS))}
    assert found == set(PATTERNS)


def test_no_regular_expression_is_made_in_another_way_than_by_the_name_of_the_module():
    for path, nodes in modules().items():
        for node in nodes:
            match node:
                case ast.Import(names=names):
                    assert not [name for name in names if name.name in {"regex", "re2"}], path
                    assert not [name for name in names if name.name == "re" and name.asname], path
                case ast.ImportFrom(module="re" | "regex" | "re2"):
                    pytest.fail(f"{path} imports from {node.module}")
                case ast.Attribute(value=ast.Name(id="re"), attr=attribute):
                    assert attribute in USES | {"Match", "Pattern", "escape"} or attribute.isupper(), path


def test_no_list_is_longer_than_it_has_to_be():
    paths = {path for path, _ in uses()}
    assert all(any(path.startswith(prefix) for path in paths) for prefix in OPERATORS)


def compiled():
    """The patterns that read more than a few characters, by their names."""
    for (path, name), reason in PATTERNS.items():
        if "reads at most" not in reason:
            module = __import__(f"graphql_api.{path[:-3].replace('/', '.').removesuffix('.__init__')}", fromlist=["x"])
            value = getattr(module, name)
            for number, pattern in enumerate(value if isinstance(value, tuple) else [value]):
                yield pytest.param(pattern, id=f"{name}-{number}")


UNITS = [
    *("4", "4 ", "4-4", "4111 1111 1111 1111 ", "4111111111111111x1", "1.", "\u0664", "\u00ad", "é"),
    *(" ", "a", "A", "a1", "f", "0f", "0-", "-", "_", ".", ":", "?", "\r\n", "bearer ", "deadbeef-dead-"),
    *(" did you mean", ", did you mean x?", "did you mean "),
]
SHORT, LONG = 2_000, 16_000


def seconds(pattern, unit, length):
    text = unit * (length // len(unit))
    text = f"{text}?".encode(errors="replace") if isinstance(pattern.pattern, bytes) else f"{text}?"
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        pattern.fullmatch(text)
        for _ in pattern.finditer(text):
            pass
        best = min(best, time.process_time() - began)
    return best


def growth(pattern, unit):
    """How many times longer eight times the text takes; what is quadratic takes sixty-four times as long."""
    return seconds(pattern, unit, LONG) / max(seconds(pattern, unit, SHORT), 0.0005)


@pytest.mark.parametrize("pattern", list(compiled()))
def test_a_pattern_takes_time_in_proportion_to_what_it_reads(pattern):
    assert {unit: times for unit in UNITS if (times := growth(pattern, unit)) > 24} == {}


@pytest.mark.parametrize(("pattern", "unit"), [(r",? did you mean .*?!", " did you mean"), ("4+x", "4")])
def test_a_pattern_that_is_quadratic_would_be_found(pattern, unit):
    assert growth(re.compile(pattern), unit) > 24


def test_the_card_filter_takes_time_in_proportion_to_what_it_reads():
    for unit in UNITS:

        def taken(length, unit=unit):
            text = unit * (length // len(unit))
            began = time.process_time()
            cards.has_card_number(text)
            cards.redact_card_numbers(text)
            return time.process_time() - began

        taken(SHORT)
        assert min(taken(LONG), taken(LONG)) < 24 * max(taken(SHORT), 0.002), repr(unit)
