"""Mollie's API (https://docs.mollie.com/reference/get-customer, https://docs.mollie.com/reference/handling-errors).

Mollie tells a deleted customer (410) from an unknown one (404). It has no list of deletions.
"""

from urllib.parse import quote

from graphql_api.gateway_apis.answers import Answer, APIRequest, GatewayAPI, Reply, Verdict, unexpected


class Mollie(GatewayAPI):
    """See `GatewayAPI`."""

    name = "Mollie"
    base_url = "https://api.mollie.com"
    rate = 5.0  # Mollie names no limit
    permissions = "an API key of the profile"

    def probes(self) -> list[APIRequest]:
        return [APIRequest("/v2/customers", {"limit": "1"})]

    def customer(self, customer: str) -> APIRequest:
        return APIRequest(f"/v2/customers/{quote(customer, safe='')}")

    def read_customer(self, reply: Reply, customer: str) -> Answer:
        match reply:
            case Reply(200, {"resource": "customer", "id": str(found), "mode": str(mode)}) if found == customer:
                is_ours = mode == ("test" if self.is_test else "live")
                return Answer(Verdict.EXISTS if is_ours else Verdict.WRONG_MODE)
            case Reply(410, {"status": 410}):
                return Answer(Verdict.GONE)
            case Reply(404, {"status": 404}) | Reply(400, {"status": 400}):
                return Answer(Verdict.UNKNOWN)
            case _:
                return unexpected(reply)

    def read_deleted(self, reply: Reply, customer: str) -> Answer:
        return Answer(Verdict.GONE) if reply.status == 204 else self.read_customer(reply, customer)  # noqa: PLR2004
