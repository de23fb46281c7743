"""The gateway's latest word counts: a function of the set of reports, as two sentences say it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.facts import NO_FACTS, Facts

BASE = datetime(2026, 11, 22, tzinfo=UTC)
# Gateways report whole seconds; what we decide is dated in between.
reports = st.tuples(st.sampled_from(["gone_at", "exists_at"]), st.integers(0, 5))
decisions = st.tuples(st.just("activated_at"), st.sampled_from([number + 0.25 for number in range(6)]))
sets = st.lists(reports | decisions, max_size=6)


def at(seconds):
    return BASE + timedelta(seconds=seconds)


def joined(some):
    known = NO_FACTS
    for name, seconds in some:
        known = known.joined(Facts(**{name: at(seconds)}))
    return known


def state(facts):
    return facts.is_gone, facts.gone_at if facts.is_gone else None, *facts[1:]


@given(sets.flatmap(lambda some: st.tuples(*[st.permutations([*some, *some[:2]])] * 2)))
def test_order_and_repetition_do_not_matter(orders):
    one, other = map(joined, orders)
    assert state(one) == state(other)


@given(sets)
def test_a_customer_is_gone_if_nothing_later_says_otherwise(some):
    gone = max((seconds for name, seconds in some if name == "gone_at"), default=None)
    later = [name for name, seconds in some if gone is not None and seconds >= gone + 1 and name != "gone_at"]
    assert joined(some).is_gone is (gone is not None and not later)


@given(*[sets] * 3)
def test_what_is_known_at_several_places_is_joined_in_any_way(one, two, three):
    a, b, c = map(joined, (one, two, three))
    joins = [a.joined(b).joined(c), a.joined(b.joined(c)), joined([*three, *one, *two])]
    assert len({state(facts) for facts in joins}) == 1


@given(sets, st.integers(0, 23).map(lambda quarters: quarters / 4))
def test_an_activation_outdates_what_is_known_and_its_repetition(some, seconds):
    known = joined(some)
    active = known.joined(Facts(activated_at=known.activation(at(seconds))))
    for name, second in some:
        assert not active.joined(Facts(**{name: at(second)})).is_gone


@pytest.mark.parametrize(
    ("gone", "is_gone"), [(4, False), (5, True), (5.1, False), (5.5, True), (5.75, True), (6, True)]
)
def test_a_deletion_in_the_second_of_an_activation_that_did_not_know_it_counts(gone, is_gone):
    assert Facts(activated_at=at(5.5)).joined(Facts(gone_at=at(gone))).is_gone is is_gone
