"""A purge: deletes at the gateway the customers of erased users, and confirms each, one after another.

A customer that a user has is never deleted: this is checked once more right before the request. A customer that
the gateway does not know may be another account's, so it counts as deleted only if that is wanted and the account is
shown to be the right one.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from graphql_api.domain.caller import ADMIN_SCOPE, Caller
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.token import DeactivationReason
from graphql_api.gateway_apis.answers import Answer, Verdict
from graphql_api.gateway_apis.checking import EVIDENCE
from graphql_api.gateway_apis.client import GatewayClient, StoppedError
from graphql_api.service import erasing, gateway_reports
from graphql_api.service.tokens import Tokens
from graphql_api.storage.checks import CheckStore
from graphql_api.storage.tokens import TokenStore

CALLER = Caller("purge", frozenset({ADMIN_SCOPE}))
_PAGE: Final = 500


class PurgeOutcome(Enum):
    """What became of a customer."""

    DELETED = "DELETED"
    WOULD_DELETE = "WOULD_DELETE"
    DELETED_BEFORE = "DELETED_BEFORE"
    UNKNOWN = "UNKNOWN"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    SAVED_AGAIN = "SAVED_AGAIN"


class Purged(NamedTuple):
    """A customer, what became of it, and why it failed."""

    customer: str
    outcome: PurgeOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PurgeOptions:
    """What is to be deleted.

    Args:
        limit: how many customers at most; None for all
        dry_run: whether to list them only
        missing_is_done: whether a customer that the gateway does not know counts as deleted
        skipped: customers that must be kept
    """

    limit: int | None = None
    dry_run: bool = False
    missing_is_done: bool = False
    skipped: Collection[str] = ()


@dataclass(slots=True)
class PurgeTally:
    """How many customers had each outcome so far."""

    dry_run: bool = False
    deleted: int = 0
    would_delete: int = 0
    deleted_before: int = 0
    unknown: int = 0
    failed: int = 0
    skipped: int = 0
    saved_again: int = 0

    def add(self, outcome: PurgeOutcome) -> None:
        """Count one more."""
        name = outcome.name.lower()
        setattr(self, name, getattr(self, name) + 1)

    @property
    def asked(self) -> int:
        """How many of them count towards the limit."""
        return self.deleted + self.would_delete + self.deleted_before + self.unknown + self.failed

    def __str__(self) -> str:
        if self.dry_run:
            return f"{self.would_delete:,} would be deleted, {self.skipped:,} skipped"
        return (
            f"{self.deleted:,} deleted, {self.deleted_before:,} deleted before, {self.unknown:,} unknown there, "
            f"{self.failed:,} failed, {self.skipped:,} skipped"
        )


def _failed(customer: str, answer: Answer) -> Purged:
    return Purged(customer, PurgeOutcome.FAILED, answer.detail or "the gateway still has it")


class Purge:
    """One run of a purge of one gateway, with what a `Check` has."""

    def __init__(
        self,
        store: TokenStore,
        gateways: Gateways,
        gateway: str,
        client: GatewayClient,
        options: PurgeOptions,
        report: Callable[[Sequence[Purged]], object],
    ) -> None:
        self.tally = PurgeTally(options.dry_run)
        self._tokens = Tokens(store, CALLER, gateways)
        self._store = store
        self._gateway = gateway
        self._client = client
        self._options = options
        self._report = report
        self._is_right_account = False

    async def count(self) -> int:
        """How many customers are to be deleted."""
        listed = await self._store.count_erasures(self._gateway)
        return listed if self._options.limit is None else min(listed, self._options.limit)

    async def run(self) -> AsyncGenerator[PurgeTally]:
        """Delete everything, and yield the tally after each customer.

        Raises:
            StoppedError: to ask on makes no sense.
        """
        if not self._options.dry_run:
            await self._must_not_be_another_account()
        after = None
        while rows := await erasing.erasures(self._tokens, self._gateway, size=_PAGE, after=after):
            for gateway, customer, erased_at in rows:
                if self.tally.asked == self._options.limit:
                    return
                purged = await self._purge(customer)
                self.tally.add(purged.outcome)
                self._report([purged])
                yield self.tally
                after = (erased_at, gateway, customer)

    async def _purge(self, customer: str) -> Purged:
        if customer in self._options.skipped:
            return Purged(customer, PurgeOutcome.SKIPPED)
        if not await self._store.is_to_erase(self._gateway, customer):
            return Purged(customer, PurgeOutcome.SAVED_AGAIN)
        if self._options.dry_run:
            return Purged(customer, PurgeOutcome.WOULD_DELETE)
        answer = await self._client.delete(customer)
        if answer.verdict is Verdict.GONE:
            self._is_right_account = True
            await self._confirm(customer)
            if await self._store.token_id(self._gateway, customer):  # saved while it was being deleted
                reason = DeactivationReason.GATEWAY_DELETED
                await gateway_reports.deactivate_customer(self._tokens, self._gateway, customer, reason, None)
            return Purged(customer, PurgeOutcome.DELETED)
        if answer.verdict is not Verdict.UNKNOWN:
            return _failed(customer, answer)
        return await self._see_why_unknown(customer)

    async def _see_why_unknown(self, customer: str) -> Purged:
        """Some gateways do not know a deleted customer by DELETE, and do by GET."""
        answer = await self._client.customer(customer)
        match answer.verdict:
            case Verdict.GONE:
                self._is_right_account = True
                await self._confirm(customer)
                return Purged(customer, PurgeOutcome.DELETED_BEFORE)
            case Verdict.UNKNOWN if self._options.missing_is_done and self._is_right_account:
                await self._confirm(customer)
                return Purged(customer, PurgeOutcome.DELETED_BEFORE)
            case Verdict.UNKNOWN:
                return Purged(customer, PurgeOutcome.UNKNOWN)
            case _:
                return _failed(customer, answer)

    async def _must_not_be_another_account(self) -> None:
        """Go on only if the key's account knows a customer of those that were verified last, or if there are none.

        Raises:
            StoppedError: it knows none.
        """
        verified = await CheckStore(self._store.pool).last_verified(self._gateway, EVIDENCE)
        self._is_right_account = await self._client.knows_one(verified)
        if verified and not self._is_right_account:
            raise StoppedError(
                f"{self._client.api.name} knows none of the customers that were verified last: this looks like "
                "another account"
            )

    async def _confirm(self, customer: str) -> None:
        await erasing.confirm(self._tokens, [(self._gateway, customer)])
