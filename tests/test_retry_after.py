"""How long a `Retry-After` asks to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.retry_after import retry_after_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 20 ", 20),
        ("20.5", 20.5),
        ("1" + "0" * 22, 1e9),
        ("9" * 400, 1e9),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9),
        ("Tue, 01 Dec 2026 04:47:22 +99999999999999999999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("soon", None),
        ("٣", None),
    ],
)
def test_a_number_is_taken_as_it_is_and_what_is_none_is_left(value, seconds):
    assert retry_after_seconds(value) == seconds


WORDS = st.sampled_from(
    ["Tue,", "01", "Dec", "2026", "0", "04:47:22", "99:99:99", "GMT", ",", ":", "-", "+9999999999", "9" * 30]
)


@given(st.lists(WORDS | st.text(max_size=5), max_size=7).map(" ".join))
def test_whatever_it_says_it_is_a_number_of_seconds_or_none(value):
    seconds = retry_after_seconds(value)
    assert seconds is None or 0 <= seconds <= 1e9


def test_a_date_asks_to_wait_until_then():
    value = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < retry_after_seconds(value) <= 3600
