"""What an answer may become at most, however it is asked for, in both engines."""

import inspect
from dataclasses import dataclass, field

import pytest
import strawberry

from graphql_api.engine import (
    MAX_ANSWER_BYTES,
    MAX_ANSWER_ERRORS,
    AnswerTooLargeError,
    Engine,
    batched,
    longest,
    raw_json,
)

MODES = pytest.mark.parametrize("mode", ["compiled", "graphql-core"])
COUNT = 700
TEXT = "x" * 20_000


@dataclass
class Context:
    loaders: dict = field(default_factory=dict)


async def denied(parents: list, info: strawberry.Info, *, selection) -> list:
    raise PermissionError("not yours")


async def partly_denied(parents: list, info: strawberry.Info, *, selection) -> list:
    return [PermissionError("not yours") if parent.number % 2 else "yours" for parent in parents]


async def written(parents: list, info: strawberry.Info, *, selection) -> list:
    texts = [f'[{{"number":1,"text":"{TEXT}"}}]' for _ in parents]
    compiled = selection is not None and selection.json is not None
    return raw_json(info, texts) if compiled else [[Node(number=1)] for _ in parents]


@strawberry.type
class Node:
    number: int
    denied: str | None = batched(denied)
    partly: str | None = batched(partly_denied)
    perhaps: list["Node"] | None = batched(written)
    written: list["Node"] = batched(written)

    @strawberry.field
    def wrong(self) -> str | None:
        raise ValueError("wrong")

    @strawberry.field
    def needed(self) -> str:
        raise ValueError("needed")

    @strawberry.field(metadata=longest(len(TEXT)))
    def text(self) -> str:
        return TEXT

    @strawberry.field
    def nodes(self) -> list["Node | None"]:
        return [Node(number=number) for number in range(40)]


@strawberry.type
class Query:
    @strawberry.field
    def nodes(self, count: int) -> list[Node | None]:
        return [Node(number=number) for number in range(count)]

    @strawberry.field
    async def needed(self) -> str:
        raise PermissionError("not yours")

    @strawberry.field
    def needed_at_once(self) -> str:
        raise PermissionError("not yours")


SCHEMA = strawberry.Schema(Query)
ENGINES = {mode: Engine(SCHEMA._schema, mode=mode) for mode in ("compiled", "graphql-core")}


async def run(mode, query):
    operation = ENGINES[mode].prepare(query)
    assert not isinstance(operation, list), operation
    result = operation.execute({}, Context())
    return await result if inspect.isawaitable(result) else result


