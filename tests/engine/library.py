"""A small well-behaved schema with one field for each thing that the specification's execution section speaks of."""

import asyncio
import datetime as dt
import enum
from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry
from graphql import GraphQLError
from strawberry.permission import BasePermission
from strawberry.scalars import JSON


@strawberry.enum(description="What a book is about.")
class Genre(enum.Enum):
    POETRY = "poetry"
    SCIENCE = strawberry.enum_value("science", name="NATURAL_SCIENCE")


@strawberry.interface
class Named:
    name: str


@strawberry.type
class Author(Named):
    born: int | None = None

    @strawberry.field
    def books(self, first: int = 10, genre: Genre | None = None) -> list["Book"]:
        found = [book for book in BOOKS if book.author == self.name and genre in {None, book.genre}]
        return found[:first]

    @strawberry.field
    async def friend(self) -> "Author | None":
        await asyncio.sleep(0)
        return AUTHORS[0] if self is not AUTHORS[0] else None


@strawberry.type
class Book:
    title: str
    genre: Genre
    author: strawberry.Private[str]
    published: dt.date | None = None
    notes: JSON | None = None

    @strawberry.field
    async def written_by(self) -> Author:
        await asyncio.sleep(0)
        return next(author for author in AUTHORS if author.name == self.author)

    @strawberry.field(name="titleIn", deprecation_reason="Nobody asks.")
    def title_in(self, language: str) -> str:
        if language != "en":
            raise GraphQLError("no translation", extensions={"code": "UNTRANSLATED", "language": language})
        return self.title


AUTHORS = [Author(name="Ada", born=1815), Author(name="Bly")]
BOOKS = [
    Book(title="Notes", genre=Genre.SCIENCE, author="Ada", published=dt.date(1843, 1, 1), notes={"pages": [1, None]}),
    Book(title="Verse", genre=Genre.POETRY, author="Bly"),
    Book(title="More Notes", genre=Genre.SCIENCE, author="Ada"),
]

Found = Annotated[Author | Book, strawberry.union("Found")]


@strawberry.input
class Range:
    low: int = 0
    high: int | None = None


@strawberry.input
class Search:
    text: str | None = "any"
    genres: list[Genre] | None = None
    range: Range | None = None
    nothing: strawberry.Maybe[int | None]
    exact: strawberry.Maybe[int]
    on: dt.date | None = None
    like: "Search | None" = None


@strawberry.input(one_of=True)
class OneOf:
    a: strawberry.Maybe[int]
    b: strawberry.Maybe[str]


class Never(BasePermission):
    message = "never"
    error_extensions = {"code": "FORBIDDEN"}  # noqa: RUF012

    def has_permission(self, source, info, **_):
        return False


def shown(**arguments):
    return str(sorted(arguments.items()))


@strawberry.type
class Query:
    plain: str = strawberry.field(resolver=lambda: "text")

    @strawberry.field
    def books(self, first: int | None = None) -> list[Book]:
        return BOOKS[:first]

    @strawberry.field
    async def authors(self) -> list[Author]:
        return AUTHORS

    @strawberry.field
    def author(self, name: strawberry.ID) -> Author | None:
        return next((author for author in AUTHORS if author.name == name), None)

    @strawberry.field
    def search(self, text: str | None = None) -> list[Found]:
        return [each for each in [*AUTHORS, *BOOKS] if text in {None, getattr(each, "name", None)}]

    @strawberry.field
    def named(self) -> list[Named]:
        return AUTHORS

    @strawberry.field
    def arguments(
        self,
        text: str | None = strawberry.UNSET,
        number: int = 5,
        ratio: float | None = None,
        flag: bool = False,  # noqa: FBT001, FBT002 - an argument of GraphQL
        id: strawberry.ID | None = None,
        genre: Genre = Genre.POETRY,
        genres: list[Genre] | None = None,
        matrix: list[list[int | None]] | None = None,
        search: Search | None = None,
        maybe: strawberry.Maybe[str | None] = None,
        json: JSON | None = None,
        on: dt.date | None = None,
        one: OneOf | None = None,
        range: Range | None = None,
        ranges: list[Range] | None = None,
        holes: list[Range | None] | None = None,
    ) -> str:
        return shown(**{name: value for name, value in locals().items() if name != "self"})

    @strawberry.field
    def tagged(self, tags: list[str] = ["a", "b"], number: int = 1) -> str:  # noqa: B006
        return shown(tags=tags, number=number)

    @strawberry.field
    def required(self, text: str, numbers: list[int]) -> str:
        return shown(text=text, numbers=numbers)

    @strawberry.field
    def spoiling(self, numbers: list[int], json: JSON | None = None) -> list[int]:
        numbers.append(len(numbers))
        if isinstance(json, dict):
            json.clear()
        return numbers

    @strawberry.field
    def told(self, info: strawberry.Info) -> str:
        raw = info._raw_info
        operation = info.operation.name.value if info.operation.name else None
        return shown(
            path=info.path.as_list(),
            field=info.field_name,
            python=info.python_name,
            variables=info.variable_values,
            root=info.root_value,
            operation=operation,
            query=info.query,
            returns=str(info.return_type),
            nodes=len(raw.field_nodes),
            parent=str(raw.parent_type),
            fragments=sorted(raw.fragments),
            selected=info.selected_fields,
            extensions=info.input_extensions,
            schema=type(info.schema).__name__,
            definition=str(info.get_argument_definition("x")),
        )

    @strawberry.field
    def fails(self) -> str:
        raise ValueError("it failed")

    @strawberry.field
    def fails_softly(self) -> str | None:
        raise GraphQLError("softly", extensions={"code": "SOFT"})

    @strawberry.field
    def located(self) -> str | None:
        raise GraphQLError("elsewhere", path=["else", "where"])

    @strawberry.field(permission_classes=[Never])
    def forbidden(self) -> str | None:
        return "secret"

    @strawberry.field
    def nothing(self) -> None:
        return None


@strawberry.type
class Counted:
    count: int

    @strawberry.field
    async def later(self, info: strawberry.Info) -> int:
        await asyncio.sleep(0)
        return len(info.context.log)


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def slow(self, info: strawberry.Info) -> Counted:
        for _ in range(3):
            await asyncio.sleep(0)
        info.context.log.append("slow")
        return Counted(count=len(info.context.log))

    @strawberry.mutation
    def fast(self, info: strawberry.Info, by: int = 1) -> Counted | None:
        info.context.log.append(f"fast {by}")
        return Counted(count=len(info.context.log))

    @strawberry.mutation
    def fails(self, info: strawberry.Info) -> Counted | None:
        info.context.log.append("fails")
        raise ValueError("it failed")

    @strawberry.mutation
    async def fails_hard(self, info: strawberry.Info) -> Counted:
        info.context.log.append("fails hard")
        raise ValueError("it failed hard")


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1


SCHEMA = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription, types=[Author, Book])
