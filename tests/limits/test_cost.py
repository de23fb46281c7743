"""What an operation costs, as a router's demand control reckons it from the same SDL."""

import pytest
import strawberry
from graphql import parse, validate
from strawberry.federation.schema_directives import Cost, ListSize

from graphql_api.limits import TOO_COMPLEX, request_checks
from graphql_api.limits.cost import ASSUMED_LIST_SIZE, Estimate


def sized(**values):
    absent = dict.fromkeys(("assumed_size", "slicing_arguments", "sized_fields"), strawberry.UNSET)
    return ListSize(**{**absent, "require_one_slicing_argument": False, **values})


@strawberry.input
class Filter:
    name: str


@strawberry.type
class Author:
    name: str
    books: list["Book"] = strawberry.field(directives=[sized(assumed_size=3)])

    @strawberry.field(directives=[sized(slicing_arguments=["first"])])
    def best(self, first: int = 2) -> list["Book"]:
        raise NotImplementedError


@strawberry.federation.type(keys=["id"], directives=[Cost(weight=5)])
class Book:
    id: strawberry.ID
    author: Author
    pages: list[str]
    price: int = strawberry.field(directives=[Cost(weight=7)])


@strawberry.type
class Books:
    nodes: list[Book]
    total: int
    others: list[Author]


@strawberry.type
class Query:
    book: Book
    free: Book = strawberry.field(directives=[Cost(weight=0)])
    authors: list[Author]

    @strawberry.field(directives=[sized(slicing_arguments=["first", "last"], assumed_size=20, sized_fields=["nodes"])])
    def books(self, first: int | None = None, last: int | None = None, where: Filter | None = None) -> Books:
        raise NotImplementedError

    @strawberry.field(directives=[sized(slicing_arguments=["first"])])
    def best(self, first: int = 4) -> list[Book]:
        raise NotImplementedError


@strawberry.type
class Mutation:
    @strawberry.field
    def write(self, filters: list[Filter]) -> bool:
        raise NotImplementedError


SCHEMA = strawberry.federation.Schema(Query, Mutation, federation_version="2.9")._schema


def estimate(document, schema=SCHEMA):
    parsed = parse(document)
    assert validate(schema, parsed) == []
    return Estimate(schema, parsed, parsed.definitions[0])


@pytest.mark.parametrize(
    ("document", "cost"),
    [
        ("{ __typename }", 0),
        ("{ __schema { types { name } } }", 0),
        ("{ book { id } }", 5),
        ("{ book { id price } }", 12),
        ("{ free { price } }", 7),
        ("{ book { author { name } } }", 6),
        ("{ a: book { id } b: book { id } }", 10),
        ("{ book { id } book { price } ...f ...f } fragment f on Query { book { price author { name } } }", 13),
        ("{ book { pages } }", 5),
        ("{ authors { name } }", ASSUMED_LIST_SIZE),
        ("{ authors { books { id } } }", ASSUMED_LIST_SIZE * (1 + 3 * 5)),
        ("{ books { total } }", 1),
        ("{ books { nodes { id } } }", 1 + 20 * 5),
        ("{ books(first: 2) { nodes { id } } }", 1 + 2 * 5),
        ("{ books(first: 2, last: 30) { nodes { id } } }", 1 + 30 * 5),
        ("{ books(first: null) { nodes { id } } }", 1 + 20 * 5),
        ("{ books(first: 0) { nodes { id } } }", 1),
        ("{ books(first: -5) { nodes { id } } }", 1),
        ("{ books(first: 2) { others { name } } }", 1 + ASSUMED_LIST_SIZE),
        (
            "{ books(first: 2) { ... { ...f } } } fragment f on Books { nodes { author { books { id } } } }",
            1 + 2 * (5 + 1 + 15),
        ),
        ('{ books(where: { name: "x" }) { total } }', 2),
        ("{ best { id } }", 4 * 5),
        ("{ best(first: 2) { id } }", 2 * 5),
        ("{ ... on Query { book { id } } }", 5),
        ('mutation { write(filters: [{ name: "x" }, { name: "y" }]) }', 10 + 2),
        ('mutation { write(filters: { name: "x" }) }', 10 + 1),
        ("{ _service { sdl } }", 1),
        (
            '{ _entities(representations: [{ id: "1" }, { id: "2" }]) { ... on Book { price } } }',
            2 * (1 + 7),
        ),
    ],
)
def test_objects_cost_one_and_lists_as_often_as_they_are_long(document, cost):
    assert estimate(document).cost.of({}) == cost


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({}, 20),
        ({"n": 3}, 3),
        ({"n": 3.0}, 3),
        ({"n": 0}, 0),
        ({"n": -3}, 0),
        ({"n": None}, 20),
        ({"n": True}, 20),
        ({"n": "3"}, 20),
        ({"n": float("inf")}, 20),
        ({"m": 3}, 20),
    ],
)
def test_a_size_that_a_variable_says_is_that_of_the_request(variables, size):
    books = estimate("query ($n: Int) { books(first: $n) { nodes { author { books { id } } } } }")

    assert books.cost.of(variables) == 1 + size * (5 + 1 + 3 * 5)


def test_a_variable_that_is_not_given_says_what_its_default_says():
    books = estimate("query ($n: Int = 7) { books(first: $n) { nodes { id } } }")

    assert books.cost.of({}) == 1 + 7 * 5
    assert books.cost.of({"n": 2}) == 1 + 2 * 5


def test_of_a_number_and_a_variable_the_larger_counts():
    books = estimate("query ($n: Int) { books(first: 10, last: $n) { nodes { id } } }")

    assert [books.cost.of({"n": n}) for n in (3, 30)] == [1 + 10 * 5, 1 + 30 * 5]


def test_sizes_multiply_where_lists_stand_in_lists():
    nested = estimate("query ($n: Int!) { best(first: $n) { author { books { author { books { id } } } } } }")

    assert nested.cost.of({"n": 4}) == 4 * (5 + 1 + 3 * (5 + 1 + 3 * 5))


ENTITIES = """query ($r: [_Any!]!) {
  _entities(representations: $r) { ... on Book { price } }
  again: _entities(representations: $r) { __typename }
}"""


def test_a_size_that_a_variable_says_counts_in_each_item_of_a_list():
    nested = estimate("query ($n: Int!) { authors { best(first: $n) { author { books { id } } } } }")

    assert nested.cost.of({"n": 4}) == ASSUMED_LIST_SIZE * (1 + 4 * (5 + 1 + 3 * 5))


def test_entities_are_as_many_as_their_representations():
    assert estimate(ENTITIES).cost.of({"r": [{}] * 3}) == 3 * (1 + 7) + 3


def test_more_representations_than_there_may_be_are_refused():
    check = request_checks(max_representations=4, max_cost=100)(SCHEMA, *parts(ENTITIES))

    assert check({"r": [{}] * 2}) == []
    [error] = check({"r": [{}] * 3})
    assert "too complex: 6 representations; the limit is 4 (MAX_REPRESENTATIONS)" in error.message
    assert error.extensions == {"code": TOO_COMPLEX}


def test_a_request_that_costs_too_much_is_refused():
    check = request_checks(max_representations=1, max_cost=100)(
        SCHEMA, *parts("query ($n: Int) { best(first: $n) { id } }")
    )

    assert check({"n": 20}) == []
    [error] = check({"n": 21})
    assert error.message == "The request is too complex: a cost of 105; the limit is 100 (MAX_COST)."


def parts(document):
    parsed = parse(document)
    return parsed, parsed.definitions[0]
