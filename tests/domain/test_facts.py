"""The gateway's latest word counts: a function of the set of reports, as two sentences say it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from graphql_api.domain.facts import NO_FACTS, Facts

BASE = datetime(2026, 11, 22, tzinfo=UTC)
reports = st.tuples(st.sampled_from(Facts._fields), st.integers(0, 5))


def joined(some):
    known = NO_FACTS
    for name, seconds in some:
        known = known.joined(Facts(**{name: BASE + timedelta(seconds=seconds)}))
    return known


@given(st.lists(reports, max_size=6).flatmap(lambda some: st.tuples(*[st.permutations([*some, *some[:2]])] * 2)))
def test_order_and_repetition_do_not_matter(orders):
    one, other = map(joined, orders)
    assert one == other


@given(st.lists(reports, max_size=6))
def test_a_customer_is_gone_if_nothing_later_says_otherwise(some):
    gone = max((at for name, at in some if name == "gone_at"), default=None)
    later = [at for name, at in some if name != "gone_at" and gone is not None and at > gone]
    assert joined(some).is_gone is (gone is not None and not later)


@given(*[st.lists(reports, max_size=4)] * 3)
def test_what_is_known_at_several_places_is_joined_in_any_way(one, two, three):
    a, b, c = map(joined, (one, two, three))
    assert a.joined(b).joined(c) == a.joined(b.joined(c)) == joined([*three, *one, *two])
