"""Checks against gateways: which tokens are due, who is asking for them now, and what earlier checks found."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from graphql_api.storage.connection import Reads, Runner, Statement

# When the gateway last reported on the customer, or was last asked; 1970 if never.
_CHECKED_AT = "coalesce(greatest(t.last_verified_at, c.asked_at), 'epoch'::timestamptz)"
_TOKENS = """
  customer_gateway_tokens t left join gateway_customer_checks c on c.token_id = t.id
  where t.gateway = $1 and t.deactivation_reason is distinct from 'GATEWAY_DELETED'
"""
_IS_FREE = "(c.leased_until is null or c.leased_until < clock_timestamp())"
# Arguments: the gateway, the time before which they were last checked, the place in this order to start after, a limit.
_DUE = Statement(
    "due_checks",
    f"""
    select t.id, t.user_id, t.gateway_customer_id, {_CHECKED_AT} as checked_at
    from {_TOKENS} and {_CHECKED_AT} < $2 and ({_CHECKED_AT}, t.id) > ($3, $4) and {_IS_FREE}
    order by {_CHECKED_AT}, t.id limit $5
    """,
)
_COUNT_DUE = Statement("count_due_checks", f"select count(*) from {_TOKENS} and {_CHECKED_AT} < $2 and {_IS_FREE}")
# Arguments: ids, the time before which they were last checked, and the lease in seconds. The statement waits for other
# checks that lock a row and sees the row as they left it, so each token belongs to one check.
_LEASE = Statement(
    "lease_checks",
    """
    insert into gateway_customer_checks as c (token_id, leased_until)
    select id, clock_timestamp() + make_interval(secs => $3) from customer_gateway_tokens
    where id = any($1::uuid[]) and (last_verified_at is null or last_verified_at < $2) order by id
    on conflict (token_id) do update set leased_until = excluded.leased_until
      where (c.leased_until is null or c.leased_until < clock_timestamp())
        and (c.asked_at is null or c.asked_at < $2)
    returning token_id, leased_until, clock_timestamp() as now
    """,
)
# Arguments: ids, when each was asked (null: not asked), and when each lease ends.
_SETTLE = Statement(
    "settle_checks",
    """
    update gateway_customer_checks c set asked_at = coalesce(done.asked_at, c.asked_at), leased_until = null
    from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) as done(id, asked_at, leased_until)
    where c.token_id = done.id and c.leased_until = done.leased_until
    """,
)
# Tokens that an earlier check asked for, and that no report and no replacement has resolved since. A check dates its
# confirmations by the second. Arguments: the gateway, when this check began, the id to start after, a limit.
_STILL_UNKNOWN = Statement(
    "still_unknown",
    """
    select t.id, t.user_id, t.gateway_customer_id, c.asked_at
    from customer_gateway_tokens t
    join gateway_customer_checks c on c.token_id = t.id
    join gateway_customers g on g.gateway_customer_id = t.gateway_customer_id and g.gateway = t.gateway
    where t.gateway = $1 and c.asked_at < $2 and t.id > $3::uuid
      and t.deactivation_reason is distinct from 'GATEWAY_DELETED'
      and coalesce(t.last_verified_at < date_trunc('second', c.asked_at), true)
      and t.activated_at <= c.asked_at and g.since <= c.asked_at
    order by t.id limit $4
    """,
)
_LAST_VERIFIED = Statement(
    "last_verified",
    """
    select gateway_customer_id from customer_gateway_tokens where gateway = $1 and last_verified_at is not null
    order by last_verified_at desc nulls last limit $2
    """,
)
_FORGET_DELETED = Statement(
    "forget_checks_of_deleted",
    """
    with gone as materialized (
      select c.token_id from gateway_customer_checks c left join customer_gateway_tokens t on t.id = c.token_id
      where t.id is null
    )
    delete from gateway_customer_checks c using gone where c.token_id = gone.token_id
    """,
)
_READ_DELETIONS_AT = Statement("read_deletions_at", "select deletions_read_at from gateway_checks where gateway = $1")
_DELETIONS_READ = Statement(
    "deletions_read",
    """
    insert into gateway_checks as c (gateway, deletions_read_at) values ($1, $2)
    on conflict (gateway) do update set deletions_read_at = greatest(c.deletions_read_at, excluded.deletions_read_at)
    """,
)
_COUNT = Statement(
    "count_answers",
    """
    insert into gateway_checks as c (gateway, verified, gone, unknown, unanswered, throttled)
    values ($1, $2, $3, $4, $5, $6)
    on conflict (gateway) do update set verified = c.verified + excluded.verified, gone = c.gone + excluded.gone,
      unknown = c.unknown + excluded.unknown, unanswered = c.unanswered + excluded.unanswered,
      throttled = c.throttled + excluded.throttled
    """,
)
_FINISH = Statement(
    "finish_check",
    f"""
    insert into gateway_checks (gateway, finished_at, oldest_at)
    select $1, clock_timestamp(), min(coalesce(greatest(t.last_verified_at, c.asked_at), t.created_at)) from {_TOKENS}
    on conflict (gateway) do update set finished_at = excluded.finished_at, oldest_at = excluded.oldest_at
    """,
)
_SUMMARIES = Statement(
    "check_summaries",
    "select gateway, finished_at, oldest_at, verified, gone, unknown, unanswered, throttled from gateway_checks",
    reads=Reads.LIST,
)

FIRST = (datetime.min.replace(tzinfo=UTC), str(UUID(int=0)))
"""The place before the first token in the order of `CheckStore.due`."""


class DueCheck(NamedTuple):
    """A token whose customer the check must ask for."""

    token_id: str
    user_id: str
    customer: str
    checked_at: datetime

    @property
    def place(self) -> tuple[datetime, str]:
        """The token's position in the order of `CheckStore.due`."""
        return self.checked_at, self.token_id


