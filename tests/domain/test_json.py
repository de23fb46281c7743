"""When two JSON values are the same, and when Python only takes them for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.json import is_same_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_a_json_value_is_the_same_as_its_copy_in_any_order(value):
    def turned(part):
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(list(part))}
        return [turned(each) for each in part] if isinstance(part, list) else part

    assert is_same_json(value, turned(value))


def with_doubles(value):
    return json.loads(json.dumps(value), parse_int=float)


@given(json_values, json_values)
def test_json_values_are_the_same_where_their_text_is(one, other):
    def text(value):
        return json.dumps(value, sort_keys=True)

    if text(one) == text(other):
        assert is_same_json(one, other)
    elif is_same_json(one, other):
        assert with_doubles(one) == with_doubles(other)  # 1 and 1.0 are one number
        assert ("true" in text(one)) == ("true" in text(other))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (True, 1, False),
        ({"a": True}, {"a": 1}, False),
        ([0], [False], False),
        (1, 1.0, True),
        (6.656962598120811e16, 66569625981208110, True),
        (66569625981208110, 6.656962598120811e16, True),
        (2**53, 2**53 + 1, False),
        (1, 1.5, False),
        ("1.0", 1.0, False),
        ({"a": None}, {}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({}, [], False),
        ("", None, False),
    ],
)
def test_json_values_that_python_takes_for_equal_may_differ(one, other, same):
    assert is_same_json(one, other) is same
