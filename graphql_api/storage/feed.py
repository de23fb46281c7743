"""The change feed: the history of all tokens in one order, in which a follower misses nothing.

A sequence gives each entry its position, but entries become visible when their transactions end, in another order. So a
process reads only up to a position that is settled: every transaction that can have a lower one has ended. It takes a
transaction id of its own once it sees an entry, and waits until no transaction with a lower id runs. A writer with a
position below the entry's had an id before that: writers get their id before they ask for a position, since they have
changed or created a token by then. A long transaction anywhere in the cluster delays the feed, and loses nothing.

After a failover to a standby that lacked the last commits, positions are given again, on another timeline. Cursors name
their timeline. One of an earlier timeline continues where that was last known to be settled: its follower may get some
entries again.
"""

import asyncio
from dataclasses import dataclass
from time import monotonic

from graphql_api.domain.errors import BadInputError
from graphql_api.domain.filter import NO_FILTER, FeedFilter, Place
from graphql_api.storage.connection import Row, Statement
from graphql_api.storage.pool import ConnectionPool
from graphql_api.storage.transaction import FORBIDDEN, TIMELINE

MAX_SCANNED = 10_000
"""Entries that are looked at for one page, if a filter leaves most of them out."""

_EVENTS = "customer_gateway_token_events"
# Who has read all entries that are settled waits so long for those that are there and are not.
_PATIENCE_SECONDS = 0.25
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.002, 0.02
_MARK_SECONDS = 1.0
_NEVER = float("-inf")

_NEWEST = f"select coalesce(max(position), 0) as position from {_EVENTS} where position > 0"
_LINES = f"""
    left join lateral (
      select token_id, version, user_id, gateway, gateway_customer_id, is_active, action, reason, actor, at, position
      from {_EVENTS}
      where position > 0 and position > $1 and position <= page.until %s
      order by position limit $3
    ) as line on true
    order by line.position
"""
_UNTIL = f"""coalesce((
  select position from {_EVENTS} where position > 0 and position > $1 and position <= $2
  order by position offset %d limit 1
), $2)"""
_WANTED = "and ($4::text[] is null or gateway = any($4)) and ($5::text[] is null or action = any($5))"


class _Statements:
    """The statements that name the timeline, by this expression. A filtered page examines `max_scanned` entries.

    `look` takes the position above which an entry needs a transaction id of ours, which is given after the snapshot.
    The pages take after which position, up to which one and how many, then the filter. They always answer a row, with
    the timeline and how far was read. `mark` marks nothing if the timeline ended meanwhile.
    """

    def __init__(self, timeline: str, max_scanned: int = MAX_SCANNED) -> None:
        self.look = Statement(
            "feed_look",
            f"""
            select {timeline}, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, newest.position,
              case when newest.position > $1 then pg_current_xact_id()::text::bigint end
            from ({_NEWEST}) as newest
            """,
        )
        page = f"select page.*, line.* from (select {timeline} as timeline, %s as until) as page"
        self.page = Statement("feed_page", page % "$2::bigint" + _LINES % "")
        self.filtered_page = Statement("feed_filtered_page", page % (_UNTIL % (max_scanned - 1)) + _LINES % _WANTED)
        self.mark = Statement(
            "feed_mark",
            f"""
            insert into event_timelines as known (timeline, settled) select $1, $2 where {timeline} = $1
            on conflict (timeline) do update set settled = excluded.settled where known.settled < excluded.settled
            """,
        )


