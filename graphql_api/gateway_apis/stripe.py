"""Stripe's API (https://docs.stripe.com/api/customers, https://docs.stripe.com/api/events).

It is asked by plain HTTP: Stripe's library neither heeds `Retry-After` nor shows it.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from graphql_api.gateway_apis.answers import (
    Answer,
    APIRequest,
    Deletion,
    DeletionPage,
    GatewayAPI,
    Reply,
    Verdict,
    deletion,
    unexpected,
)

_PAGE = 100
_EVENT_ID = re.compile(r"evt_[0-9A-Za-z]{1,64}")
_OTHER_MODE = "a similar object exists in"  # Stripe says which mode after that


class Stripe(GatewayAPI):
    """See `GatewayAPI`; the account is a connected one."""

    name = "Stripe"
    base_url = "https://api.stripe.com"
    rate = 20.0  # https://docs.stripe.com/rate-limits: 25 for one endpoint
    keeps_deletions = timedelta(days=30)  # https://docs.stripe.com/api/events
    permissions = "Customers: Read (Write to purge) and Events: Read"

    def headers(self, key: str) -> Mapping[str, str]:
        account = {} if self.account is None else {"Stripe-Account": self.account}
        return {**super().headers(key), **account}

    def probes(self) -> list[APIRequest]:
        return [APIRequest("/v1/customers", {"limit": "1"}), APIRequest("/v1/events", {"limit": "1"})]

    def customer(self, customer: str) -> APIRequest:
        return APIRequest(f"/v1/customers/{quote(customer, safe='')}")

    def read_customer(self, reply: Reply, customer: str) -> Answer:
        """See `GatewayAPI`: a deleted customer is found, and says so."""
        match reply:
            case Reply(200, {"object": "customer", "id": str(found), "deleted": True}) if found == customer:
                return Answer(Verdict.GONE)
            case Reply(200, {"object": "customer", "id": str(found)} as body) if found == customer:
                return self._mode(body) or Answer(Verdict.EXISTS)
            case Reply(404, {"error": {"code": "resource_missing", "message": str(message)}}):
                return Answer(Verdict.WRONG_MODE if _OTHER_MODE in message else Verdict.UNKNOWN)
            case Reply(400, {"error": {}}):  # no customer can have this id
                return Answer(Verdict.UNKNOWN)
            case _:
                return unexpected(reply)

    def read_deleted(self, reply: Reply, customer: str) -> Answer:
        """See `GatewayAPI`: a customer that was deleted before is unknown to DELETE, and found by GET."""
        return self.read_customer(reply, customer)

    def deletions(self, since: datetime, after: str | None) -> APIRequest:
        """See `GatewayAPI`: events, the newest first."""
        query = {"type": "customer.deleted", "created[gte]": str(int(since.timestamp())), "limit": str(_PAGE)}
        return APIRequest("/v1/events", query if after is None else {**query, "starting_after": after})

    def read_deletions(self, reply: Reply) -> DeletionPage | Answer:
        match reply:
            case Reply(200, {"object": "list", "data": list(events), "has_more": bool(has_more)}):
                pass
            case _:
                return unexpected(reply)
        if has_more and not events:
            return Answer(Verdict.OUTAGE, "a page without events before the end of the list")
        deletions: list[Deletion] = []
        last: str | None = None
        for event in events:
            match event:
                case {
                    "id": str(last),
                    "type": "customer.deleted",
                    "created": created,
                    "data": {"object": {"object": "customer", "id": customer}},
                } if found := deletion(customer, created):
                    if wrong := self._mode(event):
                        return wrong
                    if self._is_ours(event):
                        deletions.append(found)
                case _:
                    return Answer(Verdict.OUTAGE, f"the malformed event {_event_id(event)}")
        return DeletionPage(deletions, last if has_more else None)

    def _is_ours(self, event: Mapping[str, Any]) -> bool:
        """Whether an event names no other account than the one that is asked."""
        return all(event.get(name) in {None, self.account} for name in ("account", "context"))

    def _mode(self, body: Mapping[str, Any]) -> Answer | None:
        is_other = body.get("livemode") is self.is_test
        return Answer(Verdict.WRONG_MODE) if is_other else None


def _event_id(event: Any) -> str:
    """The id of an event for a message. It is quoted only if it has the form of one."""
    found = event.get("id") if isinstance(event, dict) else None
    return found if isinstance(found, str) and _EVENT_ID.fullmatch(found) else "without a valid id"
