"""A check: the gateway's list of deletions first, then the tokens that were checked longest ago.

Only the gateway's own word deactivates: a customer that it lists or answers as deleted. No outage, wrong key, wrong
account or wrong mode does. A token is leased before its customer is asked for, so several checks share the work; no
transaction is open meanwhile. What was asked is written after each batch, so a check that is killed is continued by
the next one.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from graphql_api.domain import token as tokens
from graphql_api.domain.caller import WRITE_SCOPE, Caller
from graphql_api.domain.errors import UnavailableError
from graphql_api.domain.facts import Facts
from graphql_api.domain.inputs import Gateways
from graphql_api.domain.token import Token
from graphql_api.gateway_apis.answers import Answer, Deletion, Verdict
from graphql_api.gateway_apis.client import GatewayClient, StoppedError
from graphql_api.service import gateway_reports
from graphql_api.service.tokens import Tokens
from graphql_api.storage.checks import FIRST, CheckStore, Counts, DueCheck, Lease
from graphql_api.storage.reads import token_of
from graphql_api.storage.tokens import TokenStore

T = TypeVar("T")

CALLER = Caller("check", frozenset({WRITE_SCOPE}))
CONCURRENCY: Final = 16
LEASE_SECONDS: Final = 300.0
MAX_UNKNOWN: Final = 50
"""Unknown customers, with none known, after which the key is taken for another account's."""
EVIDENCE: Final = 3
"""Customers, verified most recently, that are requested to confirm that the account is the right one."""
_PAGE = 10_000
_MAX_BATCH = 500
_BATCH_SECONDS = 10
_TRIES, _PAUSE_SECONDS = 30, 2.0
_REASONS = {Verdict.UNKNOWN: ("MISSING_THERE", "UNKNOWN"), Verdict.OUTAGE: ("UNANSWERED", "OUTAGE")}