@MODES
@pytest.mark.parametrize(
    ("fields", "failing", "each"),
    [
        ("number a: wrong b: wrong", 2 * COUNT, {"number": 0, "a": None, "b": None}),
        ("number needed", COUNT, None),
        ("a: needed b: needed", COUNT, None),
        ("a: denied b: denied", 2 * COUNT, {"a": None, "b": None}),
        ("a: partly b: partly c: partly", 3 * COUNT // 2, {"a": "yours", "b": "yours", "c": "yours"}),
        ("a: denied b: wrong c: partly", 2 * COUNT + COUNT // 2, {"a": None, "b": None, "c": "yours"}),
    ],
)
async def test_a_thousand_errors_are_told_the_others_counted_and_all_nulls_remain(mode, fields, failing, each):
    result = await run(mode, f"{{ nodes(count: {COUNT}) {{ {fields} }} }}")
    told = min(failing, MAX_ANSWER_ERRORS)
    assert (len(result.errors), result.errors_left_out) == (told, failing - told)
    assert len(result.data["nodes"]) == COUNT
    assert result.data["nodes"][0] == each
    assert all(error.path and error.locations for error in result.errors)


@MODES
@pytest.mark.parametrize("needed", ["needed", "neededAtOnce"])
async def test_an_error_that_leaves_no_data_is_bounded_too(mode, needed):
    result = await run(mode, f"{{ nodes(count: {COUNT}) {{ a: wrong b: wrong }} {needed} }}")
    assert result.data is None
    assert len(result.errors) + result.errors_left_out == 2 * COUNT + 1
    assert len(result.errors) == MAX_ANSWER_ERRORS
    assert all(error.original_error for error in result.errors)


def below(field_, levels, fields):
    return f"{field_} {{ {fields} {below('nodes', levels - 1, fields) if levels else ''} }}"


@MODES
@pytest.mark.parametrize(
    "query",
    [
        f"{{ {below('nodes(count: 40)', 4, 'number')} }}",
        "{ nodes(count: 500) { a: text b: text } }",
        "{ nodes(count: 40) { nodes { text } } }",
    ],
    ids=["objects", "texts", "texts below"],
)
async def test_an_answer_that_would_be_too_large_is_replaced_by_an_error(mode, query):
    result = await run(mode, query)
    assert (result.data, result.executed) == (None, True)
    assert [type(error) for error in result.errors] == [AnswerTooLargeError]
    assert result.errors[0].extensions == {"code": "ANSWER_TOO_LARGE"}


@MODES
async def test_an_answer_just_within_the_bound_is_given(mode):
    result = await run(mode, f"{{ nodes(count: {MAX_ANSWER_BYTES // len(TEXT) - 10}) {{ text }} }}")
    assert result.errors is None


@pytest.mark.parametrize(
    "fields", ["written { number }", "perhaps { number }", "number written { number } perhaps { number }"]
)
async def test_texts_of_json_count(fields):
    assert not (await run("compiled", f"{{ nodes(count: 400) {{ {fields} }} }}")).errors
    result = await run("compiled", f"{{ nodes(count: 900) {{ {fields} }} }}")
    assert result.data is None
    assert [type(error) for error in result.errors] == [AnswerTooLargeError]


LONG = "a" * 128


@pytest.mark.parametrize(
    "document",
    [
        "query %s { nodes(count: 1) { number } }",
        "{ %s: nodes(count: 1) { number } }",
        "query ($%s: Int!) { nodes(count: $%s) { number } }",
        "{ ...%s } fragment %s on Query { nodes(count: 1) { number } }",
    ],
)
def test_names_have_at_most_128_characters(document):
    count = document.count("%s")
    assert not isinstance(ENGINES["compiled"].prepare(document % ((LONG,) * count)), list)
    [error] = ENGINES["compiled"].prepare(document % ((LONG + "a",) * count))
    assert error.message == "Syntax Error: A name has at most 128 characters."


@pytest.mark.parametrize(
    "document", ["{ nodes @%s }", "{ ... on %s { nodes } }", "{ %s }", "{ nodes(%s: 1) }", "{ nodes(count: %s) }"]
)
def test_a_long_name_is_refused_whatever_it_is_of(document):
    [error] = ENGINES["compiled"].prepare(document % (LONG * 1000))
    assert error.message == "Syntax Error: A name has at most 128 characters."


def test_the_name_of_an_operation_is_quoted_in_part():
    [error] = ENGINES["compiled"].prepare("query A { nodes(count: 1) { number } }", "b" * 1_000_000)
    assert error.message == f"Unknown operation named '{'b' * 128}…'."


def test_whatever_one_caller_sends_pushes_out_nothing_of_others():
    seen = []
    engine = Engine(
        SCHEMA._schema, max_characters=4000, before_validation=[lambda document: seen.append(document) or []]
    )
    used = "{ nodes(count: 1) { number } }"
    engine.prepare(used)
    large = "{ nodes(count: 2) { number } }".ljust(700)
    engine.prepare(large, None, "somebody")
    for number in range(300):
        engine.prepare(f"{{ nodes(count: {number}) }}", None, "a caller")
        engine.prepare(f"{{ nodes(count: {number}) {{ number }} }}", None, "a caller")
        engine.prepare(f"{{ nodes(count: {number}) {{ number }} }}".ljust(600), None, "a caller")
    seen.clear()
    assert not isinstance(engine.prepare(used), list)
    assert not isinstance(engine.prepare(large), list)
    assert not seen
