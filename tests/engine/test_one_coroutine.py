"""An operation as one generated coroutine answers as it does in steps: the same bytes and errors.

The order of errors is left open: the same execution, repeated, gives more than one. If several
failures null the same parent, either form may report any of them: the specification does not say which (6.4.4,
"Handling Execution Errors").
"""

import ast
import os
import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from graphql import FragmentDefinitionNode, OperationDefinitionNode, Visitor, parse, print_ast, visit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphql_api.engine import Engine, generate
from graphql_api.engine.cache import SharedCache
from graphql_api.schema import build_schema
from tests.engine.documents import requests
from tests.engine.hostile import SCHEMA
from tests.engine.oracle import Context, answer, unexplained_errors

EXAMPLES = int(os.environ.get("ENGINE_EXAMPLES", "100"))
ENGINE = Engine(SCHEMA._schema, max_documents=10)
README = Path(generate.__file__).with_name("README.md")


class _Names(Visitor):
    def __init__(self):
        super().__init__()
        self.variables, self.fragments = set(), set()

    def enter_variable(self, node, *_):
        self.variables.add(node.name.value)

    def enter_fragment_spread(self, node, *_):
        self.fragments.add(node.name.value)


def alone(document, selection):
    """The operation with this selection alone, and what that needs."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    [operation] = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    names, known = _Names(), set()
    visit(selection, names)
    while missing := names.fragments - known:
        for name in missing:
            known.add(name)
            visit(fragments[name], names)
    operation = replace(
        operation,
        selection_set=replace(operation.selection_set, selections=(selection,)),
        variable_definitions=tuple(
            each for each in operation.variable_definitions or () if each.variable.name.value in names.variables
        ),
    )
    return "\n".join(map(print_ast, [operation, *(fragments[name] for name in sorted(known))]))


def operations_of(query):
    """An operation for each of the root fields."""
    document = parse(query)
    [operation] = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    return [alone(document, selection) for selection in operation.selection_set.selections]


async def both(query, variables, seed):
    """What is answered in steps and by one coroutine; None if the operation is not one coroutine."""
    operation = ENGINE.prepare(query)
    if isinstance(operation, list):  # a variable may have been used in a place that is gone now
        return None
    in_steps = copy(operation)
    in_steps._program = None
    in_steps._variants = SharedCache(1, 1)
    with patch.object(generate, "only_awaited", lambda _: None):
        before = await answer(in_steps, variables, Context(seed))
    after = await answer(operation, variables, Context(seed))
    return (before, after) if "async def answer" in operation.source else None


def assert_alike(before, after, told):
    assert after.text == before.text, told
    assert not unexplained_errors(before, after), told
    assert (after.errors_left_out, after.log) == (before.errors_left_out, before.log), told


@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter)")
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=requests(SCHEMA._schema), seed=st.integers(0, 2**16))
async def test_an_operation_answers_alike_as_one_coroutine_and_in_steps(collect, request, seed):
    if isinstance(ENGINE.prepare(request.query), list):
        return
    for query in operations_of(request.query):
        found = await both(query, request.variables, seed)
        if found is not None:
            assert_alike(*found, (query, request.variables, seed))
    collect()


BY_KEY = [
    "{ firsts { leaves { name size } } }",
    "{ firsts { opt leaves(first: 0) { size } number } }",
    "{ first { all: leaves(first: 3) { __typename name } } }",
    "{ first { leaves { __typename color } } }",
    "{ things { ... on First { leaves { color } } } }",
    "query ($n: Int!) { firsts { leaves(first: $n) { name } } }",
]


@pytest.mark.filterwarnings("ignore:coroutine '(Executor|GraphQLCoreConverter)")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=st.sampled_from(BY_KEY), seed=st.integers(0, 2**16))
async def test_what_is_loaded_by_key_is_what_the_batch_function_answers(query, seed):
    assert_alike(*await both(query, {"n": 2}, seed), (query, seed))


PRINTED = re.findall(
    r"^# ((?:query|mutation) [^\n]*)\n(async def answer.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE
)
VARIABLES = {
    "users": [],
    "g": "STRIPE",
    "c": "cus_1",
    "input": {"userId": "u", "gateway": "STRIPE", "gatewayCustomerId": "cus_1"},
}


@pytest.mark.parametrize(("query", "source"), PRINTED)
async def test_the_page_prints_what_is_generated(query, source):
    operation = Engine(build_schema()._schema).prepare(query)
    operation.execute({name: VARIABLES[name] for name in re.findall(r"\$(\w+):", query)}, None).close()
    generated = operation.source[operation.source.index("async def answer") :]
    assert ast.unparse(ast.parse(generated)) == ast.unparse(ast.parse(source))  # whatever its line breaks


def test_the_page_prints_three_operations():
    assert len(PRINTED) == 3