class Found(NamedTuple):
    """A line of the report: a token whose customer is missing there, or for which there was no answer, and why."""

    difference: str
    reason: str
    user_id: str
    customer: str
    token_id: str


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is to be checked.

    Args:
        limit: how many tokens at most; None for all
        since: from when to read the list of deletions, instead of where the last check ended
        older_than: only tokens that were not checked for so long
        dry_run: whether to ask and to change nothing
        max_pages: of the list of deletions; a longer one is taken to have no end
        overlap: how much of the list is read again, because events may be listed late
    """

    limit: int | None = None
    since: datetime | None = None
    older_than: timedelta = timedelta(hours=24)
    dry_run: bool = False
    max_pages: int = 100_000  # at Stripe, these are ten million deletions
    overlap: timedelta = timedelta(hours=1)


@dataclass(slots=True)
class CheckTally:
    """What a check found so far.

    `gone` are tokens that it deactivated, or would have. `already_inactive` are tokens whose customers were answered as
    deleted, and that it did not have to deactivate. `still_unknown` are those whose customers were unknown to an
    earlier check, and that are not due yet.
    """

    deletions: int = 0
    verified: int = 0
    activated: int = 0
    gone: int = 0
    already_inactive: int = 0
    unknown: int = 0
    still_unknown: int = 0
    unanswered: int = 0
    asked: int = 0
    is_right_account: bool = False

    def __str__(self) -> str:
        return (
            f"{self.deletions:,} deletions read, {self.asked:,} asked: {self.verified:,} verified, "
            f"{self.activated:,} activated, {self.gone:,} deactivated, {self.unknown:,} unknown there, "
            f"{self.unanswered:,} unanswered"
            + (f", {self.already_inactive:,} already inactive" if self.already_inactive else "")
            + (f", {self.still_unknown:,} unknown since an earlier check" if self.still_unknown else "")
        )


@dataclass(slots=True)
class _Batch:
    """Tokens that are being checked, and when each was asked and what was answered."""

    due: list[DueCheck]
    lease: Lease
    now: datetime
    answers: dict[DueCheck, tuple[datetime, Answer]] = field(
        default_factory=dict["DueCheck", "tuple[datetime, Answer]"]
    )


class Check:
    """One run of a check of one gateway.

    Args:
        store: the database
        gateways: what is known of gateways
        gateway: which one is checked
        client: asks it
        options: what is to be checked
        report: takes the lines of the report
    """

    def __init__(
        self,
        store: TokenStore,
        gateways: Gateways,
        gateway: str,
        client: GatewayClient,
        options: CheckOptions,
        report: Callable[[Iterable[Found]], object],
    ) -> None:
        self.tally = CheckTally()
        self._tokens = Tokens(store, CALLER, gateways)
        self._store = store
        self._checks = CheckStore(store.pool)
        self._gateway = gateway
        self._client = client
        self._options = options
        self._report = report
        self._stopped: StoppedError | None = None
        self._throttled = 0
        self._would_be_inactive = set[str]()  # in a dry run
        self._read_until: datetime | None = None

    async def count(self) -> int:
        """How many tokens are due."""
        due = await self._checks.count_due(self._gateway, await self._store.now() - self._options.older_than)
        return due if self._options.limit is None else min(due, self._options.limit)

    async def run(self) -> AsyncGenerator[CheckTally]:
        """Check everything, and yield the tally after each step.

        Raises:
            StoppedError: to ask on makes no sense.
        """
        began = await self._store.now()
        before = began - self._options.older_than
        if not self._options.dry_run:
            await self._checks.forget_deleted()
        if self._client.api.keeps_deletions:
            async for tally in self._read_deletions():
                yield tally
        async for tally in self._ask_due(before):
            yield tally
        await self._must_be_right_account()
        async for tally in self._find_still_unknown(began):
            yield tally
        if not self._options.dry_run:
            # Another account's list is empty: its end would be no place to go on from.
            if self._read_until and self.tally.is_right_account:
                await self._checks.deletions_read(self._gateway, self._read_until)
            await self._checks.finish(self._gateway)

    # --- the gateway's own list

    async def _read_deletions(self) -> AsyncGenerator[CheckTally]:
        began = await self._store.now()
        read_at = await self._checks.deletions_read_at(self._gateway)
        if read_at is not None and read_at - self._options.overlap > began:
            read_at = None  # the clock was ahead then
        oldest = began - self._client.api.keeps_deletions
        since = self._options.since or (read_at - self._options.overlap if read_at else oldest)
        after: str | None = None
        seen = set[str]()
        while True:
            page = await self._client.deletions(max(since, oldest), after)
            await self._retrying(partial(self._delete_listed, page.deletions))
            self.tally.deletions += len(page.deletions)
            yield self.tally
            if (after := page.after) is None:
                break
            if after in seen or len(seen) == self._options.max_pages:
                raise StoppedError(f"{self._client.api.name}'s list of deletions has no end")
            seen.add(after)
        has_gap = self._options.since is not None and read_at is not None and self._options.since > read_at
        self._read_until = None if has_gap else began

    async def _delete_listed(self, deletions: Sequence[Deletion]) -> None:
        gone: dict[str, datetime] = {}
        for customer, at in deletions:
            gone[customer] = max(at, gone.get(customer, at))
        found = await self._found(gone)
        self.tally.is_right_account |= bool(found)
        await self._deactivate(gone, found)

    async def _found(self, customers: Iterable[str]) -> dict[str, Token]:
        """The tokens that have these customers now."""
        pairs = [(self._gateway, customer) for customer in customers]
        rows: Any = await self._store.by_customers(pairs, former=False) if pairs else {}
        return {customer: token_of(rows[place, customer]) for place, customer in pairs if (place, customer) in rows}

    async def _deactivate(self, gone: Mapping[str, datetime], found: Mapping[str, Token]) -> int:
        """The gateway says that these customers are gone; some are those of tokens that were found.

        Returns how many tokens it deactivated, or would have.
        """
        if self._options.dry_run:
            inactive = [token for customer, token in found.items() if _becomes_inactive(token, gone[customer])]
            self._would_be_inactive.update(token.id for token in inactive)
        else:
            inactive = await gateway_reports.deactivate_customers(self._tokens, self._gateway, gone, found)
        self.tally.gone += len(inactive)
        self._report(
            Found("MISSING_THERE", "DELETED", each.user_id, each.gateway_customer_id, each.id) for each in inactive
        )
        return len(inactive)

    # --- one customer after another

    async def _ask_due(self, before: datetime) -> AsyncGenerator[CheckTally]:
        after = FIRST
        left = self._options.limit
        while left != 0:
            page = await self._retrying(partial(self._checks.due, self._gateway, before, after, _PAGE))
            if not page:
                return
            after = page[-1].place
            for some in _pieces(page, self._batch_size):
                left = await self._check(some[:left], before, left)
                yield self.tally
                if left == 0:
                    return

    async def _find_still_unknown(self, began: datetime) -> AsyncGenerator[CheckTally]:
        """What an earlier check reported is not solved by not being asked for again."""
        after = FIRST[1]
        while page := await self._retrying(partial(self._checks.still_unknown, self._gateway, began, after, _PAGE)):
            after = page[-1].token_id
            self.tally.still_unknown += len(page)
            self._report(map(_unknown, page))
            yield self.tally

    def _batch_size(self) -> int:
        most = _MAX_BATCH if self.tally.is_right_account else MAX_UNKNOWN
        return max(1, min(most, int(self._client.pace.rate * _BATCH_SECONDS)))

    async def _check(self, due: list[DueCheck], before: datetime, left: int | None) -> int | None:
        """Check those of these tokens that no other check has. Returns how many more may be checked."""
        batch = await self._retrying(partial(self._take, due, before))
        try:
            await self._ask(batch)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._retrying(partial(self._settle, batch))))
            self._report(
                Found(*_REASONS[answer.verdict], each.user_id, each.customer, each.token_id)
                for each, (_, answer) in batch.answers.items()
                if answer.verdict in _REASONS
            )
        if self._stopped:
            raise self._stopped
        if self.tally.unknown >= MAX_UNKNOWN:
            await self._must_be_right_account()
        return None if left is None else left - len(batch.answers)

    async def _take(self, due: list[DueCheck], before: datetime) -> _Batch:
        if self._options.dry_run:
            due = [each for each in due if each.token_id not in self._would_be_inactive]
            return _Batch(due, Lease({}, None), await self._store.now())
        lease = await self._checks.lease([each.token_id for each in due], before, LEASE_SECONDS)
        mine = [each for each in due if each.token_id in lease.until]
        return _Batch(mine, lease, lease.now or before)

    async def _ask(self, batch: _Batch) -> None:
        clock = self._client.pace.clock
        began = clock()
        waiting = iter(batch.due)

        async def ask() -> None:
            for each in waiting:
                if self._stopped:
                    return
                try:
                    answer = await self._client.customer(each.customer, began + LEASE_SECONDS)
                except StoppedError as stopped:
                    self._stopped = self._stopped or stopped
                    if (answer := stopped.answer) is None:
                        return
                if answer.verdict is not Verdict.LATE:
                    batch.answers[each] = batch.now + timedelta(seconds=answer.sent - began), answer
                    self._count(answer)

        await asyncio.gather(*(ask() for _ in range(min(CONCURRENCY, len(batch.due)))))

    def _count(self, answer: Answer) -> None:
        self.tally.asked += 1
        match answer.verdict:
            case Verdict.EXISTS:
                self.tally.verified += 1
                self.tally.is_right_account = True
            case Verdict.UNKNOWN:
                self.tally.unknown += 1
            case Verdict.OUTAGE:
                self.tally.unanswered += 1
            case _:
                self.tally.is_right_account = True

    async def _must_be_right_account(self) -> None:
        """Go on only if the key's account knows a customer, of those that were asked or of those verified last.

        Raises:
            StoppedError: it knows none.
        """
        if self.tally.unknown == 0 or self.tally.is_right_account:
            return
        if not await self._client.knows_one(await self._checks.last_verified(self._gateway, EVIDENCE)):
            raise StoppedError(
                f"{self._client.api.name} knows none of {self.tally.unknown:,} customers: "
                "this looks like another account"
            )
        self.tally.is_right_account = True

    async def _settle(self, batch: _Batch) -> None:
        """Write down what was answered, and give the lease back."""
        by_verdict: dict[Verdict, dict[DueCheck, datetime]] = {}
        for each, (at, answer) in batch.answers.items():
            by_verdict.setdefault(answer.verdict, {})[each] = at
        exists = by_verdict.get(Verdict.EXISTS, {})
        gone = by_verdict.get(Verdict.GONE, {})
        unknown = by_verdict.get(Verdict.UNKNOWN, {})
        unanswered = by_verdict.get(Verdict.OUTAGE, {})
        if exists and not self._options.dry_run:
            # Gateways date deletions by the second: one in the second of this request counts.
            confirmed = {(each.user_id, each.customer): at.replace(microsecond=0) for each, at in exists.items()}
            self.tally.activated += await gateway_reports.verify_customers(self._tokens, self._gateway, confirmed)
        times = {each.customer: at for each, at in gone.items()}
        deactivated = await self._deactivate(times, await self._found(times))
        self.tally.already_inactive += len(gone) - deactivated
        if not self._options.dry_run:
            # To be unknown means something only at the right account: else they stay due.
            asked = exists | gone | (unknown if self.tally.is_right_account else {})
            await self._checks.settle(batch.lease, {each.token_id: at for each, at in asked.items()})
            throttled, self._throttled = self._client.throttled - self._throttled, self._client.throttled
            counts = Counts(len(exists), len(gone), len(unknown), len(unanswered), throttled)
            await self._checks.count(self._gateway, counts)

    async def _retrying(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do this with the database; if that is away, again for a minute. It does no harm to do it twice."""
        for _ in range(_TRIES):
            try:
                return await work()
            except UnavailableError:
                await self._client.pace.sleep(_PAUSE_SECONDS)
        return await work()


def _unknown(each: DueCheck) -> Found:
    return Found(*_REASONS[Verdict.UNKNOWN], each.user_id, each.customer, each.token_id)


def _becomes_inactive(token: Token, at: datetime) -> bool:
    event = tokens.reported(token, Facts(gone_at=at), at)
    return event is not None and event.action is not None


def _pieces(page: Sequence[DueCheck], size: Callable[[], int]) -> Iterator[list[DueCheck]]:
    """The page in pieces, each of the size that is wanted when it is its turn."""
    begin = 0
    while begin < len(page):
        end = begin + size()
        yield list(page[begin:end])
        begin = end
