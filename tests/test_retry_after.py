"""How long a `Retry-After` asks to wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from graphql_api.retry_after import retry_after_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 20 ", 20),
        ("20.5", 20.5),
        ("1" + "0" * 22, 1e22),
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


def test_a_date_asks_to_wait_until_then():
    value = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < retry_after_seconds(value) <= 3600
