"""How values of the contract's scalars are written."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from graphql_api.schema.scalars import written

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
FIRST, LAST = (datetime(*day) for day in ((1, 1, 2), (9999, 12, 30)))  # noqa: DTZ001 - Hypothesis adds the zone
INSTANTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC) | OFFSETS)


@given(INSTANTS)
@example(datetime(1, 1, 2, tzinfo=UTC))
@example(datetime(987, 6, 5, 4, 3, 2, 1, tzinfo=UTC))
@example(datetime(2026, 11, 27, 12, 0, 0, 100_000, tzinfo=UTC))
def test_an_instant_is_written_in_utc_with_six_digits_of_its_second(instant):
    at = instant.astimezone(UTC)
    assert written(instant) == f"{at:%Y}".zfill(4) + f"-{at:%m-%dT%H:%M:%S.%f}+00:00"
