"""When an unknown name is worth a fetch: seldom for guesses, soon for a new key."""

from hypothesis import given, settings
from hypothesis import strategies as st

from graphql_api.auth.unknown_keys import MAX_NAMES, QUIET, RETRY, UnknownKeys

at_leisure = settings(deadline=None)  # what a busy machine takes for one example says nothing
moments = st.floats(min_value=0, max_value=QUIET, exclude_max=True)


@at_leisure
@given(st.lists(moments, min_size=1, max_size=50))
def test_a_thousand_guesses_cost_one_fetch_in_ten_seconds(times):
    unknown = UnknownKeys()
    start = min(times)

    fetches = [
        unknown.worth_a_fetch(f"guess-{moment}-{number}", moment)
        for moment in sorted(times)
        for number in range(1000 // len(times))
    ]

    assert sum(fetches) == 1
    assert unknown.worth_a_fetch("later", start + QUIET)


@at_leisure
@given(st.lists(moments, min_size=1, max_size=50))
def test_one_name_costs_one_fetch_in_ten_seconds_however_often_it_comes(times):
    unknown = UnknownKeys()

    assert sum(unknown.worth_a_fetch("guess", moment) for moment in sorted(times)) == 1


def test_a_new_key_is_asked_for_within_two_seconds_amid_guesses():
    unknown = UnknownKeys()
    asked = []
    for tick in range(100):
        moment = tick / 10
        for number in range(50):
            unknown.worth_a_fetch(f"guess-{tick}-{number}", moment)
        if tick >= 30 and unknown.worth_a_fetch("new", moment):
            asked.append(moment)

    assert asked == [3.0 + RETRY]


def test_names_that_were_not_there_are_not_asked_for_again_with_the_next_fetch():
    unknown = UnknownKeys()
    assert unknown.worth_a_fetch("first", 0)
    assert not unknown.worth_a_fetch("second", 0.5)
    assert unknown.worth_a_fetch("second", 0.5 + RETRY)

    assert not unknown.worth_a_fetch("first", 0.5 + 3 * RETRY)
    assert not unknown.worth_a_fetch("second", 0.5 + 3 * RETRY)


def test_a_key_that_was_found_leaves_the_next_unknown_name_its_fetch():
    unknown = UnknownKeys()
    assert unknown.worth_a_fetch("new", 0)
    unknown.found()

    assert unknown.worth_a_fetch("newer", 0.1)
    assert not unknown.worth_a_fetch("guess", 0.2)


def test_a_key_that_was_found_leaves_names_that_were_not_there_no_fetch():
    unknown = UnknownKeys()
    assert unknown.worth_a_fetch("guess", 0)
    assert not unknown.worth_a_fetch("new", 0.1)
    assert unknown.worth_a_fetch("new", 0.1 + RETRY)
    unknown.found()

    assert not unknown.worth_a_fetch("guess", 0.2 + RETRY)


def test_guesses_are_not_remembered_without_bound():
    unknown = UnknownKeys()
    for number in range(3 * MAX_NAMES):
        unknown.worth_a_fetch(f"guess-{number}", 0)

    assert len(unknown._again) <= MAX_NAMES
    assert unknown.worth_a_fetch(f"guess-{3 * MAX_NAMES - 1}", RETRY)


def test_the_same_names_again_and_again_cost_one_fetch_in_ten_seconds():
    unknown = UnknownKeys()
    ticks = [tick / 10 for tick in range(400)]

    fetches = [moment for moment in ticks for name in "abcd" if unknown.worth_a_fetch(name, moment)]

    # The first name was not seen before; the others may be new keys, and were seen before the second fetch.
    assert fetches == [0, RETRY, RETRY + QUIET, RETRY + 2 * QUIET, RETRY + 3 * QUIET]


def test_a_new_key_is_asked_for_within_two_seconds_amid_names_that_come_again_and_again():
    unknown = UnknownKeys()
    asked = []
    for tick in range(250):
        moment = tick / 10
        for name in "abcd":
            unknown.worth_a_fetch(name, moment)
        if tick >= 150 and unknown.worth_a_fetch("new", moment):
            asked.append(moment)

    assert asked[0] == 15 + RETRY
