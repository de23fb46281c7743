"""The gateway's latest word counts: whether a customer is alive, whatever order the reports arrive in.

For each customer id three times are kept, whoever has, had or will have it; of each kind only the latest:

- `gone_at`: the gateway said that the customer is gone (`GATEWAY_DELETED`),
- `exists_at`: the gateway said that the customer exists (a verification),
- `activated_at`: we decided that the inactive token may be used (an activation). Creating a token decides nothing.

The customer is gone if `gone_at` is older than neither of the other two. Then its token is inactive since `gone_at`,
with the reason `GATEWAY_DELETED`; otherwise it is active. A token that is inactive for a reason of our own stays so.

Only the latest time of each kind counts, so the state is a function of the *set* of reports: any order, any repetition,
before or after the token exists.
"""

from datetime import datetime
from typing import NamedTuple


class Facts(NamedTuple):
    """What is known of a customer id. Times are aware and in UTC; None if there was no such report."""

    gone_at: datetime | None = None
    exists_at: datetime | None = None
    activated_at: datetime | None = None

    def joined(self, other: "Facts") -> "Facts":
        """What is known from both: the latest of each kind."""
        return Facts(*(max(filter(None, pair), default=None) for pair in zip(self, other, strict=True)))

    @property
    def is_gone(self) -> bool:
        """Whether neither the gateway nor we said since that the customer may be used."""
        gone_at = self.gone_at
        return gone_at is not None and all(at is None or at <= gone_at for at in self[1:])


NO_FACTS = Facts()
