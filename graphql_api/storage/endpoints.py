"""Webhook endpoints: how far each is in the change feed, whether it takes entries, and which process sends to it.

A process that sends to an endpoint holds a lease on it, by the database's clock. Every change names the position that
it starts from: if the process lost the lease, or another process changed the position, nothing changes and the process
learns of it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from graphql_api.domain.errors import ExpiredCursorError
from graphql_api.storage.connection import Reads, Row, Statement
from graphql_api.storage.feed import PRUNED
from graphql_api.storage.pool import ConnectionPool

LEASE_SECONDS = 30.0
"""For how long a lease is taken at most."""

_NOW = "clock_timestamp()"
# A lease that ends later than any can was taken before the clock was set back.
_LEASED = f"leased_until between {_NOW} and {_NOW} + make_interval(secs => {2 * LEASE_SECONDS})"
_FREE = f"(leased_by = $2 or ({_LEASED}) is not true)"
_WELL = "attempts = 0, next_attempt_at = null, retry_after = null, failing_since = null, last_error = null"
_REGISTER = Statement(
    "register_endpoint", "insert into event_endpoints (name, position) values ($1, $2) on conflict do nothing"
)
_LEASE = Statement(
    "lease_endpoint",
    f"""
    update event_endpoints set leased_by = $2, leased_until = {_NOW} + make_interval(secs => $3)
    where name = $1 and disabled_at is null and {_FREE}
      and (coalesce(next_attempt_at, {_NOW}) <= {_NOW} or ($4 and coalesce(retry_after, {_NOW}) <= {_NOW}))
    returning position, attempts
    """,
)
_DUE = Statement(
    "due_endpoint",
    f"""
    select position from event_endpoints
    where name = $1 and disabled_at is null and {_FREE} and coalesce(next_attempt_at, {_NOW}) <= {_NOW}
    """,
)
_RELEASE = Statement(
    "release_endpoint",
    "update event_endpoints set leased_by = null, leased_until = null where name = $1 and leased_by = $2",
)
# Without waiting for the disk: if a crash of the database undoes the change, entries are delivered again.
_ADVANCE = Statement(
    "advance_endpoint",
    f"""
    update event_endpoints set position = $4, leased_until = {_NOW} + make_interval(secs => $5), {_WELL}
    where name = $1 and leased_by = $2 and position = $3
      and set_config('synchronous_commit', 'off', true) is not null
    returning position
    """,
)
# Arguments: what failed, seconds until the next attempt, seconds for which the receiver wants no request, whether to
# disable it, and the position before the entry: unwanted ones may precede it, which are passed over.
_FAIL = Statement(
    "fail_endpoint",
    f"""
    update event_endpoints set
      position = $8, attempts = attempts + 1, failing_since = coalesce(failing_since, {_NOW}), last_error = $4,
      next_attempt_at = {_NOW} + make_interval(secs => $5),
      retry_after = {_NOW} + make_interval(secs => $6::float8),
      disabled_at = case when $7 then {_NOW} end, leased_by = null, leased_until = null
    where name = $1 and leased_by = $2 and position = $3
    """,
)
_RESUME = Statement(
    "resume_endpoint",
    f"update event_endpoints set disabled_at = null, position = coalesce($2, position), {_WELL} where name = $1",
)
# Arguments: a position, and the last deletion of entries that is known.
_DELETED_SINCE = Statement(
    "deleted_since",
    f"""
    select from event_timelines where timeline = '{PRUNED}' and settled > $1 and xmin::text::bigint <> $2
    """,
)
_STATES = Statement(
    "endpoint_states",
    f"""
    select name, position, attempts, next_attempt_at, failing_since, last_error, disabled_at, {_LEASED}
    from event_endpoints order by name
    """,
)


# Argument: the position up to which the feed is settled.
_LAGS = Statement(
    "endpoint_lags",
    f"""
    select name, coalesce((
      select greatest(extract(epoch from {_NOW} - at)::float8, 0) from customer_gateway_token_events e
      where e.position > 0 and e.position > event_endpoints.position and e.position <= $1 order by e.position limit 1
    ), 0), disabled_at is not null
    from event_endpoints
    """,
    sql_distributed=f"""
    select name, coalesce(greatest(extract(epoch from {_NOW} - feed_next_at(position, $1))::float8, 0), 0),
      disabled_at is not null
    from event_endpoints
    """,
    reads=Reads.LIST,
)


class EndpointState(NamedTuple):
    """The stored state of an endpoint."""

    name: str
    position: int
    attempts: int
    next_attempt_at: datetime | None
    failing_since: datetime | None
    last_error: str | None
    disabled_at: datetime | None
    is_leased: bool | None


class Endpoints:
    """The endpoints, for one process, which is known by the name `owner`. Its leases last `lease_seconds`."""

    def __init__(self, pool: ConnectionPool, owner: str, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._pool = pool
        self._owner = owner
        self.lease_seconds = lease_seconds

    async def register(self, name: str, position: int) -> None:
        """Start a new endpoint after this position. A known endpoint keeps its position."""
        await self._pool.fetch(_REGISTER, name, position)

    async def due(self, name: str) -> int | None:
        """The position that the endpoint continues after; None if this process must not try now."""
        rows = await self._pool.fetch(_DUE, name, self._owner)
        return rows[0][0] if rows else None

    async def lease(self, name: str, *, early: bool = False) -> Row | None:
        """Take the lease on an endpoint; None if another process has it, or the next attempt is not due.

        `early` ignores the time of the next attempt, unless the receiver set it (`Retry-After`). Returns the position
        that the endpoint continues after, and failed attempts of the next entry.
        """
        rows = await self._pool.fetch(_LEASE, name, self._owner, self.lease_seconds, early)
        return rows[0] if rows else None

    async def release(self, name: str) -> None:
        """End the lease."""
        await self._pool.fetch(_RELEASE, name, self._owner)

    async def advance(self, name: str, old: int, new: int) -> bool:
        """Record that all up to `new` was delivered, and renew the lease. False if the lease or `old` is lost."""
        return bool(await self._pool.fetch(_ADVANCE, name, self._owner, old, new, self.lease_seconds))

    async def fail(
        self, name: str, old: int, failed: int, error: str, *, delay: float, retry_after: float | None, disable: bool
    ) -> None:
        """Record a failed attempt to send the entry at the position `failed`, the next one after `old`.

        It ends the lease. Times are in seconds. Nothing is recorded if the lease or `old` is lost.
        """
        await self._pool.fetch(_FAIL, name, self._owner, old, error, delay, retry_after, disable, failed - 1)

    async def resume(self, name: str, position: int | None = None, *, pruning: int | None = None) -> None:
        """Enable an endpoint; with `position`, it continues after it.

        Args:
            name: the endpoint
            position: where to continue; None to stay at its place
            pruning: the last deletion of entries that the caller knows of, if the position may be an earlier one

        Raises:
            ExpiredCursorError: entries after the position have been deleted since then.
        """
        async with self._pool.transaction(records=False) as transaction:
            # This waits for the deletion under way, and later ones wait for this: what they see is not what is behind.
            await transaction.fetch(_RESUME, name, position)
            if pruning is not None and await transaction.fetch(_DELETED_SINCE, position, pruning):
                raise ExpiredCursorError

    async def states(self) -> Sequence[EndpointState]:
        """All registered endpoints."""
        return [EndpointState(*row) for row in await self._pool.fetch(_STATES)]

    async def lags(self, settled: int) -> Sequence[tuple[str, float, bool]]:
        """Each endpoint's name, the age in seconds of its oldest undelivered entry, and whether it is disabled."""
        return [(name, lag, off) for name, lag, off in await self._pool.fetch(_LAGS, settled)]
