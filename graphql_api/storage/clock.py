"""The database's time, also between its answers."""

from datetime import UTC, datetime
from time import time

# Without an answer for so long, the time is not known any more: a clock may have been set, or a machine stood still.
_KNOWN_SECONDS = 5.0


class DatabaseClock:
    """Knows the database's time as exactly as its answers take, by the clock of this machine in between."""

    def __init__(self) -> None:
        self._ahead = 0.0  # how many seconds the database's clock is ahead of ours
        self._set_at = 0.0

    def now(self) -> datetime | None:
        """The time; None if it is not known."""
        seconds = time()
        if not 0 <= seconds - self._set_at < _KNOWN_SECONDS:
            return None
        return datetime.fromtimestamp(seconds + self._ahead, UTC)

    def set(self, now: datetime, asked_at: float) -> None:
        """The database said this time at some moment since then, by this machine's clock (`time.time`)."""
        self._set_at = time()
        seconds = now.timestamp()
        self._ahead = min(max(self._ahead, seconds - self._set_at), seconds - asked_at)
