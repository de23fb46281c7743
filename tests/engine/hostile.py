"""A schema in which most things go wrong now and then; a seed and the place in the answer decide what happens."""

import asyncio
import datetime as dt
import enum
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Generic, TypeVar

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.permission import BasePermission
from strawberry.scalars import JSON

from graphql_api.engine import RawJSON, batched

T = TypeVar("T")


# --- chance ---------------------------------------------------------------------------------------------------------


def chance(*parts):
    """The same luck for both ways of execution."""
    return random.Random("|".join(map(str, parts)))


def luck_at(info):
    return chance(info.context.seed, *info.path.as_list())


WRONG = [object(), "text", "", 3.5, -7, True, [1], {"a": 1}, 2**40, float("nan"), b"bytes", dt.date(2020, 1, 1)]


def perhaps(luck, good):
    """A good value, mostly; or null, an exception as a value, or something of the wrong type."""
    drawn = luck.random()
    if drawn < 0.06:
        return None
    if drawn < 0.10:
        return ValueError(f"a value that is an error {luck.randint(0, 3)}")
    if drawn < 0.16:
        return luck.choice(WRONG)
    return good()


def resolved(info, make):
    """What a resolver answers: at once, as a future or as another awaitable; sometimes it fails."""
    luck = luck_at(info)
    fate = luck.random()

    def outcome():
        if fate < 0.07:
            raise ValueError(f"failed {luck.randint(0, 3)}")
        if fate < 0.12:
            return None
        if fate < 0.14:
            return RuntimeError("returned")
        if fate < 0.15:
            return strawberry.UNSET
        return make(luck)

    way = luck.random()
    if way < 0.4:
        return outcome()
    if way < 0.55:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(luck.choice([0, 0, 0.001]), settle, future, outcome)
        return future

    return Waited(luck, outcome)


def settle(future, outcome):
    if future.cancelled():
        return
    try:
        future.set_result(outcome())
    except ValueError as error:
        future.set_exception(error)


def items(luck, make):
    """A list with some odd items in it, sometimes not quite a list."""

    def item():
        drawn = luck.random()
        if drawn < 0.06:
            return None
        if drawn < 0.10:
            return ValueError("an item that is an error")
        if drawn < 0.18:
            return item_of(luck, make)
        if drawn < 0.2:
            return luck.choice(WRONG)
        return make(luck)

    found = [item() for _ in range(luck.randint(0, 4))] if luck.random() < 0.7 else [make(luck) for _ in range(3)]
    return luck.choice([list, list, list, list, tuple, iter])(found)


class Waited:
    """An awaitable that nobody has to await: most of what is made here is never asked for."""

    def __init__(self, luck, outcome):
        self.turns = luck.randint(0, 3)
        self.outcome = outcome

    def __await__(self):
        for _ in range(self.turns):
            yield
        return self.outcome()


def item_of(luck, make):
    """An item that is there later, or fails then."""
    fails = luck.random() < 0.2
    value = make(luck)

    def outcome():
        if fails:
            raise ValueError("an awaited item that failed")
        return value

    return Waited(luck, outcome)


# --- types ----------------------------------------------------------------------------------------------------------


@strawberry.enum
class Color(enum.Enum):
    RED = "r"
    BLUE = "b"
    GREEN = strawberry.enum_value("g", name="VERT")


@strawberry.input
class Part:
    size: int = 3
    label: str | None = None


@strawberry.input
class Filter:
    a: int = 3
    b: str | None = None
    c: list[int] | None = None
    color: Color | None = None
    part: Part | None = None
    maybe: strawberry.Maybe[str | None]
    when: dt.datetime | None = None


@strawberry.interface
class Node:
    id: strawberry.ID


class Lucky(BasePermission):
    message = "no luck"

    def has_permission(self, source, info, **_):
        return chance(info.context.seed, "permission", *info.path.as_list()).random() < 0.6


class LuckyLater(BasePermission):
    message = "no luck later"

    async def has_permission(self, source, info, **_):
        await asyncio.sleep(0)
        return chance(info.context.seed, "permission", *info.path.as_list()).random() < 0.6


class Doubled(FieldExtension):
    def resolve(self, next_, source, info, **arguments):
        return f"{next_(source, info, **arguments)} twice"


def of_parent(info, parent, field, make):
    """What a batch function answers for one parent, whoever else is asked for."""
    luck = chance(info.context.seed, field, parent.uid)
    drawn = luck.random()
    if drawn < 0.08:
        return ValueError(f"no {field} {luck.randint(0, 2)}")
    if drawn < 0.16:
        return None
    return make(luck)


