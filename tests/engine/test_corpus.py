# ruff: noqa: E501 - an operation is read in one piece
"""One example and more for each rule of the specification's section on execution, answered as by graphql-core."""

import pytest
from graphql import get_introspection_query

from graphql_api.engine import Engine, operation
from graphql_api.engine.operation import MAX_VARIANTS
from tests.engine.library import SCHEMA
from tests.engine.oracle import Context, Pair

PAIR = Pair(SCHEMA)

CORPUS = {
    "a leaf": "{ plain }",
    "a named operation": "query Plain { plain }",
    "aliases": "{ a: plain b: plain books { c: title title } }",
    "merged fields": "{ books { title } books { genre ...G } } fragment G on Book { title genre }",
    "merged objects of different aliases": '{ a: author(name: "Ada") { name } a: author(name: "Ada") { born } }',
    "key order follows first appearance": "{ books { genre ...T genre title } } fragment T on Book { title }",
    "typename everywhere": "{ __typename books { __typename t: __typename } search { __typename } named { __typename } }",
    "typename alone": "{ __typename }",
    "nested objects and lists": "{ authors { name books { title writtenBy { name friend { name books { title } } } } } }",
    "null objects": '{ author(name: "nobody") { name } authors { friend { friend { name } } } }',
    "a custom scalar": "{ books { published notes } }",
    "an enum with another name": "{ books { genre } }",
    "a void field": "{ nothing }",
    "a union": "{ search { ... on Author { name born } ... on Book { title } } }",
    "a union, some types left out": "{ search { ... on Book { title } } }",
    "a union by an interface": "{ search { ... on Named { name } ... on Book { title } } }",
    "an interface": "{ named { name ... on Author { born } } }",
    "fragments in fragments": "{ ...A } fragment A on Query { plain ...B } fragment B on Query { books { ...C } }"
    " fragment C on Book { title writtenBy { ...D } } fragment D on Named { name }",
    "a fragment used in two places": "{ books { ...F } authors { books { ...F } } } fragment F on Book { title told: genre }",
    "inline fragments without a type": "{ ... { plain } books { ... { title } ... @include(if: true) { genre } } }",
    "deprecated field with an error": '{ books { titleIn(language: "en") a: titleIn(language: "de") } }',
    "an error in a nullable field": "{ failsSoftly plain }",
    "an error with a place of its own": "{ located }",
    "an error in a field that cannot be null": "{ plain fails }",
    "an error below a list of what cannot be null": '{ books { title titleIn(language: "fr") } plain }',
    "a permission": "{ forbidden plain }",
    "introspection of a type": '{ __type(name: "Genre") { name description enumValues { name } } plain }',
    "introspection of nothing": '{ __type(name: "Nothing") { name } }',
    "introspection of the schema": get_introspection_query(),
    "everything skipped": "{ plain @skip(if: true) }",
    "everything below skipped": "{ books { title @skip(if: true) } }",
    "skip and include": "{ a: plain @skip(if: false) @include(if: true) b: plain @skip(if: true) @include(if: true) }",
    "conditions on fragments": "{ ...F @include(if: false) ...F ... @skip(if: true) { b: plain } } fragment F on Query { plain }",
    "what a resolver is told": "query Q($x: Int = 3) { arguments(number: $x) a: told ...F } fragment F on Query { a: told }",
    "defaults of arguments": "{ arguments }",
    "arguments spelled out": '{ arguments(text: "t", number: -1, ratio: 2, flag: true, id: 5, genre: NATURAL_SCIENCE) }',
    "null is not left out": "{ arguments(text: null, ratio: null, id: null, maybe: null, search: null) }",
    "one item for a list": "{ arguments(genres: POETRY, matrix: 5) b: arguments(matrix: [[1, null], 2]) }",
    "lists of lists": "{ arguments(genres: [POETRY, NATURAL_SCIENCE], matrix: [[1, null], []]) }",
    "an input object": "{ arguments(search: {}) b: arguments(search: {text: null, range: {high: 3}, nothing: null, exact: 4}) }",
    "a plain input object": "{ arguments(range: {}) b: arguments(range: {low: 1, high: null}) c: arguments(range: null) }",
    "a list of input objects": "{ arguments(ranges: [{}, {high: 3}], holes: [null, {}]) b: arguments(ranges: {}, holes: null) }",
    "an input object in itself": '{ arguments(search: {like: {text: "inner", like: {genres: []}}}) }',
    "literals of custom scalars": '{ arguments(json: {a: [1, 2.5, "t", null, true, E]}, on: "2020-02-03") }',
    "one of several": '{ arguments(one: {a: 1}) b: arguments(one: {b: "t"}) }',
    "a string in blocks and escapes": '{ arguments(text: """\n  block "quoted"\n  text\n""") b: arguments(text: "\\u00e9\\n") }',
    "a default that is a list": '{ tagged b: tagged(tags: "c", number: 2) }',
    "a required argument": '{ required(text: "t", numbers: [1, 2]) b: required(text: "t", numbers: 3) }',
    "an argument that a resolver changes": "{ spoiling(numbers: [1]) b: spoiling(numbers: [1], json: {a: 1}) }",
    "mutations in order": "mutation { slow { count later } fast { count later } again: slow { count } fast2: fast(by: 2) { count } }",
    "a mutation that fails": "mutation { fast { count } fails { count } after: fast { count } }",
    "a mutation that fails hard": "mutation { slow { count } failsHard { count } after: fast { count } }",
    "a mutation that fails hard at first": "mutation { failsHard { count } after: fast { count } }",
    "a mutation under a condition": "mutation { fast @skip(if: true) { count } slow { count } __typename }",
}


