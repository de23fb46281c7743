"""Every way to resolve a field, times every kind of type, times everything that can come out: as under graphql-core."""

import datetime as dt
import enum
import itertools
import uuid
from decimal import Decimal
from typing import Annotated, Any

import pytest
import strawberry
from graphql import Undefined
from strawberry.permission import BasePermission

from graphql_api.engine import batched
from tests.engine.oracle import Pair


@strawberry.enum
class Size(enum.Enum):
    SMALL = "s"
    LARGE = strawberry.enum_value("l", name="BIG")


@strawberry.interface
class Named:
    name: str


@strawberry.type
class Leaf(Named):
    size: int | None = 1


@strawberry.type
class Other(Named):
    size: int | None = 2


@strawberry.type
class Plain:
    name: str


@strawberry.type
class Deep:
    plains: list[Plain]
    later: Plain | None = strawberry.field(resolver=lambda: Later(Plain(name="deep")))


Either = Annotated[Leaf | Other, strawberry.union("Either")]


class Later:
    """Awaitable, and not a coroutine."""

    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield
        if isinstance(self.value, KeyError):
            raise self.value
        return self.value


class Anyone(BasePermission):
    message = "nobody"

    def has_permission(self, source, info, **_):
        return True


async def generated(values):
    for value in values:
        yield value


WHEN = dt.datetime(2021, 2, 3, 4, 5, 6, 700, tzinfo=dt.UTC)
SCALARS = {
    "int": (int, [7, True, 2**31, 3.0, 3.5, "8", "x", Decimal(4), b"1"]),
    "float": (float, [1.5, 2, float("inf"), float("nan"), "1.5", True, object()]),
    "string": (str, ["text", "", 5, 1.5, True, [1], uuid.UUID(int=1), Size.SMALL]),
    "id": (strawberry.ID, ["text", 5, 1.5, True, uuid.UUID(int=1)]),
    "boolean": (bool, [True, False, 1, 0, 1.5, "true", None]),
    "enum": (Size, [Size.SMALL, Size.LARGE, "s", "l", "SMALL", "nope", 5, [1]]),
    "datetime": (dt.datetime, [WHEN, WHEN.date(), "2020-01-01", 5]),
    "uuid": (uuid.UUID, [uuid.UUID(int=1), "text", 5]),
    "json": (strawberry.scalars.JSON, [{"a": [1, None]}, [], "text", 5, True, 1.5]),
}
OBJECTS = {
    "plain": (Plain, "{ name }", [Plain(name="p"), Leaf(name="l"), Plain(name=None), "text", 5]),
    "leaf": (Leaf, "{ __typename name size }", [Leaf(name="l"), Other(name="o"), Leaf(name=None), "text"]),
    "either": (
        Either,
        "{ ... on Leaf { name } ... on Other { size } }",
        [Leaf(name="l"), Other(name="o"), Plain(name="p"), 5],
    ),
    "named": (Named, "{ __typename name }", [Leaf(name="l"), Other(name=None), Plain(name="p"), "text"]),
    "deep": (
        Deep,
        "{ plains { name } later { name } }",
        [Deep(plains=[Plain(name="a")]), Deep(plains=[Plain(name=None)])],
    ),
}
ALWAYS = [None, Undefined, strawberry.UNSET, ValueError("a value that is an error"), KeyError("raised")]


def outcomes(values):
    """Everything that can come out where one value is expected."""
    return [*values, *ALWAYS]


def lists(values):
    """Everything that can come out where a list is expected."""
    good = values[0]
    odd = [*values[1:], None, Undefined, ValueError("an item that is an error"), Later(good), Later(KeyError("late"))]
    return [
        [],
        [good, good],
        (good, good),
        {"key": good},
        lambda: iter([good]),
        lambda: generated([good, None]),
        5,
        "text",
        [good, *odd, good],
        *([item] for item in odd),
        *ALWAYS,
    ]


class Source:
    """What stands for a `Case`: its attributes are what comes out."""


class Case:
    """A type with a field for each case; `ANSWERS` knows what comes out of it."""

    __annotations__ = {}


SELECTIONS = {}
ANSWERS = {}


