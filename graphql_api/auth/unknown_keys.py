"""Decides when a token with an unknown key id is worth a fetch: seldom for guesses, soon for a new key."""

from collections import OrderedDict

QUIET = 10.0  # seconds after a fetch that did not bring the key it was made for
RETRY = 1.0  # seconds after which a name that comes back may be one that was published in the meantime
MAX_NAMES = 10_000


class UnknownKeys:
    """Remembers unknown key ids and the fetches for them. Times are seconds of one monotonic clock.

    The first unknown id is fetched at once. If the fetch does not bring it, others have to wait: thousands of guesses
    cost one fetch in ten seconds. An id that comes back a second later, as those of real clients do and guesses do not,
    is fetched then, so that guesses do not keep a new key out. A fetch answers for all ids seen before it, for ten
    seconds. So the same unknown ids cost one fetch in ten seconds, and one more at the start; made-up ids that are
    sent twice cost one fetch per second.
    """

    def __init__(self) -> None:
        self._quiet_until = float("-inf")
        self._again: OrderedDict[str, float] = OrderedDict()  # name → when it may be asked for

    def worth_a_fetch(self, key_id: str, now: float) -> bool:
        """Whether to fetch for this key id now. A True counts as a fetch."""
        if now < self._again.get(key_id, self._quiet_until):
            self._remember(key_id, now + RETRY)
            return False
        self._remember(key_id, now)
        self._quiet_until = now + QUIET
        self._again = OrderedDict.fromkeys(self._again, now + QUIET)
        return True

    def found(self) -> None:
        """Record that the last fetch brought the key it was made for, so that the next unknown id may be real too."""
        self._quiet_until = float("-inf")

    def _remember(self, key_id: str, may_be_asked_for: float) -> None:
        if key_id not in self._again and len(self._again) >= MAX_NAMES:
            self._again.popitem(last=False)
        self._again.setdefault(key_id, may_be_asked_for)
