"""A request costs what its length allows, whatever it holds and whoever sends it: at most 50 ms and 1 µs a byte."""

from dataclasses import replace

import pytest

from tests.costs.cases import CASES
from tests.costs.conftest import allowed_seconds

MAX_GROWTH = 2.5  # times that of the size: what is quadratic grows by that of the size again, which is four at least
BY_EITHER = {
    "users that may not be read",
    "others' lists",
    "others' tokens",
    "others' tokens at a malformed gateway",
    "ids of users",
}
NEGLIGIBLE_SECONDS = 0.02  # what is there anyway, and no measure of growth


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_request_costs_no_more_than_its_length_allows(cost, case):
    await costs_what_it_may(cost, case)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in BY_EITHER], ids=lambda case: case.name)
async def test_neither_does_one_that_graphql_core_runs(cost_by_core, case):
    await costs_what_it_may(cost_by_core, case)


async def test_many_entities_cost_no_more_for_callers_without_an_access_token(cost):
    (case,) = [case for case in CASES if case.name == "ids of users"]
    size = case.sizes[-1]
    of_nobody, of_service = [(await cost(replace(case, caller=caller), size))[0] for caller in (None, "service")]
    assert of_nobody <= 3 * max(of_service, NEGLIGIBLE_SECONDS)


async def costs_what_it_may(cost, case):
    (small, small_size), (large, large_size) = [await cost(case, size) for size in case.sizes]
    assert large <= allowed_seconds(large_size), f"{large:.3f} s of CPU for {large_size:,} bytes"
    growth, of_size = large / max(small, NEGLIGIBLE_SECONDS), max(large_size / small_size, 1)
    assert growth <= MAX_GROWTH * of_size, f"{small:.3f} s for {small_size:,} bytes, {large:.3f} s for {large_size:,}"
