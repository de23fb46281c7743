"""The header `Retry-After` of an HTTP response (RFC 9110, 10.2.3)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
_MAX_SECONDS = 1e9  # 32 years: to wait for longer makes no difference


def retry_after_seconds(value: str | None) -> float | None:
    """The seconds that it asks to wait, by a number or a date, and at most 1e9 of them.

    None if there is none, or it cannot be understood.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value := value.strip()):
        return min(float(value), _MAX_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), _MAX_SECONDS)