@pytest.mark.parametrize("title", CORPUS)
async def test_an_operation_is_answered_as_by_graphql_core(title):
    before = sum(PAIR.engine.fallbacks.values())
    await PAIR.agree(CORPUS[title])
    assert sum(PAIR.engine.fallbacks.values()) == before


VARIABLES = {
    "a nullable variable": ("query ($v: String) { arguments(text: $v) }", [{}, {"v": None}, {"v": "t"}, {"v": 5}]),
    "a variable with a default": (
        'query ($v: String = "d") { arguments(text: $v) }',
        [{}, {"v": None}, {"v": "t"}, {"v": ["t"]}],
    ),
    "a required variable": (
        "query ($v: Int!) { arguments(number: $v) }",
        [{}, {"v": None}, {"v": 7}, {"v": 2**31}, {"v": 7.0}],
    ),
    "a nullable variable where null may not be": (
        "query ($v: Int = 3) { arguments(number: $v) }",
        [{}, {"v": None}, {"v": 7}],
    ),
    "a required default": ("query ($v: Int! = 3) { arguments(number: $v) }", [{}, {"v": None}, {"v": 7}, {"v": True}]),
    "a float": ("query ($v: Float) { arguments(ratio: $v) }", [{"v": 1}, {"v": 1.5}, {"v": "1"}, {"v": float("inf")}]),
    "an id": (
        "query ($v: ID!) { author(name: $v) { name } arguments(id: $v) }",
        [{"v": "Ada"}, {"v": 5}, {"v": 1.5}, {"v": True}],
    ),
    "a boolean": ("query ($v: Boolean!) { arguments(flag: $v) }", [{"v": True}, {"v": 1}, {"v": "true"}]),
    "an enum": (
        "query ($v: Genre!) { arguments(genre: $v) }",
        [{"v": "POETRY"}, {"v": "SCIENCE"}, {"v": "poetry"}, {"v": 3}],
    ),
    "a list": (
        "query ($v: [Genre!]) { arguments(genres: $v) }",
        [
            {},
            {"v": None},
            {"v": []},
            {"v": ["POETRY"]},
            {"v": "POETRY"},
            {"v": [None]},
            {"v": ["X"]},
            {"v": ("POETRY",)},
        ],
    ),
    "a list of lists": (
        "query ($v: [[Int]!]) { arguments(matrix: $v) }",
        [{"v": [[1, None], []]}, {"v": [None]}, {"v": 3}, {"v": [3]}],
    ),
    "a list with a default": (
        "query ($v: [String!], $w: [String!] = []) { tagged(tags: $w) b: tagged(tags: $v) }",
        [{}, {"v": ["x"], "w": ["y"]}, {"v": None}, {"w": None}],
    ),
    "an item of a list": ("query ($v: Int) { arguments(matrix: [[$v, 1]]) }", [{}, {"v": None}, {"v": 2}]),
    "a required item of a list": ('query ($v: Int!) { required(text: "t", numbers: [$v]) }', [{"v": 2}, {}]),
    "an input object": (
        "query ($v: Search) { arguments(search: $v) }",
        [
            {},
            {"v": None},
            {"v": {}},
            {"v": {"text": None}},
            {"v": {"unknown": 1}},
            {"v": {"range": {"low": "x"}}},
            {"v": {"nothing": None}},
            {"v": {"exact": None}},
            {"v": {"like": {"text": "t"}}},
            {"v": []},
            {"v": "t"},
            {"v": {"genres": ["POETRY"], "range": {"high": 2}, "exact": 1, "on": "2020-01-01"}},
            {"v": {"on": "never"}},
        ],
    ),
    "a plain input object": (
        "query ($v: Range) { arguments(range: $v) }",
        [{}, {"v": None}, {"v": {}}, {"v": {"high": None}}, {"v": {"low": None}}, {"v": {"low": 4, "high": 5}}],
    ),
    "a list of input objects": (
        "query ($v: [Range!]) { arguments(ranges: $v, holes: $v) }",
        [{}, {"v": None}, {"v": []}, {"v": [{}, {"low": 4, "high": 5}]}, {"v": [None]}, {"v": {"high": 5}}],
    ),
    "an item of a list of input objects": (
        "query ($v: Range) { arguments(holes: [$v, {low: 2}]) }",
        [{}, {"v": None}, {"v": {"high": 5}}],
    ),
    "a field of an input object": (
        "query ($v: Int, $t: String) { arguments(search: {text: $t, range: {low: 1, high: $v}, nothing: $v}) }",
        [{}, {"v": None, "t": None}, {"v": 2, "t": "t"}],
    ),
    "one of several": (
        "query ($v: OneOf) { arguments(one: $v) }",
        [{"v": {"a": 1}}, {"v": {}}, {"v": {"a": 1, "b": "t"}}, {"v": {"a": None}}],
    ),
    "a custom scalar": (
        "query ($v: Date) { arguments(on: $v) }",
        [{"v": "2020-01-01"}, {"v": "never"}, {"v": 5}, {"v": None}],
    ),
    "any JSON": ("query ($v: JSON) { arguments(json: $v) }", [{"v": {"a": [1]}}, {"v": None}, {"v": [None]}, {}]),
    "a part of JSON": ("query ($v: JSON) { arguments(json: {a: $v}) }", [{"v": {"a": [1]}}, {}]),
    "what a resolver changes": (
        "query ($v: [Int!]!, $j: JSON) { spoiling(numbers: $v, json: $j) b: spoiling(numbers: $v, json: $j) }",
        [{"v": [1, 2], "j": {"a": 1}}],
    ),
    "a variable too many": (
        "query ($v: Int) { arguments(number: 1) b: arguments(json: {a: $v}) }",
        [{"w": 1}],
    ),
    "skip": ("query ($v: Boolean!) { plain @skip(if: $v) a: plain @include(if: $v) }", [{"v": True}, {"v": False}, {}]),
    "conditions with a default": (
        "query ($v: Boolean = true) { plain @skip(if: $v) books { title @include(if: $v) } }",
        [{}, {"v": False}, {"v": None}],
    ),
    "two conditions": (
        "query ($v: Boolean!, $w: Boolean!) { books { ...F @include(if: $v) genre @skip(if: $w) } } fragment F on Book { title @skip(if: $w) published }",
        [{"v": v, "w": w} for v in (True, False) for w in (True, False)],
    ),
    "a variable that is told": (
        "query Q($v: Int = 3, $w: Genre = POETRY) { told b: arguments(number: $v, genres: [$w]) }",
        [{}, {"v": 1, "w": "POETRY"}],
    ),
}