class Lease(NamedTuple):
    """The tokens that this check leased (id → end of the lease), and the database's time at its start."""

    until: Mapping[str, datetime]
    now: datetime | None


class Counts(NamedTuple):
    """How many answers of each kind a check got, and how many requests were rate-limited."""

    verified: int = 0
    gone: int = 0
    unknown: int = 0
    unanswered: int = 0
    throttled: int = 0


class CheckSummary(NamedTuple):
    """The sums over all checks of a gateway. `finished_at` is the end of the last check that did not stop early."""

    gateway: str
    finished_at: datetime | None
    oldest_at: datetime | None
    counts: Counts


class CheckStore:
    """The state of checks that the database keeps."""

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    async def due(self, gateway: str, before: datetime, after: tuple[datetime, str], size: int) -> list[DueCheck]:
        """The next tokens, last checked before this time and not leased by another check, oldest check first."""
        return [DueCheck(*row) for row in await self._run.fetch(_DUE, gateway, before, *after, size)]

    async def count_due(self, gateway: str, before: datetime) -> int:
        """How many such tokens there are."""
        return (await self._run.fetch(_COUNT_DUE, gateway, before))[0][0]

    async def lease(self, token_ids: Sequence[str], before: datetime, seconds: float) -> Lease:
        """Lease those of these tokens that are still due and that no other check has leased."""
        rows = await self._run.fetch(_LEASE, token_ids, before, seconds)
        return Lease({row["token_id"]: row["leased_until"] for row in rows}, rows[0]["now"] if rows else None)

    async def settle(self, lease: Lease, asked: Mapping[str, datetime]) -> None:
        """End the lease of all its tokens. Tokens that were asked for are not due for a while."""
        ids = list(lease.until)
        await self._run.fetch(_SETTLE, ids, [asked.get(each) for each in ids], list(lease.until.values()))

    async def still_unknown(self, gateway: str, before: datetime, after: str, size: int) -> list[DueCheck]:
        """The next tokens, by id, whose customers were unknown to the gateway when they were last asked for.

        Args:
            gateway: where the customers are
            before: only those that were asked for before then
            after: the id of the token before the first one
            size: how many
        """
        return [DueCheck(*row) for row in await self._run.fetch(_STILL_UNKNOWN, gateway, before, after, size)]

    async def last_verified(self, gateway: str, size: int) -> list[str]:
        """The customers that the gateway confirmed most recently, which its account must know."""
        return [row[0] for row in await self._run.fetch(_LAST_VERIFIED, gateway, size)]

    async def forget_deleted(self) -> None:
        """Delete the state of tokens that no longer exist."""
        await self._run.fetch(_FORGET_DELETED)

    async def deletions_read_at(self, gateway: str) -> datetime | None:
        """The time up to which the gateway's list of deletions was read; None if it never was."""
        rows = await self._run.fetch(_READ_DELETIONS_AT, gateway)
        return rows[0][0] if rows else None

    async def deletions_read(self, gateway: str, until: datetime) -> None:
        """Store the time up to which the list was read."""
        await self._run.fetch(_DELETIONS_READ, gateway, until)

    async def count(self, gateway: str, counts: Counts) -> None:
        """Add to the sums of earlier checks."""
        await self._run.fetch(_COUNT, gateway, *counts)

    async def finish(self, gateway: str) -> None:
        """Store that a check was completed, and when the least recently checked token was checked."""
        await self._run.fetch(_FINISH, gateway)

    async def summaries(self) -> list[CheckSummary]:
        """The summary of every gateway that was ever checked."""
        rows = await self._run.fetch(_SUMMARIES)
        return [CheckSummary(row[0], row[1], row[2], Counts(*row[3:])) for row in rows]
