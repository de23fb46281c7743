"""What a document may ask for, before it is validated."""

import sys
from dataclasses import replace

import pytest
from graphql import GraphQLError, get_introspection_query, parse

from graphql_api.app import _engine
from graphql_api.engine import Operation
from graphql_api.limits import TOO_COMPLEX, counts, document_check
from graphql_api.limits.expansion import TooManySelectionsError, expand
from graphql_api.settings import Settings
from tests import hostile

EVERY_DOCUMENT = {**hostile.TOO_COMPLEX, **hostile.UNREADABLE, **hostile.LONG, **hostile.WITHIN_THE_TOKENS}
AS_MANY_TOKENS = "{ " + "a " * 1998 + "}"


def named(documents):
    return pytest.mark.parametrize("document", documents.values(), ids=documents)


def codes(errors):
    return {(error.extensions or {}).get("code") for error in errors}


@pytest.fixture(scope="module")
def engine():
    """The engine as the service has it unless an operator changes its limits."""
    return _engine(Settings.model_construct(), tracing=None)


@named(hostile.TOO_COMPLEX)
def test_a_document_that_asks_for_too_much_is_refused_however_many_tokens_it_may_have(check, document):
    assert codes(check(parse(document))) == {TOO_COMPLEX}


@named(hostile.TOO_COMPLEX | hostile.UNREADABLE)
def test_a_hostile_document_is_never_prepared(engine, document):
    errors = engine.prepare(document)

    assert isinstance(errors, list)
    assert all(isinstance(error, GraphQLError) for error in errors)


async def test_the_caller_of_a_document_with_too_many_tokens_is_told_which_setting_says_so(client):
    [error] = (await client(AS_MANY_TOKENS + "{ a }"))["errors"]
    assert error["message"] == "Syntax Error: Document contains more than 2000 tokens (MAX_TOKENS)."
    assert error["extensions"]["code"] == "GRAPHQL_PARSE_FAILED"


@named(hostile.TOO_COMPLEX)
def test_no_more_selections_are_looked_at_than_are_allowed(document, limits):
    try:
        field_sets = expand(parse(document), limits.max_selections).field_sets
    except TooManySelectionsError:
        return
    assert sum(len(same) for each in field_sets for same in each.fields.values()) <= limits.max_selections


def calls(work, *arguments):
    """How many calls of functions this takes, which is the same on every machine, and what comes of it."""
    count = 0

    def see(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        return work(*arguments), count
    finally:
        sys.setprofile(before)


@pytest.fixture(scope="module")
def parsing():
    """What parsing takes, if a document is honest and as long as any may be."""
    return calls(parse, AS_MANY_TOKENS)[1]


@named(EVERY_DOCUMENT)
def test_no_document_keeps_the_service_busy(engine, parsing, document):
    prepared, preparing = calls(engine.prepare, document + " ")  # which is not in the cache

    assert preparing / parsing < (9 if isinstance(prepared, Operation) else 4)


def test_an_honest_document_runs_after_all_of_them(engine):
    for document in EVERY_DOCUMENT.values():
        engine.prepare(document)

    assert isinstance(engine.prepare("{ __typename }"), Operation)


@named(EVERY_DOCUMENT)
def test_no_hostile_document_is_longer_than_it_says(document):
    assert len(document.encode()) <= hostile.SIZE


HONEST = {
    "introspection": get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    ),
    "entities": "query ($representations: [_Any!]!) { _entities(representations: $representations) {"
    " ... on User { gatewayTokens { id gateway } } ... on CustomerGatewayToken { id isActive } } }",
    "as many aliases as there may be": "{ " + " ".join(f"a{n}: __typename" for n in range(30)) + " }",
    "as deep as it may be": '{ customerGatewayToken(id: "x")'
    + " { user { gatewayTokens" * 5
    + " { id }"
    + " } }" * 5
    + " }",
    "fragments that share fields": "{ _service { ...a ...b ...c } } "
    + " ".join(f"fragment {name} on _Service {{ __typename sdl }}" for name in "abc"),
    "several operations": " ".join(f"query q{n} {{ __typename }}" for n in range(10)),
}


@named(HONEST)
def test_honest_documents_pass(engine, document):
    prepared = engine.prepare(document, "q0" if "q0" in document else None)

    assert isinstance(prepared, Operation)


def test_a_refusal_says_what_is_too_much_where_the_limit_is_and_what_moves_it(check):
    [error] = check(parse("{ " + " ".join(f"a{n}: __typename" for n in range(31)) + " }"))

    assert error.message == "The request is too complex: 31 aliases; the limit is 30 (MAX_ALIASES)."


def test_a_refusal_names_every_limit_that_is_exceeded(check):
    errors = check(parse("{ " + " ".join(f"a{n}: __typename" for n in range(60)) + " }"))

    assert [error.message.rsplit("(")[-1] for error in errors] == ["MAX_ALIASES).", "MAX_ROOT_FIELDS)."]


