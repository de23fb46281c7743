"""The gateway's latest word counts: whether a customer is alive, whatever order the reports arrive in.

Three times are kept for each customer id, regardless of who has, had or will have it, and only the latest of each:

- `gone_at`: the gateway said that the customer is gone (`GATEWAY_DELETED`),
- `exists_at`: the gateway said that the customer exists (a verification),
- `activated_at`: we decided that the customer may be used (an activation). Creating a token decides nothing.

The customer is gone if `gone_at` is older than neither of the other two. Then its token is inactive since `gone_at`,
with the reason `GATEWAY_DELETED`; otherwise it is active. A token that is inactive for a reason of our own stays so.

Only the latest time of each kind counts, so the state is a function of the *set* of reports: any order, any repetition,
before or after the token exists.

Gateways date their events by whole seconds, and we our activations by microseconds. A deletion in the second of an
activation happened after it, unless it was known then: an activation is dated after every deletion that is known.
"""

from datetime import datetime, timedelta
from typing import NamedTuple


class Facts(NamedTuple):
    """What is known of a customer id. Times are aware and in UTC; None if there was no such report."""

    gone_at: datetime | None = None
    exists_at: datetime | None = None
    activated_at: datetime | None = None

    def joined(self, other: "Facts") -> "Facts":
        """What is known from both: the latest of each kind."""
        activated_at = _latest(self.activated_at, other.activated_at)
        gone_at = _latest(*(_by_the_microsecond(each.gone_at, activated_at) for each in (self, other)))
        return Facts(gone_at, _latest(self.exists_at, other.exists_at), activated_at)

    @property
    def is_gone(self) -> bool:
        """Whether neither the gateway nor we said since that the customer may be used."""
        gone_at = self.gone_at
        return gone_at is not None and all(at is None or at <= gone_at for at in self[1:])

    def activation(self, now: datetime) -> datetime:
        """The time of an activation that is decided now, which outdates every deletion that is known."""
        gone_at = self.gone_at
        if gone_at is None:
            return now
        is_of_a_second = not gone_at.microsecond or gone_at == self.activated_at
        return max(now, gone_at.replace(microsecond=0) + _SECOND if is_of_a_second else gone_at + _TICK)


NO_FACTS = Facts()
_TICK = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


def _latest(*times: datetime | None) -> datetime | None:
    return max(filter(None, times), default=None)


def _by_the_microsecond(gone_at: datetime | None, activated_at: datetime | None) -> datetime | None:
    """When a deletion happened at the latest, if it is dated by the second of the activation."""
    if gone_at is None or activated_at is None or gone_at.microsecond:
        return gone_at
    return activated_at if gone_at < activated_at and activated_at - gone_at < _SECOND else gone_at