STATEMENTS = _Statements(TIMELINE)
# A managed PostgreSQL that forbids to look at its log keeps its commits elsewhere, and begins no timelines.
_WITHOUT_TIMELINES = _Statements("'0'")
PRECEDES = Statement(
    "feed_precedes",
    f"""
    select exists (
      select from (
        select gateway, action from {_EVENTS} where position > 0 and position <= $1
        order by position desc limit {MAX_SCANNED}
      ) as line
      where ($2::text[] is null or gateway = any($2)) and ($3::text[] is null or action = any($3))
    )
    """,
)
_MARKED = Statement("feed_marked", "select settled from event_timelines where timeline = $1")
AGE = Statement(
    "feed_age",
    f"""
    select extract(epoch from clock_timestamp() - at)::float8 from {_EVENTS}
    where position > 0 and position > $1 order by position limit 1
    """,
)


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Entries in their order.

    Attributes:
        lines: the entries
        start: after which place they were looked for
        end: up to which place all were looked at
        has_more: whether there are more, or entries that were not looked at
    """

    lines: list[Row]
    start: Place
    end: Place
    has_more: bool


class Feed:
    """The feed as this process reads it, on the primary."""

    def __init__(self, pool: ConnectionPool, *, statements: _Statements = STATEMENTS) -> None:
        self._pool = pool
        self._sql = statements
        self._timeline = ""
        self._newest = 0
        self._settled = 0
        self._pending: tuple[int, int] | None = None  # a position, and the id after which it is settled
        self._marked_at, self._marked = _NEVER, 0

    @property
    def newest(self) -> int:
        """The highest position that was seen, settled or not."""
        return self._newest

    async def now(self) -> Place:
        """The place after all that is settled."""
        await self._settle()
        return Place(self._timeline, self._settled)

    async def resume(self, place: Place) -> int:
        """After which position to continue from this place.

        Raises:
            BadInputError: there is no such place.
        """
        await self.look()
        if place.timeline != self._timeline:
            rows = await self._pool.fetch(_MARKED, place.timeline)
            return min(place.position, rows[0][0]) if rows else 0
        if place.position > self._newest:
            raise BadInputError("This cursor is not one of this database. Start again with startAt.")
        return place.position

    async def page(self, after: Place | None, size: int, wanted: FeedFilter = NO_FILTER) -> FeedPage:
        """At most `size` entries after this place, or from the oldest one on.

        Raises:
            BadInputError: there is no such place.
        """
        if after is None:
            await self.look()
        return await self.read(await self.resume(after) if after else 0, size, wanted)

    async def read(self, start: int, size: int, wanted: FeedFilter = NO_FILTER) -> FeedPage:
        """At most `size` entries after this position, which is one of the database as it is now."""
        while True:
            if self._settled <= start + size:
                await self._settle()
            timeline, settled = self._timeline, max(self._settled, start)
            if wanted == NO_FILTER:
                rows = await self._pool.fetch(self._sql.page, start, settled, size + 1)
            else:
                rows = await self._pool.fetch(self._sql.filtered_page, start, settled, size + 1, *wanted)
            if rows[0]["timeline"] != timeline:
                await self.look()
                continue
            until = rows[0]["until"]
            lines = [row for row in rows[:size] if row["position"] is not None]
            is_cut = len(rows) > size
            end = lines[-1]["position"] if is_cut else until
            return FeedPage(lines, Place(timeline, start), Place(timeline, end), is_cut or until < settled)

    async def precedes(self, place: Place, wanted: FeedFilter) -> bool:
        """Whether there is an entry up to this place; not all are looked at."""
        [[found]] = await self._pool.fetch(PRECEDES, place.position, *wanted)
        return found

    async def look(self) -> None:
        """See what is there and what is settled by now."""
        settled, known = self._settled, 2**62 if self._pending else self._settled
        try:
            [(timeline, xmin, newest, xid)] = await self._pool.fetch(self._sql.look, known)
        except FORBIDDEN:
            if self._sql is _WITHOUT_TIMELINES:
                raise
            self._sql = _WITHOUT_TIMELINES
            await self.look()
            return
        if timeline != self._timeline or newest < settled:  # another timeline, or emptied by somebody
            self._timeline, self._newest, self._settled, self._pending = timeline, 0, 0, None
            self._marked_at, self._marked = _NEVER, 0
        self._newest = max(self._newest, newest)
        if self._pending and xmin >= self._pending[1]:
            self._settled, self._pending = max(self._settled, self._pending[0]), None
        if xid is not None and self._pending is None and newest > self._settled:
            self._pending = newest, xid
        if self._settled > self._marked and monotonic() - self._marked_at >= _MARK_SECONDS:
            self._marked_at, self._marked = monotonic(), self._settled
            await self._pool.fetch(self._sql.mark, self._timeline, self._settled)

    async def measure(self) -> tuple[Place, float]:
        """The place after all that is settled, and the seconds since the oldest entry was written that is not."""
        place = await self.now()
        rows = [] if self._settled >= self._newest else await self._pool.fetch(AGE, self._settled)
        return place, max(0.0, rows[0][0]) if rows else 0.0

    async def _settle(self) -> None:
        """Wait a little until all is settled that is there now."""
        deadline, pause = monotonic() + _PATIENCE_SECONDS, 0.0
        await self.look()
        newest = self._newest
        while self._settled < newest and monotonic() < deadline:
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
            await self.look()