@pytest.mark.parametrize("title", VARIABLES)
async def test_variables_are_taken_as_by_graphql_core(title):
    query, all_variables = VARIABLES[title]
    for variables in all_variables:
        await PAIR.agree(query, variables)


async def test_the_operation_is_chosen_by_its_name():
    query = "query A { plain } query B { books { title } } mutation C { fast { count } }"
    for name in ("A", "B", "C"):
        await PAIR.agree(query, operation_name=name)


async def test_the_root_value_is_the_source_of_root_fields():
    await PAIR.agree("{ plain told }", root=object())


async def test_a_subscription_is_left_to_graphql_core():
    await PAIR.agree("subscription { ticks }")
    assert PAIR.engine.fallbacks["subscription"] == 1


@pytest.mark.parametrize(("fields", "fallbacks"), [(400, 0), (401, 1)])
async def test_what_is_too_large_is_left_to_graphql_core(fields, fallbacks):
    pair = Pair(SCHEMA)
    await pair.agree("{ " + " ".join(f"a{number}: plain" for number in range(fields)) + " }")
    assert pair.engine.fallbacks["too many fields"] == fallbacks


async def test_what_is_too_deep_is_left_to_graphql_core():
    depth = 180
    await PAIR.agree('{ author(name: "Bly") ' + "{ friend " * depth + "{ name }" + " }" * depth + "}")
    assert PAIR.engine.fallbacks["too deep"] == 1


NAMES = "abcde"
VARIANTS = [{name: bool(number >> bit & 1) for bit, name in enumerate(NAMES)} for number in range(2 ** len(NAMES))]
CONDITIONAL = (
    f"query ({', '.join(f'${name}: Boolean! = true' for name in NAMES)})"
    f" {{ {' '.join(f'{name}: plain @skip(if: ${name})' for name in NAMES)} }}"
)


async def test_every_variant_of_an_operation_is_compiled_and_only_so_many_are_kept():
    pair = Pair(SCHEMA)
    for values in VARIANTS:
        await pair.agree(CONDITIONAL, values)
    assert not pair.engine.fallbacks
    assert len([*pair.engine.prepare(CONDITIONAL)._variants.values()]) == MAX_VARIANTS


async def test_one_caller_evicts_no_variants_that_others_use(monkeypatch):
    compiled = []
    generate = operation.generate
    monkeypatch.setattr(operation, "generate", lambda *given, **more: compiled.append(1) or generate(*given, **more))
    conditional = Engine(SCHEMA._schema).prepare(CONDITIONAL)
    used, others = VARIANTS[:4], [*VARIANTS[4:], {"a": None}, {}]
    for values in used:
        conditional.execute(values, Context(), owner=f"user {values}")
    for values in others * 3:
        conditional.execute(values, Context(), owner="a stranger")
        compiled.clear()
        for values_of_others in used:
            conditional.execute(values_of_others, Context(), owner="a user")
        assert not compiled
