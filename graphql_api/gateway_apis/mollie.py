"""Mollie's API (https://docs.mollie.com/reference/get-customer, https://docs.mollie.com/reference/handling-errors).

Mollie tells a deleted customer (410) from an unknown one (404). It has no list of deletions.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

from graphql_api.gateway_apis.answers import Answer, DeletionPage, Reply, Request, Verdict


class Mollie:
    """See `GatewayAPI`.

    Args:
        is_test: whether the gateway is in test mode
    """

    name = "Mollie"
    base_url = "https://api.mollie.com"
    rate = 5.0  # Mollie names no limit
    keeps_deletions = timedelta(0)
    permissions = "an API key of the profile"

    def __init__(self, *, is_test: bool) -> None:
        self._mode = "test" if is_test else "live"

    def headers(self, key: str) -> Mapping[str, str]:
        """See `GatewayAPI`."""
        return {"Authorization": f"Bearer {key}"}

    def probes(self) -> list[Request]:
        """See `GatewayAPI`."""
        return [Request("/v2/customers", {"limit": "1"})]

    def customer(self, customer: str) -> Request:
        """See `GatewayAPI`."""
        return Request(f"/v2/customers/{quote(customer, safe='')}")

    def read_customer(self, reply: Reply, customer: str) -> Answer:
        """See `GatewayAPI`."""
        match reply:
            case Reply(200, {"resource": "customer", "id": str(found), "mode": str(mode)}) if found == customer:
                return Answer(Verdict.EXISTS if mode == self._mode else Verdict.WRONG_MODE)
            case Reply(410, {"status": 410}):
                return Answer(Verdict.GONE)
            case Reply(404, {"status": 404}) | Reply(400, {"status": 400}):
                return Answer(Verdict.UNKNOWN)
            case _:
                return Answer(Verdict.OUTAGE, f"an unexpected answer with status {reply.status}")

    def read_deleted(self, reply: Reply, customer: str) -> Answer:
        """See `GatewayAPI`."""
        return Answer(Verdict.GONE) if reply.status == 204 else self.read_customer(reply, customer)  # noqa: PLR2004

    def deletions(self, since: datetime, after: str | None) -> Request:
        """Mollie has no such list.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def read_deletions(self, reply: Reply) -> DeletionPage | Answer:
        """Mollie has no such list.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError
