"""What type an object is of: by its class where that is enough, by whatever Strawberry and schemas say where not."""

from collections.abc import Mapping
from typing import Annotated, Generic, TypeVar

import pytest
import strawberry
from strawberry import relay
from strawberry.schema.config import StrawberryConfig

from graphql_api.engine import by_class
from tests.engine.oracle import Pair

T = TypeVar("T")


@strawberry.interface
class Named:
    name: str = "?"


@strawberry.type
class Cat(Named):
    lives: int = 9


@strawberry.type
class Dog(Named):
    good: bool = True


@strawberry.type
class Stone:
    weight: int = 1


@strawberry.type
class Box(Generic[T]):
    content: T


@strawberry.type
class Ghost:
    name: str = "boo"

    @classmethod
    def is_type_of(cls, value, info):
        return getattr(value, "transparent", False)


@strawberry.type
class Picky:
    name: str = "picky"

    @classmethod
    def is_type_of(cls, value, info):
        raise ValueError(f"asked at {info.path.as_list()} for {info.field_name}")


class Elusive:
    """Makes up its attributes."""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return 7


class Watched:
    """Looks at each access."""

    name = "w"
    lives = 1

    def __getattribute__(self, name):
        return object.__getattribute__(self, name)


class Kitten(Cat):
    """A subclass that is no type of its own."""


class Slotted:
    __slots__ = ("lives", "name")
    __strawberry_definition__ = Cat.__strawberry_definition__

    def __init__(self):
        self.name, self.lives = "slotted", 3


class Bare:
    name = "bare"
    weight = 5


class Transparent:
    transparent = True
    name = "t"


def cast(type_, value):
    return strawberry.cast(type_, value)


class Typed(Mapping):
    """A mapping that says what it is."""

    def __init__(self, **items):
        self.items_ = items

    def __getitem__(self, key):
        return self.items_[key]

    def __iter__(self):
        return iter(self.items_)

    def __len__(self):
        return len(self.items_)


VALUES = {
    "cat": lambda: Cat(name="c"),
    "dog": lambda: Dog(name="d"),
    "stone": lambda: Stone(weight=2),
    "kitten": lambda: Kitten(name="k"),
    "slotted": Slotted,
    "bare": Bare,
    "elusive": Elusive,
    "watched": Watched,
    "typed": lambda: Typed(__typename="Cat"),
    "ghost": Ghost,
    "transparent": Transparent,
    "cat as a dog": lambda: cast(Dog, Cat(name="cd")),
    "cat as a named": lambda: cast(Named, Cat(name="cn")),
    "bare as a cat": lambda: cast(Cat, Bare()),
    "bare as a stone": lambda: cast(Stone, Bare()),
    "box": lambda: Box(content=1),
    "box of text": lambda: Box(content="text"),
    "class": lambda: Cat,
    "number": lambda: 5,
}
LISTS = {name: [make, make] for name, make in VALUES.items()} | {
    "one of them is cast": [VALUES["cat"], VALUES["cat as a dog"], VALUES["cat"]],
    "two of them are cast": [VALUES["cat as a dog"], VALUES["cat as a dog"]],
    "bare ones, one is cast": [VALUES["bare"], VALUES["bare as a stone"]],
    "all kinds": list(VALUES.values()),
}
Animal = Annotated[Cat | Dog, strawberry.union("Animal")]
Thing = Annotated[Cat | Stone, strawberry.union("Thing")]
Boxed = Annotated[Box[int] | Box[str] | Stone, strawberry.union("Boxed")]
Haunted = Annotated[Cat | Ghost, strawberry.union("Haunted")]
Marked = Annotated[Cat | Stone, strawberry.union("Marked")]
Unmarked = Annotated[Cat | Stone, strawberry.union("Unmarked")]


@strawberry.interface
class Hooked:
    name: str = "hooked"

    @classmethod
    def resolve_type(cls, value, info, type_):
        return "Hook" if getattr(value, "lives", 0) else "Claw"


@strawberry.type
class Hook(Hooked):
    pass


@strawberry.type
class Claw(Hooked):
    pass


SELECTIONS = {
    "animal": (Animal, "{ __typename ... on Cat { name lives } ... on Dog { name good } }"),
    "thing": (Thing, "{ __typename ... on Cat { name } ... on Stone { weight } }"),
    "boxed": (
        Boxed,
        "{ __typename ... on IntBox { content } ... on StrBox { text: content } ... on Stone { weight } }",
    ),
    "haunted": (Haunted, "{ __typename ... on Cat { name } ... on Ghost { name } }"),
    "marked": (Marked, "{ __typename ... on Cat { name } ... on Stone { weight } }"),
    "unmarked": (Unmarked, "{ __typename ... on Cat { name } ... on Stone { weight } }"),
    "named": (Named, "{ __typename name ... on Cat { lives } }"),
    "picky": (Picky, "{ name }"),
    "hooked": (Hooked, "{ __typename name }"),
    "cat": (Cat, "{ __typename name lives }"),
    "stone": (Stone, "{ __typename weight }"),
    "ghost": (Ghost, "{ __typename name }"),
    "box": (Box[int], "{ __typename content }"),
}


def one(type_):
    def resolve(value: str) -> type_ | None:
        return VALUES[value]()

    return resolve


def many(type_):
    def resolve(value: str) -> list[type_ | None]:
        return [make() for make in LISTS[value]]

    return resolve


def root():
    fields = {}
    for name, (type_, _) in SELECTIONS.items():
        fields[name] = strawberry.field(resolver=one(type_), name=name)
        fields[f"{name}_s"] = strawberry.field(resolver=many(type_), name=f"{name}_s")
    return strawberry.type(type("Query", (), fields))


SCHEMA = strawberry.Schema(query=root(), types=[Cat, Dog, Stone, Ghost, Hook, Claw, Picky])


def weighed(value, *_):
    return "Stone" if hasattr(type(value), "weight") else "Cat"


SCHEMA._schema.type_map["Marked"].resolve_type = by_class(lambda value, *_: weighed(value))
SCHEMA._schema.type_map["Unmarked"].resolve_type = weighed
PAIR = Pair(SCHEMA)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("type_", SELECTIONS)
async def test_one_object_is_of_the_type_that_graphql_core_sees(type_, value):
    await PAIR.agree(f"query ($v: String!) {{ {type_}(value: $v) {SELECTIONS[type_][1]} }}", {"v": value})


@pytest.mark.parametrize("value", LISTS)
@pytest.mark.parametrize("type_", SELECTIONS)
async def test_objects_in_a_list_are_of_the_types_that_graphql_core_sees(type_, value):
    await PAIR.agree(
        f"query ($v: String!) {{ {type_}_s(value: $v) {SELECTIONS[type_][1]} }}", {"v": value}, exact=False
    )


async def test_a_mark_saves_asking_again():
    asked = []

    @strawberry.type
    class Query:
        @strawberry.field
        def things(self) -> list[Thing]:
            return [Cat(name="a"), Cat(name="b"), Stone(), Cat(name="c")]

    schema = strawberry.Schema(query=Query)
    schema._schema.type_map["Thing"].resolve_type = by_class(
        lambda value, *_: asked.append(value) or type(value).__name__
    )
    operation = Pair(schema).engine.prepare("{ things { ... on Cat { name } } }")
    for _ in range(2):
        assert operation.execute({}, None).data["things"] == [{"name": "a"}, {"name": "b"}, {}, {"name": "c"}]
    assert len(asked) == 2


async def test_fields_are_read_as_the_schema_says():
    @strawberry.type
    class Query:
        @strawberry.field
        def cat(self) -> Cat:
            return {"name": "from a dict", "lives": 1}

    config = StrawberryConfig(default_resolver=lambda source, name: source[name])
    await Pair(strawberry.Schema(query=Query, config=config)).agree("{ cat { name lives } }")


async def test_a_wrong_identifier_is_an_error_of_its_field():
    @strawberry.type
    class Query:
        @strawberry.field
        def node(self, id: relay.GlobalID | None = None, ids: list[relay.GlobalID] | None = None) -> str:
            return str([id, ids])

    pair = Pair(strawberry.Schema(query=Query))
    for argument in ('id: "bad"', 'id: "Q2F0OjE="', 'ids: ["Q2F0OjE="]', 'ids: "bad"', "id: null"):
        await pair.agree(f"{{ node({argument}) }}")
    for value in ("bad", "Q2F0OjE=", None):
        await pair.agree("query ($v: ID) { node(id: $v) }", {"v": value})
