"""Webhook endpoints: how far each is in the change feed, whether it takes entries, and which process sends to it.

A process that sends to an endpoint holds a lease on it, by the database's clock. Each step compares what it goes on
from: a process that lost the lease, or finds a position that another one set, changes nothing and is told so.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from graphql_api.storage.connection import Statement
from graphql_api.storage.pool import ConnectionPool

LEASE_SECONDS = 30.0

_NOW = "clock_timestamp()"
_FREE = f"(leased_by = $2 or leased_until is null or leased_until < {_NOW})"
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
# Not waited for is the disk: a crash of the database that takes it back repeats what was delivered.
_ADVANCE = Statement(
    "advance_endpoint",
    f"""
    update event_endpoints set position = $4, leased_until = {_NOW} + make_interval(secs => $5), {_WELL}
    where name = $1 and leased_by = $2 and position = $3
      and set_config('synchronous_commit', 'off', true) is not null
    returning position
    """,
)
# Arguments: after which delay to try again, how long the receiver wants no request, and whether to try no more.
_FAIL = Statement(
    "fail_endpoint",
    f"""
    update event_endpoints set
      attempts = attempts + 1, failing_since = coalesce(failing_since, {_NOW}), last_error = $4,
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
_STATES = Statement(
    "endpoint_states",
    f"""
    select name, position, attempts, next_attempt_at, failing_since, last_error, disabled_at, leased_until > {_NOW}
    from event_endpoints order by name
    """,
)


# Argument: up to which position the feed is settled.
_LAGS = Statement(
    "endpoint_lags",
    f"""
    select name, coalesce((
      select greatest(extract(epoch from {_NOW} - at)::float8, 0) from customer_gateway_token_events e
      where e.position > 0 and e.position > event_endpoints.position and e.position <= $1 order by e.position limit 1
    ), 0), disabled_at is not null
    from event_endpoints
    """,
)


class Lease(NamedTuple):
    """The right to send to an endpoint: after which position it continues, and how often the next entry failed."""

    position: int
    attempts: int


class EndpointState(NamedTuple):
    """An endpoint as it is stored."""

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
        """Begin a new endpoint after this position; one that is known stays where it is."""
        await self._pool.fetch(_REGISTER, name, position)

    async def due(self, name: str) -> int | None:
        """After which position an endpoint continues, if it is this process's turn to try."""
        rows = await self._pool.fetch(_DUE, name, self._owner)
        return rows[0][0] if rows else None

    async def lease(self, name: str, *, early: bool = False) -> Lease | None:
        """The lease on an endpoint; None if another process has it, or if there is to be no attempt now.

        `early` does not wait for the time of the next attempt, unless the receiver asked for that.
        """
        rows = await self._pool.fetch(_LEASE, name, self._owner, self.lease_seconds, early)
        return Lease(*rows[0]) if rows else None

    async def release(self, name: str) -> None:
        """Let others have the lease."""
        await self._pool.fetch(_RELEASE, name, self._owner)

    async def advance(self, name: str, old: int, new: int) -> bool:
        """All up to a new position is delivered: keep the lease. False if it was lost, or the position changed."""
        return bool(await self._pool.fetch(_ADVANCE, name, self._owner, old, new, self.lease_seconds))

    async def fail(
        self, name: str, position: int, error: str, *, delay: float, retry_after: float | None, disable: bool
    ) -> None:
        """The entry after this position was not taken. Seconds until the next attempt; the lease ends."""
        await self._pool.fetch(_FAIL, name, self._owner, position, error, delay, retry_after, disable)

    async def resume(self, name: str, position: int | None = None) -> None:
        """Enable an endpoint, and let it continue after another position if one is given."""
        await self._pool.fetch(_RESUME, name, position)

    async def states(self) -> Sequence[EndpointState]:
        """All endpoints that were ever sent to."""
        return [EndpointState(*row) for row in await self._pool.fetch(_STATES)]

    async def lags(self, settled: int) -> Sequence[tuple[str, float, bool]]:
        """Of each endpoint, seconds since the oldest settled entry was written that is not delivered; if disabled."""
        return [(name, lag, off) for name, lag, off in await self._pool.fetch(_LAGS, settled)]
