"""Documents are graphql-core's, their errors in the same places, but what it takes to find these is bounded."""

import pytest
import strawberry
from graphql import GraphQLSyntaxError, Lexer, Source, TokenKind
from graphql import parse as parse_by_graphql_core
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphql_api.engine import Engine
from graphql_api.engine.parsing import _Text, parse

LINES = "{ a\n\n  b\r\n\r\nc\rd\r\r# é\n\r\n}\n"


@strawberry.type
class Item:
    """One of a list, of which some are errors."""

    name: str = "x"


@strawberry.type
class Query:
    """What is asked."""

    @strawberry.field
    def items(self, count: int) -> list[Item | None]:
        """As many errors."""
        return [ValueError("none here") for _ in range(count)]


# Inside of one end of a line nothing begins.
@pytest.mark.parametrize("position", [at for at in range(len(LINES) + 1) if LINES[at - 1 : at + 1] != "\r\n"])
def test_a_place_is_where_graphql_core_finds_it(position):
    assert _Text(LINES).get_location(position) == Source(LINES).get_location(position)


@pytest.mark.parametrize(
    "text",
    [
        "{ a b(c: [1, $d]) ...e } fragment e on F { g @h } # i",
        "query ($a: B = {c: 1}) { d }",
        "{_ _0 a1B_:A9(zZ:Z){a}}",
    ],
)
def test_a_document_is_the_same(text):
    assert parse(text, None) == parse_by_graphql_core(text)
    assert parse(text, None).token_count == parse_by_graphql_core(text).token_count


@pytest.mark.parametrize(
    "text",
    [
        "{ a",
        "{ a \n\r\n ? }",
        "",
        '{ a(b: "',
        "{ a b c d }",
        "{ a " * 2000,
        "{ aä }",
        "{ 1a }",
        "{ a-b }",
        "#a\n#b\n#c\n#d\n#e\n#f\n{a}",
    ],
)
def test_an_error_is_the_same(text):
    most = 5
    with pytest.raises(GraphQLSyntaxError) as ours:
        parse(text, most if "c" in text else None)
    with pytest.raises(GraphQLSyntaxError) as theirs:
        parse_by_graphql_core(text, max_tokens=most if "c" in text else None)
    assert ours.value.formatted == theirs.value.formatted
    assert ours.value.__context__ is None


# What texts are made of: their beginnings and ends, escapes, and what is none.
PIECES = [
    *(
        '"',
        '"""',
        '""',
        "\\",
        '\\"',
        '\\"""',
        "\\n",
        "\\/",
        "\\x",
        "\\u",
        "\\u0041",
        "\\uD83D",
        "\\uDE00",
        "\\ud83d\\ude00",
        "\\u00",
    ),
    *(
        "\\u{",
        "\\u{41}",
        "\\u{22}",
        "\\u{5c}",
        "\\u{0001F600}",
        "\\u{10FFFF}",
        "\\u{110000}",
        "\\u{D800}",
        "\\u{00dfff}",
        "\\u{1D800}",
    ),
    *(
        "\\u{000000041}",
        "\\u{}",
        "\\u{e000}",
        "}",
        "\n",
        "\r",
        "\r\n",
        "  ",
        "\t",
        ",",
        "\ufeff",
        "#",
        "a",
        "é",
        "😀",
        "\x00",
        "1",
        "-0.5e3",
        "00",
        "...",
        "$",
    ),
]


def tokens(lexer_class, text):
    """What a lexer reads of a text, and what it says is wrong."""
    lexer, found, end = lexer_class(Source(text)), [], 0
    try:
        while not found or found[-1][0] is not TokenKind.EOF:
            token = lexer.read_next_token(end)
            found.append((token.kind, token.start, token.end, token.line, token.column, token.value))
            end = token.end
    except GraphQLSyntaxError as error:
        found.append(error.formatted)
    return found


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(["", '"', '"""']))
@example(["\n  a\n \t b\n\n", '\\"""', "\r\n c", '"""'], '"""')
@example(["\\", "\\u{41}", "\\u{22}", '"'], '"')
@settings(max_examples=500, deadline=None)
def test_tokens_are_those_of_graphql_core(pieces, begin):
    text = begin + "".join(pieces)
    assert tokens(parse.__globals__["_Lexer"], text) == tokens(Lexer, text)


@pytest.mark.parametrize("text", ["{ a(b: 1) # c\n}", "{ a(b: ["])
def test_no_token_knows_another(text, monkeypatch):
    lexers = []

    class Lexer(parse.__globals__["_Lexer"]):
        def __init__(self, source):
            super().__init__(source)
            lexers.append(self)
            self.first = self.token

    monkeypatch.setitem(parse.__globals__, "_Lexer", Lexer)
    try:
        parse(text, None)
    except GraphQLSyntaxError:
        assert text.endswith("[")
    [lexer] = lexers
    assert [(token.prev, token.next) for token in (lexer.first, lexer.token)] == [(None, None)] * 2


@pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
@pytest.mark.parametrize(
    "fields", ["items(count: 300) { name }", "items(count: 300) { name } items(count: 300) { name }"]
)
def test_the_place_of_a_field_is_looked_for_once_for_all_its_errors(mode, fields, monkeypatch):
    looked = []

    def get_locations(locations):
        looked.append(len(locations))
        return [source.get_location(position) for source, position in locations]

    monkeypatch.setattr("graphql.language.location.get_locations", get_locations)
    schema = strawberry.Schema(query=Query)
    result = Engine(schema._schema, mode=mode).prepare(f"{{ {fields} }}").execute({}, None)

    assert len(result.errors) == 300
    assert {len(error.locations) for error in result.errors} == {fields.count("items")}
    assert [error.path for error in result.errors[:2]] == [["items", 0], ["items", 1]]
    assert looked == [fields.count("items")]