@pytest.mark.parametrize(
    ("limit", "at", "beyond"),
    [
        ("max_operations", "query a { x } query b { x }", "query a { x } query b { x } query c { x }"),
        (
            "max_fragments",
            "fragment a on Q { x } fragment b on Q { x }",
            "fragment a on Q{x} fragment b on Q{x} fragment c on Q{x}",
        ),
        ("max_directives", "{ a @x b @x }", "query @x { a @x b @x }"),
        ("max_variables", "query ($a: I $b: I) { x } query ($c: I) { x }", "query ($a: I $b: I $c: I) { x }"),
        ("max_arguments", "{ a(b: 1 c: 1) d(b: 1) }", "{ a { b(c: 1 d: 1 e: 1) } }"),
        ("max_arguments", "{ a(b: [{ c: 1 d: 1 }, { e: 1 }]) }", "{ a(b: [{ c: { d: 1 e: 1 f: 1 } }]) }"),
        ("max_arguments", "query @a(b: 1 c: 1) { d }", "{ x } fragment f on Q { x @a(b: 1 c: 1 d: 1) }"),
        ("max_arguments", "query ($a: I = { b: 1 }) { d }", "query ($a: I = { b: 1 c: 1 d: 1 }) { d }"),
        ("max_selections", "{ a b }", "{ a b c }"),
        ("max_selections", "{ a { b } }", "{ a { ... { b } } }"),
        ("max_depth", "{ a { b } }", "{ a { b { c } } }"),
        ("max_introspection_depth", "{ __schema { types { name } } }", "{ __schema { types { fields { name } } } }"),
        (
            "max_introspection_lists",
            "{ __schema { types { fields { name } } } }",
            "{ __type { a: fields b: fields c: args } }",
        ),
        ("max_aliases", "{ a: x b: x }", "{ a: x b: x c: x }"),
        ("max_root_fields", "{ a b }", "{ a b c }"),
        ("max_repeated_fields", "{ a a a }", "{ a a a a }"),
    ],
)
def test_each_limit_lets_through_as_much_as_it_says(limits, limit, at, beyond):
    check = document_check(replace(limits, **{limit: 2}))

    assert check(parse(at)) == []
    assert [error.message.rsplit("(")[-1] for error in check(parse(beyond))] == [f"{limit.upper()})."]


@pytest.mark.parametrize(
    ("count", "document", "number"),
    [
        ("depth", "{ a }", 1),
        ("depth", "{ a { ... { ... on Q { b } } } }", 2),
        ("depth", "{ a { ...f } } fragment f on Q { b { c } }", 3),
        ("depth", "{ __schema { types { name } } }", 1),
        ("depth", "query a { x { y } } query b { x { y { z } } }", 3),
        ("depth", "{ a { b } } fragment f on Q { a { b { c } } }", 3),
        ("depth", "{ x: __schema { a { b } } x: a { b { c } } }", 3),
        ("introspection_depth", "{ __schema { types { name } } }", 2),
        ("introspection_depth", "{ a { __type { a { __type { b } } } } }", 3),
        ("introspection_depth", "{ a { b } }", 0),
        ("introspection_lists", "{ __schema { types { a: fields { args } b: fields { name } } } fields { args } }", 4),
        ("introspection_lists", "{ a: __schema { ...f } b: __schema { ...f ...f } } fragment f on S { types }", 2),
        ("aliases", "{ x: a { y: b ...f ...f } } fragment f on Q { z: c }", 3),
        ("aliases", "{ x: a { ...f } y: a { ...f } } fragment f on Q { z: c }", 4),
        ("aliases", "{ a: a }", 1),
        ("root_fields", "query a { x y: x x } query b { x }", 2),
        ("root_fields", "{ ...f z } fragment f on Q { x y }", 3),
        ("repeated_fields", "{ a b }", 0),
        ("repeated_fields", "{ a a ... { a } ...f } fragment f on Q { a }", 3),
        ("repeated_fields", "{ a { b } a { b } }", 2),
        ("repeated_fields", "{ x: a { b } y: a { b } }", 0),
        ("repeated_fields", "{ x: a x: b }", 1),
        ("repeated_fields", "{ a } fragment f on Q { a a }", 1),
        ("directives", "query ($v: Int @a) @b { x @c ... @d { y } ...f @e } fragment f on Q @f { z @g }", 7),
        ("directives", "type T @a { b: Int @c }", 0),
        ("operations", "query a { x } mutation b { x } fragment f on Q { x } type T { a: Int }", 2),
        ("fragments", "query a { x } fragment f on Q { x } fragment g on Q { x }", 2),
    ],
)
def test_fragments_count_where_they_are_spread(count, document, number):
    assert getattr(counts, count)(expand(parse(document), 1000)) == number


@pytest.mark.parametrize("document", ["{ ...f } fragment f on Q { ...f }", "{ ...f } fragment f on Q { a { ...f } }"])
def test_a_fragment_inside_itself_ends(document):
    try:
        expand(parse(document), 100)
    except TooManySelectionsError:
        return
    assert len(expand(parse(document), 100).field_sets) == 1
