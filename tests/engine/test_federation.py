"""What a federation gateway asks: entities by their representations, each an object, awaitable, null or an error."""

import asyncio

import pytest
import strawberry

from graphql_api.engine import batched
from tests.engine.oracle import Pair


async def books_of(parents: list, info: strawberry.Info, *, selection) -> list:
    return [ValueError("no books") if parent.id == "odd" else [Book(title=f"{parent.id}'s")] for parent in parents]


@strawberry.federation.type(keys=["title"])
class Book:
    title: str

    @classmethod
    async def resolve_reference(cls, title: str):
        await asyncio.sleep(0)
        if title == "lost":
            raise ValueError("it is lost")
        return Book(title=title) if title else None


@strawberry.federation.type(keys=["id"])
class Author:
    id: strawberry.ID
    books: list[Book] | None = batched(books_of, reads=("id",))

    @classmethod
    def resolve_reference(cls, info: strawberry.Info, id: strawberry.ID):
        if id == "nobody":
            raise ValueError("there is nobody")
        return None if id == "none" else cls(id=id)


@strawberry.federation.type(keys=["name"])
class Place:
    """Strawberry makes it from the representation."""

    name: str


@strawberry.type
class Query:
    author: Author


PAIR = Pair(strawberry.federation.Schema(query=Query, types=[Author, Book, Place]))
ENTITIES = """query ($r: [_Any!]!) { _entities(representations: $r) {
    __typename ... on Author { id books { title } } ... on Book { title } ... on Place { name } } }"""
AUTHORS = [{"__typename": "Author", "id": name} for name in ("a", "odd", "b")]
BOOKS = [{"__typename": "Book", "title": title} for title in ("t", "lost", "", "u")]


@pytest.mark.parametrize(
    "representations",
    [
        [],
        AUTHORS,
        BOOKS,
        [AUTHORS[0], *BOOKS, AUTHORS[1]],
        [{"__typename": "Author", "id": name} for name in ("nobody", "none", "a")],
        [{"__typename": "Place", "name": "here"}, {"__typename": "Place"}],
        [{"__typename": "Nothing"}],
        [{"id": "a"}],
        [{"__typename": "Author", "id": "a", "more": 1}],
        [5],
        [None],
        {"__typename": "Author", "id": "a"},
        "text",
        None,
    ],
)
async def test_entities_are_answered_as_by_graphql_core(representations):
    await PAIR.agree(ENTITIES, {"r": representations})
    assert not PAIR.engine.fallbacks


async def test_representations_may_be_spelled_out():
    await PAIR.agree(
        '{ _entities(representations: [{__typename: "Author", id: "a"}]) { ... on Author { books { title } } } }'
    )


async def test_a_subgraph_shows_its_schema():
    await PAIR.agree("{ _service { sdl } }")