async def batch(info, parents, field, make):
    """All that a batch function can do wrong: fail, answer too little, be slow."""
    luck = chance(info.context.seed, field)
    for _ in range(luck.randint(0, 2)):
        await asyncio.sleep(0)
    fate = luck.random()
    if fate < 0.05:
        raise ValueError(f"batch {field} failed")
    values = [of_parent(info, parent, field, make) for parent in parents]
    return values[:-1] if fate < 0.09 else values


def leaves_by(selection, first, as_json):
    def make(luck):
        leaves = [Leaf(name=f"leaf {luck.randint(0, 99)}", size=luck.randint(0, 9), color=luck.choice([*Color, None]))]
        leaves = leaves * first
        if selection is not None and selection.json is not None and luck.random() < 0.7:
            return as_json(written(leaves, selection))
        return leaves

    return make


async def leaves_of(parents: list, info: strawberry.Info, *, selection, first: int = 2) -> list:
    return await batch(info, parents, "leaves", leaves_by(selection, first, RawJSON))


def leaves_by_key(context, uids, fields, *, first=2):
    """The same, if all of it is JSON."""
    info, luck = SimpleNamespace(context=context), chance(context.seed, "leaves")
    make = leaves_by(SimpleNamespace(json=fields), first, bytes.decode)
    texts = {uid: of_parent(info, SimpleNamespace(uid=uid), "leaves", make) for uid in uids}
    luck.randint(0, 2)
    if not {str}.issuperset(map(type, texts.values())) or 0.05 <= luck.random() < 0.09:
        return None

    async def found():
        await batch(info, [], "leaves", make)
        return {uid: text for uid, text in texts.items() if text != "[]"}

    return found()


def written(leaves, selection):
    """What a database would build: the JSON of plain leaf attributes."""
    import orjson  # noqa: PLC0415

    def value(leaf, entry):
        if entry.attribute is None:
            return entry.literal
        found = getattr(leaf, entry.attribute)
        return {Color.RED: "RED", Color.BLUE: "BLUE", Color.GREEN: "VERT"}.get(found, found)

    return orjson.dumps([{entry.key: value(leaf, entry) for entry in selection.json} for leaf in leaves])


async def needed_of(parents: list, info: strawberry.Info, *, selection) -> list:
    return await batch(info, parents, "needed", lambda luck: a_second(luck, f"n{luck.randint(0, 999)}"))


async def firsts_of(
    parents: list, info: strawberry.Info, *, selection, color: Color | None = None, filter: Filter | None = None
) -> list:
    def make(luck):
        return items(luck, lambda luck: a_first(luck, f"{color}{filter and filter.a}{luck.randint(0, 999)}"))

    return await batch(info, parents, "firsts", make)


async def words_of(parents: list, info: strawberry.Info, *, selection) -> list:
    return await batch(info, parents, "words", lambda luck: perhaps(luck, lambda: ["a", perhaps(luck, lambda: "b")]))


async def number_of(parents: list, info: strawberry.Info, *, selection, times: int = 1) -> list:
    return await batch(info, parents, "number", lambda luck: perhaps(luck, lambda: luck.randint(0, 9) * times))


@strawberry.type
class Leaf:
    name: str
    size: int
    color: Color | None


