"""Variables coerced the short way are the same as graphql-core makes them, and so are the errors."""

import pytest
from graphql import Undefined, parse
from graphql.execution.values import get_variable_values
from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.engine.values import Variables
from tests.engine.library import SCHEMA as LIBRARY

SCHEMA = LIBRARY._schema
TYPES = [
    "String",
    "String!",
    "ID",
    "ID!",
    "Int",
    "Int!",
    "Float",
    "Float!",
    "Boolean",
    "Boolean!",
    "Genre",
    "Genre!",
    "Date",
    "JSON!",
    "[Int]",
    "[Int!]!",
    "[[Int!]]",
    "[Genre!]",
    "[JSON]",
    "Range",
    "Range!",
    "[Range!]",
    "Search",
    "OneOf",
]
DEFAULTS = [
    "",
    " = null",
    ' = "text"',
    " = 5",
    " = true",
    " = POETRY",
    " = [1]",
    " = {low: 2}",
    ' = "2020-01-01"',
    " = {}",
]
KEYS = ["low", "high", "text", "genres", "range", "nothing", "exact", "on", "like", "a", "b", "unknown"]

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 1.0, 1.5, float("nan"), float("inf")]),
    st.sampled_from(["", "text", "5", "POETRY", "NATURAL_SCIENCE", "SCIENCE", "2020-01-01"]),
    st.just(Undefined),
)
inputs = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


def told(outcome):
    if isinstance(outcome, list):
        return [(error.message, error.locations) for error in outcome]
    return repr(outcome)


def both(type_, default, values):
    node = parse(f"query ($v: {type_}{default}) {{ plain }}").definitions[0]
    expected = get_variable_values(SCHEMA, node.variable_definitions, values, max_errors=50)
    variables = Variables(SCHEMA, node, suggestions=True)
    expected = variables.told(expected) if isinstance(expected, list) else expected.coerced
    return told(expected), told(variables.coerce(values))


@settings(deadline=None, max_examples=300)
@given(type_=st.sampled_from(TYPES), default=st.sampled_from(DEFAULTS), value=inputs)
def test_any_value_for_a_variable_becomes_what_graphql_core_makes_of_it(type_, default, value):
    for values in ({"v": value}, {}):
        expected, actual = both(type_, default, values)
        assert actual == expected


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("default", DEFAULTS)
def test_a_default_is_used_as_by_graphql_core(type_, default):
    for values in ({}, {"v": None}, {"v": Undefined}):
        expected, actual = both(type_, default, values)
        assert actual == expected


def test_an_input_that_is_no_subclass_of_str_stays_what_it_is():
    class Text(str):
        __slots__ = ()

    expected, actual = both("String", "", {"v": Text("t")})
    assert actual == expected


def test_a_type_that_is_no_input_is_refused():
    expected, actual = both("Book", "", {"v": None})
    assert "cannot be used as an input type" in expected[0][0]
    assert actual == expected


@pytest.mark.parametrize("value", [{}, {"high": None}, {"low": None}, {"low": 1, "high": 2, "unknown": 3}])
def test_a_field_that_is_left_out_is_not_null(value):
    expected, actual = both("Range", "", {"v": value})
    assert actual == expected


def test_values_that_are_taken_the_short_way_are_no_errors():
    node = parse("query ($v: Range!, $w: [Genre!]) { plain }").definitions[0]
    coerced = Variables(SCHEMA, node, suggestions=True).coerce({"v": {"high": 3}, "w": ["POETRY"], "x": 1})
    assert coerced == {"v": {"low": 0, "high": 3}, "w": [next(iter(type(coerced["w"][0])))]}
