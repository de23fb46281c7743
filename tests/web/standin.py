"""A schema in which everything can go wrong, to see what the web makes of it; what a query means is not its job."""

import asyncio
from enum import Enum

import strawberry
from graphql import GraphQLError

from graphql_api.domain import place
from graphql_api.domain.errors import (
    BadInputError,
    Code,
    ForbiddenError,
    InputError,
    Problem,
    UnauthenticatedError,
    UnavailableError,
    UnchangedError,
)

SECRET = "password of db.internal"  # what no caller may ever see
FAILURES = {
    "UnauthenticatedError": UnauthenticatedError("Who are you?"),
    "ForbiddenError": ForbiddenError("You may not."),
    "BadInputError": BadInputError("That is no cursor of ours."),
    "InputError": InputError([Problem(Code.INVALID, "A gateway is a name.")]),
    "UnavailableError": UnavailableError(SECRET),
    "UnchangedError": UnchangedError(),
    "coded": GraphQLError("Too much of it.", extensions={"code": "LIMIT_EXCEEDED"}),
    "uncoded": GraphQLError(SECRET),
    "ValueError": ValueError(SECRET),
    "RecursionError": RecursionError(SECRET),
    "TimeoutError": TimeoutError(SECRET),
    "card": BadInputError("4111 1111 1111 1111 is no cursor of ours."),
}


@strawberry.enum
class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Weird:
    """A scalar that raises what no scalar should."""


def parse_weird(value):
    raise KeyError(SECRET)


class Waiting:
    """What became of those who waited."""

    def __init__(self):
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.done = asyncio.Event()

    async def wait(self, seconds):
        self.began.set()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.done.set()
        return "waited"


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "you") -> str:
        return f"hello {name}"

    @strawberry.field
    async def wait(self, info: strawberry.Info, seconds: float) -> str:
        return await info.context.waiting.wait(seconds)

    @strawberry.field
    def fail(self, how: str) -> str | None:
        raise FAILURES[how]

    @strawberry.field
    async def fail_later(self, how: str) -> str | None:
        await asyncio.sleep(0)
        raise FAILURES[how]

    @strawberry.field
    def nothing(self) -> str:
        return None

    @strawberry.field
    def huge(self) -> int | None:
        return 2**40

    @strawberry.field
    def no_number(self) -> float | None:
        return float("nan")

    @strawberry.field
    def measure(self, size: Size = Size.SMALL) -> str:
        return size.value

    @strawberry.field
    def weird(self, weird: Weird) -> str:
        return str(weird)

    @strawberry.field
    def caller(self, info: strawberry.Info) -> str | None:
        return info.context.caller.subject


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def wait(self, info: strawberry.Info, seconds: float) -> str:
        return await info.context.waiting.wait(seconds)

    @strawberry.mutation
    def hello(self) -> str:
        return "hello"

    @strawberry.mutation
    async def give_up_place(self) -> str:
        place.give_up()
        return "given up"

    @strawberry.mutation
    def fail(self, how: str) -> str | None:
        raise FAILURES[how]


def schema():
    return strawberry.Schema(
        Query,
        Mutation,
        config=strawberry.schema.config.StrawberryConfig(
            scalar_map={Weird: strawberry.scalar(name="Weird", serialize=str, parse_value=parse_weird)}
        ),
    )._schema
