from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.filter import TokenFilter
from graphql_api.storage.selects import FILTERS

NAMES = [field.name for field in fields(TokenFilter)]


@given(st.dictionaries(st.sampled_from(NAMES), st.booleans() | st.just("")))
def test_conditions_are_what_is_set_in_the_order_of_the_fields(given_conditions):
    conditions = TokenFilter(**given_conditions).conditions()
    assert conditions == given_conditions
    assert [*conditions] == sorted(conditions, key=NAMES.index)


def test_every_condition_is_a_comparison_in_sql():
    assert {*NAMES} == {*FILTERS}
