"""Runs an operation on both ways of execution and compares: graphql-core is right by definition."""

import asyncio
import re
from copy import copy, deepcopy
from dataclasses import dataclass, field

import orjson
from graphql import GraphQLError

from graphql_api.engine import Engine


@dataclass
class Context:
    """What resolvers find in `info.context`: a fresh one for each execution."""

    seed: int = 0
    loaders: dict = field(default_factory=dict)
    log: list = field(default_factory=list)


class Pair:
    """One schema on both ways of execution."""

    def __init__(self, schema, **options):
        self.engine = Engine(schema._schema, **options)

    async def both(self, query, variables=None, *, operation_name=None, seed=0, root=None):
        """What graphql-core and the compiled operation answer, in this order."""
        compiled = self.engine.prepare(query, operation_name)
        assert not isinstance(compiled, list), (query, compiled)
        by_core = copy(compiled)
        by_core._compiled = False
        return [await answer(operation, variables, Context(seed), root) for operation in (by_core, compiled)]

    async def agree(self, query, variables=None, *, exact=True, **options):
        """Compare both ways; where several failures null one parent, `exact=False` lets any of them be reported."""
        expected, actual = await self.both(query, variables, **options)
        told = f"{query}\n{variables} {options}\ngraphql-core: {expected}\ncompiled:     {actual}"
        assert actual.text == expected.text, told
        assert actual.executed == expected.executed, told
        assert actual.log == expected.log, told
        if exact:
            assert actual.errors == expected.errors, told
        assert not unexplained_errors(expected, actual), told
        return actual


@dataclass
class Answer:
    data: object
    executed: bool
    errors: set
    errors_left_out: int
    log: list

    @property
    def text(self):
        """The data as JSON: key order counts, and so does the difference between 1 and 1.0."""
        return orjson.dumps(self.data).decode()


async def answer(operation, variables, context, root=None):
    result = operation.execute(deepcopy(variables), context, root)
    if not isinstance(result, tuple):
        result = await asyncio.wait_for(result, 60)
    described_errors = list(map(described, result.errors or ()))
    assert len(set(described_errors)) == len(described_errors), "an error is reported twice"
    data = orjson.loads(orjson.dumps(result.data, default=repr))
    return Answer(data, result.executed, set(described_errors), result.errors_left_out, context.log)


def described(error: GraphQLError):
    """All that a client sees of an error, and what kind of exception it came from."""
    counted = re.compile(r"answered \d+ values for \d+ parents")
    return (
        tuple(error.path) if error.path is not None else None,
        counted.sub("answered n values for m parents", error.message),
        tuple((location.line, location.column) for location in error.locations or ()),
        orjson.dumps(error.extensions, default=repr, option=orjson.OPT_SORT_KEYS),
        type(error.original_error).__name__,
    )


def unexplained_errors(expected, actual):
    """Errors that only one side reports, though the place that they nulled has no other failure on the other side."""
    return [
        error
        for ours, others in ((expected.errors, actual.errors), (actual.errors, expected.errors))
        for error in ours - others
        if not any(is_below(other[0], nulled_by(error[0], expected.data)) for other in others)
    ]


def nulled_by(path, data):
    """The place above an error that became null because of it, None where the error stands for itself."""
    for length in range(len(path or ()) + 1):
        if data is None:
            return path[:length] if length < len(path) else None
        if length < len(path):
            data = data[path[length]]
    return None


def is_below(path, place):
    return place is not None and path is not None and len(path) > len(place) and path[: len(place)] == place
