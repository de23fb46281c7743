"""When a token that names an unknown key is worth a fetch of the keys: seldom for guesses, soon for a new key."""

from collections import OrderedDict

QUIET = 10.0  # seconds after a fetch that did not bring the key it was made for
RETRY = 1.0  # seconds after which a name that comes back may be one that was published in the meantime
MAX_NAMES = 10_000


class UnknownKeys:
    """Remembers which names were seen and asked for. Times are seconds of any one clock.

    The first unknown name is asked for at once. If that found nothing, others are not: thousands of guesses cost one
    fetch in ten seconds. A name that was not asked for and comes back a second later, as honest clients do and guesses
    do not, is asked for then, so that guessing does not keep a new key out. Each fetch answers for all names that were
    seen before it, for ten seconds. So the same unknown names, again and again, cost one fetch in ten seconds and a
    second one at the very first; names that are made up and sent twice cost one in a second.
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
        """The last fetch brought what it was made for: the next unknown name may be as good."""
        self._quiet_until = float("-inf")

    def _remember(self, key_id: str, may_be_asked_for: float) -> None:
        if key_id not in self._again and len(self._again) >= MAX_NAMES:
            self._again.popitem(last=False)
        self._again.setdefault(key_id, may_be_asked_for)