@strawberry.type
class First(Node):
    """Attributes of every type, and fields that lead on to `Second`."""

    uid: strawberry.Private[str]
    name: str
    opt: str | None
    number: int
    ratio: float | None
    flag: bool
    when: dt.datetime
    day: dt.date | None
    color: Color | None
    colors: list[Color]
    tags: list[str]
    flags: list[bool | None] | None
    json: JSON | None
    key: uuid.UUID | None
    matrix: list[list[int]] | None
    pair: "Second | None"
    all: "list[Second | None]"

    @strawberry.field
    def property_like(self) -> str:
        if chance(self.uid).random() < 0.3:
            raise AttributeError("no such thing")
        return self.uid

    @strawberry.field
    def child(self, info: strawberry.Info) -> "Second | None":
        return resolved(info, lambda luck: a_second(luck, child_uid(info)))

    @strawberry.field
    def required(self, info: strawberry.Info) -> "Second":
        return resolved(info, lambda luck: a_second(luck, child_uid(info)))

    @strawberry.field
    def children(self, info: strawberry.Info, first: int = 2, color: Color | None = None) -> "list[Second]":
        return resolved(info, lambda luck: items(luck, lambda luck: a_second(luck, f"{child_uid(info)}{first}{color}")))

    @strawberry.field
    async def children_later(self, info: strawberry.Info) -> "list[Second | None] | None":
        await asyncio.sleep(0)
        found = resolved(info, lambda luck: items(luck, lambda luck: a_second(luck, child_uid(info))))
        return await found if hasattr(found, "__await__") else found

    @strawberry.field
    async def stream(self, info: strawberry.Info) -> list["Second"]:
        async def each() -> AsyncIterator[Second]:
            for _ in range(2):
                await asyncio.sleep(0)
                yield a_second(luck_at(info), child_uid(info))

        return each()

    @strawberry.field(permission_classes=[Lucky])
    def guarded(self, info: strawberry.Info) -> "Second | None":
        return resolved(info, lambda luck: a_second(luck, child_uid(info)))

    @strawberry.field(permission_classes=[LuckyLater])
    async def guarded_later(self) -> str:
        return "behind a door"

    @strawberry.field(extensions=[Doubled()])
    def doubled(self, word: str = "w") -> str:
        return word

    @strawberry.field
    def echo(
        self,
        info: strawberry.Info,
        x: int = 1,
        s: str | None = "d",
        numbers: list[int] | None = None,
        filter: Filter | None = None,
        maybe: strawberry.Maybe[int | None] = None,
        when: dt.datetime | None = None,
        color: Color = Color.RED,
    ) -> str:
        path, variables = info.path.as_list(), sorted(info.variable_values.items(), key=str)
        selected = [field.name for field in info.selected_fields]
        return f"{x}{s}{numbers}{filter}{maybe}{when}{color}{path}{info.field_name}{variables}{selected}"

    leaves: list[Leaf] | None = batched(leaves_of, reads=("uid",), by_key=("uid", leaves_by_key, "[]"))
    needed: "Second" = batched(needed_of)
    number_batched: int = batched(number_of)
    words: list[str] | None = batched(words_of)


@strawberry.type
class Second(Node):
    """What leads back to `First`, mostly by batches."""

    uid: strawberry.Private[str]
    value: int
    twin: "Second | None"

    @strawberry.field
    def first(self, info: strawberry.Info) -> First | None:
        return resolved(info, lambda luck: a_first(luck, child_uid(info)))

    @strawberry.field
    def first_required(parent: strawberry.Parent["Second"], info: strawberry.Info) -> First:  # noqa: N805
        return resolved(info, lambda luck: a_first(luck, child_uid(info)))

    @strawberry.field
    def named(root: Any, letters: int = 3) -> str:  # noqa: N805
        return root.uid[:letters]

    @strawberry.field
    async def coroutine(self, info: strawberry.Info, x: int = 0) -> int:
        await asyncio.sleep(0)
        if chance(info.context.seed, *info.path.as_list()).random() < 0.3:
            raise ValueError("the coroutine failed")
        return x

    firsts: list[First] | None = batched(firsts_of, reads=("uid",))
    firsts_required: list[First | None] = batched(firsts_of, reads=("uid",))


@dataclass
class Look:
    """No Strawberry type itself; `Third.is_type_of` knows it."""

    third: bool
    label: str = "look"


@strawberry.type
class Third:
    label: str

    @classmethod
    def is_type_of(cls, value, info):
        return isinstance(value, cls) or getattr(value, "third", False)


@strawberry.type
class Page(Generic[T]):
    nodes: list[T]
    count: int


def child_uid(info):
    return ".".join(map(str, info.path.as_list()))


def a_first(luck, uid, depth=0):
    def text():
        return f"t{luck.randint(0, 99)}"

    return First(
        uid=uid,
        id=perhaps(luck, text),
        name=perhaps(luck, text),
        opt=perhaps(luck, text),
        number=perhaps(luck, lambda: luck.randint(-9, 9)),
        ratio=perhaps(luck, luck.random),
        flag=perhaps(luck, lambda: luck.random() < 0.5),
        when=perhaps(luck, lambda: dt.datetime(2020, 1, luck.randint(1, 28), tzinfo=dt.UTC)),
        day=perhaps(luck, lambda: dt.date(2020, 1, 2)),
        color=perhaps(luck, lambda: luck.choice([*Color, "r", "g"])),
        colors=perhaps(luck, lambda: [perhaps(luck, lambda: luck.choice(list(Color))) for _ in range(2)]),
        tags=perhaps(luck, lambda: [perhaps(luck, text) for _ in range(luck.randint(0, 3))]),
        flags=perhaps(luck, lambda: luck.choice([(True, None), [None, False], [True]])),
        json=perhaps(luck, lambda: {"x": [1, 2, {"y": None}]}),
        key=perhaps(luck, lambda: uuid.UUID(int=luck.randint(0, 99))),
        matrix=perhaps(luck, lambda: [[1, perhaps(luck, lambda: 2)], perhaps(luck, lambda: [3])]),
        pair=perhaps(
            luck, lambda: item_of(luck, lambda luck: a_second(luck, f"{uid}p")) if depth else a_second(luck, f"{uid}q")
        ),
        all=perhaps(luck, lambda: items(luck, lambda luck: a_second(luck, f"{uid}a{luck.randint(0, 99)}", 1))),
    )


