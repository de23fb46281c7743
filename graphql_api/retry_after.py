"""The header `Retry-After` of an HTTP response (RFC 9110, 10.2.3)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_seconds(value: str | None) -> float | None:
    """The seconds that it asks to wait, by a number or a date; None if there is none, or it cannot be understood."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value := value.strip()):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