def given(name):
    """What comes out; lists that can be read once only are made anew."""
    answer = ANSWERS[name]
    return answer() if callable(answer) and not isinstance(answer, type) else answer


def answered(name):
    """The same, raised where that is the point."""
    answer = given(name)
    if isinstance(answer, KeyError):
        raise answer
    return answer


def field_for(way, name, type_):
    """A Strawberry field that is resolved this way."""

    def resolve() -> type_:
        return answered(name)

    async def resolve_later() -> type_:
        return answered(name)

    def promise() -> type_:
        return Later(given(name))

    async def load(parents: list, info: Any, *, selection) -> list:
        return [given(name) for _ in parents]

    if way == "attribute":
        setattr(Source, name, property(lambda _: answered(name)))
    elif way == "awaitable attribute":
        setattr(Source, name, property(lambda _: Later(answered(name))))
    return {
        "attribute": lambda: strawberry.field(name=name),
        "awaitable attribute": lambda: strawberry.field(name=name),
        "resolver": lambda: strawberry.field(resolver=resolve, name=name),
        "coroutine": lambda: strawberry.field(resolver=resolve_later, name=name),
        "awaitable": lambda: strawberry.field(resolver=promise, name=name),
        "batch": lambda: batched(load, name=name),
        "guarded": lambda: strawberry.field(resolver=resolve, name=name, permission_classes=[Anyone]),
    }[way]()


EVERY_KIND = [*SCALARS, *OBJECTS]
SOME_KINDS = ["int", "json", "either", "deep"]
WAYS = {
    "attribute": EVERY_KIND,
    "resolver": EVERY_KIND,
    "batch": EVERY_KIND,
    "awaitable attribute": SOME_KINDS,
    "awaitable": SOME_KINDS,
    "coroutine": SOME_KINDS,
    "guarded": SOME_KINDS,
}


def kinds():
    for name, (type_, values) in SCALARS.items():
        yield name, type_, "", values
    for name, (type_, selection, values) in OBJECTS.items():
        yield name, type_, selection, values


for way, (kind, type_, selection, values) in itertools.product(WAYS, kinds()):
    if kind not in WAYS[way]:
        continue
    wrapped = {
        "nullable": (type_ | None, outcomes(values)),
        "required": (type_, outcomes(values)),
        "list": (list[type_ | None] | None, lists(values)),
        "listOfRequired": (list[type_] | None, lists(values[:2])),
        "requiredList": (list[type_ | None], [[values[0], None], 5, *ALWAYS]),
        "matrix": (list[list[type_]] | None, [[[values[0]], []], [[values[0], None]], [None], 5]),
    }
    for wrapper, (annotation, found) in wrapped.items():
        for number, answer in enumerate(found):
            name = f"{way.replace(' ', '_')}_{kind}_{wrapper}_{number}"
            ANSWERS[name], SELECTIONS[name] = answer, selection
            Case.__annotations__[name] = annotation
            setattr(Case, name, field_for(way, name, annotation))

Case = strawberry.type(Case)


@strawberry.type
class Holder:
    @strawberry.field
    async def required(self) -> Case:
        return Source()


@strawberry.type
class Query:
    @strawberry.field
    def cases(self) -> list[Case | None]:
        return [Source(), Source()]

    @strawberry.field
    def holder(self) -> Holder | None:
        return Holder()


PAIR = Pair(strawberry.Schema(query=Query, types=[Leaf, Other, Plain]))
AT_ONCE = 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter)")
@pytest.mark.parametrize(("way", "kind"), [(way, kind) for way, kinds in WAYS.items() for kind in kinds])
async def test_what_comes_out_is_answered_as_by_graphql_core(way, kind):
    prefix = f"{way.replace(' ', '_')}_{kind}_"
    selected = [f"{name} {SELECTIONS[name]}" for name in ANSWERS if name.startswith(prefix)]
    for parent in ("cases {{ {} }}", "holder {{ required {{ {} }} }}"):
        for at in range(0, len(selected), AT_ONCE):
            fields = [f"a{i}: {parent.format(each)}" for i, each in enumerate(selected[at : at + AT_ONCE])]
            await PAIR.agree(f"{{ {' '.join(fields)} }}")
    assert not PAIR.engine.fallbacks