def a_second(luck, uid, depth=0):
    return Second(
        uid=uid,
        id=perhaps(luck, lambda: f"s{luck.randint(0, 99)}"),
        value=perhaps(luck, lambda: luck.randint(0, 9)),
        twin=perhaps(luck, lambda: a_second(luck, f"{uid}t", depth + 1)) if depth < 2 else None,
    )


def anything(luck, uid):
    drawn = luck.random()
    if drawn < 0.4:
        return a_first(luck, uid)
    if drawn < 0.8:
        return a_second(luck, uid)
    if drawn < 0.9:
        return Third(label="third")
    if drawn < 0.95:
        return Look(third=True)
    return strawberry.cast(Third, Look(third=False))


def a_node(luck, uid):
    return luck.choice([a_first, a_second])(luck, uid)


Anything = Annotated[First | Second | Third, strawberry.union("Anything")]
Numbered = Annotated[First | Second, strawberry.union("Numbered")]


@strawberry.type
class Query:
    @strawberry.field
    def first(self, info: strawberry.Info, x: int = 1) -> First:
        return resolved(info, lambda luck: a_first(luck, f"{child_uid(info)}{x}"))

    @strawberry.field
    async def second(self, info: strawberry.Info) -> Second | None:
        found = resolved(info, lambda luck: a_second(luck, child_uid(info)))
        return await found if hasattr(found, "__await__") else found

    @strawberry.field
    def anything(self, info: strawberry.Info) -> Anything | None:
        return resolved(info, lambda luck: anything(luck, child_uid(info)))

    @strawberry.field
    def things(self, info: strawberry.Info) -> list[Anything] | None:
        return resolved(
            info, lambda luck: items(luck, lambda luck: anything(luck, f"{child_uid(info)}{luck.random()}"))
        )

    @strawberry.field
    def numbered(self, info: strawberry.Info) -> list[Numbered | None]:
        return resolved(info, lambda luck: items(luck, lambda luck: a_node(luck, f"{child_uid(info)}{luck.random()}")))

    @strawberry.field
    def seconds(self, info: strawberry.Info) -> list[Second | None]:
        return resolved(info, lambda luck: [a_second(luck, f"{child_uid(info)}{n}") for n in range(luck.randint(0, 4))])

    @strawberry.field
    def firsts(self, info: strawberry.Info) -> list[First] | None:
        return resolved(info, lambda luck: [a_first(luck, f"{child_uid(info)}{n}") for n in range(luck.randint(0, 3))])

    @strawberry.field
    def nodes(self, info: strawberry.Info) -> list[Node | None]:
        return resolved(info, lambda luck: items(luck, lambda luck: a_node(luck, f"{child_uid(info)}{luck.random()}")))

    @strawberry.field
    def node(self, info: strawberry.Info) -> Node:
        return resolved(info, lambda luck: a_node(luck, child_uid(info)))

    @strawberry.field
    def page(self, info: strawberry.Info) -> Page[Second]:
        return resolved(info, lambda luck: Page(nodes=items(luck, lambda luck: a_second(luck, "p")), count=2))


@strawberry.type
class Mutation:
    @strawberry.mutation
    def change(self, info: strawberry.Info, x: int = 1) -> First | None:
        return logged(info, lambda luck: a_first(luck, f"{child_uid(info)}{x}"))

    @strawberry.mutation
    async def change_later(self, info: strawberry.Info) -> Second | None:
        await asyncio.sleep(0)
        found = logged(info, lambda luck: a_second(luck, child_uid(info)))
        return await found if hasattr(found, "__await__") else found

    @strawberry.mutation
    def change_required(self, info: strawberry.Info) -> Second:
        return logged(info, lambda luck: a_second(luck, child_uid(info)))


def logged(info, make):
    """A mutation whose order among the others can be seen afterwards."""
    info.context.log.append(info.path.key)
    return resolved(info, make)


SCHEMA = strawberry.Schema(query=Query, mutation=Mutation, types=[First, Second, Third])
